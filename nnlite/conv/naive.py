"""The specification: the convolution's definition as seven loops in plain Python."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nnlite.conv.algorithm import Algorithm
from nnlite.conv.geometry import Geometry

#: one product of the sum: indices of y (n, oh, ow, k), of x (n, h, w, c) and of weight (r, s, c in the group, k)
Product = tuple[tuple[int, int, int, int], tuple[int, int, int, int], tuple[int, int, int, int]]


def products(geometry: Geometry) -> Iterator[Product]:
    """Every product that is summed into y, those with padding left out."""
    n_images, h, w, _ = geometry.input_shape
    _, oh, ow, _ = geometry.output_shape
    kh, kw, c_group, k_all = geometry.weight_shape
    k_group = k_all // geometry.groups
    (top, _), (left, _) = geometry.pads
    for n in range(n_images):
        for y in range(oh):
            for x in range(ow):
                for r in range(kh):
                    row = y * geometry.strides[0] + r * geometry.dilation_rate[0] - top
                    if not 0 <= row < h:
                        continue
                    for s in range(kw):
                        col = x * geometry.strides[1] + s * geometry.dilation_rate[1] - left
                        if not 0 <= col < w:
                            continue
                        for k in range(k_all):
                            first = k // k_group * c_group  # the first input channel of k's group
                            for c in range(c_group):
                                yield (n, y, x, k), (n, row, col, first + c), (r, s, c, k)


class Naive(Algorithm):
    """Seven nested loops of plain Python, as the definition has them."""

    name = "naive"
    reference_only = True

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        """y[n, oh, ow, k] += x[n, h, w, c] * weight[r, s, c, k]"""
        y = np.zeros(geometry.output_shape, x.dtype)
        for at_y, at_x, at_weight in products(geometry):
            y[at_y] += x[at_x] * weight[at_weight]
        return y

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        """dx[n, h, w, c] += dy[n, oh, ow, k] * weight[r, s, c, k]"""
        dx = np.zeros(geometry.input_shape, dy.dtype)
        for at_y, at_x, at_weight in products(geometry):
            dx[at_x] += dy[at_y] * weight[at_weight]
        return dx

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        """dweight[r, s, c, k] += x[n, h, w, c] * dy[n, oh, ow, k]"""
        dweight = np.zeros(geometry.weight_shape, x.dtype)
        for at_y, at_x, at_weight in products(geometry):
            dweight[at_weight] += x[at_x] * dy[at_y]
        return dweight

    def moved_bytes(self, geometry: Geometry, pass_name: str) -> int:
        """Three operands a product: two read, one read and written."""
        return 4 * 4 * geometry.macs
