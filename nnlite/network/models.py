"""The networks of the question, built but not compiled."""

from __future__ import annotations

from nnlite.network.layers import Conv2D, Dense, Dropout, Flatten, Input, Layer, MaxPooling2D
from nnlite.network.sequential import Sequential

#: their names on the command line
NAMES = ("mlp", "cnn", "small_cnn", "mnist_cnn")


def mlp() -> Sequential:
    """Keras's mnist_mlp: 669,706 parameters, 668,672 forward MACs per image. Its input is (784,)."""
    return Sequential(
        [
            Input((784,)),
            Dense(512, activation="relu"),
            Dropout(0.2),
            Dense(512, activation="relu"),
            Dropout(0.2),
            Dense(10, activation="softmax"),
        ],
        name="mlp",
    )


def cnn() -> Sequential:
    """Keras's mnist_cnn without its hidden Dense: 110,986 parameters, 10,903,680 forward MACs per image."""
    return _cnn("cnn", 32, 64)


def small_cnn() -> Sequential:
    """The same with 4 and 4 filters: 5,958 parameters, 113,040 forward MACs per image."""
    return _cnn("small_cnn", 4, 4)


def mnist_cnn() -> Sequential:
    """Keras's mnist_cnn, unmodified: 1,199,882 parameters, 11,992,448 forward MACs per image."""
    return _cnn("mnist_cnn", 32, 64, Dense(128, activation="relu"), Dropout(0.5))


def _cnn(name: str, first: int, second: int, *hidden: Layer) -> Sequential:
    return Sequential(
        [
            Input((28, 28, 1)),
            Conv2D(first, 3, activation="relu"),
            Conv2D(second, 3, activation="relu"),
            MaxPooling2D(2),
            Dropout(0.25),
            Flatten(),
            *hidden,
            Dense(10, activation="softmax"),
        ],
        name=name,
    )
