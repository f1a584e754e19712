"""Max pooling, channels last. Padding never wins, the first of equals wins, a NaN wins (the first one).

A value takes over where it is `not (value <= best)`, which holds for a NaN too, unless `best` is a NaN already. Vectors
of channels serve float32 and windows of up to 256 pixels; everything else is served by plain loops, which LLVM leaves
scalar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nnlite.compiler.compilation import ENABLED, jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.simd import load_first, select, splat, store_bytes, store_first
from nnlite.compiler.target import LANES
from nnlite.runtime import memory

if TYPE_CHECKING:
    from nnlite.conv.geometry import Pads


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
def _forward_vectors(thread, num_threads, x, y, argmax, pool, strides, corner):
    """As _forward, of float32: a vector of channels at a time, its best in a register.

    The last vector of a pixel reaches into the next pixel, whose own values overwrite it; but not out of the arrays,
    nor out of what this thread computes.
    """
    n_images, h, w, c_all = x.shape
    rows, line = n_images * y.shape[1], y.shape[2] * c_all
    begin, end = thread * rows // num_threads, (thread + 1) * rows // num_threads
    for row in range(begin, end):
        n, oh = divmod(row, y.shape[1])
        top = oh * strides[0] - corner[0]
        for ow in range(y.shape[2]):
            left = ow * strides[1] - corner[1]
            inside = max(0, -top), min(pool[0], h - top), max(0, -left), min(pool[1], w - left)
            image, out = ((n * h + top) * w + left) * c_all, row * line + ow * c_all
            last = image + ((inside[1] - 1) * w + inside[3] - 1) * c_all
            for c in range(0, c_all, LANES):
                if last + c + LANES <= x.size and out + c + LANES <= end * line:
                    _forward_window(x, image + c, inside, w, c_all, pool[1], y, argmax, out + c, LANES)
                else:
                    _forward_window(x, image + c, inside, w, c_all, pool[1], y, argmax, out + c, c_all - c)


@jit(inline=True)
def _forward_window(x, image, inside, w, c_all, width, y, argmax, out, count):
    """The first `count` lanes of a vector of one window's results."""
    top, bottom, left, right = inside
    best, where = load_first(x, image + (top * w + left) * c_all, count), splat(np.float32(top * width + left))
    for r in range(top, bottom):
        for s in range(left, right):
            value = load_first(x, image + (r * w + s) * c_all, count)
            wins = ((value > best) | (value != value)) & (best == best)
            best = select(wins, value, best)
            where = select(wins, np.float32(r * width + s), where)
    store_first(y, out, best, count)
    store_bytes(argmax, out, where, count)


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
    y = memory.empty((len(x), *size, x.shape[3]), x.dtype)
    argmax = memory.empty(y.shape, np.uint8 if pool_size[0] * pool_size[1] <= 256 else np.int32)
    in_vectors = ENABLED and x.dtype == np.float32 and argmax.dtype == np.uint8
    forward = _forward_vectors if in_vectors else _forward
    forward(x, y, argmax, pool_size, strides, (pads[0][0], pads[1][0]))
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
