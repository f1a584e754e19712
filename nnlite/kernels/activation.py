"""Softmax, and the gradient of ReLU and of a bias, each in one pass."""

from __future__ import annotations

import numpy as np

from nnlite.compiler.launch import kernel
from nnlite.runtime import memory, threads
from nnlite.runtime.replay import summed

#: smaller arrays are one thread's work
PARALLEL_SIZE = 1 << 14


@kernel
def _backward(thread, num_threads, dy, y, scale, masked, sums):
    """masked = dy * scale where y > 0, else 0; sums[thread] = its sum over this thread's rows."""
    begin, end = thread * dy.shape[0] // num_threads, (thread + 1) * dy.shape[0] // num_threads
    total = sums[thread]
    total[:] = 0
    for i in range(begin, end):
        into, gradient, value = masked[i], dy[i], y[i]
        for j in range(dy.shape[1]):
            flowing = gradient[j] * scale if value[j] > 0 else gradient.dtype.type(0)
            into[j] = flowing
            total[j] += flowing


@kernel
def _sum(thread, num_threads, dy, sums):
    """sums[thread] = the sum over this thread's rows of dy."""
    begin, end = thread * dy.shape[0] // num_threads, (thread + 1) * dy.shape[0] // num_threads
    total = sums[thread]
    total[:] = 0
    for i in range(begin, end):
        gradient = dy[i]
        for j in range(dy.shape[1]):
            total[j] += gradient[j]


@kernel
def _softmax(thread, num_threads, x, y):
    """y = e ** (x - its row's largest), divided by its sum: a share of the rows."""
    n = x.shape[1]
    for i in range(thread * x.shape[0] // num_threads, (thread + 1) * x.shape[0] // num_threads):
        row, into = x[i], y[i]
        largest, total = row[0], row.dtype.type(0)
        for j in range(1, n):
            largest = row[j] if row[j] > largest or row[j] != row[j] else largest
        for j in range(n):
            into[j] = np.exp(row[j] - largest)
        for j in range(n):  # by itself: beside what is stored, its order would depend on where the arrays lie
            total += into[j]
        for j in range(n):
            into[j] /= total


def softmax(x: np.ndarray) -> np.ndarray:
    """e ** x / sum(e ** x) of each row: x (m, n), n at least 1 -> (m, n)."""
    y = memory.empty(x.shape, x.dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # uncompiled, NumPy warns where compiled code does not
        _softmax.run(threads.parts_for(x.size, PARALLEL_SIZE), x, y)
    return y


def relu_backward(dy: np.ndarray, y: np.ndarray, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(dy * scale where y > 0, else 0; its sum over rows): dy and y (m, n) -> (m, n), (n)."""
    masked = memory.empty(dy.shape, dy.dtype)
    sums = np.empty((threads.parts_for(dy.size, PARALLEL_SIZE), dy.shape[1]), dy.dtype)
    _backward.run(len(sums), dy, y, dy.dtype.type(scale), masked, sums)
    return masked, _total(sums)


def bias_gradient(dy: np.ndarray) -> np.ndarray:
    """The sum over rows of dy (m, n) -> (n)."""
    sums = np.empty((threads.parts_for(dy.size, PARALLEL_SIZE), dy.shape[1]), dy.dtype)
    _sum.run(len(sums), dy, sums)
    return _total(sums)


def _total(sums: np.ndarray) -> np.ndarray:
    return sums[0] if len(sums) == 1 else summed(sums)
