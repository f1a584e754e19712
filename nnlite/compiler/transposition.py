"""Blocks of LANES x LANES numbers transposed in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from nnlite.compiler.target import LANES
from nnlite.compiler.values import INTS, VECTOR, address_value, index_value, load_value, store_value


@intrinsic
def transpose(typing, source, offset, step, out, out_offset, out_step):
    """out[out_offset + i * out_step + j] = source[offset + j * step + i] for all i and j below LANES."""

    def emit(context, builder, sig, args):
        block = _load_block(context, builder, sig.args[0], args[0], args[1], args[2])
        _store_transposed(context, builder, block, sig.args[3], *args[3:])
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(source, i64, i64, out, i64, i64), emit


@intrinsic
def transpose_positive(typing, source, condition, offset, step, out, out_offset, out_step):
    """As `transpose`, with zero in place of numbers where `condition`, which lies as `source` does, is not above 0."""

    def emit(context, builder, sig, args):
        block = _load_block(context, builder, sig.args[0], args[0], args[2], args[3])
        conditions = _load_block(context, builder, sig.args[1], args[1], args[2], args[3])
        zero = ir.Constant(VECTOR, None)
        for i, condition in enumerate(conditions):
            block[i] = builder.select(builder.fcmp_ordered(">", condition, zero), block[i], zero)
        _store_transposed(context, builder, block, sig.args[4], *args[4:])
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(source, condition, i64, i64, out, i64, i64), emit


def _load_block(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, step: Any) -> list:
    """LANES vectors, `step` apart."""
    start = address_value(context, builder, array_type, array, offset)
    return [load_value(builder, builder.gep(start, [builder.mul(step, index_value(i))])) for i in range(LANES)]


def _store_transposed(
    context: Any, builder: Any, block: list, array_type: Any, array: Any, offset: Any, step: Any
) -> None:
    stride = 1
    while stride < LANES:  # swap the off-diagonal quarters of ever larger blocks
        low = [lane ^ stride | LANES if lane & stride else lane for lane in range(LANES)]
        high = [lane | LANES if lane & stride else lane ^ stride for lane in range(LANES)]
        for i in range(LANES):
            if not i & stride:
                pair = block[i], block[i | stride]
                block[i] = builder.shuffle_vector(*pair, ir.Constant(INTS, low))
                block[i | stride] = builder.shuffle_vector(*pair, ir.Constant(INTS, high))
        stride *= 2
    start = address_value(context, builder, array_type, array, offset)
    for i, row in enumerate(block):
        store_value(builder, row, builder.gep(start, [builder.mul(step, index_value(i))]))
