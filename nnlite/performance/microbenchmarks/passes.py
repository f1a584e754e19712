"""The rates of passes over memory: elementwise arithmetic, sums over rows, strided copies, pooling, updates.

NumPy passes over arrays with one thread that BLAS reads and writes with all of its threads. Without a shared cache this
takes longer. So each copy is measured after a product on the same arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np

from nnlite.conv.geometry import pooled
from nnlite.conv.work import ITEMSIZE
from nnlite.kernels import pooling, updates
from nnlite.kernels.activation import bias_gradient, relu_backward, softmax
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


def _log_softmax(x: np.ndarray, y: np.ndarray) -> np.ndarray:
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
    "softmax": Pass(2, lambda x, y: softmax(x), by_row=True),
    "log_softmax": Pass(5, _log_softmax, by_row=True),
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


def _strided(adding: bool, size: tuple[int, ...], working_set: int) -> Work:
    """Pixels copied to patches, or patches added to pixels, one kernel position after another.

    Pixels are `run` numbers, `step` apart in lines of `count`; a call takes `each` lines, or all if it is 0.
    """
    count, run, step, length, each = size
    lines = max(1, working_set // (ITEMSIZE * count * (step + length)))
    wide = ones((lines, count + 2, step))  # an image is wider than its result: lines are not contiguous
    pixels, patches, taps = wide[:, :count, :run], ones((lines, count, length)), range(0, length - run + 1, run)
    parts = [slice(first, first + (each or lines)) for first in range(0, lines, each or lines)]

    def copy() -> None:
        for tap in taps:
            for part in parts:
                patch = patches[part, :, tap : tap + run]
                if adding:
                    np.add(pixels[part], patch, out=pixels[part])
                else:
                    patch[...] = pixels[part]

    moved = float(ITEMSIZE * lines * count * run * len(taps))
    return Work(copy, (3 if adding else 2) * moved, before=_product(patches.reshape(-1, length), written=adding))


KINDS["assign"] = Kind(partial(_strided, False), "memory")
KINDS["accumulate"] = Kind(partial(_strided, True), "memory")


@kind("memory")
def shuffle(size: tuple[int, ...], working_set: int) -> Work:
    """Change the layout from (n, pixels, channels) to (n, channels, pixels), by NumPy."""
    pixels, channels = size
    images = max(1, working_set // (2 * ITEMSIZE * pixels * channels))
    x, y = ones((images, pixels, channels)), ones((images, channels, pixels))
    return Work(lambda: np.copyto(y, x.transpose(0, 2, 1)), 2.0 * x.nbytes)


# Pooling and updates -------------------------------------------------------------------------------------------------


def _pooling(back: bool, size: tuple[int, ...], working_set: int) -> Work:
    """Images of 32 x 32, as many as fill the working set together with the result of a 2x2 pooling."""
    channels, ph, pw, sh, sw, padded = size
    n = max(1, working_set // (ITEMSIZE * 32 * 32 * channels * 5 // 4))
    x = ones((n, 32, 32, channels))
    x[:] = np.random.default_rng(0).standard_normal(x.shape[1:], np.float32)
    pads = ((ph // 2, ph // 2), (pw // 2, pw // 2)) if padded else ((0, 0), (0, 0))
    how = (ph, pw), (sh, sw), pads
    forward = partial(pooling.max_pool, x, pooled((32, 32), *how)[1], *how)
    y, argmax = forward()
    moved = float(x.nbytes + y.nbytes + argmax.nbytes)
    if back:
        return Work(partial(pooling.max_pool_backward, y, argmax, x.shape, *how), moved, own=(y,))
    return Work(forward, moved, own=(x,))


KINDS["max_pool"] = Kind(partial(_pooling, False), "memory")
KINDS["max_pool_backward"] = Kind(partial(_pooling, True), "memory")


@kind("memory")
def rmsprop(size: tuple[int, ...], working_set: int) -> Work:
    """RMSprop's five passes over parameters, gradients and mean squares."""
    weight, square, gradient = (ones(max(1, working_set // (3 * ITEMSIZE))) for _ in range(3))
    numbers = [np.float32(v) for v in (1e-3, 0.9, 0.0, 1e-7, 0.0)]
    update = partial(updates.run, updates.rmsprop, [(weight, gradient, 0)], (square, None, None), *numbers)
    return Work(update, 5.0 * weight.nbytes, mixed=(weight, gradient))
