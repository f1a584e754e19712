"""Max pooling, channels last. Padding never wins, the first of equals wins, a NaN wins (the first one).

A value takes over where it is `not (value <= best)`, which holds for a NaN too, unless `best` is a NaN already. Two
kernels differ in their innermost loop: it runs over channels, in vectors, or, where those are too few to fill vectors,
over the window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nnlite.compiler.jit import kernel
from nnlite.runtime import memory

if TYPE_CHECKING:
    from nnlite.conv.geometry import Pads

#: below so many channels the innermost loop runs over the window
FEW_CHANNELS = 16


@kernel
def _forward(thread, num_threads, x, y, argmax, pool, strides, corner):
    """y = the largest of each window, argmax = its position in the window (row * width + column)."""
    n_images, h, w, c_all = x.shape
    rows = n_images * y.shape[1]
    for row in range(thread * rows // num_threads, (thread + 1) * rows // num_threads):
        n, oh = divmod(row, y.shape[1])
        for ow in range(y.shape[2]):
            top, left = oh * strides[0] - corner[0], ow * strides[1] - corner[1]
            best, where = y[n, oh, ow], argmax[n, oh, ow]
            started = False
            for r in range(max(0, -top), min(pool[0], h - top)):
                for s in range(max(0, -left), min(pool[1], w - left)):
                    values = x[n, top + r, left + s]
                    position = where.dtype.type(r * pool[1] + s)
                    if not started:
                        started = True
                        for c in range(c_all):
                            best[c] = values[c]
                            where[c] = position
                    else:
                        for c in range(c_all):
                            wins = (not (values[c] <= best[c])) and best[c] == best[c]
                            best[c] = values[c] if wins else best[c]
                            where[c] = position if wins else where[c]


@kernel
def _forward_few_channels(thread, num_threads, x, y, argmax, pool, strides):
    """As _forward, without padding: one output at a time, its taps found by a table, its best kept in a register."""
    oh_all, ow_all, c_all = y.shape[1:]
    taps = np.empty(pool[0] * pool[1], np.uint64)  # how far each tap lies from the window's first
    for tap in range(taps.size):
        taps[tap] = (tap // pool[1] * x.shape[2] + tap % pool[1]) * c_all
    rows = x.shape[0] * oh_all
    for row in range(thread * rows // num_threads, (thread + 1) * rows // num_threads):
        n, oh = divmod(row, oh_all)
        image = x[n].reshape(-1)  # (h * w * c)
        for ow in range(ow_all):
            corner = (oh * strides[0] * x.shape[2] + ow * strides[1]) * c_all
            for c in range(c_all):
                first = np.uint64(corner + c)
                best, where = image[first], 0
                for tap in range(1, taps.size):
                    value = image[first + taps[tap]]
                    wins = (not (value <= best)) & (best == best)
                    best = value if wins else best
                    where = tap if wins else where
                y[n, oh, ow, c] = best
                argmax[n, oh, ow, c] = where


@kernel
def _backward(thread, num_threads, dy, argmax, dx, pool, strides, corner):
    """dx = each dy at the place of its window's maximum; windows that overlap add up."""
    n_images, oh_all, ow_all, c_all = dy.shape
    for n in range(thread * n_images // num_threads, (thread + 1) * n_images // num_threads):
        dx[n] = 0
        for oh in range(oh_all):
            for ow in range(ow_all):
                top, left = oh * strides[0] - corner[0], ow * strides[1] - corner[1]
                gradient, where = dy[n, oh, ow], argmax[n, oh, ow]
                for r in range(max(0, -top), min(pool[0], dx.shape[1] - top)):
                    for s in range(max(0, -left), min(pool[1], dx.shape[2] - left)):
                        into = dx[n, top + r, left + s]
                        position = r * pool[1] + s
                        for c in range(c_all):
                            into[c] += gradient[c] if where[c] == position else dx.dtype.type(0)


def max_pool(
    x: np.ndarray, size: tuple[int, int], pool_size: tuple[int, int], strides: tuple[int, int], pads: Pads
) -> tuple[np.ndarray, np.ndarray]:
    """(y (n, *size, c), the position in its window of each argmax (n, *size, c)) of x (n, h, w, c)."""
    c = x.shape[3]
    y = memory.empty((len(x), *size, c), x.dtype)
    argmax = memory.empty(y.shape, np.uint8 if pool_size[0] * pool_size[1] <= 256 else np.int32)
    if c < FEW_CHANNELS and pads == ((0, 0), (0, 0)):
        _forward_few_channels(x, y, argmax, pool_size, strides)
    else:
        _forward(x, y, argmax, pool_size, strides, (pads[0][0], pads[1][0]))
    return y, argmax


def max_pool_backward(
    dy: np.ndarray,
    argmax: np.ndarray,
    input_shape: tuple[int, ...],
    pool_size: tuple[int, int],
    strides: tuple[int, int],
    pads: Pads,
) -> np.ndarray:
    """dx (n, h, w, c) of the pooling that gave `argmax`."""
    dx = memory.empty(input_shape, dy.dtype)
    _backward(dy, argmax, dx, pool_size, strides, (pads[0][0], pads[1][0]))
    return dx
