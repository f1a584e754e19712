"""Arrays are checked before a compiled kernel, which gets an address and no shape, reads them.

The rule: an array of the right shape and dtype is right however it lies in memory; any other is refused. These tests
walk the public names, so that a new one without a check fails here.
"""

import inspect
import re
from dataclasses import dataclass

import numpy as np
import pytest

import nnlite as nn
from nnlite import ops
from nnlite.compiler import compilation
from nnlite.conv import Epilogue, Fused, FusedPair, Geometry, PairWeights, Unsupported
from nnlite.conv.checks import CHECKS

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="the kernels need Numba's compiler")
RNG = np.random.default_rng(7)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def unaligned(array):
    block = np.empty(array.nbytes + 1, np.uint8)
    moved = block[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


#: the same numbers, elsewhere in memory
LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "negative strides": lambda a: a[::-1].copy()[::-1],
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "unaligned": unaligned,
    "subclass": lambda a: a.view(type("Other", (np.ndarray,), {})),
}
#: what is no array of float32 of the right shape
WRONG = {
    "one longer": lambda a: np.concatenate([a, a[:1]]),
    "flat": lambda a: np.concatenate([a.ravel(), a.ravel()]),
    "empty": lambda a: a[:0],
    "more axes": lambda a: a[None],
    "float64": lambda a: a.astype(np.float64),
    "integers": lambda a: a.astype(np.int32),
    "another byte order": lambda a: a.astype(">f4"),
    "a list": lambda a: a.tolist(),
    "nothing": lambda a: None,
}

# Algorithms -------------------------------------------------------------------------------------------------------

GEOMETRY = Geometry.of((3, 6, 7, 4), (3, 3, 4, 4))
PAIR = FusedPair(
    Geometry.of((2, 24, 24, 1), (3, 3, 1, 4)), True, Geometry.of((2, 22, 22, 4), (3, 3, 4, 4)), Epilogue(True)
)
NONE = Epilogue()
X, WEIGHT, DY, BIAS = normal(*GEOMETRY.input_shape), normal(*GEOMETRY.weight_shape), normal(3, 4, 5, 4), normal(4)
PAIR_ARRAYS = [normal(*shape) for shape in ((2, 24, 24, 1), (3, 3, 1, 4), (4,), (3, 3, 4, 4), (4,))]


def ran(algorithm, x=X, weight=WEIGHT, result=None):
    result = algorithm.forward_fused(X, WEIGHT, None, GEOMETRY, NONE).result if result is None else result
    return Fused(x, weight, result)


#: of each method: its arrays by name, and the call
METHODS = {
    "forward": ({"x": X, "weight": WEIGHT}, lambda a, **g: a.forward(g["x"], g["weight"], GEOMETRY)),
    "grad_input": ({"dy": DY, "weight": WEIGHT}, lambda a, **g: a.grad_input(g["dy"], g["weight"], GEOMETRY)),
    "grad_weight": ({"x": X, "dy": DY}, lambda a, **g: a.grad_weight(g["x"], g["dy"], GEOMETRY)),
    "backward": (
        {"x": X, "weight": WEIGHT, "dy": DY},
        lambda a, **g: a.backward(g["x"], g["weight"], g["dy"], GEOMETRY, (True, True)),
    ),
    "forward_fused": (
        {"x": X, "weight": WEIGHT, "bias": BIAS},
        lambda a, **g: a.forward_fused(g["x"], g["weight"], g["bias"], GEOMETRY, Epilogue(True, True)).result,
    ),
    "backward_fused": (
        {"dresult": DY, "ran.x": X, "ran.weight": WEIGHT},
        lambda a, **g: a.backward_fused(
            ran(a, g["ran.x"], g["ran.weight"]), g["dresult"], GEOMETRY, NONE, (True, True, False)
        ),
    ),
    "forward_pair": (
        dict(zip(("x", "first_weight", "first_bias", "weight", "bias"), PAIR_ARRAYS, strict=True)),
        lambda a, **g: a.forward_pair(g.pop("x"), PairWeights(*g.values()), PAIR, 0).result,
    ),
    "backward_pair": (
        {"dresult": normal(2, 20, 20, 4)},
        lambda a, **g: a.backward_pair(
            a.forward_pair(PAIR_ARRAYS[0], PairWeights(*PAIR_ARRAYS[1:]), PAIR, 0), g["dresult"], PAIR, 0
        ),
    ),
}
OPERANDS = [(method, name) for method, (arrays, _) in METHODS.items() for name in arrays]


def algorithms_with(method):
    """The names of those that compute GEOMETRY by this method."""
    found = [nn.conv.get(name) for name in nn.conv.names() if name != "naive"]
    if method.endswith("_fused"):
        found = [a for a in found if a.fuses(GEOMETRY, Epilogue(True, True))]
    if method.endswith("_pair"):
        found = [a for a in found if a.computes_pair(PAIR)]
    return found


def test_every_method_that_gets_arrays_is_checked():
    takes_arrays = {
        name
        for name, method in vars(nn.conv.Algorithm).items()
        if inspect.isfunction(method) and re.search(r"ndarray|Fused\b|PairWeights", str(inspect.signature(method)))
    }
    assert set(CHECKS) == set(METHODS) == takes_arrays
    for name in nn.conv.names():
        algorithm = nn.conv.get(name)
        for method in METHODS:
            own = getattr(type(algorithm), method)
            implemented = own is not getattr(nn.conv.Algorithm, method) or method.startswith(("grad", "back"))
            assert hasattr(own, "checks_arguments") or not implemented, (name, method)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("method", "name"), OPERANDS)
def test_an_algorithm_is_right_however_its_arrays_lie(method, name, layout):
    arrays, call = METHODS[method]
    for algorithm in algorithms_with(method):
        expected = call(algorithm, **arrays)
        received = call(algorithm, **arrays | {name: LAYOUTS[layout](arrays[name])})
        both = [value if isinstance(value, tuple) else (value,) for value in (received, expected)]
        for got, want in zip(*both, strict=True):
            np.testing.assert_array_equal(got, want, err_msg=algorithm.name)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("method", "name"), OPERANDS)
def test_an_algorithm_refuses_what_does_not_fit_the_geometry(method, name, wrong):
    arrays, call = METHODS[method]
    if (name, wrong) == ("first_bias", "nothing"):
        pytest.skip("the first convolution of a pair may have no bias")
    for algorithm in algorithms_with(method):
        with pytest.raises(ValueError, match=r"expected|computes in") as refused:
            call(algorithm, **arrays | {name: WRONG[wrong](arrays[name])})
        assert re.match(r"\S+: expected (float|a NumPy array)|algorithm .* declines", str(refused.value)), algorithm


@pytest.mark.parametrize("name", ["direct", "lanes", "winograd"])
def test_the_result_that_a_fused_backward_pass_gets_is_checked(name):
    algorithm = nn.conv.get(name)
    for wrong in (DY[1:], DY.astype(np.float64), None):
        given = Fused(X, WEIGHT, wrong)
        with pytest.raises(ValueError, match=r"^ran.result: expected float32 of shape \(3, 4, 5, 4\)"):
            algorithm.backward_fused(given, DY, GEOMETRY, NONE, (True, True, False))
    with pytest.raises(ValueError, match="^ran: expected what the forward pass returned"):
        algorithm.backward_fused((X, WEIGHT, DY, None), DY, GEOMETRY, NONE, (True, True, False))


@pytest.mark.parametrize("name", ["direct", "lanes", "winograd"])
def test_the_gradient_of_a_bias_is_given_where_it_is_asked_for(name):
    algorithm = nn.conv.get(name)
    dbias = algorithm.backward_fused(ran(algorithm), DY, GEOMETRY, NONE, (True, True, True))[2]
    np.testing.assert_allclose(dbias, DY.sum(axis=(0, 1, 2), dtype=np.float64), rtol=1e-5, atol=1e-5)
    assert algorithm.backward_fused(ran(algorithm), DY, GEOMETRY, NONE, (True, True, False))[2] is None


@pytest.mark.parametrize("name", ["lanes", "winograd"])
def test_what_max_pooling_remembered_is_checked(name):
    algorithm, pooled = nn.conv.get(name), Epilogue(False, True, True)
    before = algorithm.forward_fused(X, WEIGHT, None, GEOMETRY, pooled)
    for wrong in (None, before.residuals[:-1], before.residuals.astype(np.int32)):
        with pytest.raises(ValueError, match="^ran.residuals: expected uint8 of shape"):
            algorithm.backward_fused(
                before._replace(residuals=wrong), before.result, GEOMETRY, pooled, (True, True, False)
            )


@pytest.mark.parametrize("name", ["lanes", "winograd"])
def test_what_the_fused_pair_remembered_is_checked(name):
    algorithm = nn.conv.get(name)
    pair = FusedPair(PAIR.first, True, PAIR.second, Epilogue(True, True, True))
    before = algorithm.forward_pair(PAIR_ARRAYS[0], PairWeights(*PAIR_ARRAYS[1:]), pair, 0)
    for wrong in (None, before.residuals[:-1], before.residuals.astype(np.int32)):
        with pytest.raises(ValueError, match="^ran.residuals: expected uint8 of shape"):
            algorithm.backward_pair(before._replace(residuals=wrong), before.result, pair, 0)
    with pytest.raises(ValueError, match="^ran.result: expected float32 of shape"):
        algorithm.backward_pair(before._replace(result=before.result[1:]), before.result, pair, 0)


def test_a_geometry_that_an_algorithm_declines_is_unsupported():
    strided = Geometry.of((1, 5, 5, 1), (3, 3, 1, 1), strides=2)
    x, weight = normal(*strided.input_shape), normal(*strided.weight_shape)
    with pytest.raises(Unsupported, match="^algorithm 'lanes' declines .*: it is for stride 1"):
        nn.conv.get("lanes").forward(x, weight, strided)
    with pytest.raises(Unsupported, match="^algorithm 'direct' declines .*: it computes in float32, not in float64"):
        nn.conv.get("direct").forward(X.astype(np.float64), WEIGHT.astype(np.float64), GEOMETRY)
    with pytest.raises(Unsupported, match="^algorithm 'direct' does not fuse"):
        nn.conv.get("direct").forward_fused(X, WEIGHT, None, GEOMETRY, Epilogue(pool=True))
    with pytest.raises(Unsupported, match="^algorithm 'im2col' does not compute"):
        nn.conv.get("im2col").forward_pair(PAIR_ARRAYS[0], PairWeights(*PAIR_ARRAYS[1:]), PAIR, 0)
    first = Geometry.of((1, 9, 9, 1), (3, 3, 1, 4), strides=2)
    wide = FusedPair(first, True, Geometry.of(first.output_shape, (3, 3, 4, 4)), NONE)
    weights = PairWeights(normal(3, 3, 1, 4), None, normal(3, 3, 4, 4), None)
    with pytest.raises(Unsupported, match="^algorithm 'lanes' does not compute"):
        nn.conv.get("lanes").forward_pair(normal(1, 9, 9, 1), weights, wide, 0)


LANES = nn.conv.get("lanes")


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("geometry", lambda: LANES.forward(X, WEIGHT, GEOMETRY.input_shape)),
        ("needs", lambda: LANES.backward(X, WEIGHT, DY, GEOMETRY, (True,))),
        ("needs", lambda: LANES.backward_fused(ran(LANES), DY, GEOMETRY, NONE, [True, True, True])),
        ("epilogue", lambda: LANES.forward_fused(X, WEIGHT, None, GEOMETRY, None)),
        ("bias", lambda: LANES.forward_fused(X, WEIGHT, None, GEOMETRY, Epilogue(bias=True))),
        ("bias", lambda: LANES.forward_fused(X, WEIGHT, BIAS, GEOMETRY, NONE)),
        ("pair", lambda: LANES.forward_pair(X, None, GEOMETRY, 0)),
        ("weights", lambda: LANES.forward_pair(PAIR_ARRAYS[0], tuple(PAIR_ARRAYS[1:]), PAIR, 0)),
        ("seed", lambda: LANES.forward_pair(PAIR_ARRAYS[0], PairWeights(*PAIR_ARRAYS[1:]), PAIR, -1)),
        ("algorithm", lambda: ops.conv2d_pair(*PAIR_ARRAYS, pair=PAIR, algorithm="lanes")),
        ("relu", lambda: Epilogue(relu="yes")),
        ("dropout", lambda: FusedPair(PAIR.first, True, PAIR.second, NONE, 1.0)),
        ("relu", lambda: FusedPair(PAIR.first, 1, PAIR.second, NONE)),
        ("second", lambda: FusedPair(PAIR.first, True, GEOMETRY, NONE)),
    ],
)
def test_what_is_no_array_is_checked_too(argument, call):
    with pytest.raises(ValueError, match=f"^{argument}: expected "):
        call()


def test_there_has_to_be_an_output_to_pool():
    small = Geometry.of((1, 3, 4, 1), (3, 3, 1, 4))
    with pytest.raises(ValueError, match="^max_pool: expected an output of at least 2x2"):
        LANES.forward_fused(normal(1, 3, 4, 1), normal(3, 3, 1, 4), None, small, Epilogue(pool=True))


@pytest.mark.parametrize(
    ("argument", "fields"),
    [
        ("x", ([1, 5, 5, 1], (3, 3, 1, 1))),
        ("x's shape", ((1, 5, -5, 1), (3, 3, 1, 1))),
        ("weight", ((1, 5, 5, 1), (3, 3, 1))),
        ("weight", ((1, 5, 5, 1), (3, 0, 1, 1))),
        ("weight", ((1, 5, 5, 1), (6, 3, 1, 1))),
        ("weight", ((1, 5, 5, 4), (3, 3, 3, 1))),
        ("groups", ((1, 5, 5, 4), (3, 3, 2, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), 2)),
        ("groups", ((1, 5, 5, 4), (3, 3, 2, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), 0)),
        ("strides", ((1, 5, 5, 1), (3, 3, 1, 1), 1)),
        ("strides", ((1, 5, 5, 1), (3, 3, 1, 1), (0, 1))),
        ("pads", ((1, 5, 5, 1), (3, 3, 1, 1), (1, 1), ((0, -1), (0, 0)))),
        ("pads", ((1, 5, 5, 1), (3, 3, 1, 1), (1, 1), "same")),
        ("dilation_rate", ((1, 5, 5, 1), (3, 3, 1, 1), (1, 1), ((0, 0), (0, 0)), (1.0, 1))),
    ],
)
def test_a_geometry_that_cannot_be_computed_cannot_be_made(argument, fields):
    with pytest.raises(ValueError, match=f"^{argument}: expected "):
        Geometry(*fields)


# A user's own algorithm ---------------------------------------------------------------------------------------------


class Recording(nn.conv.Algorithm):
    """im2col's passes, which look at what they get; written with names of its own for the arguments."""

    name = "recording"

    def look(self, *arrays):
        assert all(type(a) is np.ndarray and a.flags.c_contiguous and a.flags.aligned for a in arrays)

    def forward(self, image, kernel, problem):
        self.look(image, kernel)
        return nn.conv.get("im2col").forward(image, kernel, problem)

    @staticmethod
    def grad_input(dy, kernel, problem):
        Recording.look(None, dy, kernel)
        return nn.conv.get("im2col").grad_input(dy, kernel, problem)

    def grad_weight(self, image, dy, problem):
        self.look(image, dy)
        return nn.conv.get("im2col").grad_weight(image, dy, problem)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_users_algorithm_gets_contiguous_arrays_however_it_is_called(layout):
    own, lay = Recording(), LAYOUTS[layout]
    own.forward(lay(X), weight=lay(WEIGHT), geometry=GEOMETRY)
    own.backward(lay(X), lay(WEIGHT), lay(DY), GEOMETRY, (True, True))
    nn.conv.register(own)
    try:
        x, weight = nn.Tensor(lay(X), requires_grad=True), nn.Tensor(lay(WEIGHT), requires_grad=True)
        nn.ops.conv2d(x, weight, algorithm="recording").backward(lay(DY))
    finally:
        nn.conv.unregister("recording")
    with pytest.raises(ValueError, match=r"^weight: expected float32 of shape \(3, 3, 4, 4\)"):
        own.forward(X, WEIGHT[1:], GEOMETRY)


@pytest.mark.parametrize(
    ("method", "result", "message"),
    [
        (
            "grad_input",
            np.zeros((3, 6, 7, 3), np.float32),
            "grad_input of algorithm 'wrong': expected float32 of shape",
        ),
        ("grad_weight", np.zeros((3, 3, 4, 4)), "grad_weight of algorithm 'wrong': expected float32 of shape"),
        ("forward_fused", Fused(X, WEIGHT, DY[1:]), "forward_fused of algorithm 'wrong': expected float32 of shape"),
    ],
)
def test_the_results_of_a_users_algorithm_are_checked(method, result, message):
    class Wrong(Recording):
        name = "wrong"

        def fuses(self, geometry, epilogue):
            return method == "forward_fused"

    setattr(Wrong, method, lambda *arguments: result)
    nn.conv.register(Wrong())
    try:
        with pytest.raises(ValueError, match=f"^{message}"):
            ops.conv2d(
                nn.Tensor(X, requires_grad=True), nn.Tensor(WEIGHT, requires_grad=True), algorithm="wrong"
            ).backward(DY)
    finally:
        nn.conv.unregister("wrong")


def test_a_result_that_is_the_input_is_not_written_to():
    class Same(nn.conv.Algorithm):
        name = "same"

        def forward(self, x, weight, geometry):
            return x

    x, before = X.copy(), X.copy()
    nn.conv.register(Same())
    try:
        with pytest.raises(ValueError, match="^forward of algorithm 'same': expected a new writable array"):
            ops.conv2d(x, np.ones((1, 1, 4, 4), np.float32), BIAS, algorithm="same")
    finally:
        nn.conv.unregister("same")
    np.testing.assert_array_equal(x, before)


def test_a_gradient_of_another_shape_is_refused():
    @nn.differentiable
    def wide(x):
        return x, lambda dy: np.zeros((3, 6))

    with pytest.raises(nn.GraphError, match=r"^backward of 'wide': expected a gradient of shape \(4,\) for argument 0"):
        wide(nn.Tensor(BIAS, requires_grad=True)).backward(BIAS)


# Operations -------------------------------------------------------------------------------------------------------

IMAGES, ROWS, PROBABILITIES = normal(2, 6, 5, 20), normal(6, 5), np.abs(normal(6, 5)) + 1
LABELS = np.array([0, 4, 2, 1, 1, 3])

#: of each operation: its arrays, and the call; what else is public in nn.ops takes no array
OPERATIONS = {
    "add": ([ROWS, ROWS], ops.add),
    "subtract": ([ROWS, ROWS], ops.subtract),
    "multiply": ([ROWS, ROWS], ops.multiply),
    "divide": ([ROWS, PROBABILITIES], ops.divide),
    "matmul": ([ROWS, normal(5, 3)], ops.matmul),
    "negative": ([ROWS], ops.negative),
    "power": ([PROBABILITIES], lambda x: ops.power(x, exponent=1.5)),
    "exp": ([ROWS], ops.exp),
    "log": ([PROBABILITIES], ops.log),
    "sqrt": ([PROBABILITIES], ops.sqrt),
    "relu": ([ROWS], ops.relu),
    "sigmoid": ([ROWS], ops.sigmoid),
    "tanh": ([ROWS], ops.tanh),
    "softmax": ([ROWS], ops.softmax),
    "linear": ([ROWS], ops.linear),
    "sum": ([ROWS], ops.sum),
    "mean": ([ROWS], ops.mean),
    "max": ([ROWS], ops.max),
    "reshape": ([ROWS], lambda x: ops.reshape(x, shape=(5, 6))),
    "transpose": ([ROWS], ops.transpose),
    "getitem": ([ROWS], lambda x: ops.getitem(x, index=(slice(1, 3), 2))),
    "flatten": ([IMAGES], ops.flatten),
    "max_pool2d": ([IMAGES], ops.max_pool2d),
    "max_pool2d, few channels": ([IMAGES[..., :3].copy()], ops.max_pool2d),
    "dropout": ([IMAGES], lambda x: ops.dropout(x, rate=0.5, seed=3)),
    "dense": ([ROWS, normal(5, 40), normal(40)], lambda *a: ops.dense(*a, relu=True, dropout=0.5, seed=3)),
    "dense, few columns": ([ROWS, normal(5, 10), normal(10)], ops.dense),
    "dense, without bias": ([ROWS, normal(5, 40)], ops.dense),
    "conv2d": ([X, WEIGHT, BIAS], lambda *a: ops.conv2d(*a, algorithm="im2col", relu=True)),
    "conv2d, fused": ([X, WEIGHT, BIAS], lambda *a: ops.conv2d(*a, algorithm="direct", relu=True)),
    "conv2d, pooled": ([X, WEIGHT, BIAS], lambda *a: ops.conv2d(*a, algorithm="winograd", relu=True, max_pool=True)),
    "conv2d_pair": (PAIR_ARRAYS, lambda *a: ops.conv2d_pair(*a, pair=PAIR, algorithm=nn.conv.get("winograd"))),
    "conv2d_pair, lanes": (PAIR_ARRAYS, lambda *a: ops.conv2d_pair(*a, pair=PAIR, algorithm=LANES)),
    "sparse_categorical_crossentropy": (
        [ROWS],
        lambda p: ops.sparse_categorical_crossentropy(p, labels=LABELS, from_logits=True),
    ),
    "categorical_crossentropy": ([PROBABILITIES], lambda p: ops.categorical_crossentropy(p, targets=PROBABILITIES)),
    "mean_squared_error": ([ROWS], lambda p: ops.mean_squared_error(p, targets=PROBABILITIES)),
}
#: those whose arrays have to be of one dtype, because a kernel of that dtype reads them
ONE_DTYPE = ("dense", "conv2d")


def test_every_public_operation_is_listed_here():
    takes_no_array = {"activation_name", "get_activation"}
    assert {name.partition(",")[0] for name in OPERATIONS} | takes_no_array == set(ops.__all__)


def gradients(call, arrays, dresult=None):
    """The result and the gradients of a call. Of a fused pair, x needs none."""
    operands = [nn.Tensor(array, requires_grad=i > 0 or len(arrays) < 5) for i, array in enumerate(arrays)]
    y = call(*operands)
    dy = np.ones(y.shape, np.float32) if dresult is None else dresult(y.shape)
    y.backward(dy)
    return [y.data, *(operand.grad for operand in operands if operand.requires_grad)]


PLACES = [(name, i) for name, (arrays, _) in OPERATIONS.items() for i in range(len(arrays))]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "place"), PLACES)
def test_an_operation_is_right_however_its_arrays_lie(name, place, layout):
    arrays, call = OPERATIONS[name]
    given = [LAYOUTS[layout](array) if i == place else array for i, array in enumerate(arrays)]
    for got, want in zip(gradients(call, given), gradients(call, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)  # NumPy sums in the order of memory


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_right_however_the_gradient_of_its_result_lies(name, layout):
    def dresult(shape):
        return np.random.default_rng(1).standard_normal(shape).astype(np.float32)

    arrays, call = OPERATIONS[name]
    expected = gradients(call, arrays, dresult)
    if not expected[0].ndim:
        pytest.skip("a gradient without axes lies in one way")
    received = gradients(call, arrays, lambda shape: LAYOUTS[layout](dresult(shape)))
    for got, want in zip(received, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["integers", "another byte order", "a list"])
@pytest.mark.parametrize(("name", "place"), PLACES)
def test_an_operation_takes_float32_and_float64_alone(name, place, kind):
    arrays, call = OPERATIONS[name]
    given = [WRONG[kind](array) if i == place else array for i, array in enumerate(arrays)]
    with pytest.raises(ValueError, match=r"^\w+: expected a Tensor or array of float32 or float64. Received: "):
        call(*given)


@pytest.mark.parametrize(("name", "place"), [p for p in PLACES if p[0].startswith(ONE_DTYPE)])
def test_an_operation_on_kernels_takes_arrays_of_one_dtype(name, place):
    arrays, call = OPERATIONS[name]
    if len(arrays) > 1:
        given = [array.astype(np.float64) if i == place else array for i, array in enumerate(arrays)]
        with pytest.raises(ValueError, match=r"^\w+: expected (arrays of the same dtype|float32 of shape)"):
            call(*given)


@pytest.mark.parametrize("wrong", ["one longer", "flat", "empty", "more axes"])
@pytest.mark.parametrize("name", [name for name, (arrays, _) in OPERATIONS.items() if name.startswith(ONE_DTYPE)])
def test_an_operation_on_kernels_takes_a_bias_of_its_shape(name, wrong):
    arrays, call = OPERATIONS[name]
    if len(arrays) > 2:
        with pytest.raises(ValueError, match=r"^bias: expected float32 of shape \(\d+,\)"):
            call(*arrays[:-1], WRONG[wrong](arrays[-1]))


# Losses -----------------------------------------------------------------------------------------------------------

TARGETS = {
    "sparse_categorical_crossentropy": LABELS,
    "categorical_crossentropy": np.eye(5, dtype=np.float32)[LABELS],
    "mean_squared_error": normal(6, 5),
}


def test_every_public_loss_is_listed_here():
    found = {
        name
        for name, value in vars(nn.losses).items()
        if inspect.isfunction(value) and "y_pred" in inspect.signature(value).parameters
    }
    assert found == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind", ["integers", "another byte order", "a list"])
def test_a_loss_takes_predictions_of_float32_and_float64_alone(name, kind):
    with pytest.raises(ValueError, match=r"^(y_pred|predictions): expected a Tensor or array of float32 or float64"):
        getattr(nn.losses, name)(TARGETS[name], WRONG[kind](PROBABILITIES))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("wrong", [lambda y: y[1:], lambda y: y[..., None, None], lambda y: y.astype("c8")])
def test_a_loss_refuses_targets_that_do_not_fit(name, wrong):
    with pytest.raises(ValueError, match="^y_true: expected "):
        getattr(nn.losses, name)(wrong(TARGETS[name]), nn.Tensor(PROBABILITIES))


@pytest.mark.parametrize("wrong", [-1, 5, 2**40, -(2**40), 0.5, np.nan, np.inf])
@pytest.mark.parametrize("from_logits", [True, False])
def test_a_label_that_is_no_class_is_refused(wrong, from_logits):
    labels = LABELS.astype(np.float64 if isinstance(wrong, float) else np.int64)
    labels[3] = wrong
    with pytest.raises(ValueError, match=r"^y_true: expected .* at position 3"):
        nn.losses.sparse_categorical_crossentropy(labels, nn.Tensor(PROBABILITIES), from_logits=from_logits)


@pytest.mark.parametrize("layout", ["strided", "unaligned", "negative strides"])
@pytest.mark.parametrize("name", TARGETS)
def test_a_loss_is_right_however_its_targets_lie(name, layout):
    options = {} if name.startswith("mean") else {"from_logits": True}
    values = [
        float(getattr(nn.losses, name)(target, nn.Tensor(PROBABILITIES), **options))
        for target in (TARGETS[name], LAYOUTS[layout](TARGETS[name]))
    ]
    assert values[0] == values[1]


# Layers whose weights a user replaced --------------------------------------------------------------------------------

#: of each layer: how to make it, and the input it is for
LAYERS = {
    "Conv2D": (lambda: nn.Conv2D(4, 3, activation="relu"), X),
    "Dense": (lambda: nn.Dense(40, activation="relu"), ROWS),
    "Activation": (lambda: nn.Activation("relu"), ROWS),
    "Dropout": (lambda: nn.Dropout(0.5), ROWS),
    "Flatten": (nn.Flatten, IMAGES),
    "MaxPooling2D": (nn.MaxPooling2D, IMAGES),
}
NETWORKS = {
    "Conv2D and pooling": (
        lambda: [nn.Conv2D(4, 3, activation="relu", algorithm="lanes"), nn.MaxPooling2D(2)],
        X,
    ),
    "the fused pair": (
        lambda: [nn.Conv2D(4, 3, activation="relu", algorithm="lanes") for _ in range(2)],
        normal(3, 20, 20, 1),
    ),
    "Dense and dropout": (lambda: [nn.Dense(40, activation="relu"), nn.Dropout(0.5)], ROWS),
}


def test_every_layer_with_parameters_is_listed_here():
    assert set(LAYERS) == set(nn.layers.__all__) - {"Layer", "Input"}
    counts = {name: len(built(name)[1]) for name in [*LAYERS, *NETWORKS]}
    assert {name: count for name, count in counts.items() if count} == COUNTS


def built(name):
    """(what computes, its parameters, its input)"""
    nn.seed(1)
    if name in LAYERS:
        make, x = LAYERS[name]
        layer = make()
        layer.build(x.shape[1:])
        return layer, layer.parameters(), x
    make, x = NETWORKS[name]
    model = nn.Sequential([nn.Input(x.shape[1:]), *make()])
    assert len(model.fused(len(x))) == 1
    return model, model.parameters(), x


COUNTS = {"Conv2D": 2, "Dense": 2, "Conv2D and pooling": 2, "the fused pair": 4, "Dense and dropout": 2}
PARAMETERS = [(name, i) for name, count in COUNTS.items() for i in range(count)]


@pytest.mark.parametrize("wrong", [kind for kind in WRONG if kind not in ("a list", "nothing")])
@pytest.mark.parametrize(("name", "i"), PARAMETERS)
def test_an_array_that_is_no_weight_of_the_layer_is_refused(name, i, wrong):
    compute, parameters, x = built(name)
    parameters[i]._data = WRONG[wrong](parameters[i].data)
    with pytest.raises(ValueError, match=r"expected .*[Rr]eceived: "):
        compute(x, training=True)


@pytest.mark.parametrize("wrong", ["one longer", "flat", "more axes"])
@pytest.mark.parametrize("name", ["Conv2D", "Dense", "Conv2D and pooling", "Dense and dropout"])
def test_a_weight_of_another_shape_is_refused_by_the_layers_name(name, wrong):
    compute, parameters, x = built(name)
    parameters[0]._data = WRONG[wrong](parameters[0].data)
    with pytest.raises(ValueError, match="^weight of .*: expected shape "):
        compute(x)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "i"), PARAMETERS)
def test_a_layer_is_right_however_its_weights_lie(name, i, layout):
    results = []
    for lay in (lambda array: array, LAYOUTS[layout]):
        compute, parameters, x = built(name)
        parameters[i]._data = lay(parameters[i].data)
        y = compute(x, training=True)
        y.backward(np.ones(y.shape, np.float32))
        results.append([y.data, *(parameter.grad for parameter in parameters)])
    for got, want in zip(*results, strict=True):
        np.testing.assert_array_equal(got, want)


# set_weights -------------------------------------------------------------------------------------------------------


def test_weights_are_set_all_or_none():
    model = nn.Sequential([nn.Input((3,)), nn.Dense(3), nn.Dense(3)])
    before = model.get_weights()
    model.parameters()[2].data.flags.writeable = False
    with pytest.raises(ValueError, match=r"^weights\[2\]: expected a writable parameter"):
        model.set_weights([np.ones_like(values) for values in before])
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_weights_that_are_views_of_the_parameters_are_set_as_they_were():
    model = nn.Sequential([nn.Input((3,)), nn.Dense(3), nn.Dense(3)])
    before = model.get_weights()
    arrays = [parameter.data for parameter in model.parameters()]
    model.set_weights([arrays[2], arrays[3], arrays[0], arrays[1]])
    for now, then in zip(model.get_weights(), [before[2], before[3], before[0], before[1]], strict=True):
        np.testing.assert_array_equal(now, then)


def test_an_algorithm_that_cannot_be_hashed_is_checked_each_time():
    """As a dataclass with fields to compare is."""

    @dataclass
    class Mine(nn.conv.Algorithm):
        name = "mine"
        size: int = 3

        def supports(self, geometry):
            return None if self.size == 3 else "its size is another"

        def forward(self, x, weight, geometry):
            return nn.conv.get("im2col").forward(x, weight, geometry)

    mine, geometry = Mine(), nn.conv.Geometry.of((1, 4, 4, 1), (3, 3, 1, 1))
    x, weight = np.ones((1, 4, 4, 1), np.float32), np.ones((3, 3, 1, 1), np.float32)
    assert mine.forward(x, weight, geometry).tolist() == [[[[9.0], [9.0]], [[9.0], [9.0]]]]
    mine.size = 4
    with pytest.raises(nn.Unsupported, match="its size is another"):
        mine.forward(x, weight, geometry)
