"""Direct convolution, compiled: eight products at once for each sum that is loaded and stored.

In numba_blocked each multiply-add loads a sum and stores it again, and that is what it waits for. Here a sum takes
eight products while it is in a register: LLVM vectorises over the channels, we unroll by hand over what is summed.
All three passes are one statement, `_sweep`, over different places in flat arrays. The image is padded first, so that
every product of every output lies at a fixed distance from its window's corner.
"""

from __future__ import annotations

import numpy as np

from nnlite.compiler.compilation import ENABLED, jit
from nnlite.compiler.launch import kernel
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.geometry import Geometry
from nnlite.conv.patches import pad_image, padded_bytes
from nnlite.runtime import memory, threads

#: products added to a sum at once; twice as many were no faster
_AT_ONCE = 8


@jit
def _sweep(totals, into, values, starts, places, rows, pitch, width):
    """For each p: totals[into[p] + k] += sum over i of values[starts[p] + places[i]] * rows[i * pitch + k], k < width.

    One pass over the totals if there are eight places, else one for each.
    """
    if places.size == 8:
        d0, d1, d2, d3, d4, d5, d6, d7 = (
            places[0],
            places[1],
            places[2],
            places[3],
            places[4],
            places[5],
            places[6],
            places[7],
        )
        row0, row1, row2, row3 = rows, rows[pitch:], rows[2 * pitch :], rows[3 * pitch :]
        row4, row5, row6, row7 = rows[4 * pitch :], rows[5 * pitch :], rows[6 * pitch :], rows[7 * pitch :]
        for p in range(into.size):
            total = totals[into[p] : into[p] + width]
            at = starts[p]
            v0, v1, v2, v3 = values[at + d0], values[at + d1], values[at + d2], values[at + d3]
            v4, v5, v6, v7 = values[at + d4], values[at + d5], values[at + d6], values[at + d7]
            for k in range(width):
                first = v0 * row0[k] + v1 * row1[k] + v2 * row2[k] + v3 * row3[k]
                total[k] += first + v4 * row4[k] + v5 * row5[k] + v6 * row6[k] + v7 * row7[k]
    else:
        for i in range(places.size):
            row = rows[i * pitch :]
            for p in range(into.size):
                total = totals[into[p] : into[p] + width]
                value = values[starts[p] + places[i]]
                for k in range(width):
                    total[k] += value * row[k]


@kernel
def _forward(thread, num_threads, x, weight, terms, corners, y, stride, groups):
    """y[n, oh, ow, :] = sum over terms (r, s, c) of x[n, corner of the window + term] * weight[term, :]"""
    n_images, _, _, c_all = x.shape
    _, oh_all, ow_all, k_all = y.shape
    c_group, k_group = c_all // groups, k_all // groups
    into = np.arange(ow_all) * k_all
    for row in range(thread * n_images * oh_all // num_threads, (thread + 1) * n_images * oh_all // num_threads):
        n, oh = divmod(row, oh_all)
        y[n, oh] = 0
        totals, values = y[n, oh].reshape(-1), x[n, oh * stride :].reshape(-1)
        for g in range(groups):
            for term in range(0, terms.size, _AT_ONCE):
                places = terms[term : term + _AT_ONCE]
                rows = weight[term * k_all + g * k_group :]
                _sweep(totals[g * k_group :], into, values[g * c_group :], corners, places, rows, k_all, k_group)


@kernel
def _grad_input(thread, num_threads, dy, turned, corners, dx, stride, dilation, groups):
    """dx[n, h, w, :] += sum over k of dy[n, oh, ow, k] * turned[r, s, k, :], with turned (kh, kw, k, c / groups)"""
    n_images, oh_all, ow_all, k_all = dy.shape
    kh, kw, _, c_group = turned.shape
    k_group, c_all = k_all // groups, dx.shape[3]
    starts = np.arange(ow_all) * k_all
    channels = np.arange(k_group)
    for n in range(thread * n_images // num_threads, (thread + 1) * n_images // num_threads):
        dx[n] = 0
        for oh in range(oh_all):
            values = dy[n, oh].reshape(-1)
            for r in range(kh):
                totals = dx[n, oh * stride + r * dilation[0]].reshape(-1)
                for s in range(kw):
                    for g in range(groups):
                        into = totals[s * dilation[1] * c_all + g * c_group :]
                        for k in range(0, k_group, _AT_ONCE):
                            places = channels[k : k + _AT_ONCE]
                            rows = turned[r, s, g * k_group + k :].reshape(-1)
                            _sweep(into, corners, values[g * k_group :], starts, places, rows, c_group, c_group)


@kernel
def _grad_weight(thread, num_threads, x, dy, terms, corners, of_image, sums, stride, groups):
    """sums[thread, term, :] += sum over ow of x[n, corner of the window + term] * dy[n, oh, ow, :]"""
    n_images, _, _, c_all = x.shape
    _, oh_all, ow_all, k_all = dy.shape
    c_group, k_group = c_all // groups, k_all // groups
    into = np.arange(terms.size) * k_all
    totals = of_image[thread].reshape(-1)
    sums[thread] = 0
    for n in range(thread * n_images // num_threads, (thread + 1) * n_images // num_threads):
        of_image[thread] = 0
        for oh in range(oh_all):
            values = x[n, oh * stride :].reshape(-1)
            for g in range(groups):
                for ow in range(0, ow_all, _AT_ONCE):
                    places = corners[ow : ow + _AT_ONCE]
                    rows = dy[n, oh, ow:].reshape(-1)[g * k_group :]
                    _sweep(totals[g * k_group :], into, values[g * c_group :], terms, places, rows, k_all, k_group)
        for term in range(terms.size):  # `sums[thread] += ...` takes three seconds longer to compile
            for k in range(k_all):
                sums[thread, term, k] += of_image[thread, term, k]


class NumbaDirect(Algorithm):
    """Compiled loops over the channels that add eight products to a sum at once, on all threads."""

    name = "numba_direct"
    reference_only = not ENABLED  # uncompiled, they are plain Python

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        y = memory.empty(geometry.output_shape, x.dtype)
        terms, corners = _terms(geometry), _corners(geometry)
        stride, groups = geometry.strides[0], geometry.groups
        _forward(pad_image(x, geometry), weight.reshape(-1), terms, corners, y, stride, groups)
        return y

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        (n, h, w, c), ((top, bottom), (left, right)) = geometry.input_shape, geometry.pads
        padded = memory.empty((n, top + h + bottom, left + w + right, c), dy.dtype)
        turned = np.ascontiguousarray(weight.transpose(0, 1, 3, 2))  # (kh, kw, k, c / groups)
        stride, groups = geometry.strides[0], geometry.groups
        _grad_input(dy, turned, _corners(geometry), padded, stride, geometry.dilation_rate, groups)
        return np.ascontiguousarray(padded[:, top : top + h, left : left + w])  # (n, h, w, c)

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        # an image's sum in the input's dtype, those of the images in float64: exact enough for any number of them
        num_threads = threads.kernel_parts()
        shape = (num_threads, geometry.reduction_length, dy.shape[3])
        of_image, sums = np.empty(shape, x.dtype), np.empty(shape, np.float64)
        terms, corners = _terms(geometry), _corners(geometry)
        stride, groups = geometry.strides[0], geometry.groups
        _grad_weight.run(num_threads, pad_image(x, geometry), dy, terms, corners, of_image, sums, stride, groups)
        return sums.sum(axis=0).astype(x.dtype).reshape(geometry.weight_shape)

    def moved_bytes(self, geometry: Geometry, pass_name: str) -> int:
        """The least, plus the padded image, written and read."""
        return geometry.least_bytes(pass_name) + 2 * padded_bytes(geometry)


def _terms(geometry: Geometry) -> np.ndarray:
    """How far from a window's corner in the padded image the terms (r, s, c) lie: (kh * kw * c / groups)."""
    kh, kw, c_group, _ = geometry.weight_shape
    _, _, w, c = geometry.input_shape
    r, s, channel = np.ogrid[:kh, :kw, :c_group]
    row = (w + sum(geometry.pads[1])) * c
    return (r * geometry.dilation_rate[0] * row + s * geometry.dilation_rate[1] * c + channel).reshape(-1)


def _corners(geometry: Geometry) -> np.ndarray:
    """How far from the beginning of a padded row the windows of an output row begin: (ow)."""
    return np.arange(geometry.output_shape[2]) * geometry.strides[1] * geometry.input_shape[3]
