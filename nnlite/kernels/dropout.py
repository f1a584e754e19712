"""Dropout whose mask is a function of a seed and an element's position, so that nothing need be stored.

The generator is a counter-based hash: the finalizer "lowbias32" (C. Wellons, "Prospecting for Hash Functions", 2018) of
a counter, with half of a key mixed in before each of two rounds. The two halves of its 32 bits decide about two
neighbours, so that the probability is a multiple of 2**-16. The key is the seed after the output function of SplitMix64
(Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014): with seeds themselves as keys, the masks
of 3 and 4 would be the same one in another order. Threads share out positions; the mask does not depend on how many
threads there are.

Vectors of 32-bit integers are asked for: Numba multiplies uint32 in 64 bits, and LLVM does not narrow that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnlite.compiler.compilation import ENABLED, jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.simd import pointer
from nnlite.compiler.target import LANES
from nnlite.compiler.values import I32, INTS, address_value
from nnlite.runtime import memory, threads
from nnlite.runtime.random import Seed, mask_seed

#: elements that a vector of hashes decides about
BLOCK = 2 * LANES
#: smaller arrays are one thread's work
PARALLEL_SIZE = 1 << 14
#: lowbias32: 32 bits to 32 bits, one to one, each output bit depending on every input bit: (shift right, factor), then
#: another shift
_ROUNDS, _LAST_SHIFT = ((16, 0x7FEB352D), (15, 0x846CA68B)), 16


class Mask(NamedTuple):
    """A mask as kernels take it: the seed, the largest 16 bits that are dropped, what multiplies the others.

    The 16 bits are a signed number, which AVX2 compares in one instruction.
    """

    seed: np.ndarray  # (1), uint64
    dropped: int
    scale: float

    @classmethod
    def of(cls, rate: float, seed: Seed) -> Mask:
        """The mask of a rate, to the nearest 2**-16 and at least that, and a seed."""
        return cls(mask_seed("seed", seed), max(1, round(rate * 2**16)) - 1 - 2**15, 1 / (1 - rate))


@jit
def _key(mask):
    """The halves of SplitMix64's first number: 64 bits to 64 bits, one to one, from the seed."""
    bits = np.uint64(mask.seed[0] + np.uint64(0x9E3779B97F4A7C15))
    bits = np.uint64((bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9))
    bits = np.uint64((bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB))
    bits = np.uint64(bits ^ (bits >> np.uint64(31)))
    return np.uint32(bits & np.uint64(0xFFFFFFFF)), np.uint32(bits >> np.uint64(32))


@jit
def drops(mask):
    """Whether a mask changes anything."""
    return mask.scale != 1


# One element -------------------------------------------------------------------------------------------------------


@jit(inline=True)
def _mix(bits):
    """lowbias32 of a number."""
    for shift, factor in _ROUNDS:
        bits = np.uint32(np.uint32(bits ^ (bits >> np.uint32(shift))) * np.uint32(factor))
    return np.uint32(bits ^ (bits >> np.uint32(_LAST_SHIFT)))


@jit(inline=True)
def _survives(position, key, dropped):
    """Whether the random 16 bits of a position are above those that are dropped."""
    low, high = key
    bits = _mix(np.uint32(_mix(np.uint32(np.uint32(position // 2) ^ low)) + high))
    return np.int16(bits >> np.uint32(position % 2 * 16)) > dropped


@kernel
def _apply(thread, num_threads, x, y, mask):
    """y = x, masked: one share of the elements."""
    key, scale, zero = _key(mask), y.dtype.type(mask.scale), y.dtype.type(0)
    for i in range(thread * x.size // num_threads, (thread + 1) * x.size // num_threads):
        y[i] = x[i] * scale if _survives(i, key, mask.dropped) else zero


# A vector of hashes ------------------------------------------------------------------------------------------------


@intrinsic
def _drop_block(typing, x, y, i, position, low, high, dropped, scale):
    """y[i : i + BLOCK] = x[i : i + BLOCK], masked, where x[i] has an even position."""
    halves, floats = (ir.VectorType(typ, BLOCK) for typ in (ir.IntType(16), ir.FloatType()))

    def emit(context, builder, sig, args):
        x, y, i, position, low, high, dropped, scale = args
        counters = builder.add(_splat(builder, builder.lshr(position, position.type(1)), INTS), INTS([*range(LANES)]))
        bits = _mixed(builder, builder.xor(counters, _splat(builder, low, INTS)))
        bits = _mixed(builder, builder.add(bits, _splat(builder, high, INTS)))
        survives = builder.icmp_signed(">", builder.bitcast(bits, halves), _splat(builder, dropped, halves))
        source, into = (
            builder.bitcast(address_value(context, builder, typ, array, i), floats.as_pointer())
            for typ, array in zip(sig.args[:2], (x, y), strict=True)
        )
        scaled = builder.fmul(builder.load(source, align=4), _splat(builder, scale, floats))
        builder.store(builder.select(survives, scaled, floats(None)), into, align=4)
        return context.get_dummy_value()

    seeds = types.uint32, types.uint32
    return types.void(x, y, types.int64, types.int64, *seeds, types.int16, types.float32), emit


def _mixed(builder: Any, bits: Any) -> Any:
    """lowbias32 of a vector of integers."""
    for shift, factor in _ROUNDS:
        bits = builder.mul(builder.xor(bits, builder.lshr(bits, INTS([shift] * LANES))), INTS([factor] * LANES))
    return builder.xor(bits, builder.lshr(bits, INTS([_LAST_SHIFT] * LANES)))


def _splat(builder: Any, number: Any, typ: Any) -> Any:
    """The vector of that type of which every lane is `number`, or its lowest bits."""
    number = number if number.type == typ.element else builder.trunc(number, typ.element)
    undefined = typ(ir.Undefined)
    first = builder.insert_element(undefined, number, I32(0))
    return builder.shuffle_vector(first, undefined, ir.VectorType(I32, typ.count)([0] * typ.count))


@jit
def drop(x, y, first, size, mask):
    """In a kernel: y = x, masked, for `size` elements of which the first has position `first`.

    x and y are pointers to float32, perhaps the same.
    """
    key, dropped = _key(mask), np.int16(mask.dropped)
    scale, zero = np.float32(mask.scale), np.float32(0)
    begin = min(size, first % 2)  # of the whole blocks
    end = begin + (size - begin) // BLOCK * BLOCK
    for i in range(begin):
        y[i] = x[i] * scale if _survives(first + i, key, dropped) else zero
    for i in range(begin, end, BLOCK):
        _drop_block(x, y, i, first + i, key[0], key[1], dropped, scale)
    for i in range(end, size):
        y[i] = x[i] * scale if _survives(first + i, key, dropped) else zero


@jit
def drop_in_place(y, first, size, mask):
    """As `drop`, of y itself."""
    drop(y, y, first, size, mask)


@kernel
def _apply_vectors(thread, num_threads, x, y, mask):
    """As `_apply`, of float32: one share of the blocks."""
    blocks = -(-x.size // BLOCK)
    begin, end = thread * blocks // num_threads * BLOCK, (thread + 1) * blocks // num_threads * BLOCK
    drop(pointer(x, begin), pointer(y, begin), begin, min(end, x.size) - begin, mask)


def apply_mask(x: np.ndarray, rate: float, seed: Seed) -> np.ndarray:
    """x with each element set to 0 with probability `rate`, to the nearest 2**-16, the others divided by 1 - rate."""
    x, y = np.ascontiguousarray(x), memory.empty(x.shape, x.dtype)
    apply = _apply_vectors if ENABLED and x.dtype == np.float32 else _apply
    with np.errstate(over="ignore"):  # uncompiled, NumPy warns of products that wrap around
        apply.run(threads.parts_for(x.size, PARALLEL_SIZE), x.reshape(-1), y.reshape(-1), Mask.of(rate, seed))
    return y
