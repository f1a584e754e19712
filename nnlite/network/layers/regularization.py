"""Layers that act in training only."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from nnlite import ops
from nnlite.autograd import Tensor
from nnlite.network.layers.base import Layer, Shape
from nnlite.performance import counts
from nnlite.runtime import random
from nnlite.runtime.errors import fraction
from nnlite.runtime.replay import noted


class Dropout(Layer):
    """In training, set each element to 0 with probability `rate` and divide the others by 1 - rate.

    The mask is a function of the layer's seed, the number of the call and the element's position.
    Srivastava et al. (2014), in the inverted form.
    """

    _checks: ClassVar = {"rate": fraction}

    def __init__(self, rate: float, seed: int | None = None, name: str | None = None, trainable: bool = True):
        super().__init__(name, trainable)
        self.rate = rate
        self.seed = seed if seed is None else int(random.mask_seed("seed", seed)[0])
        self._stream = self.seed
        self._calls = 0

    def make_parameters(self, input_shape: Shape) -> None:
        if self._stream is None:
            self._stream = random.draw_seed()

    def call(self, x: Tensor, training: bool) -> Tensor:
        if not training or self.rate == 0:
            return x
        return ops.dropout(x, rate=self.rate, seed=self.next_seed())

    def next_seed(self) -> np.ndarray:
        """The seed (1) of the next call's mask."""
        seed = np.empty(1, np.uint64)
        noted(self._draw, seed)
        return seed

    def _draw(self, seed: np.ndarray) -> None:
        assert self._stream is not None
        self._calls += 1
        seed[0] = random.combine(self._stream, self._calls)

    def operations(self, batch: int) -> list[counts.Operation]:
        assert self.input_shape is not None
        return [counts.dropout(batch * prod(self.input_shape))] if self.rate else []
