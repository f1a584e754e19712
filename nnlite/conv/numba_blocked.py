"""Compiled loops in an order that LLVM vectorises, on all threads.

The innermost loop runs over the output channels, which are contiguous in y and in weight, and the taps stand outside
of the pixels of an output row: one row of y (ow, k) stays in the first cache while all taps add to it. The two
gradients are the same loops with the roles exchanged. Threads share out images; the weight gradient has one private
sum a thread, added up in their order.
"""

from __future__ import annotations

import numpy as np

from nnlite.compiler.compilation import ENABLED, jit
from nnlite.compiler.launch import kernel
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.geometry import Geometry
from nnlite.conv.patches import steps
from nnlite.runtime import memory, threads


@jit
def _valid(tap, size, out, stride, dilation, pad):
    """The outputs [first, last) for which this tap falls inside the image, and its shift: i = o * stride + shift."""
    shift = tap * dilation - pad
    first = max(0, -(shift // stride))
    last = min(out, -((shift - size) // stride))
    return first, last, shift


@kernel
def _forward(thread, num_threads, x, weight, y, strides, corner, dilation):
    """y[n, oh, ow, :] += x[n, h, w, c] * weight[r, s, c, :]"""
    n_images, h, w, c_all = x.shape
    kh, kw, c_group, k_all = weight.shape
    groups = c_all // c_group
    k_group = k_all // groups
    for row in range(
        thread * n_images * y.shape[1] // num_threads, (thread + 1) * n_images * y.shape[1] // num_threads
    ):
        n, oh = divmod(row, y.shape[1])
        y[n, oh] = 0
        for r in range(kh):
            ih = oh * strides[0] + r * dilation[0] - corner[0]
            if 0 <= ih < h:
                for s in range(kw):
                    first, last, shift = _valid(s, w, y.shape[2], strides[1], dilation[1], corner[1])
                    for g in range(groups):
                        for ow in range(first, last):
                            into = y[n, oh, ow, g * k_group : (g + 1) * k_group]
                            for c in range(c_group):
                                value = x[n, ih, ow * strides[1] + shift, g * c_group + c]
                                taps = weight[r, s, c, g * k_group : (g + 1) * k_group]
                                for k in range(k_group):
                                    into[k] += value * taps[k]


@kernel
def _grad_input(thread, num_threads, dy, turned, dx, strides, corner, dilation):
    """dx[n, h, w, :] += dy[n, oh, ow, k] * turned[r, s, k, :], with turned (kh, kw, k, c / groups)"""
    n_images, h, w, c_all = dx.shape
    kh, kw, k_all, c_group = turned.shape
    groups = c_all // c_group
    k_group = k_all // groups
    for n in range(thread * n_images // num_threads, (thread + 1) * n_images // num_threads):
        dx[n] = 0
        for oh in range(dy.shape[1]):
            for r in range(kh):
                ih = oh * strides[0] + r * dilation[0] - corner[0]
                if 0 <= ih < h:
                    for s in range(kw):
                        first, last, shift = _valid(s, w, dy.shape[2], strides[1], dilation[1], corner[1])
                        for g in range(groups):
                            for ow in range(first, last):
                                into = dx[n, ih, ow * strides[1] + shift, g * c_group : (g + 1) * c_group]
                                for k in range(g * k_group, (g + 1) * k_group):
                                    value = dy[n, oh, ow, k]
                                    for c in range(c_group):
                                        into[c] += value * turned[r, s, k, c]


@kernel
def _grad_weight(thread, num_threads, x, dy, sums, strides, corner, dilation):
    """sums[thread, r, s, c, :] += x[n, h, w, c] * dy[n, oh, ow, :], a row of the image at a time"""
    n_images, h, w, c_all = x.shape
    _, kh, kw, c_group, k_all = sums.shape
    groups = c_all // c_group
    k_group = k_all // groups
    row = np.empty((c_group, k_group), x.dtype)
    sums[thread] = 0
    for n in range(thread * n_images // num_threads, (thread + 1) * n_images // num_threads):
        for oh in range(dy.shape[1]):
            for r in range(kh):
                ih = oh * strides[0] + r * dilation[0] - corner[0]
                if 0 <= ih < h:
                    for s in range(kw):
                        first, last, shift = _valid(s, w, dy.shape[2], strides[1], dilation[1], corner[1])
                        for g in range(groups):
                            row[:] = 0
                            for ow in range(first, last):
                                into_dy = dy[n, oh, ow, g * k_group : (g + 1) * k_group]
                                for c in range(c_group):
                                    value = x[n, ih, ow * strides[1] + shift, g * c_group + c]
                                    for k in range(k_group):
                                        row[c, k] += value * into_dy[k]
                            for c in range(c_group):
                                for k in range(k_group):
                                    sums[thread, r, s, c, g * k_group + k] += row[c, k]


class NumbaBlocked(Algorithm):
    """Compiled loops ordered so that LLVM vectorises over the channels, on all threads."""

    name = "numba_blocked"
    reference_only = not ENABLED  # uncompiled, they are plain Python

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        y = memory.empty(geometry.output_shape, x.dtype)
        _forward(x, weight, y, *steps(geometry))
        return y

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        dx = memory.empty(geometry.input_shape, dy.dtype)
        turned = np.ascontiguousarray(weight.transpose(0, 1, 3, 2))  # (kh, kw, k, c / groups)
        _grad_input(dy, turned, dx, *steps(geometry))
        return dx

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        # float64 sums of rows that were added up in the input's dtype: exact enough for any number of images
        num_threads = threads.kernel_parts()
        sums = np.empty((num_threads, *geometry.weight_shape), np.float64)
        _grad_weight.run(num_threads, x, dy, sums, *steps(geometry))
        return sums.sum(axis=0).astype(x.dtype)
