"""Register tiles: the block of sums that convolution and matrix product share, as a Numba value type.

A **tile** is a block of sums, `rows x vectors`, held in registers while a reduction runs over it. `multiply_add` adds
the products of columns of numbers and rows of vectors (nnlite.compiler.simd), the innermost loop of the reduction,

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

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from nnlite.compiler.simd import (
    LANES,
    REGISTERS,
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
from nnlite.compiler.tile_shapes import TileShape, TileType, shape_of

#: products of numbers that are added in a turn of a reduction's loop: the processor predicts the end of a short loop
UNROLLED = 4


def _pack(builder: Any, shape: TileShape, values: list) -> Any:
    tile = ir.Constant(ir.ArrayType(VECTOR, shape.rows * shape.vectors), ir.Undefined)
    for i, value in enumerate(values):
        tile = builder.insert_value(tile, value, i)
    return tile


def _unpack(builder: Any, shape: TileShape, tile: Any) -> list:
    return [builder.extract_value(tile, i) for i in range(shape.rows * shape.vectors)]


def _row_of_vectors(builder: Any, shape: TileShape, address: Any) -> list:
    """A row's vectors, that lie at an address."""
    return [load_value(builder, builder.gep(address, [index_value(v * LANES)])) for v in range(shape.vectors)]


def _row_of_numbers(builder: Any, shape: TileShape, address: Any) -> list:
    """A row's vectors, each of which is one of the numbers that lie at an address, in all lanes."""
    numbers = [builder.load(builder.gep(address, [index_value(v)])) for v in range(shape.vectors)]
    return [splat_value(builder, number) for number in numbers]


# Where a tile's rows lie ----------------------------------------------------------------------------------------


def _rows_type(shape: TileShape) -> Any:
    return types.UniTuple(types.int64, shape.rows)


def _require_rows(function: str, rows: Any, shape: TileShape) -> None:
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
        return _pack(builder, tile, row * tile.rows)

    return TileType(shape.shape)(shape, array, types.int64), emit


@intrinsic
def repeat_row(typing, shape, array, offset):
    """The tile of which every row is array[offset : offset + width], a bias: `repeat_row(shape, array, offset)`."""
    shape_of("repeat_row", shape)
    require_array("repeat_row", array)
    return _repeat(_row_of_vectors, shape, array)


@intrinsic
def repeat_numbers(typing, shape, array, offset):
    """A tile of which every row is the numbers array[offset:], each in all lanes of its vector."""
    return _repeat(_row_of_numbers, shape, array)


@intrinsic
def load_tile(typing, shape, array, rows, offset, width):
    """The tile whose row m is array[rows[m] + offset:], for every m: `load_tile(shape, array, rows, offset, width)`.

    Of each row the first `width` columns are read, all if it is more, and the others are zero.
    """
    tile_shape = shape_of("load_tile", shape)
    require_array("load_tile", array)
    _require_rows("load_tile", rows, tile_shape)

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
        return _pack(builder, tile, values)

    return TileType(tile_shape)(shape, array, rows, types.int64, types.int64), emit


@intrinsic
def store_tile(typing, array, rows, offset, tile, width):
    """array[rows[m] + offset:] = row m of the tile, for every m: `store_tile(array, rows, offset, tile, width)`.

    Of each row the first `width` columns are written, all if it is more; no other element is.
    """
    shape = shape_of("store_tile", tile)
    require_array("store_tile", array)
    _require_rows("store_tile", rows, shape)

    def emit(context, builder, sig, args):
        values = _unpack(builder, shape, args[3])
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


# Products -------------------------------------------------------------------------------------------------------


def _reduce(products: Callable, tile: Any, a: Any, rows: Any, b: Any, unrolled: int = 1) -> tuple:
    """What an intrinsic returns that adds products to a tile, `unrolled` in a turn of the loop, in their order.

    `products(builder, shape, column, offsets, row)`: the factors of each of the tile's sums.
    """
    number = types.int64

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        shape = tile.shape
        sums, _, rows, i, i_step, _, j, j_step, count = args
        offsets = cgutils.unpack_tuple(builder, rows)
        start = address_value(context, builder, sig.args[1], args[1], i)
        row = address_value(context, builder, sig.args[5], args[5], j)

        def turn(terms: int, values: list) -> list:
            *sums, start, row = values
            for _ in range(terms):
                factors = products(builder, shape, start, offsets, row)
                sums = [fma_value(builder, x, y, total) for (x, y), total in zip(factors, sums, strict=True)]
                start, row = builder.gep(start, [i_step]), builder.gep(row, [j_step])
            return [*sums, start, row]

        values = [*_unpack(builder, shape, sums), start, row]
        if unrolled > 1:
            values = _loop(builder, builder.sdiv(count, index_value(unrolled)), values, partial(turn, unrolled))
            count = builder.srem(count, index_value(unrolled))
        values = _loop(builder, count, values, partial(turn, 1))
        return _pack(builder, shape, values[:-2])

    return tile(tile, a, rows, number, number, b, number, number, number), emit


def _loop(builder: Any, count: Any, values: list, turn: Callable) -> list:
    """The values after `count` turns, each of which makes new ones of them."""
    before, head, after = builder.block, builder.append_basic_block("turn"), builder.append_basic_block("turned")
    builder.cbranch(builder.icmp_signed(">", count, index_value(0)), head, after)
    builder.position_at_end(head)
    done = builder.phi(count.type)
    begun = [builder.phi(value.type) for value in values]
    turned = turn(begun)
    more = builder.add(done, index_value(1))
    builder.cbranch(builder.icmp_signed("<", more, count), head, after)
    for phi, first, again in zip((done, *begun), (index_value(0), *values), (more, *turned), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(again, head)
    builder.position_at_end(after)
    results = [builder.phi(value.type) for value in values]
    for phi, first, last in zip(results, values, turned, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(last, head)
    return results


def _by_number(builder: Any, shape: TileShape, column: Any, offsets: list, row: Any) -> Iterator[tuple]:
    """(number, vector) for each sum: a column of numbers times a row of vectors.

    Each number is loaded where it is multiplied: LLVM keeps all that are loaded before in registers, which a tall tile
    does not leave.
    """
    vectors = _row_of_vectors(builder, shape, row)
    for offset in offsets:
        number = splat_value(builder, builder.load(builder.gep(column, [offset])))
        yield from ((number, vector) for vector in vectors)


def _by_vector(row_of: Callable) -> Callable:
    """As `_by_number`, of a column of vectors and a row that `row_of` loads."""

    def products(builder: Any, shape: TileShape, column: Any, offsets: list, row: Any) -> Iterator[tuple]:
        factors = row_of(builder, shape, row)
        for offset in offsets:
            value = load_value(builder, builder.gep(column, [offset]))
            yield from ((value, factor) for factor in factors)

    return products


@intrinsic
def multiply_add(typing, tile, a, rows, i, i_step, b, j, j_step, count):
    """The tile with the products of a reduction's terms added: the innermost loop of a kernel.

        tile = multiply_add(tile, a, rows, i, i_step, b, j, j_step, count)

    Term t adds a[rows[m] + i + t * i_step] times the vectors b[j + t * j_step : ... + width] to row m, for every m and
    for t = 0 ... count - 1. b is read for all `width` columns, also where fewer are stored: pad it. The sums stay in
    registers. So the shape has to fit: one with more `registers` than REGISTERS raises ValueError.
    """
    shape = shape_of("multiply_add", tile)
    require_array("multiply_add a", a)
    require_array("multiply_add b", b)
    _require_rows("multiply_add", rows, shape)
    if shape.registers > REGISTERS:
        raise ValueError(
            f"multiply_add: expected a tile that fits the {REGISTERS} vector registers of this processor. Received: "
            f"{shape.rows} rows of {shape.vectors} vectors, which need {shape.registers}"
        )
    return _reduce(_by_number, tile, a, rows, b, UNROLLED)


@intrinsic
def multiply_add_lanes(typing, tile, a, rows, i, i_step, b, j, j_step, count):
    """As `multiply_add`, of a[rows[m] + i:] * b[j + v] for vector v of row m: b is numbers, each for all lanes."""
    return _reduce(_by_vector(_row_of_numbers), tile, a, rows, b)


@intrinsic
def multiply_add_vectors(typing, tile, a, rows, i, i_step, b, j, j_step, count):
    """As `multiply_add`, of a[rows[m] + i:] * b[j + v * LANES:] for vector v of row m, lane by lane."""
    return _reduce(_by_vector(_row_of_vectors), tile, a, rows, b)


@intrinsic
def scale_tile(typing, tile, factor, addend):
    """tile * factor + addend, of vectors: a multiply-add for each of the tile's sums."""

    def emit(context, builder, sig, args):
        sums = [fma_value(builder, value, args[1], args[2]) for value in _unpack(builder, tile.shape, args[0])]
        return _pack(builder, tile.shape, sums)

    return tile(tile, factor, addend), emit


@intrinsic
def relu_tile(typing, tile):
    """max(tile, 0), number by number; NaN stays NaN: `tile = relu_tile(tile)`."""
    shape_of("relu_tile", tile)

    def emit(context, builder, sig, args):
        return _pack(builder, tile.shape, [relu_value(builder, v) for v in _unpack(builder, tile.shape, args[0])])

    return tile(tile), emit
