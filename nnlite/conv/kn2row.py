"""kn2row: one matrix product per kernel position over the unchanged image, each added to y, shifted by its position.

A. Vasudevan, A. Anderson, D. Gregg: Parallel Multi Channel Convolution using General Matrix Multiplication, 2017.
A 1x1 convolution needs no patches; a kh x kw one is kh * kw of them, shifted against each other. What im2col pays in
copies of x, kn2row pays in additions to y. Some images at a time, so that a product is still in cache when it is added.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import ClassVar

import numpy as np

from nnlite.conv.algorithm import Algorithm
from nnlite.conv.geometry import Geometry
from nnlite.conv.parameters import Parameters
from nnlite.conv.patches import by_group, taps
from nnlite.runtime import memory

#: how large a product may be for the sum that follows to find it in the second cache
_IN_CACHE = 256 << 10


class Kn2row(Algorithm):
    """A matrix product per kernel position, and shifted sums."""

    name = "kn2row"
    uses_blas = True
    parameters: ClassVar[Parameters] = {"block_bytes": (_IN_CACHE // 4, _IN_CACHE // 2, _IN_CACHE, 2 * _IN_CACHE)}
    block_bytes = _IN_CACHE

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        """y += (x @ weight[r, s]) shifted by the tap (r, s), over the phase of x that the tap visits"""
        y = memory.zeros(geometry.output_shape, x.dtype)
        sh, sw = geometry.strides
        for images in self._blocks(geometry, prod(geometry.input_shape[1:3]) * y.shape[3] * y.itemsize):
            # with strides a tap visits every sh-th row and sw-th column: contiguous once split into sh * sw phases
            phases = [[np.ascontiguousarray(x[images, i::sh, j::sw]) for j in range(sw)] for i in range(sh)]
            for tap in taps(geometry):
                _, rows, cols = tap.inputs
                phase = phases[rows.start % sh][cols.start % sw]  # (n, h / sh, w / sw, c)
                products = _product(phase, weight[tap.r : tap.r + 1, tap.s : tap.s + 1], geometry.groups)
                y[images][tap.outputs] += products[:, _within(rows), _within(cols)]
        return y

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        """dx += (dy @ weight[r, s]') shifted back by the tap (r, s)"""
        dx = memory.zeros(geometry.input_shape, dy.dtype)
        for images in self._blocks(geometry, prod(geometry.output_shape[1:3]) * dx.shape[3] * dx.itemsize):
            for tap in taps(geometry):
                turned = _turned(weight[tap.r : tap.r + 1, tap.s : tap.s + 1], geometry.groups)
                dx[images][tap.inputs] += _product(dy[images], turned, geometry.groups)[tap.outputs]
        return dx

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        """dweight[r, s] = x' @ dy over the pixels that the tap (r, s) visits"""
        dweight = memory.empty(geometry.weight_shape, x.dtype)
        for tap in taps(geometry):
            pixels = by_group(np.ascontiguousarray(x[tap.inputs]), geometry.groups)  # (groups, pixels, c / groups)
            dpixels = by_group(np.ascontiguousarray(dy[tap.outputs]), geometry.groups)  # (groups, pixels, k / groups)
            into = by_group(dweight[tap.r : tap.r + 1, tap.s : tap.s + 1], geometry.groups)
            np.matmul(pixels.transpose(0, 2, 1), dpixels, out=into)
        return dweight

    def moved_bytes(self, geometry: Geometry, pass_name: str) -> int:
        """The minimum, and per kernel position: its product written and read, the sum read and written; or its copies.

        Counts every tap as if it never met padding, and leaves out the phases, which are x itself without strides.
        """
        n, h, w, c = geometry.input_shape
        _, oh, ow, k = geometry.output_shape
        sh, sw = geometry.strides
        phase = -(-h // sh) * -(-w // sw)
        elements = {
            "forward": 2 * phase * k + 2 * oh * ow * k,
            "grad_input": 4 * oh * ow * c,
            "grad_weight": 2 * oh * ow * (c + k),
        }[pass_name]
        return geometry.least_bytes(pass_name) + 4 * n * elements * prod(geometry.weight_shape[:2])

    def _blocks(self, geometry: Geometry, bytes_per_image: int) -> Iterator[slice]:
        """The images in blocks whose products stay in cache."""
        n = geometry.input_shape[0]
        step = max(1, self.block_bytes // bytes_per_image)
        return (slice(first, first + step) for first in range(0, n, step))


def _product(pixels: np.ndarray, matrix: np.ndarray, groups: int) -> np.ndarray:
    """pixels (n, h, w, c) @ matrix (1, 1, c / groups, k), group by group -> (n, h, w, k)"""
    result = memory.empty((*pixels.shape[:3], matrix.shape[3]), pixels.dtype)
    # NumPy gives BLAS no outer product, and its own loop for it is slow
    product = np.multiply if matrix.shape[2] == 1 else np.matmul
    product(by_group(pixels, groups), by_group(matrix, groups), out=by_group(result, groups))
    return result


def _turned(matrix: np.ndarray, groups: int) -> np.ndarray:
    """(1, 1, c / groups, k) with each group transposed: (1, 1, k / groups, c)"""
    turned = by_group(matrix, groups).transpose(2, 0, 1)  # (k / groups, groups, c / groups)
    return turned.reshape(1, 1, turned.shape[0], -1)


def _within(visited: slice) -> slice:
    """The rows (or columns) of a phase that a tap visits, from those of the image."""
    return slice(visited.start // visited.step, -(-visited.stop // visited.step))
