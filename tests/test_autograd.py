"""The tape: gradients reach every leaf once, and what cannot be done says so."""

import gc
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import nnlite as nn
from nnlite.runtime import scopes


def leaf(*values):
    return nn.Tensor(np.array(values, dtype=np.float64), requires_grad=True)


def test_gradient_of_a_square():
    x = leaf(3.0)
    (x * x).backward(np.ones(1))
    assert x.grad == [6.0]


def test_a_diamond_is_visited_once_and_adds_up():
    x = leaf(2.0)
    y = x * 3
    (y + y * y).sum().backward()
    assert x.grad == [3 + 2 * 6 * 3]


def test_forty_diamonds_in_a_row_are_not_exponential():
    x = leaf(1.0)
    y = x
    for _ in range(40):
        y = y + y
    y.sum().backward()
    assert x.grad == [2.0**40]


def test_a_graph_deeper_than_the_recursion_limit():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + 1.0
    y.sum().backward()
    assert x.grad == [1.0]


def test_gradients_add_up_over_backwards_until_zeroed():
    x = leaf(1.0)
    (x * 2).sum().backward()
    (x * 3).sum().backward()
    assert x.grad == [5.0]


def test_leaves_never_share_a_gradient_array():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (x + y).sum().backward()
    x.grad[...] = 9
    assert y.grad.tolist() == [1.0, 1.0]


def test_second_backward_on_a_freed_graph_says_so_and_changes_nothing():
    x = leaf(1.0)
    y = (x * 2).sum()
    y.backward()
    with pytest.raises(nn.GraphError, match="already freed"):
        y.backward()
    assert x.grad == [2.0]


def test_retain_graph_allows_a_second_backward():
    x = leaf(1.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad == [4.0]


def test_backward_on_a_non_scalar_needs_a_gradient():
    with pytest.raises(nn.GraphError, match=r"one element, or a gradient.*shape \(2,\)"):
        (leaf(1.0, 2.0) * 2).backward()


def test_backward_with_a_gradient_of_another_shape():
    with pytest.raises(ValueError, match=r"gradient: expected shape \(2,\)"):
        (leaf(1.0, 2.0) * 2).backward(np.ones(3))


def test_backward_without_any_leaf_that_requires_grad():
    with pytest.raises(nn.GraphError, match="requires_grad=True"):
        nn.Tensor([1.0]).backward()


def test_no_grad_records_nothing():
    x = leaf(1.0)
    with nn.no_grad():
        y = x * 2
    assert not y.requires_grad
    assert (x * 2).requires_grad


def test_an_interrupt_anywhere_in_no_grad_leaves_it_recording():
    """A signal is handled between two instructions of Python: here at each in turn, of all code that no_grad runs."""

    def interrupt(frame, event, argument):
        frame.f_trace_opcodes = True
        passed.append(None)
        if len(passed) > at:
            sys.settrace(None)
            raise KeyboardInterrupt
        return interrupt

    x, before = leaf(1.0), sys.gettrace()
    for at in range(1000):
        passed = []
        try:
            sys.settrace(interrupt)
            with nn.no_grad():
                pass
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        assert (x * 2).requires_grad
        if len(passed) <= at:
            return
    raise AssertionError("no_grad runs more than 1000 instructions")


def test_no_grad_decorates_a_function_and_nests():
    x = leaf(1.0)

    @nn.no_grad()
    def doubled():
        with nn.no_grad():
            pass
        return x * 2

    assert not doubled().requires_grad
    with ThreadPoolExecutor(1) as other:
        assert not other.submit(doubled).result().requires_grad
        with nn.no_grad():
            assert other.submit(lambda: x * 2).result().requires_grad  # each thread has its own
    assert (x * 2).requires_grad


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f4", "<f8"])
def test_arrays_in_another_byte_order_are_converted_where_lists_are_and_else_refused_in_words(dtype):
    array = np.array([[1.5, -2.0]], dtype)
    native = np.dtype(dtype).newbyteorder("=")
    tensor = nn.Tensor(array, requires_grad=True)
    assert tensor.dtype == native
    assert tensor.data.tolist() == [[1.5, -2.0]]
    (tensor * array).sum().backward()
    assert tensor.grad.tolist() == [[1.5, -2.0]]
    assert nn.Sequential([nn.Dense(1, kernel_initializer="ones")]).predict(array).tolist() == [[-0.5]]
    x, weight = np.ones((1, 2, 2, 1), dtype), np.ones((1, 1, 1, 1), dtype)
    geometry = nn.conv.Geometry.of(x.shape, weight.shape)
    calls = (lambda: nn.ops.relu(array), lambda: nn.conv.get("im2col").forward(x, weight, geometry))
    for call in calls:
        if np.dtype(dtype).isnative:
            call()
        else:
            with pytest.raises(ValueError, match=f"{native} in another byte order than this machine's"):
                call()


def test_the_graph_has_no_cycles():
    x = leaf(1.0)
    y = (x * 2).exp()
    gone = weakref.ref(y)
    gc.disable()
    try:
        del y
        assert gone() is None
    finally:
        gc.enable()


def test_numbers_become_float32_and_float64_stays():
    assert nn.Tensor([1, 2]).dtype == np.float32
    assert nn.Tensor([1.5, 2.5]).dtype == np.float32
    assert nn.Tensor(np.zeros(2)).dtype == np.float64
    assert (nn.Tensor(np.zeros(2, np.float32)) * 2.5 + np.ones(2)).dtype == np.float32


def test_text_is_no_tensor():
    with pytest.raises(TypeError, match="data: expected numbers"):
        nn.Tensor("abc")


def test_differentiable_with_one_argument():
    @nn.differentiable
    def square(x):
        return x * x, lambda dy: 2 * x * dy

    x = leaf(3.0)
    square(x).sum().backward()
    assert x.grad == [6.0]


def test_differentiable_skips_gradients_that_nobody_needs():
    called = []

    @nn.differentiable
    def product(x, y):
        return x * y, (lambda dz: called.append("x") or dz * y, lambda dz: called.append("y") or dz * x)

    x = leaf(3.0)
    product(x, np.array([2.0])).sum().backward()
    assert (called, x.grad.tolist()) == (["x"], [2.0])


def test_differentiable_with_one_backward_for_all_and_a_tensor_by_name():
    @nn.differentiable
    def scaled(x, scale=None, *, offset=0.0):
        def backward(dy, needs):
            assert needs == (True, True)
            return dy * scale, (dy * x).sum(keepdims=True)

        return x * scale + offset, backward

    x, scale = leaf(1.0, 2.0), leaf(3.0)
    scaled(x, scale=scale, offset=1.0).sum().backward()
    assert (x.grad.tolist(), scale.grad.tolist()) == ([3.0, 3.0], [3.0])


def test_a_tensor_as_an_option_is_refused():
    @nn.differentiable
    def scaled(x, *, scale):
        return x * scale, lambda dy: dy * scale

    with pytest.raises(TypeError, match="scale is an option"):
        scaled(leaf(1.0), scale=leaf(2.0))


def test_a_gradient_of_the_wrong_shape_names_operation_and_argument():
    @nn.differentiable
    def broken(x):
        return x * 2, lambda dy: dy[:1]

    with pytest.raises(nn.GraphError, match=r"'broken'.*shape \(2,\) for argument 0.*shape \(1,\)"):
        broken(leaf(1.0, 2.0)).sum().backward()


def test_a_missing_gradient_names_operation_and_argument():
    @nn.differentiable
    def broken(x, y):
        return x * y, lambda dz, needs: (dz * y, None)

    with pytest.raises(nn.GraphError, match=r"'broken'.*argument 1.*None"):
        broken(leaf(1.0), leaf(2.0)).sum().backward()


def test_an_operation_without_a_backward_says_so():
    @nn.differentiable
    def broken(x):
        return x * 2, None

    with pytest.raises(nn.GraphError, match="callable backward"):
        broken(leaf(1.0))


def test_a_backward_may_return_a_number_and_grad_is_an_array():
    @nn.differentiable
    def double(x):
        return x * 2, lambda dy: float(dy) * 2

    x = nn.Tensor(np.array(3.0), requires_grad=True)
    for expected in (2.0, 4.0):
        double(x).backward()
        assert isinstance(x.grad, np.ndarray)
        assert x.grad == expected


@pytest.mark.parametrize("value", [0.0, 2.0])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_tensor_with_one_element_is_a_number(shape, value):
    tensor = nn.Tensor(np.full(shape, value))
    assert (bool(tensor), float(tensor), int(tensor)) == (bool(value), value, int(value))


@pytest.mark.parametrize("convert", [bool, float, int, nn.Tensor.item])
@pytest.mark.parametrize("shape", [(0,), (2,)])
def test_a_tensor_with_several_elements_or_none_is_not(convert, shape):
    with pytest.raises(ValueError, match=rf"tensor: expected one element. Received: shape \({shape[0]},\)"):
        convert(nn.Tensor(np.zeros(shape)))


def test_a_float32_result_gets_a_float32_gradient_also_from_float64():
    """Kernels read a gradient as numbers of the result's type. Oracle: the same target in float32."""
    x = np.random.default_rng(0).standard_normal((4, 8, 8, 2), dtype=np.float32)
    target = np.random.default_rng(1).standard_normal((4, 6, 6, 3))
    gradients = []
    for dtype in (np.float32, np.float64):
        weight = nn.Tensor(np.full((3, 3, 2, 3), 0.1, np.float32), requires_grad=True)
        ((nn.ops.conv2d(nn.Tensor(x), weight) - nn.Tensor(target.astype(dtype))) ** 2).sum().backward()
        gradients.append(weight.grad)
    assert gradients[1].dtype == np.float32
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-3)


def test_each_thread_has_its_own_layer():
    """Two threads that compute at once, the first to begin also the first to end."""
    inside, left = threading.Event(), threading.Event()

    def first():
        with scopes.tracing(print), scopes.scope("first", "forward"):
            inside.set()
            assert left.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    with scopes.tracing(print), scopes.scope("second", "forward"):
        assert scopes.current_layer() == "second"
        left.set()
        thread.join()
        assert scopes.current_layer() == "second"
    assert scopes.current_layer() is None


def test_the_mean_of_an_empty_batch():
    x = nn.Tensor(np.zeros((0, 3)), requires_grad=True)
    mean = x.mean(axis=1)
    assert mean.shape == (0,)
    mean.backward(np.zeros(0))
    assert x.grad.shape == (0, 3)


# Arrays that change between forward and backward ---------------------------------------------------------------------


def dense_network():
    model = nn.Sequential([nn.Input((3,)), nn.Dense(4, activation="relu"), nn.Dense(2)])
    model.compile("sgd", "mse")
    return model


def by_a_step(model, x, loss):
    loss.backward(retain_graph=True)
    model.optimizer.step()
    model.optimizer.zero_grad()


CHANGES = {
    "optimizer.step": by_a_step,
    "set_weights": lambda model, x, loss: model.set_weights([w + 1 for w in model.get_weights()]),
    "-=": lambda model, x, loss: model.layers[0].weight.data.__isub__(0.5),
    "[...] =": lambda model, x, loss: model.layers[1].weight.data.fill(0.5),
    "out=": lambda model, x, loss: np.add(model.layers[0].bias.data, 1, out=model.layers[0].bias.data),
    "a NaN": lambda model, x, loss: model.layers[0].weight.data.fill(np.nan),
    "the next batch": lambda model, x, loss: x.__setitem__(..., 3.0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_array_that_was_changed_in_place_since_the_forward_is_refused(change, generator):
    model, x = dense_network(), generator.standard_normal((5, 3)).astype(np.float32)
    loss = (model(nn.Tensor(x)) * 2.0).sum()
    CHANGES[change](model, x, loss)
    with pytest.raises(nn.GraphError, match="changed in place since.*Call backward first, or compute the tensor again"):
        loss.backward()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_array_that_was_replaced_since_the_forward_leaves_the_gradient_right():
    w = nn.Tensor(np.array([2.0, 3.0]), requires_grad=True)
    y = (w * w).sum()
    w.data = np.array([7.0, 7.0])
    y.backward()
    assert w.grad.tolist() == [4.0, 6.0]


def test_what_is_not_a_number_has_not_changed():
    w = nn.Tensor(np.full(3, np.nan), requires_grad=True)
    (w * np.full(3, np.nan)).sum().backward()
    assert np.isnan(w.grad).all()


def test_a_result_may_be_changed_before_the_next_operation_gets_it():
    w = nn.Tensor(np.array([2.0, 3.0]), requires_grad=True)
    y = w + 1.0
    y.data *= 2
    (y * y).sum().backward()
    assert w.grad.tolist() == [12.0, 16.0]


def test_an_array_lives_no_longer_because_it_is_compared():
    @nn.differentiable
    def add(x, y):
        return x + y, (lambda dy: dy, lambda dy: dy)

    x = np.ones(3)
    alive = weakref.ref(x)
    y = add(leaf(1.0, 2.0, 3.0), x)
    del x
    assert alive() is None
    y.sum().backward()


@pytest.mark.parametrize(
    ("returned", "received"),
    [(None, r"None \(is a return missing\?\)"), (np.ones(2), "ndarray"), ((np.ones(2),), "1 values")],
)
def test_an_operation_that_returns_something_else_than_a_result_and_its_backward_says_so(returned, received):
    @nn.differentiable
    def broken(x):
        return returned

    with pytest.raises(
        nn.GraphError, match=rf"^broken: expected it to return \(result, backward\). Received: {received}$"
    ):
        broken(leaf(1.0))


def test_a_result_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="^result of <lambda>: expected an array of numbers"):
        nn.differentiable(lambda x: ("a", lambda dy: dy))(leaf(1.0))


def test_a_backward_that_returns_nothing_asks_for_its_return():
    one = nn.differentiable(lambda x: (x * 2, lambda dy: None))
    with pytest.raises(
        nn.GraphError, match=r"gradient of shape \(1,\) for argument 0. Received: None \(is a return missing"
    ):
        one(leaf(1.0)).backward()
    two = nn.differentiable(lambda x, y: (x * y, lambda dy, needs: None))
    with pytest.raises(nn.GraphError, match=r"expected a tuple of 2 gradients.*Received: None \(is a return missing"):
        two(leaf(1.0), leaf(2.0)).backward()


@pytest.mark.parametrize("wrong", [3, None, int])
def test_only_a_python_function_is_made_an_operation(wrong):
    with pytest.raises(TypeError, match="^function: expected a Python function of arrays that returns"):
        nn.differentiable(wrong)
