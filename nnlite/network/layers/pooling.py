"""Max pooling as a layer."""

from __future__ import annotations

from math import prod

from nnlite import ops
from nnlite.autograd import Tensor
from nnlite.conv.geometry import Padding, check_padding, pooled
from nnlite.network.layers.base import Layer, Shape, expect_rank
from nnlite.performance import counts
from nnlite.runtime.errors import int_pair


class MaxPooling2D(Layer):
    """Maximum of each window, channels last: (n, h, w, c) -> (n, oh, ow, c). `strides` defaults to `pool_size`."""

    made_by = ("pool_size", "strides", "padding")

    def __init__(
        self,
        pool_size: int | tuple[int, int] = (2, 2),
        strides: int | tuple[int, int] | None = None,
        padding: Padding = "valid",
        name: str | None = None,
        trainable: bool = True,
    ):
        super().__init__(name, trainable)
        self.pool_size = int_pair("pool_size", pool_size)
        self.strides = self.pool_size if strides is None else int_pair("strides", strides)
        self.padding = check_padding(padding)

    def make_parameters(self, input_shape: Shape) -> None:
        expect_rank(self, input_shape, 3, "(n, h, w, c)")

    def output_shape_for(self, input_shape: Shape) -> Shape:
        h, w, c = input_shape
        _, (oh, ow) = pooled((h, w), self.pool_size, self.strides, self.padding)
        return oh, ow, c

    def call(self, x: Tensor, training: bool) -> Tensor:
        return ops.max_pool2d(x, pool_size=self.pool_size, strides=self.strides, padding=self.padding)

    @property
    def fits_epilogue(self) -> bool:
        """Whether a convolution's kernel can include this pooling: 2x2, strides 2, valid."""
        return self.pool_size == (2, 2) and self.strides == (2, 2) and self.padding == "valid"

    def operations(self, batch: int) -> list[counts.Operation]:
        assert self.input_shape is not None
        assert self.output_shape is not None
        return [counts.max_pool2d(batch * prod(self.input_shape), batch * prod(self.output_shape))]
