"""Vectors as LLVM values: the few instructions that intrinsics emit (nnlite.compiler.simd, nnlite.compiler.tiles).

Numba keeps no small array in registers, so a vector of float32 is an LLVM value, `<16 x float>`. An address is that of
a number; nothing is assumed about its alignment.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from nnlite.compiler.target import LANES

F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
#: the LLVM types of a vector, of a mask of its lanes, and of as many 32-bit integers (a shuffle's indices) or bytes
VECTOR, MASK = ir.VectorType(F32, LANES), ir.VectorType(ir.IntType(1), LANES)
INTS, BYTES = ir.VectorType(I32, LANES), ir.VectorType(ir.IntType(8), LANES)


def index_value(i: int) -> ir.Constant:
    """The constant `i`, as an offset."""
    return ir.Constant(I64, i)


def call_value(builder: Any, name: str, result: Any, arguments: list) -> Any:
    """What the LLVM function of that name returns."""
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [a.type for a in arguments]), name
    )
    return builder.call(function, arguments)


def splat_value(builder: Any, number: Any) -> Any:
    """The vector of which every lane is `number`."""
    undefined = ir.Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(INTS, [0] * LANES))


def constant_value(number: float) -> ir.Constant:
    """The vector of which every lane is the constant `number`."""
    return ir.Constant(VECTOR, [float(number)] * LANES)


def fma_value(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, fused where the processor can."""
    return call_value(builder, f"llvm.fmuladd.v{LANES}f32", VECTOR, [a, b, c])


def relu_value(builder: Any, value: Any) -> Any:
    """max(value, 0), lane by lane; NaN stays NaN."""
    zero = ir.Constant(VECTOR, None)
    return builder.select(builder.fcmp_ordered("<", value, zero), zero, value)


def address_value(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    """The address of element `offset` of an array or a pointer."""
    start = (
        array
        if isinstance(array_type, types.CPointer)
        else context.make_array(array_type)(context, builder, array).data
    )
    return builder.gep(start, [offset])


def load_value(builder: Any, address: Any, typ: Any = VECTOR) -> Any:
    """The vector at an address, which need not be aligned."""
    return builder.load(builder.bitcast(address, typ.as_pointer()), align=1 if typ is BYTES else 4)


def store_value(builder: Any, value: Any, address: Any) -> None:
    """Store a vector at an address, which need not be aligned."""
    builder.store(value, builder.bitcast(address, value.type.as_pointer()), align=1 if value.type is BYTES else 4)


def align_stack(builder: Any) -> None:
    """Have LLVM align the stack for vectors, by a vector there that nothing says is unused.

    Else the vectors that it keeps there, for want of registers, lie across cache lines.
    """
    place = cgutils.alloca_once(builder, VECTOR)
    builder.asm(ir.FunctionType(ir.VoidType(), [place.type]), "", "r", [place], True)


def first_lanes_value(builder: Any, count: Any) -> Any:
    """The mask of the first `count` lanes: all if it is more, none if it is negative.

    Lanes are compared as 32-bit integers, as wide as the numbers: on AVX2 one instruction, of 64 bits five.
    """
    all_lanes = index_value(LANES)
    count = builder.select(builder.icmp_signed("<", count, all_lanes), count, all_lanes)  # it may not fit into 32 bits
    undefined = ir.Constant(INTS, ir.Undefined)
    counts = builder.insert_element(undefined, builder.trunc(count, I32), ir.Constant(I32, 0))
    counts = builder.shuffle_vector(counts, undefined, ir.Constant(INTS, [0] * LANES))
    return builder.icmp_signed("<", ir.Constant(INTS, list(range(LANES))), counts)


def masked_load_value(builder: Any, address: Any, lanes: Any, typ: Any = VECTOR, others: Any = None) -> Any:
    """The lanes of a mask from an address; in the others those of the vector `others`, or zero."""
    name, align = ("i8", 1) if typ is BYTES else ("f32", 4)
    pointer = builder.bitcast(address, typ.as_pointer())
    arguments = [pointer, ir.Constant(I32, align), lanes, ir.Constant(typ, None) if others is None else others]
    return call_value(builder, f"llvm.masked.load.v{LANES}{name}.p0", typ, arguments)


def masked_store_value(builder: Any, value: Any, address: Any, lanes: Any) -> None:
    """Store the lanes of a mask at an address."""
    name, align = ("i8", 1) if value.type is BYTES else ("f32", 4)
    pointer = builder.bitcast(address, value.type.as_pointer())
    arguments = [value, pointer, ir.Constant(I32, align), lanes]
    call_value(builder, f"llvm.masked.store.v{LANES}{name}.p0", ir.VoidType(), arguments)


def require_array(argument: str, array: Any, dtype: Any = types.float32) -> None:
    """Raise ValueError unless an intrinsic's argument is a C-contiguous array of that dtype, or a pointer into one.

    Numba passes it on as it is: who calls the function that is being compiled sees this message alone.
    """
    known = isinstance(array, types.CPointer) or (isinstance(array, types.Array) and array.layout == "C")
    if not known or dtype not in (None, array.dtype):
        expected = f"a C-contiguous array{f' of {dtype}' if dtype else ''}, or a pointer into one"
        raise ValueError(f"{argument}: expected {expected}. Received: {array}")
