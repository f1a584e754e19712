"""Your own operation: its result and its gradient."""

import numpy as np

import nnlite as nn


@nn.differentiable
def swish(x):
    """x * sigmoid(x) (Ramachandran, Zoph and Le, 2017)"""
    sigmoid = 1 / (1 + np.exp(-x))
    y = x * sigmoid
    return y, lambda dy: dy * (y + sigmoid * (1 - y))


@nn.differentiable
def scaled(x, scale):
    """x * scale, for x (n, features) and scale (features): one backward for both, which skips what is not needed."""

    def backward(dy, needs):
        return dy * scale if needs[0] else None, (dy * x).sum(axis=0) if needs[1] else None

    return x * scale, backward


# is the gradient right? in float64, along random directions
generator = np.random.default_rng(0)
nn.gradcheck(swish, [generator.standard_normal((3, 4))])
nn.gradcheck(scaled, [generator.standard_normal((3, 4)), generator.standard_normal(4)])
print("both gradients are right")

# it works wherever an activation does
(x_train, y_train), (x_test, y_test) = nn.datasets.load("mnist5k")
nn.seed(0)
model = nn.Sequential(
    [nn.Input((28, 28, 1)), nn.Flatten(), nn.Dense(64, activation=swish), nn.Dense(10, activation="softmax")]
)
model.compile("rmsprop", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, batch_size=128, epochs=3, validation_data=(x_test, y_test))
