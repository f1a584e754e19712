"""SIMD vectors and register tiles of float32 as Numba value types, so that a kernel reads as arithmetic.

A **vector** is LANES numbers in one register. It is loaded from and stored to an array at an element offset, and
knows `+ - *`, comparisons and `select`; scalars take part as vectors of equal lanes:

    v = 4 * load(x, i) - 5 * load(x, i + step)
    store(y, j, select(v < 0, 0, v))

A **tile** is a block of sums, `rows x vectors`, held in registers while a reduction runs over it. It is what
convolution and matrix product share: `multiply_add` adds the product of a column of numbers and a row of vectors,

    tile = zeros(shape)                                     # (rows, vectors * LANES)
    for i in range(reduction):
        tile = multiply_add(tile, a, rows, i, b, i * step)  # tile[m, :] += a[rows[m] + i] * b[i * step:][:width]
    store_tile(y, out_rows, tile)

The loops around it, over taps, channels or pixels, are the kernel's, as many and as deep as the reduction has
dimensions. `rows` are the offsets of the tile's rows in `a`, a tuple, so that rows need not lie evenly.

How it works: Numba keeps no small array in registers, so both types are LLVM values, `<16 x float>` and an array
of those, which LLVM's passes turn into registers and phi nodes. Each function here is an intrinsic that emits the
few LLVM instructions it names. A tile's shape is part of its type: kernels get it as an argument, a `TileShape`,
and are compiled once for each shape they are called with.

How many lanes a register has, and how many registers there are, is a property of the processor Numba compiles for
(NUMBA_CPU_NAME and NUMBA_CPU_FEATURES), which need not be the one this runs on: so the compiler is asked.

Wherever an array is expected, a `pointer` into one will do. Offsets count elements from an array's start, whatever
its shape; no bounds are checked. Multiply and add are fused
where the processor can and are two instructions where it can not.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import (
    NativeValue,
    intrinsic,
    lower_builtin,
    models,
    overload_attribute,
    register_model,
    unbox,
)

# The processor -------------------------------------------------------------------------------------------------


def _probe() -> tuple[int, int]:
    """(lanes of a float32 register, number of vector registers) of the processor that Numba compiles for."""
    wide = "<16 x float>"
    module = llvm.parse_assembly(
        f"define {wide} @f({wide} %a, {wide} %b) {{ %c = fadd {wide} %a, %b\n ret {wide} %c }}"
    )
    machine = cpu_target.target_context.codegen()._tm
    assembly = machine.emit_assembly(module)
    if "zmm" in assembly:
        return 16, 32
    if "ymm" in assembly:
        return 8, 16
    return 4, 32 if machine.triple.startswith(("aarch64", "arm64")) else 16


LANES, REGISTERS = _probe()

#: sums may be fused into multiply-adds and the sign of zero ignored; NaN and infinity are honoured
_FLAGS = ("contract", "nsz")
_F32 = ir.FloatType()
_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
_VECTOR = ir.VectorType(_F32, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)
_INTS = ir.VectorType(_I32, LANES)
_BYTES = ir.VectorType(ir.IntType(8), LANES)


# The types -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TileShape:
    """`rows` of `vectors` registers each: the type of a tile, as an argument for a kernel."""

    rows: int
    vectors: int

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.vectors * LANES

    def __post_init__(self) -> None:
        object.__setattr__(self, "_numba_type_", _ShapeType(self))  # a call finds it faster than Numba's registry

    def __reduce__(self) -> tuple:
        return TileShape, (self.rows, self.vectors)


def tile_shape(columns: int) -> TileShape:
    """The best shape for a result of that many columns: it hides the multiply-adds' latency and wastes few columns.

    More rows than these need more addresses than there are registers for.
    """
    rows = {4: 4, 2: 6, 1: 12} if REGISTERS == 32 else {2: 6, 1: 6}
    # a narrower tile loads more numbers for each multiply-add
    slowness = {4: 1.0, 2: 1.03, 1: 1.15} if REGISTERS == 32 else {2: 1.0, 1: 1.1}
    vectors = -(-columns // LANES)
    width = min(slowness, key=lambda v: -(-vectors // v) * v * slowness[v])
    return TileShape(rows[width], width)


def lane_tile_shape(columns: int) -> TileShape:
    """The shape for a result of that many columns each of which is a vector (of images, say)."""
    widest = 4 if REGISTERS == 32 else 2
    vectors = 1 if columns == 1 else 2 if columns == 2 else widest
    return TileShape(12 if vectors == 1 else 6, vectors)


class _VectorType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


class _MaskType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"mask{LANES}")


class _ShapeType(types.Opaque):
    def __init__(self, shape: TileShape):
        self.shape = shape
        super().__init__(name=f"tileshape{shape.rows}x{shape.vectors}x{LANES}")


class _TileType(types.Type):
    def __init__(self, shape: TileShape):
        self.shape = shape
        super().__init__(name=f"tile{shape.rows}x{shape.vectors}x{LANES}")


vector = _VectorType()
mask = _MaskType()


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any):
        super().__init__(dmm, fe_type, _VECTOR)


@register_model(_MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any):
        super().__init__(dmm, fe_type, _MASK)


@register_model(_TileType)
class _TileModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any):
        super().__init__(dmm, fe_type, ir.ArrayType(_VECTOR, fe_type.shape.rows * fe_type.shape.vectors))


register_model(_ShapeType)(models.OpaqueModel)


@overload_attribute(_ShapeType, "rows")
def _shape_rows(shape):
    rows = shape.shape.rows
    return lambda shape: rows


@overload_attribute(_ShapeType, "vectors")
def _shape_vectors(shape):
    vectors = shape.shape.vectors
    return lambda shape: vectors


@overload_attribute(_ShapeType, "width")
def _shape_width(shape):
    width = shape.shape.width
    return lambda shape: width


@unbox(_ShapeType)
def _unbox_shape(typ: Any, value: Any, c: Any) -> NativeValue:
    return NativeValue(c.context.get_dummy_value())


# Emitting LLVM instructions ------------------------------------------------------------------------------------


def _index(i: int) -> ir.Constant:
    return ir.Constant(_I64, i)


def _call(builder: Any, name: str, result: Any, arguments: list) -> Any:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [a.type for a in arguments]), name
    )
    return builder.call(function, arguments)


def splat_value(builder: Any, number: Any) -> Any:
    """The vector of which every lane is `number`."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INTS, [0] * LANES))


def constant_value(number: float) -> ir.Constant:
    """The vector of which every lane is the constant `number`."""
    return ir.Constant(_VECTOR, [float(number)] * LANES)


def fma_value(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, fused where the processor can."""
    return _call(builder, f"llvm.fmuladd.v{LANES}f32", _VECTOR, [a, b, c])


def address_value(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    """The address of element `offset` of an array or a pointer."""
    start = (
        array
        if isinstance(array_type, types.CPointer)
        else context.make_array(array_type)(context, builder, array).data
    )
    return builder.gep(start, [offset])


def load_value(builder: Any, address: Any) -> Any:
    """The vector at an address, which need not be aligned."""
    return builder.load(builder.bitcast(address, _VECTOR.as_pointer()), align=4)


def store_value(builder: Any, value: Any, address: Any) -> None:
    """Store a vector at an address, which need not be aligned."""
    builder.store(value, builder.bitcast(address, _VECTOR.as_pointer()), align=4)


def _first_lanes(builder: Any, count: Any) -> Any:
    """The mask of the first `count` lanes."""
    limit = ir.VectorType(_I64, LANES)
    undefined = ir.Constant(limit, ir.Undefined)
    counts = builder.insert_element(undefined, count, ir.Constant(_I32, 0))
    counts = builder.shuffle_vector(counts, undefined, ir.Constant(_INTS, [0] * LANES))
    return builder.icmp_signed("<", ir.Constant(limit, list(range(LANES))), counts)


def _masked_load(builder: Any, address: Any, lanes: Any, typ: Any) -> Any:
    name, align = ("i8", 1) if typ is _BYTES else ("f32", 4)
    pointer = builder.bitcast(address, typ.as_pointer())
    arguments = [pointer, ir.Constant(_I32, align), lanes, ir.Constant(typ, None)]
    return _call(builder, f"llvm.masked.load.v{LANES}{name}.p0", typ, arguments)


def _masked_store(builder: Any, value: Any, address: Any, lanes: Any) -> None:
    name, align = ("i8", 1) if value.type is _BYTES else ("f32", 4)
    pointer = builder.bitcast(address, value.type.as_pointer())
    arguments = [value, pointer, ir.Constant(_I32, align), lanes]
    _call(builder, f"llvm.masked.store.v{LANES}{name}.p0", ir.VoidType(), arguments)


@intrinsic
def array_at(typing, address, like):
    """The place at an address in memory, an integer, as a pointer to numbers of the dtype of the array `like`."""

    def emit(context, builder, sig, args):
        return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

    return types.CPointer(like.dtype)(types.int64, like), emit


@intrinsic
def pointer(typing, array, offset):
    """The place array[offset:], to be used in an array's stead; it does not keep the array alive."""

    def emit(context, builder, sig, args):
        return address_value(context, builder, sig.args[0], *args)

    return types.CPointer(array.dtype)(array, types.int64), emit


# Vectors -------------------------------------------------------------------------------------------------------


@intrinsic
def load(typing, array, offset):
    """The vector at array[offset:]."""

    def emit(context, builder, sig, args):
        return load_value(builder, address_value(context, builder, sig.args[0], *args))

    return vector(array, types.int64), emit


@intrinsic
def store(typing, array, offset, value):
    """array[offset:] = the vector."""

    def emit(context, builder, sig, args):
        store_value(builder, args[2], address_value(context, builder, sig.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), emit


@intrinsic
def load_first(typing, array, offset, count):
    """The first `count` lanes from array[offset:], zero in the others; no other element is touched."""

    def emit(context, builder, sig, args):
        address = address_value(context, builder, sig.args[0], *args[:2])
        return _masked_load(builder, address, _first_lanes(builder, args[2]), _VECTOR)

    return vector(array, types.int64, types.int64), emit


@intrinsic
def store_first(typing, array, offset, value, count):
    """array[offset:] = the first `count` lanes of the vector; no other element is touched."""

    def emit(context, builder, sig, args):
        address = address_value(context, builder, sig.args[0], *args[:2])
        _masked_store(builder, args[2], address, _first_lanes(builder, args[3]))
        return context.get_dummy_value()

    return types.void(array, types.int64, vector, types.int64), emit


@intrinsic
def load_bytes(typing, array, offset, count):
    """As `load_first`, from an array of uint8."""

    def emit(context, builder, sig, args):
        address = address_value(context, builder, sig.args[0], *args[:2])
        small = _masked_load(builder, address, _first_lanes(builder, args[2]), _BYTES)
        return builder.uitofp(small, _VECTOR)

    return vector(array, types.int64, types.int64), emit


@intrinsic
def store_bytes(typing, array, offset, value, count):
    """As `store_first`, into an array of uint8; the lanes hold integers of 0 to 255."""

    def emit(context, builder, sig, args):
        address = address_value(context, builder, sig.args[0], *args[:2])
        small = builder.trunc(builder.fptosi(args[2], _INTS), _BYTES)
        _masked_store(builder, small, address, _first_lanes(builder, args[3]))
        return context.get_dummy_value()

    return types.void(array, types.int64, vector, types.int64), emit


@intrinsic
def splat(typing, number):
    """The vector of which every lane is `number`."""

    def emit(context, builder, sig, args):
        return splat_value(builder, args[0])

    return vector(types.float32), emit


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
        zero = ir.Constant(_VECTOR, None)
        for i, condition in enumerate(conditions):
            block[i] = builder.select(builder.fcmp_ordered(">", condition, zero), block[i], zero)
        _store_transposed(context, builder, block, sig.args[4], *args[4:])
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(source, condition, i64, i64, out, i64, i64), emit


def _load_block(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, step: Any) -> list:
    """LANES vectors, `step` apart."""
    start = address_value(context, builder, array_type, array, offset)
    return [load_value(builder, builder.gep(start, [builder.mul(step, _index(i))])) for i in range(LANES)]


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
                block[i] = builder.shuffle_vector(*pair, ir.Constant(_INTS, low))
                block[i | stride] = builder.shuffle_vector(*pair, ir.Constant(_INTS, high))
        stride *= 2
    start = address_value(context, builder, array_type, array, offset)
    for i, row in enumerate(block):
        store_value(builder, row, builder.gep(start, [builder.mul(step, _index(i))]))


@intrinsic
def select(typing, condition, yes, no):
    """Lane by lane `yes` where the condition holds, `no` elsewhere; either may be a number."""

    def emit(context, builder, sig, args):
        values = [_as_vector(context, builder, typ, arg) for typ, arg in zip(sig.args[1:], args[1:], strict=True)]
        return builder.select(args[0], *values)

    return vector(mask, yes, no), emit


def _as_vector(context: Any, builder: Any, typ: Any, value: Any) -> Any:
    if typ == vector:
        return value
    return splat_value(builder, context.cast(builder, value, typ, types.float32))


def _operator(symbol: Callable, result: Any, emit: Callable) -> None:
    """Teach Numba an operator between vectors, or a vector and a number on either side."""
    numbers = (types.float32, types.float64, types.int64)
    pairs = [(vector, vector), *((vector, n) for n in numbers), *((n, vector) for n in numbers)]

    @infer_global(symbol)
    class _Typing(ConcreteTemplate):
        cases = [signature(result, *pair) for pair in pairs]  # noqa: RUF012

    def lower(context, builder, sig, args):
        a, b = (_as_vector(context, builder, typ, arg) for typ, arg in zip(sig.args, args, strict=True))
        return emit(builder, a, b)

    for pair in pairs:
        lower_builtin(symbol, *pair)(lower)


_operator(operator.add, vector, lambda builder, a, b: builder.fadd(a, b, flags=_FLAGS))
_operator(operator.sub, vector, lambda builder, a, b: builder.fsub(a, b, flags=_FLAGS))
_operator(operator.mul, vector, lambda builder, a, b: builder.fmul(a, b, flags=_FLAGS))
_operator(operator.lt, mask, lambda builder, a, b: builder.fcmp_ordered("<", a, b))
_operator(operator.gt, mask, lambda builder, a, b: builder.fcmp_ordered(">", a, b))
_operator(operator.eq, mask, lambda builder, a, b: builder.fcmp_ordered("==", a, b))
_operator(operator.ne, mask, lambda builder, a, b: builder.fcmp_unordered("!=", a, b))


def _mask_operator(symbol: Callable, emit: Callable) -> None:
    @infer_global(symbol)
    class _Typing(ConcreteTemplate):
        cases = [signature(mask, mask, mask)]  # noqa: RUF012

    lower_builtin(symbol, mask, mask)(lambda context, builder, sig, args: emit(builder, *args))


_mask_operator(operator.and_, lambda builder, a, b: builder.and_(a, b))
_mask_operator(operator.or_, lambda builder, a, b: builder.or_(a, b))


# Tiles ---------------------------------------------------------------------------------------------------------


def _pack(builder: Any, shape: TileShape, values: list) -> Any:
    tile = ir.Constant(ir.ArrayType(_VECTOR, shape.rows * shape.vectors), ir.Undefined)
    for i, value in enumerate(values):
        tile = builder.insert_value(tile, value, i)
    return tile


def _unpack(builder: Any, shape: TileShape, tile: Any) -> list:
    return [builder.extract_value(tile, i) for i in range(shape.rows * shape.vectors)]


def _rows_type(shape: TileShape) -> Any:
    return types.UniTuple(types.int64, shape.rows)  # type: ignore[attr-defined]


@intrinsic
def even_rows(typing, shape, first, count, step):
    """The offsets of rows `first`, `first + 1` ..., `step` apart, for a tile of that shape.

    Row numbers stop at `count - 1`: a tile that overhangs computes its last row more than once and stores the same
    numbers to the same place.
    """

    def emit(context, builder, sig, args):
        _, first, count, step = args
        return _clamped(context, builder, sig, first, count, lambda row: builder.mul(row, step))

    return _rows_type(shape.shape)(shape, types.int64, types.int64, types.int64), emit


@intrinsic
def table_rows(typing, shape, first, count, table):
    """As `even_rows`, with offsets looked up in `table`, an array of int64."""

    def emit(context, builder, sig, args):
        _, first, count, table = args
        return _clamped(
            context,
            builder,
            sig,
            first,
            count,
            lambda row: builder.load(address_value(context, builder, sig.args[3], table, row)),
        )

    return _rows_type(shape.shape)(shape, types.int64, types.int64, table), emit


def _clamped(context: Any, builder: Any, sig: Any, first: Any, count: Any, offset: Callable) -> Any:
    last = builder.sub(count, _index(1))
    offsets = []
    for m in range(sig.return_type.count):
        row = builder.add(first, _index(m))
        offsets.append(offset(builder.select(builder.icmp_signed("<", row, last), row, last)))
    return context.make_tuple(builder, sig.return_type, offsets)


@intrinsic
def zeros(typing, shape):
    """A tile of zeros."""

    def emit(context, builder, sig, args):
        return ir.Constant(ir.ArrayType(_VECTOR, shape.shape.rows * shape.shape.vectors), None)

    return _TileType(shape.shape)(shape), emit


@intrinsic
def repeat_row(typing, shape, array, offset):
    """A tile of which every row is array[offset:]."""

    def emit(context, builder, sig, args):
        tile = sig.return_type.shape
        start = address_value(context, builder, sig.args[1], *args[1:])
        row = [load_value(builder, builder.gep(start, [_index(v * LANES)])) for v in range(tile.vectors)]
        return _pack(builder, tile, row * tile.rows)

    return _TileType(shape.shape)(shape, array, types.int64), emit


@intrinsic
def load_tile(typing, shape, array, rows, offset, width):
    """The tile of which row m is array[rows[m] + offset:], its first `width` columns; no other element is touched."""

    def emit(context, builder, sig, args):
        tile = sig.return_type.shape
        addresses = _tile_addresses(context, builder, tile, sig.args[1], args[1], args[2], args[3])
        full = builder.icmp_signed(">=", args[4], _index(tile.width))
        with builder.if_else(full) as (whole, part):
            with whole:
                all_columns = [load_value(builder, address) for address in addresses]
                after_whole = builder.block
            with part:
                masks = _column_masks(builder, tile, args[4])
                some = [_masked_load(builder, a, masks[i % tile.vectors], _VECTOR) for i, a in enumerate(addresses)]
                after_part = builder.block
        values = []
        for whole_value, part_value in zip(all_columns, some, strict=True):
            value = builder.phi(_VECTOR)
            value.add_incoming(whole_value, after_whole)
            value.add_incoming(part_value, after_part)
            values.append(value)
        return _pack(builder, tile, values)

    return _TileType(shape.shape)(shape, array, rows, types.int64, types.int64), emit


@intrinsic
def store_tile(typing, array, rows, offset, tile, width):
    """array[rows[m] + offset:] = the first `width` columns of row m of the tile, for every m."""

    def emit(context, builder, sig, args):
        shape = tile.shape
        values = _unpack(builder, shape, args[3])
        addresses = _tile_addresses(context, builder, shape, sig.args[0], args[0], args[1], args[2])
        full = builder.icmp_signed(">=", args[4], _index(shape.width))
        with builder.if_else(full) as (whole, part):
            with whole:
                for value, address in zip(values, addresses, strict=True):
                    store_value(builder, value, address)
            with part:
                masks = _column_masks(builder, shape, args[4])
                for i, (value, address) in enumerate(zip(values, addresses, strict=True)):
                    _masked_store(builder, value, address, masks[i % shape.vectors])
        return context.get_dummy_value()

    return types.void(array, rows, types.int64, tile, types.int64), emit


def _tile_addresses(
    context: Any, builder: Any, shape: TileShape, array_type: Any, array: Any, rows: Any, offset: Any
) -> list:
    start = address_value(context, builder, array_type, array, offset)
    return [
        builder.gep(start, [builder.add(row, _index(v * LANES))])
        for row in cgutils.unpack_tuple(builder, rows)
        for v in range(shape.vectors)
    ]


def _column_masks(builder: Any, shape: TileShape, width: Any) -> list:
    return [_first_lanes(builder, builder.sub(width, _index(v * LANES))) for v in range(shape.vectors)]


@intrinsic
def multiply_add(typing, tile, a, rows, i, b, j):
    """The tile with a[rows[m] + i] * b[j:] added to row m, for every m: one step of a reduction."""

    def emit(context, builder, sig, args):
        shape = tile.shape
        column = address_value(context, builder, sig.args[1], args[1], args[3])
        row = address_value(context, builder, sig.args[4], args[4], args[5])
        vectors = [load_value(builder, builder.gep(row, [_index(v * LANES)])) for v in range(shape.vectors)]
        sums = _unpack(builder, shape, args[0])
        for m, offset in enumerate(cgutils.unpack_tuple(builder, args[2])):
            number = splat_value(builder, builder.load(builder.gep(column, [offset])))
            for v in range(shape.vectors):
                k = m * shape.vectors + v
                sums[k] = fma_value(builder, number, vectors[v], sums[k])
        return _pack(builder, shape, sums)

    return tile(tile, a, rows, types.int64, b, types.int64), emit


@intrinsic
def repeat_numbers(typing, shape, array, offset):
    """A tile of which every row is the numbers array[offset:], each in all lanes of its vector."""

    def emit(context, builder, sig, args):
        tile = sig.return_type.shape
        start = address_value(context, builder, sig.args[1], *args[1:])
        row = [splat_value(builder, builder.load(builder.gep(start, [_index(v)]))) for v in range(tile.vectors)]
        return _pack(builder, tile, row * tile.rows)

    return _TileType(shape.shape)(shape, array, types.int64), emit


@intrinsic
def multiply_add_lanes(typing, tile, a, rows, i, b, j):
    """The tile with a[rows[m] + i:] * b[j + v] added to vector v of row m: b is numbers, each for all lanes."""

    def emit(context, builder, sig, args):
        shape = tile.shape
        numbers = address_value(context, builder, sig.args[4], args[4], args[5])
        columns = [splat_value(builder, builder.load(builder.gep(numbers, [_index(v)]))) for v in range(shape.vectors)]
        return _add_products(context, builder, sig, args, columns)

    return tile(tile, a, rows, types.int64, b, types.int64), emit


@intrinsic
def multiply_add_vectors(typing, tile, a, rows, i, b, j):
    """The tile with a[rows[m] + i:] * b[j + v * LANES:] added to vector v of row m, lane by lane."""

    def emit(context, builder, sig, args):
        shape = tile.shape
        row = address_value(context, builder, sig.args[4], args[4], args[5])
        columns = [load_value(builder, builder.gep(row, [_index(v * LANES)])) for v in range(shape.vectors)]
        return _add_products(context, builder, sig, args, columns)

    return tile(tile, a, rows, types.int64, b, types.int64), emit


def _add_products(context: Any, builder: Any, sig: Any, args: Any, columns: list) -> Any:
    """The tile args[0] with the vector at args[1][args[2][m] + args[3]:] times each column added to row m."""
    shape = sig.return_type.shape
    start = address_value(context, builder, sig.args[1], args[1], args[3])
    sums = _unpack(builder, shape, args[0])
    for m, offset in enumerate(cgutils.unpack_tuple(builder, args[2])):
        value = load_value(builder, builder.gep(start, [offset]))
        for v, column in enumerate(columns):
            k = m * shape.vectors + v
            sums[k] = fma_value(builder, value, column, sums[k])
    return _pack(builder, shape, sums)


@intrinsic
def relu(typing, value):
    """max(value, 0) of a vector or a tile; NaN stays NaN."""

    def emit(context, builder, sig, args):
        zero = ir.Constant(_VECTOR, None)

        def clamp(v: Any) -> Any:
            return builder.select(builder.fcmp_ordered("<", v, zero), zero, v)

        if value == vector:
            return clamp(args[0])
        return _pack(builder, value.shape, [clamp(v) for v in _unpack(builder, value.shape, args[0])])

    return value(value), emit
