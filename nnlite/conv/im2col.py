"""im2col: copy every patch of the image into a row of a matrix, and let one matrix product do the rest.

K. Chellapilla, S. Puri, P. Simard: High Performance Convolutional Neural Networks for Document Processing, 2006.
Each pixel is copied kh * kw times: the matrix product is as fast as BLAS, the copies are the price.
"""

from __future__ import annotations

from math import prod

import numpy as np

from nnlite import memory
from nnlite.conv import stages
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.epilogue import Epilogue
from nnlite.conv.geometry import Geometry
from nnlite.conv.patches import by_group, taps
from nnlite.conv.stages import ITEMSIZE, Stage


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

    def stages(self, geometry: Geometry, pass_name: str, epilogue: Epilogue | None = None) -> list[Stage]:
        pixels, groups, length = prod(geometry.output_shape[:3]), geometry.groups, geometry.reduction_length
        channels = geometry.weight_shape[3] // groups
        sizes = {
            "forward": (pixels, channels, length, 0),
            "grad_input": (pixels, length, channels, 2),
            "grad_weight": (length, channels, pixels, 1),
        }[pass_name]
        multiply = stages.product("product", "gemm", *sizes[:3], count=groups, layout=sizes[3])
        if _is_pointwise(geometry):
            return [multiply]
        copies = _copies(geometry, adding=pass_name == "grad_input")
        return [multiply, copies] if pass_name == "grad_input" else [copies, multiply]


def _copies(geometry: Geometry, adding: bool) -> Stage:
    """The copies from pixels to patches, a call a tap, or the additions from patches to pixels."""
    n, _, ow, _ = geometry.output_shape
    image, patches = prod(geometry.input_shape), prod(_patches_shape(geometry))
    copied = n * geometry.input_shape[3] * stages.touched_taps(geometry.with_batch(1))
    run = geometry.weight_shape[2]
    return stages.move(
        "patches' gradients to pixels" if adding else "patches",
        "accumulate" if adding else "assign",
        (ow, run, geometry.strides[1] * geometry.input_shape[3], geometry.reduction_length, 0),
        touched=(3 if adding else 2) * ITEMSIZE * copied,
        arrays=ITEMSIZE * (image + patches),
        calls=prod(geometry.weight_shape[:2]),
    )


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
