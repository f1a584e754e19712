"""The input shape of a model."""

from __future__ import annotations

from nnlite.autograd import Tensor
from nnlite.network.layers.base import Layer, Shape
from nnlite.runtime.errors import positive_int


class Input(Layer):
    """`Input((28, 28, 1))`: the shape of one sample, without the batch. It computes nothing."""

    def __init__(self, shape: Shape, name: str | None = None, trainable: bool = True):
        super().__init__(name, trainable)
        if not isinstance(shape, (tuple, list)):
            raise ValueError(f"shape: expected the sizes of one sample, as in (28, 28, 1). Received: {shape!r}")
        self.shape = tuple(positive_int("shape", size) for size in shape)

    def call(self, x: Tensor, training: bool) -> Tensor:
        return x
