"""im2col: copy every patch of the image into a row of a matrix, and let one matrix product do the rest.

K. Chellapilla, S. Puri, P. Simard: High Performance Convolutional Neural Networks for Document Processing, 2006.
Each pixel is copied kh * kw times: the matrix product is as fast as BLAS, the copies are the price.
"""

from __future__ import annotations

from math import prod

import numpy as np

from nnlite.conv import work
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.epilogue import Epilogue
from nnlite.conv.geometry import Geometry
from nnlite.conv.patches import by_group, grad_input, grad_weight, im2col, is_pointwise, patches_shape
from nnlite.conv.work import ITEMSIZE, WorkItem
from nnlite.runtime import memory


class Im2col(Algorithm):
    """Patches as the rows of a matrix, then one matrix product a group."""

    name = "im2col"
    uses_blas = True

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        """y = patches @ weight"""
        y = memory.empty(geometry.output_shape, x.dtype)
        patches = im2col(x, geometry)  # (groups, n * oh * ow, kh * kw * c / groups)
        np.matmul(patches, by_group(weight, geometry.groups), out=by_group(y, geometry.groups))
        return y

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        """dx = col2im(dy @ weight')"""
        return grad_input(dy, weight, geometry)

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        """dweight = patches' @ dy"""
        return grad_weight(x, dy, geometry)

    def work(self, geometry: Geometry, pass_name: str, epilogue: Epilogue | None = None) -> list[WorkItem]:
        pixels, groups, length = prod(geometry.output_shape[:3]), geometry.groups, geometry.reduction_length
        channels = geometry.weight_shape[3] // groups
        sizes = {
            "forward": (pixels, channels, length, 0),
            "grad_input": (pixels, length, channels, 2),
            "grad_weight": (length, channels, pixels, 1),
        }[pass_name]
        multiply = work.product("product", "gemm", *sizes[:3], count=groups, layout=sizes[3])
        if is_pointwise(geometry):
            return [multiply]
        copies = _copies(geometry, adding=pass_name == "grad_input")
        return [multiply, copies] if pass_name == "grad_input" else [copies, multiply]


def _copies(geometry: Geometry, adding: bool) -> WorkItem:
    """The copies from pixels to patches, one call per kernel position, or the additions from patches to pixels."""
    n, _, ow, _ = geometry.output_shape
    image, patches = prod(geometry.input_shape), prod(patches_shape(geometry))
    copied = n * geometry.input_shape[3] * work.touched_taps(geometry.with_batch(1))
    run = geometry.weight_shape[2]
    return work.move(
        "patches' gradients to pixels" if adding else "patches",
        "accumulate" if adding else "assign",
        (ow, run, geometry.strides[1] * geometry.input_shape[3], geometry.reduction_length, 0),
        touched=(3 if adding else 2) * ITEMSIZE * copied,
        arrays=ITEMSIZE * (image + patches),
        calls=prod(geometry.weight_shape[:2]),
    )
