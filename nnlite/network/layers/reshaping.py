"""Layers that change the shape only."""

from __future__ import annotations

from math import prod

from nnlite import ops
from nnlite.autograd import Tensor
from nnlite.network.layers.base import Layer, Shape


class Flatten(Layer):
    """(n, ...) -> (n, features)"""

    def output_shape_for(self, input_shape: Shape) -> Shape:
        return (prod(input_shape),)

    def call(self, x: Tensor, training: bool) -> Tensor:
        return ops.flatten(x)
