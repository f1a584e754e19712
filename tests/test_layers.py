"""Layers: Keras's names, shapes and defaults, gradients of each, and what is said about inputs that do not fit."""

import copy

import numpy as np
import pytest

import nnlite as nn


@pytest.mark.parametrize(
    ("layer", "shape", "output", "parameters"),
    [
        (nn.Dense(3), (4,), (3,), 15),
        (nn.Dense(3, use_bias=False), (2, 4), (2, 3), 12),
        (nn.Conv2D(5, 3), (6, 7, 2), (4, 5, 5), 95),
        (nn.Conv2D(4, (3, 1), strides=2, padding="same", groups=2), (5, 6, 2), (3, 3, 4), 16),
        (nn.MaxPooling2D(), (5, 6, 2), (2, 3, 2), 0),
        (nn.MaxPooling2D(3, strides=1, padding="same"), (5, 6, 2), (5, 6, 2), 0),
        (nn.Flatten(), (2, 3, 4), (24,), 0),
        (nn.Dropout(0.5), (2, 3), (2, 3), 0),
        (nn.Activation("tanh"), (4,), (4,), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Layer) else None,
)
def test_shapes_parameters_and_gradients(layer, shape, output, parameters):
    layer.build(shape)
    assert layer.output_shape == output
    assert layer.count_params() == parameters
    values = np.random.default_rng(0).permutation(2 * int(np.prod(shape))).reshape(2, *shape) / 7 - 1.01
    assert layer(values.astype(np.float32)).shape == (2, *output)

    def function(x, *arrays):
        if arrays:
            vars(layer).update(zip(("weight", "bias"), arrays, strict=False))
        return layer(x)

    weights = [parameter.data.astype(np.float64) for parameter in layer.parameters()]
    nn.gradcheck(function, [values, *weights])


def test_an_input_shape_that_a_layer_is_given_is_answered_with_where_it_belongs():
    with pytest.raises(TypeError, match=r"input_shape: expected nn.Input\(\(784,\)\) before the Dense, as the model's"):
        nn.Dense(10, input_shape=(784,))
    with pytest.raises(TypeError, match="unexpected keyword argument 'units_shape'"):
        nn.Dense(10, units_shape=(784,))

    class Own(nn.Layer):
        def __init__(self, input_shape):
            super().__init__()
            self.given = input_shape

    assert Own(input_shape=3).given == 3
    assert copy.deepcopy(nn.Dense(3)).units == 3


def test_the_full_gradient_of_a_convolutional_network():
    model = nn.Sequential(
        [
            nn.Input((8, 8, 1)),
            nn.Conv2D(2, 3, activation="relu"),
            nn.Conv2D(3, 3, activation="relu"),
            nn.MaxPooling2D(2),
            nn.Flatten(),
            nn.Dense(4, activation="softmax"),
        ]
    )
    holders = [layer for layer in model.layers if layer.parameters()]
    x = np.random.default_rng(3).standard_normal((3, 8, 8, 1))
    labels = np.array([0, 3, 1])

    def loss(x, *arrays):
        for layer, weight, bias in zip(holders, arrays[::2], arrays[1::2], strict=True):
            vars(layer).update(weight=weight, bias=bias)
        return nn.losses.sparse_categorical_crossentropy(labels, model(x, training=True))

    nn.gradcheck(loss, [x, *(w.astype(np.float64) + 0.01 for w in model.get_weights())])


def test_initializers_have_the_spread_that_keras_gives():
    nn.seed(1)
    layer = nn.Conv2D(64, 3)
    layer.build((26, 26, 32))
    limit = np.sqrt(6 / (9 * 32 + 9 * 64))
    assert abs(layer.weight.data).max() == pytest.approx(limit, rel=0.01)
    assert layer.weight.data.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    assert not layer.bias.data.any()
    values = nn.initializers.get("he_normal")((200, 200), np.random.default_rng(0))
    assert values.std() == pytest.approx(np.sqrt(2 / 200), rel=0.02)
    assert abs(values).max() < 2.28 * np.sqrt(2 / 200)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Dense(0), "units: expected an integer of at least 1. Received: 0"),
        (lambda: nn.Dense(2.5), "units: expected an integer"),
        (lambda: nn.Dense(2, activation="rely"), "unknown activation 'rely'.*Did you mean 'relu'"),
        (lambda: nn.Conv2D(1, 0), "kernel_size: expected"),
        (lambda: nn.Conv2D(1, 3).build((28, 28)), r"x: expected shape \(n, h, w, c\).*\(n, 28, 28\)"),
        (lambda: nn.Conv2D(1, 3).build((2, 2, 1)), "kernel no larger than the padded input"),
        (lambda: nn.Conv2D(2, 3, groups=2).build((5, 5, 3)), "groups: expected a divisor of the 3 input channels"),
        (lambda: nn.Dense(2, kernel_initializer="glorot").build((2,)), "unknown kernel_initializer 'glorot'"),
        (lambda: nn.Dropout(1.0), r"rate: expected a number in \[0, 1\)"),
        (lambda: nn.MaxPooling2D(3).build((2, 2, 1)), "pool_size: expected a window no larger"),
        (lambda: nn.Input(28), "shape: expected the sizes"),
    ],
)
def test_errors_name_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_channels_are_named_with_the_layer():
    layer = nn.Conv2D(2, 3, name="first")
    layer.build((5, 5, 3))
    with pytest.raises(
        ValueError, match=r"x: expected shape \(n, 5, 5, 3\) for layer 'first'. Received: shape \(1, 5, 5, 1\)"
    ):
        layer(np.zeros((1, 5, 5, 1), np.float32))


@pytest.mark.parametrize("padding", ["smae", -1, 1.5, True, ((1, 2), 3), ((1, 2), (3, -4)), None])
def test_padding_is_checked_when_the_layer_is_made(padding):
    for make in (lambda: nn.Conv2D(4, 3, padding=padding), lambda: nn.MaxPooling2D(2, padding=padding)):
        with pytest.raises(ValueError, match="padding: expected"):
            make()


def test_groups_that_do_not_divide_the_filters_are_refused_when_the_layer_is_made():
    with pytest.raises(ValueError, match="groups: expected a divisor of the 4 filters. Received: 3"):
        nn.Conv2D(4, 3, groups=3)
