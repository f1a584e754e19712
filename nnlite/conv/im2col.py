"""im2col: copy every patch of the image into a row of a matrix, and let one matrix product do the rest.

K. Chellapilla, S. Puri, P. Simard: High Performance Convolutional Neural Networks for Document Processing, 2006.
Each pixel is copied kh * kw times: the matrix product is as fast as BLAS, the copies are the price.
"""

from __future__ import annotations

from math import prod

import numpy as np

from nnlite import memory
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.geometry import Geometry
from nnlite.conv.patches import by_group, taps


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

    def moved_bytes(self, geometry: Geometry, pass_name: str) -> int:
        """The least, plus the patches (in grad_input their gradient) written once and read once."""
        patches = 0 if _is_pointwise(geometry) else prod(_patches_shape(geometry))
        return geometry.least_bytes(pass_name) + 2 * 4 * patches


def grad_input(dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """dx (n, h, w, c): the gradient of every patch, added back to where its pixels came from."""
    groups = geometry.groups
    dx = memory.empty(geometry.input_shape, dy.dtype)
    pointwise = _is_pointwise(geometry)
    dpatches = by_group(dx, groups) if pointwise else _empty_patches(geometry, dy.dtype)
    # (groups, n * oh * ow, k / groups) @ (groups, k / groups, kh * kw * c / groups)
    np.matmul(by_group(dy, groups), by_group(weight, groups).transpose(0, 2, 1), out=dpatches)
    if not pointwise:
        _col2im(dpatches, dx, geometry)
    return dx


def grad_weight(x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
    """dweight (kh, kw, c / groups, k): the sum over all output pixels of patch times dy."""
    groups = geometry.groups
    dweight = memory.empty(geometry.weight_shape, x.dtype)
    patches = im2col(x, geometry)
    # (groups, kh * kw * c / groups, n * oh * ow) @ (groups, n * oh * ow, k / groups)
    np.matmul(patches.transpose(0, 2, 1), by_group(dy, groups), out=by_group(dweight, groups))
    return dweight


def im2col(x: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The patches (groups, n * oh * ow, kh * kw * c / groups) of x, each in (row, col, channel) order.

    One strided copy a tap. Where every patch is a pixel, x is its own patches and a view of it is returned.
    """
    if _is_pointwise(geometry):
        return by_group(x, geometry.groups)
    patches = _empty_patches(geometry, x.dtype)
    if geometry.pads != ((0, 0), (0, 0)):
        patches.fill(0)
    pixels = _split_channels(x, geometry)  # (n, h, w, groups, c / groups)
    for tap in taps(geometry):
        _of_tap(patches, tap.r, tap.s, geometry)[tap.outputs] = pixels[tap.inputs]
    return patches


def _col2im(dpatches: np.ndarray, dx: np.ndarray, geometry: Geometry) -> None:
    """dx (n, h, w, c) = what each pixel received from all the patches that hold it: one strided sum a tap."""
    dx.fill(0)
    pixels = _split_channels(dx, geometry)  # (n, h, w, groups, c / groups)
    for tap in taps(geometry):
        pixels[tap.inputs] += _of_tap(dpatches, tap.r, tap.s, geometry)[tap.outputs]


def _is_pointwise(geometry: Geometry) -> bool:
    """Whether the patches are the pixels: a 1x1 kernel that visits each pixel once."""
    return geometry.weight_shape[:2] == (1, 1) and geometry.strides == (1, 1) and geometry.pads == ((0, 0), (0, 0))


def _patches_shape(geometry: Geometry) -> tuple[int, int, int]:
    """(groups, n * oh * ow, kh * kw * c / groups)"""
    return geometry.groups, prod(geometry.output_shape[:3]), geometry.reduction_length


def _empty_patches(geometry: Geometry, dtype: np.dtype) -> np.ndarray:
    return memory.empty(_patches_shape(geometry), dtype)


def _split_channels(pixels: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(n, h, w, c) as (n, h, w, groups, c / groups): a view."""
    return pixels.reshape(*pixels.shape[:3], geometry.groups, pixels.shape[3] // geometry.groups)


def _of_tap(patches: np.ndarray, r: int, s: int, geometry: Geometry) -> np.ndarray:
    """The column block of tap (r, s) as (n, oh, ow, groups, c / groups): a view."""
    shape = (geometry.groups, *geometry.output_shape[:3], *geometry.weight_shape[:3])
    return patches.reshape(shape)[:, :, :, :, r, s].transpose(1, 2, 3, 0, 4)
