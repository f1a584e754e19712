"""NumPy's sliding windows: the patches as a view, nothing copied by hand, summed by tensordot."""

from __future__ import annotations

from math import prod

import numpy as np

from nnlite.conv.algorithm import Algorithm
from nnlite.conv.geometry import Geometry
from nnlite.conv.patches import pad_image, padded_bytes
from nnlite.runtime import memory


class StridedView(Algorithm):
    """A view of all windows (sliding_window_view), contracted with the weights by tensordot."""

    name = "strided_view"
    uses_blas = True

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        """y = windows . weight, over r, s and c"""
        y = memory.empty(geometry.output_shape, x.dtype)
        for group in range(geometry.groups):
            c, k = _channels(geometry, group)
            # (n, oh, ow, c, r, s) . (r, s, c, k) -> (n, oh, ow, k)
            y[..., k] = np.tensordot(windows(x[..., c], geometry), weight[..., k], axes=((4, 5, 3), (0, 1, 2)))
        return y

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        """The tensordot with the weights the other way round, each tap added at its place of the padded image."""
        n, h, w, c_all = geometry.input_shape
        (top, bottom), (left, right) = geometry.pads
        padded = memory.zeros((n, top + h + bottom, left + w + right, c_all), dy.dtype)
        for group in range(geometry.groups):
            c, k = _channels(geometry, group)
            # (n, oh, ow, k) . (r, s, c, k) -> (n, oh, ow, r, s, c)
            dwindows = np.tensordot(dy[..., k], weight[..., k], axes=((3,), (3,)))
            # a writeable view of windows that overlap must not be added to at once: tap by tap, none overlaps
            into = windows(padded[..., c], geometry, writeable=True)  # (n, oh, ow, c, r, s)
            for r in range(geometry.weight_shape[0]):
                for s in range(geometry.weight_shape[1]):
                    into[..., r, s] += dwindows[:, :, :, r, s]
        return np.ascontiguousarray(padded[:, top : top + h, left : left + w])

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        """dweight = windows . dy, over n, oh and ow"""
        dweight = memory.empty(geometry.weight_shape, x.dtype)
        for group in range(geometry.groups):
            c, k = _channels(geometry, group)
            # (n, oh, ow, c, r, s) . (n, oh, ow, k) -> (c, r, s, k)
            product = np.tensordot(windows(x[..., c], geometry), dy[..., k], axes=((0, 1, 2), (0, 1, 2)))
            dweight[..., k] = product.transpose(1, 2, 0, 3)  # (r, s, c, k)
        return dweight

    def moved_bytes(self, geometry: Geometry, pass_name: str) -> int:
        """The least, plus the windows, which tensordot copies into a matrix and reads again, and the padded image."""
        copied = prod(geometry.output_shape[:3]) * geometry.reduction_length * geometry.groups
        return geometry.least_bytes(pass_name) + 2 * 4 * copied + 2 * padded_bytes(geometry)


def windows(x: np.ndarray, geometry: Geometry, writeable: bool = False) -> np.ndarray:
    """The windows of x as a view (n, oh, ow, c, r, s); x is padded first, unless it is to be written through."""
    padded = x if writeable else pad_image(x, geometry)
    kh, kw = geometry.weight_shape[:2]
    dh, dw = geometry.dilation_rate
    span = ((kh - 1) * dh + 1, (kw - 1) * dw + 1)
    view = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(1, 2), writeable=writeable)
    return view[:, :: geometry.strides[0], :: geometry.strides[1], :, ::dh, ::dw]


def _channels(geometry: Geometry, group: int) -> tuple[slice, slice]:
    """The input and output channels of a group."""
    c = geometry.weight_shape[2]
    k = geometry.weight_shape[3] // geometry.groups
    return slice(group * c, (group + 1) * c), slice(group * k, (group + 1) * k)
