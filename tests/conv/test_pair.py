"""A network's first two convolutions in one kernel, against the same operations one by one in float64."""

import copy
import pickle

import numpy as np
import pytest

import nnlite as nn
from nnlite import conv, ops
from nnlite.autograd import Tensor
from nnlite.compiler.compilation import ENABLED
from nnlite.conv import Epilogue, FusedPair, Geometry

pytestmark = pytest.mark.skipif(not ENABLED, reason="the kernels need Numba's compiler")
SEED = 2026_11_24

#: (input, first filters, kernel, options of the first, filters, options of the second, what follows); the numbers of
#: channels are such that few register tiles serve all cases, because each is compiled
CASES = {
    "lanes: the small network's": ((21, 14, 14, 1), 4, 3, {}, 4, {}, "bias relu pool dropout"),
    "lanes: same padding twice": ((33, 9, 11, 3), 4, 3, {"padding": "same"}, 5, {"padding": "same"}, "bias relu pool"),
    "lanes: odd rows to pool": ((16, 15, 12, 1), 4, 3, {}, 6, {"padding": 1}, "bias relu pool dropout"),
    "lanes: dilation, no pooling": ((5, 16, 15, 1), 4, 3, {"dilation_rate": 2}, 4, {"padding": 1}, "relu dropout"),
    "lanes: groups, no ReLU": ((18, 10, 10, 2), 8, 3, {"groups": 2}, 8, {"groups": 2}, "bias"),
    "winograd: the question's": ((5, 28, 28, 1), 32, 3, {}, 64, {}, "bias relu pool dropout"),
    "winograd: same padding twice": ((3, 21, 23, 3), 20, 3, {"padding": "same"}, 50, {"padding": "same"}, "bias relu"),
    "winograd: strides, odd rows": ((4, 47, 45, 1), 32, 3, {"strides": 2}, 60, {}, "bias relu pool dropout"),
    "winograd: no bias, no ReLU": ((2, 26, 26, 1), 30, 3, {"padding": 1}, 64, {}, "pool"),
}


def _parts(case):
    shape, k1, size, first_options, k2, second_options, follows = case
    first = Geometry.of(shape, (size, size, shape[3] // first_options.get("groups", 1), k1), **first_options)
    weight = (3, 3, k1 // second_options.get("groups", 1), k2)
    second = Geometry.of(first.output_shape, weight, **second_options)
    dropout = 0.25 if "dropout" in follows else 0.0
    pair = FusedPair(
        first, "relu" in follows, second, Epilogue("bias" in follows, "relu" in follows, "pool" in follows), dropout
    )
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(first.weight_shape) * 0.4, None, rng.standard_normal(second.weight_shape) * 0.2, None]
    if "bias" in follows:
        arrays[1], arrays[3] = rng.standard_normal(k1), rng.standard_normal(k2)
    return pair, first_options, second_options, rng.standard_normal(shape), arrays


def _one_by_one(pair, first_options, second_options, x, arrays, dresult, dtype=np.float64):
    weights = [None if a is None else Tensor(a.astype(dtype), requires_grad=True) for a in arrays]
    with conv.use("im2col"):
        y = ops.conv2d(Tensor(x.astype(dtype)), weights[0], weights[1], **first_options)
        y = ops.relu(y) if pair.relu else y
        y = ops.conv2d(y, weights[2], weights[3], **second_options)
    y = ops.relu(y) if pair.epilogue.relu else y
    y = ops.max_pool2d(y, 2) if pair.epilogue.pool else y
    y = ops.dropout(y, rate=pair.dropout, seed=SEED) if pair.dropout else y
    y.backward(dresult.astype(dtype))
    return [y.data, *[w.grad for w in weights if w is not None]]


@pytest.mark.parametrize("name", CASES)
def test_result_and_gradients_are_those_of_the_operations_one_by_one(name):
    pair, first_options, second_options, x, arrays = _parts(CASES[name])
    algorithm = conv.get(name.partition(":")[0])
    first = conv.get("direct" if algorithm.name == "winograd" else "lanes")
    assert algorithm.fuses_pair(pair, first)
    weights = [None if a is None else Tensor(a.astype(np.float32), requires_grad=True) for a in arrays]
    result = ops.conv2d_pair(Tensor(x.astype(np.float32)), *weights, pair=pair, algorithm=algorithm, seed=SEED)
    dresult = np.random.default_rng(4).standard_normal(result.shape)
    result.backward(dresult.astype(np.float32))
    received = [result.data, *[w.grad for w in weights if w is not None]]
    expected = _one_by_one(pair, first_options, second_options, x, arrays, dresult)
    for got, want in zip(received, expected, strict=True):
        # ReLU and maxima that float32 decides the other way move single terms of the gradients
        assert np.abs(got - want).max() < 2e-3 * np.sqrt(np.mean(want**2)) + 1e-6


@pytest.mark.parametrize("name", CASES)
def test_the_same_as_the_algorithms_own_passes(name):
    """No ReLU can be decided the other way here: both compute the tensor between with the same sums."""
    pair, first_options, second_options, x, arrays = _parts(CASES[name])
    algorithm = conv.get(name.partition(":")[0])
    first_name = "direct" if algorithm.name == "winograd" else "lanes"
    x = x.astype(np.float32)
    weights = [None if a is None else Tensor(a.astype(np.float32), requires_grad=True) for a in arrays]
    result = ops.conv2d_pair(Tensor(x), *weights, pair=pair, algorithm=algorithm, seed=SEED)
    alone = [None if a is None else Tensor(a.astype(np.float32), requires_grad=True) for a in arrays]
    y = ops.conv2d(Tensor(x), alone[0], alone[1], relu=pair.relu, algorithm=first_name, **first_options)
    epilogue = {"relu": pair.epilogue.relu, "max_pool": pair.epilogue.pool}
    y = ops.conv2d(y, alone[2], alone[3], algorithm=algorithm.name, **epilogue, **second_options)
    y = ops.dropout(y, rate=pair.dropout, seed=SEED) if pair.dropout else y
    np.testing.assert_allclose(result.data, y.data, rtol=1e-5, atol=1e-6)
    dresult = np.random.default_rng(4).standard_normal(y.shape).astype(np.float32)
    result.backward(dresult)
    y.backward(dresult)
    for together, apart in zip(weights, alone, strict=True):
        if together is not None:
            np.testing.assert_allclose(together.grad, apart.grad, rtol=1e-4, atol=1e-4 * np.abs(apart.grad).max())


def test_an_empty_batch_and_one_image():
    for n in (0, 1):
        case = ((n, 14, 14, 1), *CASES["lanes: the small network's"][1:])
        pair, _, _, x, arrays = _parts(case)
        weights = [Tensor(a.astype(np.float32), requires_grad=True) for a in arrays]
        lanes = conv.get("lanes")
        result = ops.conv2d_pair(Tensor(x.astype(np.float32)), *weights, pair=pair, algorithm=lanes, seed=SEED)
        assert result.shape == (n, 5, 5, 4)
        dresult = np.random.default_rng(4).standard_normal(result.shape)
        result.backward(dresult.astype(np.float32))
        expected = _one_by_one(pair, {}, {}, x, arrays, dresult)
        for got, want in zip([result.data, *[w.grad for w in weights]], expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("place", "name"), list(enumerate(["x", "first_weight", "first_bias", "weight", "bias"])))
def test_arrays_of_another_shape_or_type_are_refused_before_a_kernel_reads_them(place, name):
    pair, _, _, x, arrays = _parts(CASES["lanes: the small network's"])
    given = [array.astype(np.float32) for array in (x, *arrays)]
    for wrong in (given[place][..., :-1], given[place].astype(np.float64)):
        with pytest.raises(ValueError, match=f"^{name}: expected float32 of shape"):
            ops.conv2d_pair(*given[:place], wrong, *given[place + 1 :], pair=pair, algorithm=conv.get("lanes"))


@pytest.mark.parametrize("name", ["lanes: the small network's", "winograd: the question's"])
def test_weights_that_are_not_contiguous_are_read_in_their_order(name):
    pair, _, _, x, arrays = _parts(CASES[name])
    algorithm = conv.get(name.partition(":")[0])
    given = [array.astype(np.float32) for array in (x, *arrays)]
    expected = ops.conv2d_pair(*given, pair=pair, algorithm=algorithm, seed=SEED)
    received = ops.conv2d_pair(*map(np.asfortranarray, given), pair=pair, algorithm=algorithm, seed=SEED)
    np.testing.assert_array_equal(received.data, expected.data)


# What a model fuses ---------------------------------------------------------------------------------------------


def _layers(second=None):
    return [
        nn.layers.Input((28, 28, 1)),
        nn.layers.Conv2D(4, 3, activation="relu"),
        nn.layers.Conv2D(4, 3, activation="relu", **(second or {})),
        nn.layers.MaxPooling2D(),
        nn.layers.Dropout(0.25, seed=7),
        nn.layers.Flatten(),
        nn.layers.Dense(10, activation="softmax"),
    ]


def _first_run(model, n=64, training=True, gradient=False):
    from nnlite.network.fusion import runs

    first = next(iter(runs(model.layers, n, np.dtype(np.float32), training=training, needs_gradient=gradient)))
    return first.name if first.compute is not None else None


def test_a_model_fuses_its_first_two_convolutions_with_what_follows():
    model = nn.Sequential(_layers())
    assert _first_run(model) == "conv2d+conv2d_1+max_pooling2d+dropout"
    assert _first_run(model, training=False) == "conv2d+conv2d_1+max_pooling2d"


def test_autotune_does_not_undo_it():
    model = nn.Sequential(_layers())
    with conv.autotune():
        assert _first_run(model) == "conv2d+conv2d_1+max_pooling2d+dropout"


def test_what_is_not_fused():
    assert _first_run(nn.Sequential(_layers({"algorithm": "im2col"}))) is None
    assert _first_run(nn.Sequential(_layers()), gradient=True) is None
    with conv.use("im2col"):
        assert _first_run(nn.Sequential(_layers())) is None
    wide = [nn.layers.Input((28, 28, 32)), nn.layers.Conv2D(32, 3), nn.layers.Conv2D(32, 3)]
    assert _first_run(nn.Sequential(wide)) is None, "to compute the first one twice would cost as much as the second"
    large = [nn.layers.Input((90, 90, 1)), nn.layers.Conv2D(32, 3), nn.layers.Conv2D(64, 3)]
    assert _first_run(nn.Sequential(large)) is None, "an image of the tensor between would not stay in cache"


class Double(nn.layers.Dropout):
    def call(self, x, training):
        return 2 * x


class Negative(nn.layers.Conv2D):
    def call(self, x, training):
        return -super().call(x, training)


class Raised(nn.layers.MaxPooling2D):
    def call(self, x, training):
        return super().call(x, training) + 1


@pytest.mark.parametrize(
    ("place", "layer"),
    [(0, Negative(4, 3, activation="relu")), (1, Negative(4, 3)), (2, Raised()), (3, Double(0.25))],
    ids=lambda value: type(value).__name__,
)
def test_a_layer_with_a_call_of_its_own_computes_that(place, layer):
    layers = _layers()[1:5]
    layers[place] = layer
    model = nn.Sequential([nn.layers.Input((28, 28, 1)), *layers])
    x = np.random.default_rng(0).standard_normal((33, 28, 28, 1), dtype=np.float32)
    received = model(x, training=True).data
    expected = Tensor(x)
    for other in model.layers:
        if isinstance(other, nn.layers.Dropout):
            other._calls = 0  # the same mask again
        expected = other(expected, training=True)
    np.testing.assert_allclose(received, expected.data, rtol=1e-5, atol=1e-5)


def test_what_is_said_to_be_fused_is_what_runs():
    """Nothing before these convolutions has parameters, so that no gradient flows back to them."""
    from nnlite.runtime import scopes

    model = nn.Sequential([nn.layers.Input((56, 56, 1)), nn.layers.MaxPooling2D(), *_layers()[1:]])
    said, ran = [run.name for run in model.fused(64)], []
    with scopes.tracing(lambda operation, *_: ran.append(operation.__name__)):
        model(np.zeros((64, 56, 56, 1), np.float32), training=True)
    assert said == ["conv2d+conv2d_1+max_pooling2d_1+dropout"]
    assert ran[:2] == ["max_pool2d", "conv2d_pair"]


def test_a_linear_first_convolution_stays_linear():
    layers = _layers()
    layers[1] = nn.layers.Conv2D(4, 3)
    model = nn.Sequential(layers)
    assert _first_run(model) == "conv2d+conv2d_1+max_pooling2d+dropout"
    x = np.random.default_rng(0).standard_normal((33, 28, 28, 1), dtype=np.float32)
    together = model(x).data
    model.compile(fuse=False)
    np.testing.assert_allclose(together, model(x).data, rtol=0, atol=1e-5)


def test_only_the_first_two_convolutions_are_one_pass():
    """A gradient must flow back to the later ones, so that there the kernel without it will not do."""
    sizes = ((4, 3), (4, 3), (1, 1), (8, 3))
    model = nn.Sequential([nn.layers.Input((28, 28, 1)), *(nn.layers.Conv2D(*size) for size in sizes)])
    later = nn.Sequential([nn.layers.Input((24, 24, 4)), *(nn.layers.Conv2D(*size) for size in sizes[2:])])
    assert [run.name for run in later.fused(64)] == ["conv2d+conv2d_1"]
    assert [run.name for run in model.fused(64)] == ["conv2d+conv2d_1"]
    model.compile()
    model.layers[0].fuse = False
    assert model.fused(64) == [], "a layer that is told to stand alone does"


def test_under_autotune_the_algorithm_that_is_named_is_the_one_that_runs(monkeypatch):
    from nnlite.conv import tuning

    monkeypatch.setattr(tuning, "choose", lambda *_: conv.Choice("im2col", "measured, so the test pretends"))
    model = nn.Sequential(_layers())
    with conv.autotune():
        assert {choice.name for choice in model.algorithms(64).values()} == {"lanes"}
        model.compile(fuse=False)
        assert {choice.name for choice in model.algorithms(64).values()} == {"im2col"}


def test_a_gradient_flows_to_an_input_that_needs_one():
    data = np.random.default_rng(0)
    images, dy = (data.standard_normal(shape, dtype=np.float32) for shape in ((40, 28, 28, 1), (40, 10)))
    model, gradients = nn.Sequential(_layers()), []
    for fuse in (True, False):
        model.compile(fuse=fuse)
        x = Tensor(images, requires_grad=True)
        model(x).backward(dy)
        gradients.append(x.grad)
    np.testing.assert_allclose(*gradients, rtol=0, atol=1e-4 * np.abs(gradients[1]).max())


@pytest.mark.parametrize("filters", [4, 32])
def test_training_with_and_without_fusion_agrees(filters):
    x = np.random.default_rng(1).standard_normal((40, 28, 28, 1), dtype=np.float32)
    y = np.arange(40) % 10
    gradients = []
    for fuse in (True, False):
        nn.seed(5)
        model = nn.Sequential(
            [
                nn.layers.Input((28, 28, 1)),
                nn.layers.Conv2D(filters, 3, activation="relu"),
                nn.layers.Conv2D(2 * filters, 3, activation="relu"),
                nn.layers.MaxPooling2D(),
                nn.layers.Dropout(0.5),
                nn.layers.Flatten(),
                nn.layers.Dense(10, activation="softmax"),
            ]
        )
        model.compile(optimizer="sgd", fuse=fuse)
        assert (model.fused(40) != []) == fuse
        before = model.get_weights()
        model.train_on_batch(x, y)
        gradients.append([b - a for a, b in zip(model.get_weights(), before, strict=True)])
    for together, apart in zip(*gradients, strict=True):
        np.testing.assert_allclose(together, apart, rtol=0, atol=2e-3 * np.abs(apart).max())


# What is fused is found once, and again after a change ---------------------------------------------------------------


def _operations(model, x, training=True):
    """The operations of a call, by name."""
    from nnlite.runtime import scopes

    ran = []
    with scopes.tracing(lambda operation, *_: ran.append(operation.__name__)):
        model(x, training=training)
    return ran


CHANGES = {
    "fuse of a layer": lambda model: setattr(model.layers[0], "fuse", False),
    "fuse of the model": lambda model: setattr(model, "fuse", False),
    "an activation": lambda model: setattr(model.layers[1], "activation", "tanh"),
    "an algorithm": lambda model: setattr(model.layers[1], "algorithm", "im2col"),
    "trainable": lambda model: setattr(model.layers[0], "trainable", False),
    "one parameter": lambda model: setattr(model.layers[0].bias, "requires_grad", False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_after_a_call_changes_what_the_next_call_fuses(change):
    model, x = nn.Sequential(_layers()), np.ones((32, 28, 28, 1), np.float32)
    assert _operations(model, x)[0] == "conv2d_pair"
    CHANGES[change](model)
    assert _operations(model, x)[0] == "conv2d"


def test_what_applies_inside_a_with_block_ends_with_it():
    model, x = nn.Sequential(_layers()), np.ones((32, 28, 28, 1), np.float32)
    for _ in range(2):
        assert _operations(model, x)[0] == "conv2d_pair"
        with conv.use("im2col"):
            assert _operations(model, x)[0] == "conv2d"


def test_an_input_that_needs_a_gradient_is_told_from_one_that_does_not():
    model, x = nn.Sequential(_layers()), np.ones((32, 28, 28, 1), np.float32)
    for _ in range(2):
        assert _operations(model, x)[0] == "conv2d_pair"
        assert _operations(model, Tensor(x, requires_grad=True))[0] == "conv2d"


def test_a_rate_that_is_set_after_a_call_counts():
    model, x = nn.Sequential(_layers()[:5]), np.ones((32, 28, 28, 1), np.float32)
    model(x, training=True)
    model.layers[3].rate = 0.0
    np.testing.assert_array_equal(model(x, training=True).data, model(x).data)


def test_a_layer_that_is_added_after_a_call_is_computed():
    model, x = nn.Sequential(_layers()[:5]), np.ones((32, 28, 28, 1), np.float32)
    assert model(x).shape == (32, 12, 12, 4)
    model.add(nn.layers.Flatten())
    assert model(x).shape == (32, 12 * 12 * 4)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_model_that_was_called_has_its_own_layers(copied):
    model, x = nn.Sequential(_layers()), np.ones((32, 28, 28, 1), np.float32)
    before = model(x).data
    other = copied(model)
    model.set_weights([weight * 0 for weight in model.get_weights()])
    np.testing.assert_array_equal(other(x).data, before)


def test_a_gradient_flows_to_a_parameter_that_a_layer_does_not_list():
    """The fused pair gives its input no gradient: a model cannot know of this one before its layer has run."""
    scale = Tensor(np.float32(2).reshape(1), requires_grad=True)

    class Scaled(nn.Layer):
        def call(self, x, training):
            return x * scale

    first = nn.layers.Input((28, 28, 1))
    model = nn.Sequential([first, Scaled(), *_layers()[1:]])
    gradients = []
    for fuse in (True, False):
        model.compile(fuse=fuse)
        scale.grad = None
        model(np.ones((32, 28, 28, 1), np.float32)).sum(axis=0)[0].backward()
        gradients.append(scale.grad)
    np.testing.assert_allclose(*gradients, rtol=1e-3, atol=1e-6)
