"""Dropout whose mask is a function of a seed and an element's position, so that nothing need be stored.

The generator is a counter-based hash: the finalizer "lowbias32" (C. Wellons, "Prospecting for Hash Functions", 2018) of
the position, with the seed's two halves mixed in before each of two rounds. Threads share out positions; the mask does
not depend on how many there are.
"""

from __future__ import annotations

import numpy as np

from nnlite import memory
from nnlite.jit import jit, kernel


@jit(inline=True)
def _mix(bits):
    """lowbias32: 32 bits to 32 bits, one to one, each output bit hanging on every input bit."""
    bits = np.uint32(bits ^ (bits >> np.uint32(16)))
    bits = np.uint32(bits * np.uint32(0x7FEB352D))
    bits = np.uint32(bits ^ (bits >> np.uint32(15)))
    bits = np.uint32(bits * np.uint32(0x846CA68B))
    return np.uint32(bits ^ (bits >> np.uint32(16)))


@kernel
def _apply(part, parts, x, y, low, high, threshold, scale):
    """y[i] = x[i] * scale where the random 32 bits of position i reach the threshold, else 0."""
    start, stop = part * x.size // parts, (part + 1) * x.size // parts
    x, y = x[start:stop], y[start:stop]
    zero = y.dtype.type(0)
    position = np.uint32(start)  # counted in 32 bits: computed from a 64-bit index, it would halve the vectors
    for i in range(x.size):
        bits = _mix(np.uint32(_mix(np.uint32(position ^ low)) + high))
        y[i] = x[i] * scale if bits >= threshold else zero
        position = np.uint32(position + np.uint32(1))


def apply_mask(x: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """x with each element set to 0 with probability `rate`, the others divided by 1 - rate."""
    y = memory.empty(x.shape, x.dtype)
    low, high = np.uint32(seed & 0xFFFFFFFF), np.uint32((seed >> 32) & 0xFFFFFFFF)
    scale = x.dtype.type(1 / (1 - rate))
    with np.errstate(over="ignore"):  # uncompiled, NumPy warns of products that wrap around
        _apply(np.ascontiguousarray(x).reshape(-1), y.reshape(-1), low, high, np.uint32(rate * 2**32), scale)
    return y
