"""Optimizer updates: one pass over all parameters, their gradients and what the optimizer remembers.

A kernel gets a table with a row for each parameter, so that one launch serves a whole model, and the threads share out
each parameter. A row tells where the parameter and its gradient begin in memory: it is made again in each step, because
a user may put another array in their place. What the optimizer remembers of all parameters lies in one array for each
slot. None stands for one that the optimizer's options do not need, and Numba compiles each such combination on its own.

A running mean is written `m += fresh * (x - m)`, not `rho * m + fresh * x`: of two products LLVM may fuse either with
the addition, and has done so differently in code just compiled and in code from the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import carray

from nnlite.compiler.compilation import ENABLED, jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.simd import array_at
from nnlite.runtime import threads

#: fewer numbers are updated by one thread
PARALLEL_SIZE = 1 << 15

#: a parameter, its gradient, both C-contiguous and of one dtype, and where in the memory its numbers begin
Row = tuple[np.ndarray, np.ndarray, int]


def run(update: kernel, rows: Sequence[Row], memory: Sequence[np.ndarray | None], *numbers: Any) -> None:
    """Call one of the kernels below; on all threads if there is much to do.

    `memory`: by slot, one flat array of the parameters' dtype, or None where the optimizer needs none.
    """
    table: Any
    if ENABLED:  # the addresses hold for this call, because `rows` holds the arrays
        table = np.empty((len(rows), 4), np.int64)
        for i, (w, g, begin) in enumerate(rows):
            _locate(table, i, w.ravel(), g.ravel(), begin)
    else:
        table = [(w.size, w, g, begin) for w, g, begin in rows]
    size = sum([w.size for w, _, _ in rows])
    like = np.empty(0, rows[0][0].dtype)
    update.run(threads.parts_for(size, PARALLEL_SIZE), table, like, *memory, *numbers)


@jit
def _locate(table, row, w, g, begin):
    """Write a row: the parameter's size, where its numbers and its gradient's begin in memory, and `begin`."""
    table[row, 0], table[row, 1], table[row, 2], table[row, 3] = w.size, w.ctypes.data, g.ctypes.data, begin


if ENABLED:

    @jit(inline=True)
    def _share(thread, num_threads, table, row, like):
        """A thread's equal share of a row: of the parameter, its gradient, and (first, last) of it in each slot."""
        size, begin = table[row][0], table[row][3]
        first, last = thread * size // num_threads, (thread + 1) * size // num_threads
        w = carray(array_at(table[row][1] + first * like.itemsize, like), (last - first,))
        g = carray(array_at(table[row][2] + first * like.itemsize, like), (last - first,))
        return w, g, begin + first, begin + last

else:

    def _share(thread, num_threads, table, row, like):
        size, w, g, begin = table[row]
        first, last = thread * size // num_threads, (thread + 1) * size // num_threads
        return w.reshape(-1)[first:last], g.reshape(-1)[first:last], begin + first, begin + last


@kernel
def rmsprop(
    thread, num_threads, table, like, squares, averages, speeds, rate, rho, momentum, epsilon_inside, epsilon_outside
):
    """w -= rate * g / (sqrt(variance + epsilon_inside) + epsilon_outside), where one of the two is 0.

    Memory: running mean of g^2, of g (or None), speed (or None).
    """
    zero, fresh = like.dtype.type(0), like.dtype.type(1) - rho
    for row in range(len(table)):
        w, g, first, last = _share(thread, num_threads, table, row, like)
        square = squares[first:last]
        if averages is not None:
            mean = averages[first:last]
        if speeds is not None:
            velocity = speeds[first:last]
        for i in range(w.size):
            square[i] += fresh * (g[i] * g[i] - square[i])
            variance = square[i]
            if averages is not None:
                mean[i] += fresh * (g[i] - mean[i])
                variance = variance - mean[i] * mean[i]
                variance = zero if variance < zero else variance  # rounding alone makes it negative; a NaN stays
            step = rate * g[i] / (np.sqrt(variance + epsilon_inside) + epsilon_outside)
            if speeds is not None:
                velocity[i] = momentum * velocity[i] + step
                step = velocity[i]
            w[i] -= step


@kernel
def sgd(thread, num_threads, table, like, speeds, rate, momentum, nesterov):
    """speed = momentum * speed - rate * g; w += speed, or with Nesterov's look ahead. Memory: speed (or None)."""
    for row in range(len(table)):
        w, g, first, last = _share(thread, num_threads, table, row, like)
        if speeds is not None:
            velocity = speeds[first:last]
        for i in range(w.size):
            step = -rate * g[i]
            if speeds is not None:
                velocity[i] = momentum * velocity[i] + step
                step = momentum * velocity[i] + step if nesterov else velocity[i]
            w[i] += step


@kernel
def adam(thread, num_threads, table, like, means, squares, rate, beta_1, beta_2, epsilon):
    """w -= rate * mean / (sqrt(square) + epsilon); `rate` holds the bias correction. Memory: mean, square."""
    fresh_1, fresh_2 = like.dtype.type(1) - beta_1, like.dtype.type(1) - beta_2
    for row in range(len(table)):
        w, g, first, last = _share(thread, num_threads, table, row, like)
        mean, square = (
            means[first:last],
            squares[first:last],
        )
        for i in range(w.size):
            mean[i] += fresh_1 * (g[i] - mean[i])
            square[i] += fresh_2 * (g[i] * g[i] - square[i])
            w[i] -= rate * mean[i] / (np.sqrt(square[i]) + epsilon)


@kernel
def adadelta(thread, num_threads, table, like, squares, moves, rate, rho, epsilon):
    """w -= rate * g * rms(moved) / rms(g). Memory: running means of g^2 and of the steps' squares."""
    fresh = like.dtype.type(1) - rho
    for row in range(len(table)):
        w, g, first, last = _share(thread, num_threads, table, row, like)
        square, moved = (
            squares[first:last],
            moves[first:last],
        )
        for i in range(w.size):
            square[i] += fresh * (g[i] * g[i] - square[i])
            step = -g[i] * np.sqrt(moved[i] + epsilon) / np.sqrt(square[i] + epsilon)
            moved[i] += fresh * (step * step - moved[i])
            w[i] += rate * step
