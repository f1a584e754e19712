"""Dropout whose mask is a function of a seed and an element's position, so that nothing need be stored.

The generator is a counter-based hash: the finalizer "lowbias32" (C. Wellons, "Prospecting for Hash Functions", 2018) of
a counter, with the seed's two halves mixed in before each of two rounds. The two halves of its 32 bits decide about two
elements, so that the probability is a multiple of 2**-16. Threads share out counters; the mask does not depend on how
many threads there are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nnlite.compiler.compilation import jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.simd import pointer
from nnlite.runtime import memory, threads

#: elements whose bits come from one vector of hashes: the low halves decide about the first half of them
BLOCK = 64
#: smaller arrays are one thread's work
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


@jit(inline=True)
def _mask_block(source, into, block, low, high, threshold, scale, zero):
    """A whole block: one vector of hashes decides about two halves."""
    half = BLOCK // 2
    first = np.uint32(block * half)
    for i in range(half):
        bits = _hash(np.uint32(first + np.uint32(i)), low, high)
        into[i] = source[i] * scale if np.uint32(bits & np.uint32(0xFFFF)) >= threshold else zero
        into[half + i] = source[half + i] * scale if np.uint32(bits >> np.uint32(16)) >= threshold else zero


@jit(inline=True)
def _survives(position, low, high, threshold):
    """Whether the random 16 bits of a position reach the threshold."""
    half = BLOCK // 2
    within = position % BLOCK
    bits = _hash(np.uint32(position // BLOCK * half + within % half), low, high)
    bits = np.uint32(bits >> np.uint32(16)) if within >= half else np.uint32(bits & np.uint32(0xFFFF))
    return bits >= threshold


class Mask(NamedTuple):
    """A mask as kernels take it: the seed's halves, how many of 2**16 are dropped, and what multiplies the others."""

    low: int
    high: int
    threshold: int
    scale: float

    @classmethod
    def of(cls, rate: float, seed: int) -> Mask:
        """The mask of a rate, to the nearest 2**-16, and a seed."""
        return cls(seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, round(rate * 2**16), 1 / (1 - rate))


@jit(inline=True)
def _drop(x, y, first, size, mask, scale):
    """y = x * scale where a position survives, 0 elsewhere, for `size` elements from position `first` on."""
    low, high, threshold = np.uint32(mask.low), np.uint32(mask.high), np.uint32(mask.threshold)
    zero = np.float32(0)
    begin = min(size, -first % BLOCK)  # of the whole blocks
    end = begin + (size - begin) // BLOCK * BLOCK
    for i in range(begin):
        y[i] = x[i] * scale if _survives(first + i, low, high, threshold) else zero
    for start in range(begin, end, BLOCK):
        block = (first + start) // BLOCK
        _mask_block(pointer(x, start), pointer(y, start), block, low, high, threshold, scale, zero)
    for i in range(end, size):
        y[i] = x[i] * scale if _survives(first + i, low, high, threshold) else zero


@jit
def drops(mask):
    """Whether a mask changes anything."""
    return mask.scale != 1


@jit
def drop(x, y, first, size, mask):
    """In a kernel: y = x, masked, for `size` elements of which the first has position `first`; x and y are pointers."""
    _drop(x, y, first, size, mask, np.float32(mask.scale))


@jit
def drop_in_place(y, first, size, mask):
    """As `drop`, of y itself: apart, because two pointers to the same place keep LLVM from using vectors."""
    _drop(y, y, first, size, mask, np.float32(mask.scale))


@kernel
def _apply(thread, num_threads, x, y, mask):
    """y = x, masked: one share of the blocks."""
    low, high, threshold = np.uint32(mask.low), np.uint32(mask.high), np.uint32(mask.threshold)
    scale, zero = y.dtype.type(mask.scale), y.dtype.type(0)
    blocks = -(-x.size // BLOCK)
    for block in range(thread * blocks // num_threads, (thread + 1) * blocks // num_threads):
        start = block * BLOCK
        if x.size - start >= BLOCK:
            source, into = x[start : start + BLOCK], y[start : start + BLOCK]
            _mask_block(source, into, block, low, high, threshold, scale, zero)
        else:
            for i in range(start, x.size):
                y[i] = x[i] * scale if _survives(i, low, high, threshold) else zero


def apply_mask(x: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """x with each element set to 0 with probability `rate`, to the nearest 2**-16, the others divided by 1 - rate."""
    y = memory.empty(x.shape, x.dtype)
    with np.errstate(over="ignore"):  # uncompiled, NumPy warns of products that wrap around
        _apply.run(threads.parts_for(x.size, PARALLEL_SIZE), x.reshape(-1), y.reshape(-1), Mask.of(rate, seed))
    return y
