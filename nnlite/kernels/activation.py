"""The gradient of ReLU and of a bias, in one pass."""

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
