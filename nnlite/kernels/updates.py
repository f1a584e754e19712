"""Optimizer updates: one pass over parameter, gradient and what the optimizer remembers."""

from __future__ import annotations

import numpy as np

from nnlite.jit import kernel


@kernel
def rmsprop(part, parts, w, g, square, average, speed, rate, rho, momentum, epsilon, centered, inside):
    """w -= rate * g / sqrt(square + epsilon), or with epsilon outside of the root; arrays are flat."""
    one = w.dtype.type(1)
    for i in range(part * w.size // parts, (part + 1) * w.size // parts):
        square[i] = rho * square[i] + (one - rho) * g[i] * g[i]
        variance = square[i]
        if centered:
            average[i] = rho * average[i] + (one - rho) * g[i]
            variance = variance - average[i] * average[i]
        if inside:
            step = rate * g[i] / np.sqrt(variance + epsilon)
        else:
            step = rate * g[i] / (np.sqrt(variance) + epsilon)
        if momentum > 0:
            speed[i] = momentum * speed[i] + step
            step = speed[i]
        w[i] -= step


@kernel
def sgd(part, parts, w, g, speed, rate, momentum, nesterov):
    """speed = momentum * speed - rate * g; w += speed, or with Nesterov's look ahead."""
    for i in range(part * w.size // parts, (part + 1) * w.size // parts):
        step = -rate * g[i]
        if momentum > 0:
            speed[i] = momentum * speed[i] + step
            step = momentum * speed[i] + step if nesterov else speed[i]
        w[i] += step


@kernel
def adam(part, parts, w, g, mean, square, rate, beta_1, beta_2, epsilon):
    """w -= rate * mean / (sqrt(square) + epsilon); `rate` holds the bias correction."""
    one = w.dtype.type(1)
    for i in range(part * w.size // parts, (part + 1) * w.size // parts):
        mean[i] += (g[i] - mean[i]) * (one - beta_1)
        square[i] += (g[i] * g[i] - square[i]) * (one - beta_2)
        w[i] -= rate * mean[i] / (np.sqrt(square[i]) + epsilon)


@kernel
def adadelta(part, parts, w, g, square, moved, rate, rho, epsilon):
    """w -= rate * g * rms(moved) / rms(g)"""
    one = w.dtype.type(1)
    for i in range(part * w.size // parts, (part + 1) * w.size // parts):
        square[i] = rho * square[i] + (one - rho) * g[i] * g[i]
        step = -g[i] * np.sqrt(moved[i] + epsilon) / np.sqrt(square[i] + epsilon)
        moved[i] = rho * moved[i] + (one - rho) * step * step
        w[i] += rate * step
