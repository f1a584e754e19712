"""Optimizer updates: one pass over parameter, gradient and what the optimizer remembers.

All arrays are flat and of one dtype; None stands for a memory that the optimizer's options do not need, and Numba
compiles each such combination on its own. A part of the work is cut off before its loop, because an index that starts
at 0 cannot be negative, which lets LLVM use vectors: the loops then run at the speed of memory.

A running mean is written `m += fresh * (x - m)`, not `rho * m + fresh * x`: of two products LLVM may fuse either with
the addition, and has done so differently in code just compiled and in code from the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.jit import jit, kernel

#: smaller parameters are updated by one thread: to wake the others costs more than they save
PARALLEL_SIZE = 1 << 15


def run(update: kernel, w: np.ndarray, *arguments: Any) -> None:
    """Call one of the kernels below on the parameter w, on all threads if it is large."""
    if w.size < PARALLEL_SIZE:
        update.serial(0, 1, w, *arguments)
    else:
        update(w, *arguments)


@jit(inline=True)
def _share(part, parts, array):
    """The part-th of `parts` equal pieces of a flat array."""
    return array[part * array.size // parts : (part + 1) * array.size // parts]


@kernel
def rmsprop(part, parts, w, g, square, average, speed, rate, rho, momentum, epsilon_inside, epsilon_outside):
    """w -= rate * g / (sqrt(variance + epsilon_inside) + epsilon_outside), where one of the two is 0."""
    zero, fresh = w.dtype.type(0), w.dtype.type(1) - rho
    w, g, square = _share(part, parts, w), _share(part, parts, g), _share(part, parts, square)
    if average is not None:
        mean = _share(part, parts, average)
    if speed is not None:
        velocity = _share(part, parts, speed)
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
def sgd(part, parts, w, g, speed, rate, momentum, nesterov):
    """speed = momentum * speed - rate * g; w += speed, or with Nesterov's look ahead."""
    w, g = _share(part, parts, w), _share(part, parts, g)
    if speed is not None:
        velocity = _share(part, parts, speed)
    for i in range(w.size):
        step = -rate * g[i]
        if speed is not None:
            velocity[i] = momentum * velocity[i] + step
            step = momentum * velocity[i] + step if nesterov else velocity[i]
        w[i] += step


@kernel
def adam(part, parts, w, g, mean, square, rate, beta_1, beta_2, epsilon):
    """w -= rate * mean / (sqrt(square) + epsilon); `rate` holds the bias correction."""
    fresh_1, fresh_2 = w.dtype.type(1) - beta_1, w.dtype.type(1) - beta_2
    w, g = _share(part, parts, w), _share(part, parts, g)
    mean, square = _share(part, parts, mean), _share(part, parts, square)
    for i in range(w.size):
        mean[i] += fresh_1 * (g[i] - mean[i])
        square[i] += fresh_2 * (g[i] * g[i] - square[i])
        w[i] -= rate * mean[i] / (np.sqrt(square[i]) + epsilon)


@kernel
def adadelta(part, parts, w, g, square, moved, rate, rho, epsilon):
    """w -= rate * g * rms(moved) / rms(g)"""
    fresh = w.dtype.type(1) - rho
    w, g = _share(part, parts, w), _share(part, parts, g)
    square, moved = _share(part, parts, square), _share(part, parts, moved)
    for i in range(w.size):
        square[i] += fresh * (g[i] * g[i] - square[i])
        step = -g[i] * np.sqrt(moved[i] + epsilon) / np.sqrt(square[i] + epsilon)
        moved[i] += fresh * (step * step - moved[i])
        w[i] += rate * step
