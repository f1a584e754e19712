"""The rates of NumPy's passes: products by BLAS, strided copies, elementwise arithmetic.

NumPy copies with one thread, arrays that BLAS reads and writes with all of its threads. Without a shared cache this
takes longer. So each copy is measured after a product on the same arrays.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnlite.conv.work import ITEMSIZE
from nnlite.ops import activation
from nnlite.performance.microbenchmarks.base import Work, kind, ones, operands
from nnlite.runtime import memory

#: columns of a tall-skinny product
_FEW = 4


@kind
def gemm(size: tuple[int, ...], working_set: int) -> Work:
    """NumPy's matrix product, by BLAS."""
    a, b, m, n, k = operands(size)
    a, b, out = a.T if size[3] == 1 else a, b.T if size[3] == 2 else b, memory.empty((m, n))

    def write() -> None:
        np.multiply(a, 1, out=a)
        np.multiply(b, 1, out=b)

    return Work(lambda: np.matmul(a, b, out=out), 2.0 * m * n * k, before=write)


def _product(rows: np.ndarray, written: bool) -> Callable[[], object]:
    """A product that writes `rows`, or that reads them."""
    few = ones((rows.shape[1], _FEW))
    result = ones((len(rows), _FEW))
    if written:
        return lambda: np.matmul(result, few.T, out=rows)
    return lambda: np.matmul(rows, few, out=result)


# Strided copies --------------------------------------------------------------------------------------------------


def _pattern(size: tuple[int, ...], working_set: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(pixels (lines, count, run), patches (lines, count, length), elements copied per kernel position).

    Pixels are views with a stride of `step` elements.
    """
    count, run, step, length, _ = size
    lines = max(1, working_set // (ITEMSIZE * count * (step + length)))
    wide = ones((lines, count + 2, step))  # an image is wider than its result: lines are not contiguous
    pixels = wide[:, :count, :run]
    patches = ones((lines, count, length))
    return pixels, patches, float(lines * count * run)


@kind
def assign(size: tuple[int, ...], working_set: int) -> Work:
    """Copy pixels to patches, one kernel position after another."""
    pixels, patches, numbers = _pattern(size, working_set)
    run, length = size[1], size[3]
    taps = range(0, length - run + 1, run)

    def copy() -> None:
        for tap in taps:
            patches[:, :, tap : tap + run] = pixels

    return Work(copy, 2 * ITEMSIZE * numbers * len(taps), before=_product(patches.reshape(-1, length), written=False))


@kind
def accumulate(size: tuple[int, ...], working_set: int) -> Work:
    """Add patches to pixels, one kernel position after another; in calls of size[4] lines, or of all lines."""
    pixels, patches, numbers = _pattern(size, working_set)
    run, length = size[1], size[3]
    taps = range(0, length - run + 1, run)

    each = size[4] or len(pixels)

    def add() -> None:
        for tap in taps:
            for first in range(0, len(pixels), each):
                some = slice(first, first + each)
                np.add(pixels[some], patches[some, :, tap : tap + run], out=pixels[some])

    return Work(add, 3 * ITEMSIZE * numbers * len(taps), before=_product(patches.reshape(-1, length), written=True))


@kind
def shuffle(size: tuple[int, ...], working_set: int) -> Work:
    """Change the layout from (n, pixels, channels) to (n, channels, pixels), by NumPy."""
    pixels, channels = size
    images = max(1, working_set // (2 * ITEMSIZE * pixels * channels))
    x, y = ones((images, pixels, channels)), ones((images, channels, pixels))

    def copy() -> None:
        y[...] = x.transpose(0, 2, 1)

    return Work(copy, 2.0 * x.nbytes)


@kind
def numpy_call(size: tuple[int, ...], working_set: int) -> Work:
    """Calls of a NumPy function on one number."""
    a, b, count = np.ones(1, np.float32), np.ones(1, np.float32), 200

    def calls() -> None:
        for _ in range(count):
            np.add(a, b, a)

    return Work(calls, count)


# NumPy's elementwise passes ----------------------------------------------------------------------------------------


def _flat(working_set: int, arrays: int) -> np.ndarray:
    return ones(max(1, working_set // (ITEMSIZE * arrays)))


def _rows(size: tuple[int, ...], working_set: int, arrays: int) -> np.ndarray:
    k = size[0]
    return ones((max(1, working_set // (ITEMSIZE * arrays * k)), k))


@kind
def maximum(size: tuple[int, ...], working_set: int) -> Work:
    x = _flat(working_set, 1)
    return Work(lambda: np.maximum(x, 0, out=x), 2.0 * x.nbytes, own=(x,))


@kind
def multiply(size: tuple[int, ...], working_set: int) -> Work:
    x = _flat(working_set, 2)
    return Work(lambda: x * np.float32(1), 2.0 * x.nbytes, own=(x,))


def _activation_gradient(
    gradient: Callable[[np.ndarray, np.ndarray], np.ndarray], working_set: int, arrays: float
) -> Work:
    """The gradient of an activation; its passes read and write `arrays` arrays in all."""
    count = max(1, int(working_set / (ITEMSIZE * arrays)))
    dy, y = ones(count), ones(count)
    return Work(lambda: gradient(dy, y), arrays * dy.nbytes, own=(dy, y))


@kind
def mask(size: tuple[int, ...], working_set: int) -> Work:
    return _activation_gradient(activation.relu_gradient, working_set, 3.5)


@kind
def tanh(size: tuple[int, ...], working_set: int) -> Work:
    x = _flat(working_set, 2)
    y = memory.empty(x.shape)
    return Work(lambda: np.tanh(x, out=y), 2.0 * x.nbytes, own=(x,))


@kind
def tanh_gradient(size: tuple[int, ...], working_set: int) -> Work:
    return _activation_gradient(activation.tanh_gradient, working_set, 7)


@kind
def sigmoid(size: tuple[int, ...], working_set: int) -> Work:
    x = _flat(working_set, 8)
    return Work(lambda: activation.logistic(x), 8.0 * x.nbytes, own=(x,))


@kind
def sigmoid_gradient(size: tuple[int, ...], working_set: int) -> Work:
    return _activation_gradient(activation.sigmoid_gradient, working_set, 8)


@kind
def add_row(size: tuple[int, ...], working_set: int) -> Work:
    y, bias = _rows(size, working_set, 1), np.zeros(size[0], np.float32)
    return Work(lambda: np.add(y, bias, out=y), 2.0 * y.nbytes, own=(y,), before=_product(y, written=True))


@kind
def sum_rows(size: tuple[int, ...], working_set: int) -> Work:
    y = _rows(size, working_set, 1)
    return Work(lambda: y.sum(axis=0), float(y.nbytes), own=(y,))


@kind
def softmax(size: tuple[int, ...], working_set: int) -> Work:
    x = _rows(size, working_set, 5)

    def compute() -> np.ndarray:
        shifted = x - x.max(axis=-1, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return shifted

    return Work(compute, 5.0 * x.nbytes)


@kind
def softmax_gradient(size: tuple[int, ...], working_set: int) -> Work:
    y = _rows(size, working_set, 5)
    return Work(lambda: np.exp(y) * y, 5.0 * y.nbytes)
