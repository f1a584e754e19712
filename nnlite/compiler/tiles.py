"""Register tiles: the block of sums that convolution and matrix product share, as a Numba value type.

A **tile** is a block of sums, `rows x vectors`, held in registers while a reduction runs over it. `multiply_add`
(nnlite.compiler.reductions) adds the products of columns of numbers and rows of vectors, the innermost loop,

    tile = zero_tile(shape)                                              # (rows, vectors * LANES)
    tile = multiply_add(tile, a, rows, 0, 1, b, 0, step, reduction)  # += a[rows[m] + i] * b[i * step:][:width], all i
    store_tile(y, out_rows, 0, tile, width)

The loops around it, over taps, channels or pixels, are the kernel's, as many and as deep as the reduction has
dimensions. `rows` are the offsets of the tile's rows in `a`, a tuple, so that rows need not lie evenly.

How it works: a tile is an LLVM array of vectors, which LLVM's passes turn into registers and phi nodes; its shape is
part of its type (nnlite.compiler.tile_shapes). Multiply and add are fused where the processor can, and are two
instructions where it can not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from nnlite.compiler.target import LANES
from nnlite.compiler.tile_shapes import TileShape, TileType, shape_of
from nnlite.compiler.values import (
    VECTOR,
    address_value,
    first_lanes_value,
    fma_value,
    index_value,
    load_value,
    masked_load_value,
    masked_store_value,
    relu_value,
    require_array,
    splat_value,
    store_value,
)


def pack_tile(builder: Any, shape: TileShape, values: list) -> Any:
    tile = ir.Constant(ir.ArrayType(VECTOR, shape.rows * shape.vectors), ir.Undefined)
    for i, value in enumerate(values):
        tile = builder.insert_value(tile, value, i)
    return tile


def unpack_tile(builder: Any, shape: TileShape, tile: Any) -> list:
    return [builder.extract_value(tile, i) for i in range(shape.rows * shape.vectors)]


def row_of_vectors(builder: Any, shape: TileShape, address: Any) -> list:
    """A row's vectors, that lie at an address."""
    return [load_value(builder, builder.gep(address, [index_value(v * LANES)])) for v in range(shape.vectors)]


def row_of_numbers(builder: Any, shape: TileShape, address: Any) -> list:
    """A row's vectors, each of which is one of the numbers that lie at an address, in all lanes."""
    numbers = [builder.load(builder.gep(address, [index_value(v)])) for v in range(shape.vectors)]
    return [splat_value(builder, number) for number in numbers]


# Where a tile's rows lie ----------------------------------------------------------------------------------------


def _rows_type(shape: TileShape) -> Any:
    return types.UniTuple(types.int64, shape.rows)


def require_rows(function: str, rows: Any, shape: TileShape) -> None:
    """Raise ValueError unless an intrinsic's argument is an offset for each of a tile's rows."""
    if rows != _rows_type(shape):
        expected = f"{shape.rows} offsets, one per row of the tile, such as even_rows makes"
        raise ValueError(f"{function} rows: expected {expected}. Received: {rows}")


@intrinsic
def even_rows(typing, shape, first, count, step):
    """Offsets for a tile's rows that lie evenly: `rows = even_rows(shape, first, count, step)`.

    Row m of the tile is row `first + m` of `count` in an array, at offset `(first + m) * step`, in elements. Row
    numbers stop at `count - 1`: a tile that overhangs computes the last row more than once and stores the same numbers
    to the same place.
    """
    tile_shape = shape_of("even_rows", shape)

    def emit(context, builder, sig, args):
        _, first, count, step = args
        return _clamped(context, builder, sig, first, count, lambda row: builder.mul(row, step))

    return _rows_type(tile_shape)(shape, types.int64, types.int64, types.int64), emit


@intrinsic
def adjacent_rows(typing, shape):
    """The offsets of rows that are neighbouring numbers, as `copy_column` packs them: known when code is compiled.

    So they take no registers, of which there are too few for a pointer a row and the rest of a loop.
    """

    def emit(context, builder, sig, args):
        return context.make_tuple(builder, sig.return_type, [index_value(m) for m in range(sig.return_type.count)])

    return _rows_type(shape.shape)(shape), emit


@intrinsic
def copy_column(typing, shape, source, offset, out, out_offset):
    """out[out_offset:] = source[offset:], as many numbers as a tile of that shape has rows."""

    def emit(context, builder, sig, args):
        column = ir.VectorType(ir.FloatType(), shape.shape.rows).as_pointer()
        place = address_value(context, builder, sig.args[1], *args[1:3])
        out_place = address_value(context, builder, sig.args[3], *args[3:])
        numbers = builder.load(builder.bitcast(place, column), align=4)
        builder.store(numbers, builder.bitcast(out_place, column), align=4)
        return context.get_dummy_value()

    return types.void(shape, source, types.int64, out, types.int64), emit


@intrinsic
def table_rows(typing, shape, first, count, table):
    """As `even_rows`, but row `first + m` lies at offset `table[first + m]`: `table_rows(shape, first, count, table)`.

    `table` is a C-contiguous array of int64 with at least `count` offsets.
    """
    tile_shape = shape_of("table_rows", shape)
    require_array("table_rows table", table, types.int64)

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

    return _rows_type(tile_shape)(shape, types.int64, types.int64, table), emit


def _clamped(context: Any, builder: Any, sig: Any, first: Any, count: Any, offset: Callable) -> Any:
    last = builder.sub(count, index_value(1))
    offsets = []
    for m in range(sig.return_type.count):
        row = builder.add(first, index_value(m))
        offsets.append(offset(builder.select(builder.icmp_signed("<", row, last), row, last)))
    return context.make_tuple(builder, sig.return_type, offsets)


# Tiles from memory, and back ------------------------------------------------------------------------------------


@intrinsic
def zero_tile(typing, shape):
    """The tile of zeros, with which a reduction begins: `tile = zero_tile(shape)`."""
    tile_shape = shape_of("zero_tile", shape)

    def emit(context, builder, sig, args):
        return ir.Constant(ir.ArrayType(VECTOR, tile_shape.rows * tile_shape.vectors), None)

    return TileType(tile_shape)(shape), emit


def _repeat(row_of: Callable, shape: Any, array: Any) -> tuple:
    """What an intrinsic returns that makes a tile whose rows are all what `row_of` loads."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        tile = sig.return_type.shape
        row = row_of(builder, tile, address_value(context, builder, sig.args[1], *args[1:]))
        return pack_tile(builder, tile, row * tile.rows)

    return TileType(shape.shape)(shape, array, types.int64), emit


@intrinsic
def repeat_row(typing, shape, array, offset):
    """The tile of which every row is array[offset : offset + width], a bias: `repeat_row(shape, array, offset)`."""
    shape_of("repeat_row", shape)
    require_array("repeat_row", array)
    return _repeat(row_of_vectors, shape, array)


@intrinsic
def repeat_numbers(typing, shape, array, offset):
    """A tile of which every row is the numbers array[offset:], each in all lanes of its vector."""
    return _repeat(row_of_numbers, shape, array)


@intrinsic
def load_tile(typing, shape, array, rows, offset, width):
    """The tile whose row m is array[rows[m] + offset:], for every m: `load_tile(shape, array, rows, offset, width)`.

    Of each row the first `width` columns are read, all if it is more, and the others are zero.
    """
    tile_shape = shape_of("load_tile", shape)
    require_array("load_tile", array)
    require_rows("load_tile", rows, tile_shape)

    def emit(context, builder, sig, args):
        tile = sig.return_type.shape
        addresses = _tile_addresses(context, builder, tile, sig.args[1], args[1], args[2], args[3])
        full = builder.icmp_signed(">=", args[4], index_value(tile.width))
        with builder.if_else(full) as (whole, part):
            with whole:
                all_columns = [load_value(builder, address) for address in addresses]
                after_whole = builder.block
            with part:
                masks = _column_masks(builder, tile, args[4])
                some = [masked_load_value(builder, a, masks[i % tile.vectors]) for i, a in enumerate(addresses)]
                after_part = builder.block
        values = []
        for whole_value, part_value in zip(all_columns, some, strict=True):
            value = builder.phi(VECTOR)
            value.add_incoming(whole_value, after_whole)
            value.add_incoming(part_value, after_part)
            values.append(value)
        return pack_tile(builder, tile, values)

    return TileType(tile_shape)(shape, array, rows, types.int64, types.int64), emit


@intrinsic
def store_tile(typing, array, rows, offset, tile, width):
    """array[rows[m] + offset:] = row m of the tile, for every m: `store_tile(array, rows, offset, tile, width)`.

    Of each row the first `width` columns are written, all if it is more; no other element is.
    """
    shape = shape_of("store_tile", tile)
    require_array("store_tile", array)
    require_rows("store_tile", rows, shape)

    def emit(context, builder, sig, args):
        values = unpack_tile(builder, shape, args[3])
        addresses = _tile_addresses(context, builder, shape, sig.args[0], args[0], args[1], args[2])
        full = builder.icmp_signed(">=", args[4], index_value(shape.width))
        with builder.if_else(full) as (whole, part):
            with whole:
                for value, address in zip(values, addresses, strict=True):
                    store_value(builder, value, address)
            with part:
                masks = _column_masks(builder, shape, args[4])
                for i, (value, address) in enumerate(zip(values, addresses, strict=True)):
                    masked_store_value(builder, value, address, masks[i % shape.vectors])
        return context.get_dummy_value()

    return types.void(array, rows, types.int64, tile, types.int64), emit


def _tile_addresses(
    context: Any, builder: Any, shape: TileShape, array_type: Any, array: Any, rows: Any, offset: Any
) -> list:
    start = address_value(context, builder, array_type, array, offset)
    return [
        builder.gep(start, [builder.add(row, index_value(v * LANES))])
        for row in cgutils.unpack_tuple(builder, rows)
        for v in range(shape.vectors)
    ]


def _column_masks(builder: Any, shape: TileShape, width: Any) -> list:
    return [first_lanes_value(builder, builder.sub(width, index_value(v * LANES))) for v in range(shape.vectors)]


# Arithmetic -------------------------------------------------------------------------------------------------------


@intrinsic
def scale_tile(typing, tile, factor, addend):
    """tile * factor + addend, of vectors: a multiply-add for each of the tile's sums."""

    def emit(context, builder, sig, args):
        sums = [fma_value(builder, value, args[1], args[2]) for value in unpack_tile(builder, tile.shape, args[0])]
        return pack_tile(builder, tile.shape, sums)

    return tile(tile, factor, addend), emit


@intrinsic
def relu_tile(typing, tile):
    """max(tile, 0), number by number; NaN stays NaN: `tile = relu_tile(tile)`."""
    shape_of("relu_tile", tile)

    def emit(context, builder, sig, args):
        return pack_tile(
            builder, tile.shape, [relu_value(builder, v) for v in unpack_tile(builder, tile.shape, args[0])]
        )

    return tile(tile), emit
