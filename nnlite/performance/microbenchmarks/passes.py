"""The rates of passes over memory: elementwise arithmetic, sums over rows, strided copies, pooling, updates.

NumPy passes over arrays with one thread that BLAS reads and writes with all of its threads. Without a shared cache this
takes longer. So each copy is measured after a product on the same arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from nnlite.conv.geometry import pooled
from nnlite.conv.work import ITEMSIZE
from nnlite.kernels import pooling, updates
from nnlite.kernels.activation import bias_gradient, relu_backward
from nnlite.kernels.crossentropy import sparse_from_logits
from nnlite.kernels.dropout import apply_mask
from nnlite.ops.activation import logistic, relu_gradient, sigmoid_gradient, tanh_gradient
from nnlite.performance.microbenchmarks.base import KINDS, Kind, Work, kind, ones

# Passes over whole arrays --------------------------------------------------------------------------------------------


class Pass(NamedTuple):
    """A pass over x and y, two arrays of one shape."""

    arrays: float  # of that size, that it reads or writes in all
    run: Callable[[np.ndarray, np.ndarray], object]
    by_row: bool = False  # whether the rate depends on the length of a row, the size of the work item


def _softmax(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def _crossentropy(x: np.ndarray, y: np.ndarray) -> object:
    return sparse_from_logits(x, np.zeros(len(x), np.int64))


#: kind -> its pass
PASSES = {
    "maximum": Pass(2, lambda x, y: np.maximum(x, 0, out=x)),
    "multiply": Pass(2, lambda x, y: x * np.float32(1)),
    "mask": Pass(3.5, relu_gradient),  # it writes a byte each for the mask, and reads it again
    "tanh": Pass(2, lambda x, y: np.tanh(x, out=y)),
    "tanh_gradient": Pass(7, tanh_gradient),  # dy * (1 - y * y): three passes
    "sigmoid": Pass(8, lambda x, y: logistic(x)),  # 1 / (1 + e ** -x): four
    "sigmoid_gradient": Pass(8, sigmoid_gradient),  # dy * y * (1 - y): three
    "dropout": Pass(2, lambda x, y: apply_mask(x, 0.25, 1)),
    "add_row": Pass(2, lambda x, y: np.add(x, y[0], out=x), by_row=True),
    "sum_rows": Pass(1, lambda x, y: x.sum(axis=0), by_row=True),
    "softmax": Pass(5, _softmax, by_row=True),
    "softmax_gradient": Pass(5, lambda x, y: np.exp(x) * x, by_row=True),
    "crossentropy": Pass(2, _crossentropy, by_row=True),
    "relu_backward": Pass(3, relu_backward, by_row=True),
    "bias_gradient": Pass(1, lambda x, y: bias_gradient(x), by_row=True),
}


def _make(name: str, size: tuple[int, ...], working_set: int) -> Work:
    arrays, run, _ = PASSES[name]
    rows = max(1, int(working_set / (ITEMSIZE * arrays * prod(size))))
    x, y = ones((rows, *size)), ones((rows, *size))
    before = _product(x, written=True) if name == "add_row" else None
    return Work(lambda: run(x, y), arrays * x.nbytes, own=(x, y), before=before)


KINDS.update({name: Kind(partial(_make, name), "memory") for name in PASSES})


def _product(rows: np.ndarray, written: bool) -> Callable[[], object]:
    """A product that writes `rows`, or that reads them."""
    few = ones((rows.shape[1], 4))
    result = ones((len(rows), 4))
    if written:
        return lambda: np.matmul(result, few.T, out=rows)
    return lambda: np.matmul(rows, few, out=result)


# Strided copies --------------------------------------------------------------------------------------------------


def _pattern(size: tuple[int, ...], working_set: int) -> tuple[np.ndarray, np.ndarray, range, float]:
    """(pixels (lines, count, run), patches (lines, count, length), kernel positions, elements copied in all).

    Pixels are views with a stride of `step` elements.
    """
    count, run, step, length, _ = size
    lines = max(1, working_set // (ITEMSIZE * count * (step + length)))
    wide = ones((lines, count + 2, step))  # an image is wider than its result: lines are not contiguous
    taps = range(0, length - run + 1, run)
    return wide[:, :count, :run], ones((lines, count, length)), taps, float(lines * count * run * len(taps))


@kind("memory")
def assign(size: tuple[int, ...], working_set: int) -> Work:
    """Copy pixels to patches, one kernel position after another."""
    pixels, patches, taps, numbers = _pattern(size, working_set)

    def copy() -> None:
        for tap in taps:
            patches[:, :, tap : tap + size[1]] = pixels

    return Work(copy, 2 * ITEMSIZE * numbers, before=_product(patches.reshape(-1, size[3]), written=False))


@kind("memory")
def accumulate(size: tuple[int, ...], working_set: int) -> Work:
    """Add patches to pixels, one kernel position after another; in calls of size[4] lines, or of all lines."""
    pixels, patches, taps, numbers = _pattern(size, working_set)
    each = size[4] or len(pixels)

    def add() -> None:
        for tap in taps:
            for first in range(0, len(pixels), each):
                some = slice(first, first + each)
                np.add(pixels[some], patches[some, :, tap : tap + size[1]], out=pixels[some])

    return Work(add, 3 * ITEMSIZE * numbers, before=_product(patches.reshape(-1, size[3]), written=True))


@kind("memory")
def shuffle(size: tuple[int, ...], working_set: int) -> Work:
    """Change the layout from (n, pixels, channels) to (n, channels, pixels), by NumPy."""
    pixels, channels = size
    images = max(1, working_set // (2 * ITEMSIZE * pixels * channels))
    x, y = ones((images, pixels, channels)), ones((images, channels, pixels))
    return Work(lambda: np.copyto(y, x.transpose(0, 2, 1)), 2.0 * x.nbytes)


# Pooling and updates -------------------------------------------------------------------------------------------------


def _pooling(size: tuple[int, ...], working_set: int) -> tuple[np.ndarray, tuple[Any, ...]]:
    """(images of 32 x 32, as many as fill the working set together with the result of a 2x2 pooling; how to pool)"""
    channels, ph, pw, sh, sw, padded = size
    n = max(1, working_set // (ITEMSIZE * 32 * 32 * channels * 5 // 4))
    x = ones((n, 32, 32, channels))
    x[:] = np.random.default_rng(0).standard_normal(x.shape[1:], np.float32)
    pads = ((ph // 2, ph // 2), (pw // 2, pw // 2)) if padded else ((0, 0), (0, 0))
    _, result = pooled((32, 32), (ph, pw), (sh, sw), pads)
    return x, (result, (ph, pw), (sh, sw), pads)


@kind("memory")
def max_pool(size: tuple[int, ...], working_set: int) -> Work:
    x, how = _pooling(size, working_set)
    y, argmax = pooling.max_pool(x, *how)
    return Work(lambda: pooling.max_pool(x, *how), float(x.nbytes + y.nbytes + argmax.nbytes), own=(x,))


@kind("memory")
def max_pool_backward(size: tuple[int, ...], working_set: int) -> Work:
    x, how = _pooling(size, working_set)
    y, argmax = pooling.max_pool(x, *how)
    run = partial(pooling.max_pool_backward, y, argmax, x.shape, *how[1:])
    return Work(run, float(x.nbytes + y.nbytes + argmax.nbytes), own=(y,))


@kind("memory")
def rmsprop(size: tuple[int, ...], working_set: int) -> Work:
    """RMSprop's five passes over parameters, gradients and mean squares."""
    weight, square, gradient = (ones(max(1, working_set // (3 * ITEMSIZE))) for _ in range(3))
    numbers = [np.float32(v) for v in (1e-3, 0.9, 0.0, 1e-7, 0.0)]
    update = partial(updates.run, updates.rmsprop, [(weight, gradient, 0)], (square, None, None), *numbers)
    return Work(update, 5.0 * weight.nbytes, mixed=(weight, gradient))
