"""Dropout whose mask is a function of a seed and an element's position, so that nothing need be stored.

The generator is a counter-based hash: the finalizer "lowbias32" (C. Wellons, "Prospecting for Hash Functions", 2018) of
a counter, with the seed's two halves mixed in before each of two rounds. The two halves of its 32 bits decide about two
elements, so that the probability is a multiple of 2**-16. Threads share out counters; the mask does not depend on how
many threads there are.
"""

from __future__ import annotations

import numpy as np

from nnlite import memory
from nnlite.jit import jit, kernel

#: elements whose bits come from one vector of hashes: the low halves decide about the first half of them
BLOCK = 64
#: smaller arrays are one thread's work: to wake the others costs more than they save
PARALLEL_SIZE = 1 << 14


@jit(inline=True)
def _mix(bits):
    """lowbias32: 32 bits to 32 bits, one to one, each output bit hanging on every input bit."""
    bits = np.uint32(bits ^ (bits >> np.uint32(16)))
    bits = np.uint32(bits * np.uint32(0x7FEB352D))
    bits = np.uint32(bits ^ (bits >> np.uint32(15)))
    bits = np.uint32(bits * np.uint32(0x846CA68B))
    return np.uint32(bits ^ (bits >> np.uint32(16)))


@jit(inline=True)
def _hash(counter, low, high):
    return _mix(np.uint32(_mix(np.uint32(counter ^ low)) + high))


@kernel
def _apply(part, parts, x, y, low, high, threshold, scale):
    """y[i] = x[i] * scale where the random 16 bits of position i reach the threshold, else 0."""
    half = BLOCK // 2
    blocks = -(-x.size // BLOCK)
    zero = y.dtype.type(0)
    for block in range(part * blocks // parts, (part + 1) * blocks // parts):
        start = block * BLOCK
        first = np.uint32(block * half)
        size = x.size - start
        if size >= BLOCK:
            source, into = x[start : start + BLOCK], y[start : start + BLOCK]
            for i in range(half):
                bits = _hash(np.uint32(first + np.uint32(i)), low, high)
                into[i] = source[i] * scale if np.uint32(bits & np.uint32(0xFFFF)) >= threshold else zero
                into[half + i] = source[half + i] * scale if np.uint32(bits >> np.uint32(16)) >= threshold else zero
        else:
            for i in range(size):
                bits = _hash(np.uint32(first + np.uint32(i % half)), low, high)
                bits = np.uint32(bits >> np.uint32(16)) if i >= half else np.uint32(bits & np.uint32(0xFFFF))
                y[start + i] = x[start + i] * scale if bits >= threshold else zero


def apply_mask(x: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """x with each element set to 0 with probability `rate`, to the nearest 2**-16, the others divided by 1 - rate."""
    y = memory.empty(x.shape, x.dtype)
    low, high = np.uint32(seed & 0xFFFFFFFF), np.uint32((seed >> 32) & 0xFFFFFFFF)
    threshold, scale = np.uint32(round(rate * 2**16)), x.dtype.type(1 / (1 - rate))
    arguments = np.ascontiguousarray(x).reshape(-1), y.reshape(-1), low, high, threshold, scale
    with np.errstate(over="ignore"):  # uncompiled, NumPy warns of products that wrap around
        if x.size < PARALLEL_SIZE:
            _apply.serial(0, 1, *arguments)
        else:
            _apply(*arguments)
    return y
