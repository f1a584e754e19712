"""Parameters and multiply-accumulates, exactly: the arithmetic of the question, done by hand."""

import pytest

import nnlite as nn

#: parameters of each layer that has any, forward MACs of each product, training MACs; an image
EXPECTED = {
    "mlp": ([401_920, 262_656, 5_130], [401_408, 262_144, 5_120], 1_604_608),
    "cnn": ([320, 18_496, 92_170], [194_688, 10_616_832, 92_160], 32_516_352),
    "small_cnn": ([40, 148, 5_770], [24_336, 82_944, 5_760], 314_784),
    "mnist_cnn": ([320, 18_496, 1_179_776, 1_290], [194_688, 10_616_832, 1_179_648, 1_280], 35_782_656),
}
TOTALS = {"mlp": 669_706, "cnn": 110_986, "small_cnn": 5_958, "mnist_cnn": 1_199_882}


@pytest.mark.parametrize("name", nn.models.NAMES)
def test_parameters_and_macs(name):
    model = getattr(nn.models, name)()
    parameters, macs, training = EXPECTED[name]
    assert [layer.count_params() for layer in model.layers if layer.count_params()] == parameters
    assert model.count_params() == TOTALS[name] == sum(parameters)
    for batch in (1, 128):
        cost = model.cost(batch)
        forward = [p.macs // batch for p in cost.passes if p.part == "forward" and p.macs]
        assert forward == macs
        assert cost.forward_macs_per_image == sum(macs)
        assert cost.training_macs_per_image == training


def test_shapes_of_the_cnn():
    shapes = [layer.output_shape for layer in nn.models.cnn().layers]
    assert shapes == [(26, 26, 32), (24, 24, 64), (12, 12, 64), (12, 12, 64), (9216,), (10,)]


def test_products_and_optimizer_alone_move_what_is_counted_by_hand():
    def dense(n, i, o):
        return n * i + i * o + n * o

    # forward and weight gradient (with biases), input gradient but the first layer's; RMSprop passes five times
    expected = 2 * (dense(128, 784, 512) + 512) + 2 * (dense(128, 512, 512) + 512) + dense(128, 512, 512)
    expected += 2 * (dense(128, 512, 10) + 10) + dense(128, 512, 10) + 5 * 669_706
    model = nn.Sequential([nn.Input((784,)), nn.Dense(512), nn.Dense(512), nn.Dense(10)])
    assert model.cost(128).minimum_traffic == 4 * expected
    assert 4 * expected / 1e6 == pytest.approx(23.5, abs=0.05)


@pytest.mark.parametrize(("name", "megabytes"), [("mlp", 29.3), ("small_cnn", 29.9), ("cnn", 355.8)])
def test_minimum_traffic_unfused(name, megabytes):
    assert getattr(nn.models, name)().cost(128).minimum_traffic / 1e6 == pytest.approx(megabytes, abs=0.05)


def test_grouped_strided_convolution():
    geometry = nn.conv.Geometry.of((2, 8, 8, 4), (3, 3, 2, 6), strides=2, padding="same", groups=2)
    assert geometry.output_shape == (2, 4, 4, 6)
    assert geometry.macs == 2 * 4 * 4 * 6 * 3 * 3 * 2
    assert geometry.least_bytes("forward") == 4 * (2 * 8 * 8 * 4 + 3 * 3 * 2 * 6 + 2 * 4 * 4 * 6)


@pytest.mark.parametrize(
    ("name", "frozen", "expected"),
    [
        # forward; weight gradients of the others; input gradients of what comes after the first that is trained
        ("cnn", ["conv2d_1"], 10_903_680 + (194_688 + 92_160) + (10_616_832 + 92_160)),
        ("cnn", ["conv2d"], 10_903_680 + (10_616_832 + 92_160) + 92_160),
        ("cnn", ["conv2d", "conv2d_1"], 10_903_680 + 92_160),
        ("mlp", ["dense"], 668_672 + (262_144 + 5_120) + 5_120),
        ("mlp", ["dense_2"], 668_672 + (401_408 + 262_144) + (262_144 + 5_120)),
        ("mlp", ["dense", "dense_1", "dense_2"], 668_672),
    ],
)
def test_what_is_frozen_has_no_weight_gradient_and_no_update(name, frozen, expected):
    model = getattr(nn.models, name)()
    for layer in model.layers:
        layer.trainable = layer.name not in frozen
    cost = model.cost(128)
    assert cost.training_macs_per_image == expected
    assert cost.parameters == TOTALS[name]
    trained = sum(layer.count_params() for layer in model.layers if layer.name not in frozen)
    assert cost.trained == trained
    assert sum(p.bytes for p in cost.passes if p.part == "optimizer") == 4 * 5 * trained
    assert {p.layer for p in cost.passes if p.part == "grad_weight"}.isdisjoint(frozen)
