"""SIMD vectors of float32 as a Numba value type, so that a kernel reads as arithmetic.

A **vector** is LANES numbers in one register. It is loaded from and stored to an array at an element offset, and
knows `+ - *`, comparisons and `select`; scalars take part as vectors of equal lanes:

    v = 4 * load(x, i) - 5 * load(x, i + step)
    store(y, j, select(v < 0, 0, v))

How it works: a vector is an LLVM value (nnlite.compiler.values), and each function here an intrinsic that emits the few
LLVM instructions it names. How many lanes there are is a matter of the processor (nnlite.compiler.target).

Wherever an array is expected, a `pointer` into one will do. Offsets count elements from an array's start, whatever
its shape; no bounds are checked.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from nnlite.compiler.target import LANES
from nnlite.compiler.values import (
    BYTES,
    I32,
    I64,
    INTS,
    MASK,
    VECTOR,
    address_value,
    call_value,
    first_lanes_value,
    index_value,
    load_value,
    masked_load_value,
    masked_store_value,
    relu_value,
    require_array,
    splat_value,
    store_value,
)

#: sums may be fused into multiply-adds and the sign of zero ignored; NaN and infinity are honoured
_FLAGS = ("contract", "nsz")

# The types -----------------------------------------------------------------------------------------------------


class _VectorType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


class _MaskType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"mask{LANES}")


vector = _VectorType()
mask = _MaskType()


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any):
        super().__init__(dmm, fe_type, VECTOR)


@register_model(_MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any):
        super().__init__(dmm, fe_type, MASK)


# Places in memory --------------------------------------------------------------------------------------------------


@intrinsic
def array_at(typing, address, like):
    """The place at an address in memory, an integer, as a pointer to numbers of the dtype of the array `like`."""

    def emit(context, builder, sig, args):
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return types.CPointer(like.dtype)(types.int64, like), emit


@intrinsic
def pointer(typing, array, offset):
    """The place array[offset:], to be used instead of an array: `pointer(x, offset)`.

    `array` is a C-contiguous array of any dtype, or a pointer; `offset` counts elements. A pointer does not keep the
    array alive: use it in the function that has the array.
    """
    require_array("pointer", array, dtype=None)

    def emit(context, builder, sig, args):
        return address_value(context, builder, sig.args[0], *args)

    return types.CPointer(array.dtype)(array, types.int64), emit


@intrinsic
def opaque(typing, number):
    """An integer as it is, but LLVM does not know that: what is computed from it is not computed ahead in outer loops.

    Of many offsets that it would keep up to date instead, it can keep few in registers.
    """

    def emit(context, builder, sig, args):
        return builder.asm(ir.FunctionType(I64, [I64]), "", "=r,0", args, False)

    return types.int64(types.int64), emit


@intrinsic
def prefetch(typing, array, offset):
    """Ask for the cache line of array[offset:], which will be read soon; the place need not exist."""
    return types.void(array, types.int64), _emit_prefetch(write=0)


@intrinsic
def prefetch_to_write(typing, array, offset):
    """As `prefetch`, to be written soon."""
    return types.void(array, types.int64), _emit_prefetch(write=1)


def _emit_prefetch(write: int) -> Callable:
    def emit(context, builder, sig, args):
        address = builder.bitcast(address_value(context, builder, sig.args[0], *args), ir.IntType(8).as_pointer())
        locality, data = 2, 1  # into the second level of the caches; not code
        numbers = [ir.Constant(I32, number) for number in (write, locality, data)]
        call_value(builder, "llvm.prefetch.p0", ir.VoidType(), [address, *numbers])
        return context.get_dummy_value()

    return emit


# Vectors -------------------------------------------------------------------------------------------------------


@intrinsic
def load(typing, array, offset):
    """The vector array[offset : offset + LANES], at any alignment: `load(x, offset)`."""
    require_array("load", array)

    def emit(context, builder, sig, args):
        return load_value(builder, address_value(context, builder, sig.args[0], *args))

    return vector(array, types.int64), emit


@intrinsic
def store(typing, array, offset, value):
    """array[offset : offset + LANES] = the vector, at any alignment: `store(y, offset, value)`."""
    require_array("store", array)

    def emit(context, builder, sig, args):
        store_value(builder, args[2], address_value(context, builder, sig.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), emit


@intrinsic
def load_first(typing, array, offset, count):
    """The vector whose first `count` lanes are array[offset : offset + count], zero in the others.

    `count` may be any integer: below 1 no lane, above LANES all. No element beyond them is read.
    """
    require_array("load_first", array)

    def emit(context, builder, sig, args):
        address = address_value(context, builder, sig.args[0], *args[:2])
        return masked_load_value(builder, address, first_lanes_value(builder, args[2]))

    return vector(array, types.int64, types.int64), emit


@intrinsic
def load_where(typing, array, offset, condition, others):
    """The lanes of array[offset:] where the condition holds, elsewhere those of `others`; no more is touched."""

    def emit(context, builder, sig, args):
        address = address_value(context, builder, sig.args[0], *args[:2])
        return masked_load_value(builder, address, args[2], others=args[3])

    return vector(array, types.int64, mask, vector), emit


@intrinsic
def store_first(typing, array, offset, value, count):
    """array[offset : offset + count] = the first lanes of the vector: `store_first(y, offset, value, count)`.

    `count` may be any integer: below 1 no lane, above LANES all. No element beyond them is written.

    Whole vectors are stored without a mask: on Zen 3 a masked store takes 12 cycles or more.
    """
    require_array("store_first", array)

    def emit(context, builder, sig, args):
        _store_first(context, builder, sig, args, args[2])
        return context.get_dummy_value()

    return types.void(array, types.int64, vector, types.int64), emit


@intrinsic
def load_bytes(typing, array, offset, count):
    """As `load_first`, from an array of uint8; whole vectors without a mask, which AVX2 does not have for bytes."""

    def emit(context, builder, sig, args):
        address = address_value(context, builder, sig.args[0], *args[:2])
        with builder.if_else(builder.icmp_signed(">=", args[2], index_value(LANES))) as (whole, part):
            with whole:
                all_lanes, after_whole = load_value(builder, address, BYTES), builder.block
            with part:
                some = masked_load_value(builder, address, first_lanes_value(builder, args[2]), BYTES)
                after_part = builder.block
        small = builder.phi(BYTES)
        small.add_incoming(all_lanes, after_whole)
        small.add_incoming(some, after_part)
        return builder.uitofp(small, VECTOR)

    return vector(array, types.int64, types.int64), emit


@intrinsic
def store_bytes(typing, array, offset, value, count):
    """As `store_first`, into an array of uint8; the lanes hold integers of 0 to 255."""

    def emit(context, builder, sig, args):
        _store_first(context, builder, sig, args, builder.trunc(builder.fptosi(args[2], INTS), BYTES))
        return context.get_dummy_value()

    return types.void(array, types.int64, vector, types.int64), emit


def _store_first(context: Any, builder: Any, sig: Any, args: Any, value: Any) -> None:
    """Store the first lanes of a value: all without a mask if the count, the last of `args`, says so."""
    address = address_value(context, builder, sig.args[0], *args[:2])
    with builder.if_else(builder.icmp_signed(">=", args[3], index_value(LANES))) as (whole, part):
        with whole:
            store_value(builder, value, address)
        with part:
            masked_store_value(builder, value, address, first_lanes_value(builder, args[3]))


@intrinsic
def splat(typing, number):
    """The vector of which every lane is `number`, which is converted to float32."""

    def emit(context, builder, sig, args):
        return splat_value(builder, args[0])

    return vector(types.float32), emit


@intrinsic
def select(typing, condition, yes, no):
    """Lane by lane `yes` where the condition holds, `no` elsewhere: `select(v < 0, 0, v)`; either may be a number."""

    def emit(context, builder, sig, args):
        values = [_as_vector(context, builder, typ, arg) for typ, arg in zip(sig.args[1:], args[1:], strict=True)]
        return builder.select(args[0], *values)

    return vector(mask, yes, no), emit


@intrinsic
def relu(typing, value):
    """max(value, 0) of a vector; NaN stays NaN."""

    def emit(context, builder, sig, args):
        return relu_value(builder, args[0])

    return vector(vector), emit


def _as_vector(context: Any, builder: Any, typ: Any, value: Any) -> Any:
    if typ == vector:
        return value
    return splat_value(builder, context.cast(builder, value, typ, types.float32))


def _operator(symbol: Callable, result: Any, emit: Callable) -> None:
    """Teach Numba an operator between vectors, or a vector and a number on either side."""

    @type_callable(symbol)
    def _typing(context):
        def typer(a, b):
            known = all(t == vector or isinstance(t, (types.Integer, types.Float)) for t in (a, b))
            return result if known and vector in (a, b) else None

        return typer

    def lower(context, builder, sig, args):
        a, b = (_as_vector(context, builder, typ, arg) for typ, arg in zip(sig.args, args, strict=True))
        return emit(builder, a, b)

    for pair in ((vector, vector), (vector, types.Number), (types.Number, vector)):
        lower_builtin(symbol, *pair)(lower)


_operator(operator.add, vector, lambda builder, a, b: builder.fadd(a, b, flags=_FLAGS))
_operator(operator.sub, vector, lambda builder, a, b: builder.fsub(a, b, flags=_FLAGS))
_operator(operator.mul, vector, lambda builder, a, b: builder.fmul(a, b, flags=_FLAGS))
_operator(operator.lt, mask, lambda builder, a, b: builder.fcmp_ordered("<", a, b))
_operator(operator.gt, mask, lambda builder, a, b: builder.fcmp_ordered(">", a, b))
_operator(operator.eq, mask, lambda builder, a, b: builder.fcmp_ordered("==", a, b))
_operator(operator.ne, mask, lambda builder, a, b: builder.fcmp_unordered("!=", a, b))


def _mask_operator(symbol: Callable, emit: Callable) -> None:
    @type_callable(symbol)
    def _typing(context):
        return lambda a, b: mask if a == b == mask else None

    lower_builtin(symbol, mask, mask)(lambda context, builder, sig, args: emit(builder, *args))


_mask_operator(operator.and_, lambda builder, a, b: builder.and_(a, b))
_mask_operator(operator.or_, lambda builder, a, b: builder.or_(a, b))
