"""Optimizer updates: one pass over all parameters, their gradients and what the optimizer remembers.

A kernel gets a table of flat arrays, a row a parameter, so that one launch serves a whole model, and the
threads share out each parameter. None stands for a memory that the optimizer's options do not need, and Numba compiles
each such combination on its own.

A running mean is written `m += fresh * (x - m)`, not `rho * m + fresh * x`: of two products LLVM may fuse either with
the addition, and has done so differently in code just compiled and in code from the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import carray

from nnlite import threads
from nnlite.jit import ENABLED, jit, kernel
from nnlite.simd import array_at

#: fewer numbers are updated by one thread
PARALLEL_SIZE = 1 << 15


class Table:
    """Parameters of one dtype and what is remembered of them, C-contiguous arrays, as the kernels below find them.

    `rows`: (w, *state), None where the optimizer needs no such memory. Addresses are looked up once.
    """

    def __init__(self, rows: Sequence[tuple[np.ndarray | None, ...]]):
        self.rows = rows
        self.parameters = [row[0] for row in rows if row[0] is not None]
        self.size = sum(w.size for w in self.parameters)
        self.like = np.empty(0, self.parameters[0].dtype)
        #: (rows, 2 + arrays): size, then where each array's numbers begin; 0 for None, and for gradients until a step
        self.addresses = np.zeros((len(rows), 2 + len(rows[0])), np.int64)
        for i, (w, row) in enumerate(zip(self.parameters, rows, strict=True)):
            self.addresses[i] = w.size, _address(w), 0, *map(_address, row[1:])

    def run(self, update: kernel, gradients: Sequence[np.ndarray], *arguments: Any) -> None:
        """Call one of the kernels below, given a C-contiguous gradient a row; on all threads if there is much to do."""
        table: Any = self.addresses
        if ENABLED:
            self.addresses[:, 2] = [_address(g) for g in gradients]
        else:
            table = [(None, row[0], g, *row[1:]) for row, g in zip(self.rows, gradients, strict=True)]
        update.run(threads.parts_for(self.size, PARALLEL_SIZE), table, self.like, *arguments)


def _address(array: np.ndarray | None) -> int:
    return 0 if array is None else _first_number(array.reshape(-1))


@jit
def _first_number(array):
    """Where an array's numbers begin in memory."""
    return array.ctypes.data


if ENABLED:

    @jit(inline=True)
    def _share(part, parts, table, row, column, like):
        """The part-th of `parts` equal pieces of an array of the table, of the dtype of `like`."""
        size = table[row, 0]
        first, last = part * size // parts, (part + 1) * size // parts
        return carray(array_at(table[row, 1 + column] + first * like.itemsize, like), (last - first,))

else:

    def _share(part, parts, table, row, column, like):
        array = table[row][1 + column].reshape(-1)
        return array[part * array.size // parts : (part + 1) * array.size // parts]


@kernel
def rmsprop(part, parts, table, like, average, speed, rate, rho, momentum, epsilon_inside, epsilon_outside):
    """w -= rate * g / (sqrt(variance + epsilon_inside) + epsilon_outside), where one of the two is 0.

    Rows of the table: w, g, running mean of g^2, of g (or None), speed (or None).
    """
    zero, fresh = like.dtype.type(0), like.dtype.type(1) - rho
    for row in range(len(table)):
        w, g = _share(part, parts, table, row, 0, like), _share(part, parts, table, row, 1, like)
        square = _share(part, parts, table, row, 2, like)
        if average is not None:
            mean = _share(part, parts, table, row, 3, like)
        if speed is not None:
            velocity = _share(part, parts, table, row, 4, like)
        for i in range(w.size):
            square[i] += fresh * (g[i] * g[i] - square[i])
            variance = square[i]
            if average is not None:
                mean[i] += fresh * (g[i] - mean[i])
                variance = variance - mean[i] * mean[i]
                variance = zero if variance < zero else variance  # rounding alone makes it negative; a NaN stays
            step = rate * g[i] / (np.sqrt(variance + epsilon_inside) + epsilon_outside)
            if speed is not None:
                velocity[i] = momentum * velocity[i] + step
                step = velocity[i]
            w[i] -= step


@kernel
def sgd(part, parts, table, like, speed, rate, momentum, nesterov):
    """speed = momentum * speed - rate * g; w += speed, or with Nesterov's look ahead. Rows: w, g, speed (or None)."""
    for row in range(len(table)):
        w, g = _share(part, parts, table, row, 0, like), _share(part, parts, table, row, 1, like)
        if speed is not None:
            velocity = _share(part, parts, table, row, 2, like)
        for i in range(w.size):
            step = -rate * g[i]
            if speed is not None:
                velocity[i] = momentum * velocity[i] + step
                step = momentum * velocity[i] + step if nesterov else velocity[i]
            w[i] += step


@kernel
def adam(part, parts, table, like, rate, beta_1, beta_2, epsilon):
    """w -= rate * mean / (sqrt(square) + epsilon); `rate` holds the bias correction. Rows: w, g, mean, square."""
    fresh_1, fresh_2 = like.dtype.type(1) - beta_1, like.dtype.type(1) - beta_2
    for row in range(len(table)):
        w, g = _share(part, parts, table, row, 0, like), _share(part, parts, table, row, 1, like)
        mean, square = _share(part, parts, table, row, 2, like), _share(part, parts, table, row, 3, like)
        for i in range(w.size):
            mean[i] += fresh_1 * (g[i] - mean[i])
            square[i] += fresh_2 * (g[i] * g[i] - square[i])
            w[i] -= rate * mean[i] / (np.sqrt(square[i]) + epsilon)


@kernel
def adadelta(part, parts, table, like, rate, rho, epsilon):
    """w -= rate * g * rms(moved) / rms(g). Rows: w, g, running means of g^2 and of the steps' squares."""
    fresh = like.dtype.type(1) - rho
    for row in range(len(table)):
        w, g = _share(part, parts, table, row, 0, like), _share(part, parts, table, row, 1, like)
        square, moved = _share(part, parts, table, row, 2, like), _share(part, parts, table, row, 3, like)
        for i in range(w.size):
            square[i] += fresh * (g[i] * g[i] - square[i])
            step = -g[i] * np.sqrt(moved[i] + epsilon) / np.sqrt(square[i] + epsilon)
            moved[i] += fresh * (step * step - moved[i])
            w[i] += rate * step
