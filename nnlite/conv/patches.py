"""Where the taps of a kernel fall: what several algorithms need to know about padding, strides and groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nnlite import memory
from nnlite.conv.geometry import Geometry

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
