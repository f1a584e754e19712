"""The innermost loops of kernels: the products of a reduction's terms are added to a register tile.

A term multiplies a column, of a factor for each of the tile's rows, by a row: `multiply_add` a column of numbers by a
row of vectors, `multiply_add_lanes` vectors by numbers, `multiply_add_vectors` vectors by vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from numba.core import cgutils, types
from numba.extending import intrinsic

from nnlite.compiler.target import REGISTERS
from nnlite.compiler.tile_shapes import TileShape, shape_of
from nnlite.compiler.tiles import pack_tile, require_rows, row_of_numbers, row_of_vectors, unpack_tile
from nnlite.compiler.values import address_value, fma_value, index_value, load_value, require_array, splat_value

#: products of numbers that are added in a turn of a reduction's loop: the processor predicts the end of a short loop
UNROLLED = 4


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

        values = [*unpack_tile(builder, shape, sums), start, row]
        if unrolled > 1:
            values = _loop(builder, builder.sdiv(count, index_value(unrolled)), values, partial(turn, unrolled))
            count = builder.srem(count, index_value(unrolled))
        values = _loop(builder, count, values, partial(turn, 1))
        return pack_tile(builder, shape, values[:-2])

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
    vectors = row_of_vectors(builder, shape, row)
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
    require_rows("multiply_add", rows, shape)
    if shape.registers > REGISTERS:
        raise ValueError(
            f"multiply_add: expected a tile that fits the {REGISTERS} vector registers of this processor. Received: "
            f"{shape.rows} rows of {shape.vectors} vectors, which need {shape.registers}"
        )
    return _reduce(_by_number, tile, a, rows, b, UNROLLED)


@intrinsic
def multiply_add_lanes(typing, tile, a, rows, i, i_step, b, j, j_step, count):
    """As `multiply_add`, of a[rows[m] + i:] * b[j + v] for vector v of row m: b is numbers, each for all lanes."""
    return _reduce(_by_vector(row_of_numbers), tile, a, rows, b)


@intrinsic
def multiply_add_vectors(typing, tile, a, rows, i, i_step, b, j, j_step, count):
    """As `multiply_add`, of a[rows[m] + i:] * b[j + v * LANES:] for vector v of row m, lane by lane."""
    return _reduce(_by_vector(row_of_vectors), tile, a, rows, b)
