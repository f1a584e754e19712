"""Optimizers against PyTorch where the formulas agree, and against Keras 3's formulas in float64 NumPy."""

import numpy as np
import pytest

import nnlite as nn
from nnlite.kernels import updates
from nnlite.runtime import scopes


def run(optimizer, gradients, start, dtype=np.float64):
    parameter = nn.Tensor(start.astype(dtype), requires_grad=True)
    optimizer.build([parameter])
    for gradient in gradients:
        parameter.grad = gradient.astype(dtype)
        optimizer.step()
    return parameter.data


@pytest.fixture
def problem(generator):
    return generator.standard_normal((6, 3, 4)), generator.standard_normal((3, 4))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda: nn.RMSprop(0.01, rho=0.8, epsilon=1e-3, epsilon_inside_root=False),
            lambda t, p: t.optim.RMSprop(p, lr=0.01, alpha=0.8, eps=1e-3),
        ),
        (
            lambda: nn.RMSprop(0.01, rho=0.8, epsilon=1e-3, epsilon_inside_root=False, centered=True),
            lambda t, p: t.optim.RMSprop(p, lr=0.01, alpha=0.8, eps=1e-3, centered=True),
        ),
        (
            lambda: nn.RMSprop(0.01, rho=0.8, momentum=0.5, epsilon=1e-3, epsilon_inside_root=False),
            lambda t, p: t.optim.RMSprop(p, lr=0.01, alpha=0.8, eps=1e-3, momentum=0.5),
        ),
        (lambda: nn.SGD(0.1), lambda t, p: t.optim.SGD(p, lr=0.1)),
        (lambda: nn.SGD(0.1, momentum=0.9), lambda t, p: t.optim.SGD(p, lr=0.1, momentum=0.9)),
        (
            lambda: nn.SGD(0.1, momentum=0.9, nesterov=True),
            lambda t, p: t.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        ),
        (lambda: nn.Adadelta(0.5, rho=0.9, epsilon=1e-4), lambda t, p: t.optim.Adadelta(p, lr=0.5, rho=0.9, eps=1e-4)),
        (lambda: nn.Adam(0.1, epsilon=1e-12), lambda t, p: t.optim.Adam(p, lr=0.1, eps=1e-12)),
    ],
)
def test_agrees_with_pytorch(torch, problem, ours, theirs):
    gradients, start = problem
    parameter = torch.tensor(start, requires_grad=True)
    optimizer = theirs(torch, [parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    np.testing.assert_allclose(run(ours(), gradients, start), parameter.detach().numpy(), rtol=1e-7)


@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop_is_keras_3(problem, centered):
    gradients, w = problem
    ours = run(nn.RMSprop(centered=centered), gradients, w, np.float32)
    v = average = np.zeros_like(w)
    for g in gradients:
        v = 0.9 * v + 0.1 * g * g
        average = 0.9 * average + 0.1 * g
        w = w - 1e-3 * g / np.sqrt(v + 1e-7 - (average**2 if centered else 0))
    np.testing.assert_allclose(ours, w, rtol=1e-5, atol=1e-6)


def test_rmsprop_with_momentum_is_keras_3(problem):
    gradients, w = problem
    ours = run(nn.RMSprop(0.01, momentum=0.7, epsilon=1e-3), gradients, w)
    v = m = np.zeros_like(w)
    for g in gradients:
        v = 0.9 * v + 0.1 * g * g
        m = 0.7 * m + 0.01 * g / np.sqrt(v + 1e-3)
        w = w - m
    np.testing.assert_allclose(ours, w, rtol=1e-12)


def test_a_derived_optimizer_may_have_a_name_of_its_class(problem):
    class Mine(nn.Adam):
        name = "mine"

    gradients, start = problem
    np.testing.assert_array_equal(run(Mine(0.01), gradients, start), run(nn.Adam(0.01), gradients, start))


def test_adam_is_keras_3(problem):
    gradients, w = problem
    ours = run(nn.Adam(0.01, beta_1=0.8, beta_2=0.9, epsilon=0.1), gradients, w)
    m = v = np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        m, v = m + (g - m) * (1 - 0.8), v + (g * g - v) * (1 - 0.9)
        w = w - m * 0.01 * np.sqrt(1 - 0.9**t) / (1 - 0.8**t) / (np.sqrt(v) + 0.1)
    np.testing.assert_allclose(ours, w, rtol=1e-12)


def test_centered_rmsprop_bears_gradients_that_stay_the_same(generator):
    # square - average ** 2 tends to 0; rounding takes some of them below -epsilon, whose root would be NaN
    gradients = np.broadcast_to(100 * generator.random(500), (150, 500))
    assert np.isfinite(run(nn.RMSprop(rho=0.5, centered=True), gradients, np.zeros(500), np.float32)).all()


OPTIMIZERS = {
    "rmsprop": lambda: nn.RMSprop(momentum=0.5, centered=True),
    "sgd": lambda: nn.SGD(momentum=0.5),
    "adam": nn.Adam,
    "adadelta": nn.Adadelta,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_that_all_threads_share_is_updated_as_on_one(name, generator):
    gradients = generator.standard_normal((2, 70_001))
    start = generator.standard_normal(70_001)
    threads = nn.get_num_threads()
    shared = run(OPTIMIZERS[name](), gradients, start, np.float32)
    nn.set_num_threads(1)
    alone = run(OPTIMIZERS[name](), gradients, start, np.float32)
    np.testing.assert_allclose(shared, alone, rtol=1e-5, atol=1e-7, err_msg=f"{threads} threads")
    small = run(OPTIMIZERS[name](), gradients[:, -9:], start[-9:], np.float32)  # too small to be shared
    np.testing.assert_allclose(shared[-9:], small, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_nan_in_a_gradient_reaches_its_weight_and_no_other(name):
    gradient = np.ones((1, 40))
    gradient[0, 17] = np.nan
    assert np.flatnonzero(np.isnan(run(OPTIMIZERS[name](), gradient, np.ones(40), np.float32))).tolist() == [17]


def test_a_learning_rate_can_be_set_between_steps():
    optimizer = nn.SGD(0.5)
    parameter = nn.Tensor(np.zeros(2), requires_grad=True)
    optimizer.build([parameter])
    for rate in (0.5, np.float32(0.25)):
        optimizer.learning_rate = rate
        parameter.grad = np.array([1.0, 2.0])
        optimizer.step()
    assert parameter.data.tolist() == [-0.75, -1.5]


def test_a_gradient_of_another_shape_changes_nothing():
    a, b = (nn.Tensor(np.ones((2, 3), np.float32), requires_grad=True) for _ in range(2))
    optimizer = nn.RMSprop()
    optimizer.build([a, b])
    a.grad, b._grad = np.ones((2, 3), np.float32), np.ones(2, np.float32)
    with pytest.raises(ValueError, match=r"parameters\[1\]: expected grad of shape \(2, 3\). Received: shape \(2,\)"):
        optimizer.step()
    assert (a.data == 1).all()


def test_a_parameter_given_twice():
    parameter = nn.Tensor(np.ones(3), requires_grad=True)
    with pytest.raises(ValueError, match=r"parameters\[1\]: expected each parameter once"):
        nn.SGD().build([parameter, parameter])


def test_a_step_belongs_to_the_optimizer_in_a_profile():
    entered = []

    class Listener:
        def enter(self, layer, part):
            entered.append((layer, part))
            return 0

        def leave(self, depth):
            pass

    with scopes.listening(Listener()):
        run(nn.Adam(), np.ones((1, 3)), np.ones(3))
    assert entered == [("adam", "optimizer")]


def test_updates_in_place_and_skips_what_has_no_gradient(generator):
    a, b = (nn.Tensor(np.ones(3, np.float32), requires_grad=True) for _ in range(2))
    array = a.data
    optimizer = nn.SGD(0.5)
    optimizer.build([a, b])
    a.grad = np.ones(3, np.float32)
    optimizer.step()
    assert a.data is array
    assert (a.data.tolist(), b.data.tolist()) == ([0.5] * 3, [1.0] * 3)


@pytest.mark.parametrize("option", ["momentum", "centered"])
def test_an_option_changed_between_steps_counts_from_then_on(problem, option):
    """What it needs to remember begins at zero, as it would have been with a gradient of zero before."""
    gradients, start = problem
    parameter = nn.Tensor(start.copy(), requires_grad=True)
    optimizer = nn.RMSprop(0.01)
    optimizer.build([parameter])
    for gradient, value in zip(gradients, {"centered": (False, True), "momentum": (0, 0.9)}[option], strict=False):
        setattr(optimizer, option, value)
        parameter.grad = gradient
        optimizer.step()
    w, square = start.copy(), 0.1 * gradients[0] ** 2
    w -= 0.01 * gradients[0] / np.sqrt(square + 1e-7)
    square = 0.9 * square + 0.1 * gradients[1] ** 2
    variance = square - (0.1 * gradients[1]) ** 2 if option == "centered" else square
    w -= 0.01 * gradients[1] / np.sqrt(variance + 1e-7)
    np.testing.assert_allclose(parameter.data, w, rtol=1e-12)


def test_step_before_build():
    with pytest.raises(ValueError, match="rmsprop: expected build"):
        nn.RMSprop().step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.RMSprop(learning_rate=0), "learning_rate: expected a finite number above 0. Received: 0"),
        (lambda: nn.RMSprop(rho=1.5), r"rho: expected a number in \[0, 1\)"),
        (lambda: nn.SGD(momentum=-1), "momentum: expected"),
        (lambda: nn.Adam(epsilon=float("nan")), "epsilon: expected"),
        (lambda: nn.SGD().build([]), "parameters: expected at least one"),
        (lambda: nn.SGD().build([[1.0]]), r"parameters\[0\]: expected a Tensor. Received: \[1.0\]"),
        (lambda: nn.optimizers.get("rmsprob"), "Did you mean 'rmsprop'"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_config_makes_the_same_optimizer():
    for optimizer in (
        nn.RMSprop(0.5, rho=np.float32(0.5), momentum=0.1, centered=True),
        nn.SGD(0.3, 0.2, True),
        nn.Adam(0.1),
        nn.Adadelta(),
    ):
        again = type(optimizer)(**optimizer.get_config())
        assert again.get_config() == optimizer.get_config()


def test_a_parameter_that_was_made_non_contiguous_is_refused_before_anything_changes(generator):
    first, second = (nn.Tensor(generator.standard_normal((3, 4)), requires_grad=True) for _ in range(2))
    optimizer = nn.RMSprop()
    optimizer.build([first, second])
    first.grad, second.grad = np.ones((3, 4)), np.ones((3, 4))
    before = first.data.copy()
    second._data = np.ones((4, 3)).T  # which setting `data` would copy
    with pytest.raises(ValueError, match=r"parameters\[1\]: expected a C-contiguous array"):
        optimizer.step()
    np.testing.assert_array_equal(first.data, before)


def test_read_only_memory_is_refused_before_anything_changes():
    numbers = bytes(np.ones(3, np.float32))
    parameter = nn.Tensor(np.frombuffer(numbers, np.float32), requires_grad=True)
    parameter.grad = np.ones(3, np.float32)
    optimizer = nn.SGD(0.1)
    with pytest.raises(ValueError, match=r"parameters\[0\]: expected a writable array"):
        optimizer.build([parameter])
    assert numbers == bytes(np.ones(3, np.float32))


def test_a_parameter_whose_array_was_replaced_is_updated_in_the_new_one():
    parameter = nn.Tensor(np.ones(3, np.float32), requires_grad=True)
    optimizer = nn.SGD(0.5)
    optimizer.build([parameter])
    parameter.grad = np.ones(3, np.float32)
    optimizer.step()
    old = parameter.data
    parameter.data = np.full(3, 9, np.float32)
    optimizer.step()
    assert (old.tolist(), parameter.data.tolist()) == ([0.5] * 3, [8.5] * 3)


def between_two_numbers(values):
    """The same numbers in memory that begins one byte after a number would."""
    values = np.asarray(values)
    array = np.zeros(values.nbytes + 1, np.uint8)[1:].view(values.dtype)
    array[...] = values
    return array


@pytest.mark.parametrize(
    ("data", "received"),
    [
        (np.ones(3), "float64 of shape"),
        (np.ones(3, np.int64), "int64 of shape"),
        (np.ones(3, np.complex64), "complex64 of shape"),
        (np.ones(3, np.float16), "float16 of shape"),
        (np.ones(3, ">f4"), ">f4 of shape"),
        (np.ones(4, np.float32), r"float32 of shape \(4,\)"),
        (np.ones((1, 3), np.float32), r"float32 of shape \(1, 3\)"),
        ([1.0, 1.0, 1.0], r"\[1.0, 1.0, 1.0\]"),
        (None, "None"),
        (between_two_numbers(np.ones(3, np.float32)), "an unaligned one"),
        (np.broadcast_to(np.float32(1), 3), "read-only"),
        (np.ones(6, np.float32)[::2], "strides"),
    ],
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_that_is_not_as_it_was_built_is_refused_before_anything_changes(name, data, received):
    first, second = (nn.Tensor(np.ones(3, np.float32), requires_grad=True) for _ in range(2))
    first.grad, second.grad = np.ones(3, np.float32), np.ones(3, np.float32)
    refusing, other = OPTIMIZERS[name](), OPTIMIZERS[name]()
    refusing.build([first, second])
    refusing.step()
    after_one = first.data.copy()
    second._data = data  # past the checks of `data`
    with pytest.raises(ValueError, match=rf"parameters\[1\]: expected .*Received: .*{received}"):
        refusing.step()
    np.testing.assert_array_equal(first.data, after_one)
    second._data = after_one.copy()
    refusing.step()  # which is the second, as of an optimizer that refused nothing
    third = nn.Tensor(np.ones(3, np.float32), requires_grad=True)
    third.grad = np.ones(3, np.float32)
    other.build([third])
    other.step()
    other.step()
    np.testing.assert_array_equal(first.data, third.data)


@pytest.mark.parametrize(
    "gradient",
    [
        np.arange(3.0),
        np.arange(3),
        np.arange(3, dtype=">f4"),
        np.arange(6, dtype=np.float32)[::2] / 2,
        between_two_numbers(np.arange(3, dtype=np.float32)),
        np.frombuffer(np.arange(3, dtype=np.float32).tobytes(), np.float32),
        np.ma.masked_array(np.arange(3, dtype=np.float32)),
    ],
    ids=["float64", "int64", "big-endian", "strided", "not aligned", "read-only", "masked"],
)
def test_a_gradient_of_any_numbers_counts_as_its_parameters_dtype(gradient, monkeypatch):
    handed, really = [], updates.run

    def run_and_tell(update, rows, *rest):
        handed.extend(g for _, g, _ in rows)
        really(update, rows, *rest)

    monkeypatch.setattr(updates, "run", run_and_tell)
    assert run(nn.SGD(0.5), [gradient], np.zeros(3), np.float32).tolist() == [0, -0.5, -1]
    parameter = nn.Tensor(np.zeros(3, np.float32), requires_grad=True)
    optimizer = nn.SGD(0.5)
    optimizer.build([parameter])
    parameter.grad = gradient
    optimizer.step()
    assert parameter.data.tolist() == [0, -0.5, -1]
    assert all(g.dtype == np.float32 and g.flags.c_contiguous for g in handed)
    assert all(g.flags.aligned for g in handed)


def test_parameters_of_both_dtypes_remember_what_is_theirs(generator):
    start = [generator.standard_normal(shape).astype(dtype) for shape in (5, (2, 3)) for dtype in "fd"]
    gradients = [generator.standard_normal(w.shape).astype(w.dtype) for w in start]
    parameters = [nn.Tensor(w.copy(), requires_grad=True) for w in start]
    optimizer = nn.Adam(0.1)
    optimizer.build(parameters)
    for _ in range(2):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    for parameter, w, gradient in zip(parameters, start, gradients, strict=True):
        np.testing.assert_array_equal(parameter.data, run(nn.Adam(0.1), [gradient] * 2, w, w.dtype))


def test_another_thread_that_steps_the_same_optimizer_in_between_does_its_own_step(monkeypatch):
    """Between what Python prepares and the launch, where other threads get their turns."""
    parameter = nn.Tensor(np.zeros(3, np.float32), requires_grad=True)
    optimizer = nn.SGD(1.0)
    optimizer.build([parameter])
    launch, turns = updates.sgd.run, iter([True])

    def run_later(*arguments):
        if next(turns, False):
            parameter.grad = np.full(3, 10, np.float32)
            optimizer.step()
        launch(*arguments)

    monkeypatch.setattr(updates.sgd, "run", run_later)
    parameter.grad = np.ones(3, np.float32)
    optimizer.step()
    assert parameter.data.tolist() == [-11.0] * 3
