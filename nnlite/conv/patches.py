"""Where the taps of a kernel fall, the patches that they make, and the gradients that every algorithm inherits."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import numpy as np

from nnlite.conv.geometry import Geometry
from nnlite.runtime import memory

Index = tuple[slice, slice, slice]


class Tap(NamedTuple):
    """One position (r, s) in the kernel, and the pixels for which it falls inside the image."""

    r: int
    s: int
    outputs: Index  # of an array (n, oh, ow, ...): the output pixels to which this tap contributes
    inputs: Index  # of an array (n, h, w, ...): the input pixels it multiplies for them, in the same order


def taps(geometry: Geometry) -> Iterator[Tap]:
    """The taps in (row, col) order; those that never leave the padding have empty slices."""
    _, h, w, _ = geometry.input_shape
    _, oh, ow, _ = geometry.output_shape
    images = slice(None)
    for r in range(geometry.weight_shape[0]):
        rows_out, rows_in = _tap_slices(r, h, oh, geometry.strides[0], geometry.dilation_rate[0], geometry.pads[0][0])
        for s in range(geometry.weight_shape[1]):
            cols_out, cols_in = _tap_slices(
                s, w, ow, geometry.strides[1], geometry.dilation_rate[1], geometry.pads[1][0]
            )
            yield Tap(r, s, (images, rows_out, cols_out), (images, rows_in, cols_in))


def _tap_slices(tap: int, size: int, out: int, stride: int, dilation: int, pad: int) -> tuple[slice, slice]:
    """The outputs o with 0 <= o * stride + tap * dilation - pad < size, and the inputs at these places."""
    shift = tap * dilation - pad
    first = max(0, -(shift // stride))
    last = max(first, min(out, -((shift - size) // stride)))
    start = first * stride + shift
    stop = start + (last - first - 1) * stride + 1 if last > first else start
    return slice(first, last), slice(start, stop, stride)


def pad_image(x: np.ndarray, geometry: Geometry) -> np.ndarray:
    """x within its padding of zeros (n, h + top + bottom, w + left + right, c); x itself where there is none."""
    (top, bottom), (left, right) = geometry.pads
    if not (top or bottom or left or right):
        return x
    n, h, w, c = x.shape
    padded = memory.zeros((n, top + h + bottom, left + w + right, c), x.dtype)
    padded[:, top : top + h, left : left + w] = x
    return padded


def padded_bytes(geometry: Geometry, itemsize: int = 4) -> int:
    """The size of what `pad_image` makes, in bytes; 0 where it makes nothing."""
    (top, bottom), (left, right) = geometry.pads
    if not (top or bottom or left or right):
        return 0
    n, h, w, c = geometry.input_shape
    return itemsize * n * (top + h + bottom) * (left + w + right) * c


def by_group(pixels: np.ndarray, groups: int) -> np.ndarray:
    """(n, h, w, channels) or a weight's (kh, kw, c, k) as matrices (groups, n * h * w, channels / groups): a view."""
    n, h, w, channels = pixels.shape
    return pixels.reshape(n * h * w, groups, channels // groups).transpose(1, 0, 2)


def steps(geometry: Geometry) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """(strides, padding at the top and left, dilation), as compiled loops take them."""
    (top, _), (left, _) = geometry.pads
    return geometry.strides, (top, left), geometry.dilation_rate


# Patches as a matrix, and back: im2col and the gradients that every algorithm inherits -----------------------------


def grad_input(dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """dx (n, h, w, c): the gradient of every patch, added back to where its pixels came from."""
    groups = geometry.groups
    dx = memory.empty(geometry.input_shape, dy.dtype)
    pointwise = is_pointwise(geometry)
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

    One strided copy per kernel position. If every patch is a pixel, a view of x is returned.
    """
    if is_pointwise(geometry):
        return by_group(x, geometry.groups)
    patches = _empty_patches(geometry, x.dtype)
    if geometry.pads != ((0, 0), (0, 0)):
        patches.fill(0)
    pixels = _split_channels(x, geometry)  # (n, h, w, groups, c / groups)
    for tap in taps(geometry):
        _of_tap(patches, tap.r, tap.s, geometry)[tap.outputs] = pixels[tap.inputs]
    return patches


def _col2im(dpatches: np.ndarray, dx: np.ndarray, geometry: Geometry) -> None:
    """dx (n, h, w, c) = what each pixel received from all patches that hold it: a strided sum per kernel position."""
    dx.fill(0)
    pixels = _split_channels(dx, geometry)  # (n, h, w, groups, c / groups)
    for tap in taps(geometry):
        pixels[tap.inputs] += _of_tap(dpatches, tap.r, tap.s, geometry)[tap.outputs]


def is_pointwise(geometry: Geometry) -> bool:
    """Whether the patches are the pixels: a 1x1 kernel that visits each pixel once."""
    return geometry.weight_shape[:2] == (1, 1) and geometry.strides == (1, 1) and geometry.pads == ((0, 0), (0, 0))


def patches_shape(geometry: Geometry) -> tuple[int, int, int]:
    """(groups, n * oh * ow, kh * kw * c / groups)"""
    return geometry.groups, prod(geometry.output_shape[:3]), geometry.reduction_length


def _empty_patches(geometry: Geometry, dtype: np.dtype) -> np.ndarray:
    return memory.empty(patches_shape(geometry), dtype)


def _split_channels(pixels: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(n, h, w, c) as (n, h, w, groups, c / groups): a view."""
    return pixels.reshape(*pixels.shape[:3], geometry.groups, pixels.shape[3] // geometry.groups)


def _of_tap(patches: np.ndarray, r: int, s: int, geometry: Geometry) -> np.ndarray:
    """The column block of tap (r, s) as (n, oh, ow, groups, c / groups): a view."""
    shape = (geometry.groups, *geometry.output_shape[:3], *geometry.weight_shape[:3])
    return patches.reshape(shape)[:, :, :, :, r, s].transpose(1, 2, 3, 0, 4)
