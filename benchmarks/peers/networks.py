"""The networks, their first weights and their data, in a form that belongs to no framework.

A worker process gets them from a file, so that the memory it takes is its framework's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

CLASSES = 10
#: the training images of mnist5k
IMAGES = 4000
#: the settings of Keras 3's RMSprop, whose epsilon is inside of the root
LEARNING_RATE, RHO, EPSILON = 1e-3, 0.9, 1e-7


@dataclass(frozen=True)
class Network:
    """Either two 3x3 convolutions of `filters`, a 2x2 max pool and a dropout, or hidden Dense layers of `units` with a
    dropout after each; then a Dense layer with softmax. All but the last have a ReLU."""

    name: str
    input_shape: tuple[int, ...]
    dropout: float
    filters: tuple[int, ...] = ()
    units: tuple[int, ...] = ()

    @property
    def pooled(self) -> tuple[int, int, int]:
        """(h, w, c) of what the last Dense layer of a convolutional network flattens."""
        h, w, _ = self.input_shape
        taken = 2 * len(self.filters)
        return (h - taken) // 2, (w - taken) // 2, self.filters[-1]

    def weight_shapes(self) -> list[tuple[int, ...]]:
        """In Keras's order and layouts: (3, 3, c, k) and (in, out), each followed by its bias."""
        shapes: list[tuple[int, ...]] = []
        channels = self.input_shape[-1]
        for k in self.filters:
            shapes += [(3, 3, channels, k), (k,)]
            channels = k
        inputs = prod(self.pooled) if self.filters else prod(self.input_shape)
        for out in (*self.units, CLASSES):
            shapes += [(inputs, out), (out,)]
            inputs = out
        return shapes

    def first_weights(self, seed: int = 0) -> list[np.ndarray]:
        """Glorot and Bengio's uniform ones, and zero for biases: the same for every framework."""
        generator = np.random.default_rng(seed)
        return [_glorot_uniform(shape, generator) for shape in self.weight_shapes()]

    def channels_first(self, weights: list[np.ndarray]) -> list[np.ndarray]:
        """The same weights where images are (n, c, h, w): (k, c, kh, kw), and (in, out) with `in` in that order."""
        changed = []
        for weight in weights:
            if weight.ndim == 4:
                weight = weight.transpose(3, 2, 0, 1)
            elif weight.ndim == 2 and self.filters:
                h, w, c = self.pooled
                weight = weight.reshape(h, w, c, -1).transpose(2, 0, 1, 3).reshape(weight.shape)
            changed.append(np.ascontiguousarray(weight))
        return changed


def _glorot_uniform(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    taps = prod(shape[:-2])
    limit = (6 / (taps * (shape[-2] + shape[-1]))) ** 0.5
    return generator.uniform(-limit, limit, shape).astype(np.float32)


NETWORKS = {
    network.name: network
    for network in (
        Network("mlp", (784,), 0.2, units=(512, 512)),
        Network("cnn", (28, 28, 1), 0.25, filters=(32, 64)),
        Network("small_cnn", (28, 28, 1), 0.25, filters=(4, 4)),
    )
}


def write_data(path: Path) -> None:
    """The training images and labels of mnist5k, for the workers."""
    from nnlite.network import datasets

    (images, labels), _ = datasets.load("mnist5k")
    np.savez(path, images=images, labels=labels)


def read_batches(path: Path, network: Network, batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """All whole batches: images (batch_size, *input_shape) float32, labels (batch_size,) int64."""
    with np.load(path) as content:
        images, labels = content["images"], content["labels"]
    images = images.reshape(len(images), *network.input_shape)
    starts = range(0, len(images) - batch_size + 1, batch_size)
    return [(images[i : i + batch_size].copy(), labels[i : i + batch_size].copy()) for i in starts]
