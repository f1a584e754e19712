"""float32 matrix products on register tiles: a layer's forward product and the two of its backward pass.

A tile of rows x columns of the result stays in registers while the reduction runs; the columns of b that it needs
are copied to lie together (a panel), as many of its rows at a time as stay in cache, by the first tile as it goes. All
three products are the same kernel: a's rows and reduction have a step each, so a transposed a is read as it lies, and a
transposed b is turned over when its panel is copied.

The same number of threads gives the same bits, and other numbers do too: threads share out the tiles, and a tile's
sum does not depend on them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nnlite.compiler.jit import jit, kernel
from nnlite.compiler.simd import LANES, load, load_first, pointer, store
from nnlite.compiler.tile_shapes import TileShape, tile_shape
from nnlite.compiler.tiles import even_rows, load_tile, multiply_add, relu_tile, repeat_row, store_tile
from nnlite.compiler.transposition import transpose
from nnlite.kernels.dropout import Mask, drop_in_place
from nnlite.runtime import memory, threads

#: bytes of a panel of b that is reduced at a time
PANEL_BYTES = 192 << 10
_NO_MASK = Mask.of(0.0, 0)


def matmul(
    a: np.ndarray, b: np.ndarray, bias: np.ndarray | None = None, relu: bool = False, mask: Mask | None = None
) -> np.ndarray:
    """a @ b + bias: a (m, k), b (k, n), bias (n) -> (m, n); with `relu`, max(that, 0), where NaN stays NaN.

    With a `mask`, dropout of that.
    """
    m, k = a.shape
    return _product(a, b, _plan(m, b.shape[1], k, k, 1), False, bias, relu, mask)


def matmul_nt(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b.T: a (m, k), b (n, k) -> (m, n)."""
    m, k = a.shape
    return _product(a, b, _plan(m, b.shape[0], k, k, 1), True, None, False)


def matmul_tn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a.T @ b: a (k, m), b (k, n) -> (m, n)."""
    (k, m), n = a.shape, b.shape[1]
    if n < LANES < m:  # so few columns leave lanes empty: compute the transposed result
        return np.ascontiguousarray(_product(b, a, _plan(n, m, k, 1, n), False, None, False).T)  # (m, n)
    return _product(a, b, _plan(m, n, k, 1, m), False, None, False)


class Sizes(NamedTuple):
    """The numbers that the compiled loops of a product need."""

    m: int
    n: int
    k: int
    row: int  # from a row of a to the next
    step: int  # from one term of the reduction to the next, in a
    depth: int  # rows of a panel that are reduced at a time


class Plan(NamedTuple):
    """How products of some sizes are computed."""

    shape: TileShape
    sizes: Sizes
    room: int  # numbers in a thread's panel
    no_bias: np.ndarray  # zeros (n, to whole tiles)


def _shape(columns: int) -> TileShape:
    """The register tile of a product. Four rows divide most batches; of 128 a tile of six computes four in vain."""
    shape = tile_shape(columns)
    return TileShape(4, 4) if shape.vectors == 4 else shape


@lru_cache(maxsize=1024)
def _plan(m: int, n: int, k: int, row: int, step: int) -> Plan:
    shape = _shape(n)
    blocks = -(-k * shape.width * 4 // PANEL_BYTES)
    depth = max(1, -(-k // max(blocks, 1)))
    room = -(-depth // LANES) * LANES * shape.width + LANES * LANES
    return Plan(shape, Sizes(m, n, k, row, step, depth), room, np.zeros(-(-n // shape.width) * shape.width, np.float32))


def _product(
    a: np.ndarray,
    b: np.ndarray,
    plan: Plan,
    transposed: bool,
    bias: np.ndarray | None,
    clamp: bool,
    mask: Mask | None = None,
) -> np.ndarray:
    shape, sizes, room, start = plan
    c = memory.empty((sizes.m, sizes.n))
    if bias is not None:
        start = start.copy()
        start[: sizes.n] = bias
    if c.size:
        parts = threads.kernel_parts()
        panels = memory.empty((parts, room))
        _tiles.run(parts, shape, sizes, a, b, transposed, start, panels, c, clamp, mask is not None, mask or _NO_MASK)
    return c


@kernel
def _tiles(part, parts, shape, sizes, a, b, transposed, bias, panels, c, clamp, drops, mask):
    """One share of the tiles of c = dropout(relu(a b + bias))."""
    tiles = -(-sizes.m // shape.rows)
    total = -(-sizes.n // shape.width) * tiles
    begin, end = part * total // parts, (part + 1) * total // parts
    panel = pointer(panels, part * panels.shape[1])
    for index in range(begin // tiles, -(-end // tiles)):
        column = index * shape.width
        first_tile, last_tile = max(begin - index * tiles, 0), min(end - index * tiles, tiles)
        whole = column + shape.width <= sizes.n
        for first in range(0, max(sizes.k, 1), sizes.depth):
            depth = min(sizes.depth, sizes.k - first)
            if transposed:
                _copy_transposed(pointer(b, column * sizes.k + first), depth, sizes.n - column, sizes.k, shape, panel)
            elif not whole:
                _copy(pointer(b, first * sizes.n + column), depth, sizes.n - column, sizes.n, shape, panel)
            for t in range(first_tile, last_tile):
                rows = even_rows(shape, t * shape.rows, sizes.m, sizes.row)
                rows_out = even_rows(shape, t * shape.rows, sizes.m, sizes.n)
                if first == 0:
                    tile = repeat_row(shape, bias, column)
                else:
                    tile = load_tile(shape, c, rows_out, column, sizes.n - column)
                if t == first_tile and whole and not transposed:  # copies its b while it computes
                    for i in range(depth):
                        line = (first + i) * sizes.n + column
                        tile = multiply_add(tile, a, rows, (first + i) * sizes.step, 0, b, line, 0, 1)
                        for j in range(0, shape.width, LANES):
                            store(panel, i * shape.width + j, load(b, line + j))
                else:
                    tile = multiply_add(tile, a, rows, first * sizes.step, sizes.step, panel, 0, shape.width, depth)
                if clamp and first + depth == sizes.k:
                    tile = relu_tile(tile)
                store_tile(c, rows_out, column, tile, sizes.n - column)
        if drops:
            for row in range(first_tile * shape.rows, min(last_tile * shape.rows, sizes.m)):
                place = row * sizes.n + column
                drop_in_place(pointer(c, place), place, min(shape.width, sizes.n - column), mask)


@jit
def _copy(b, depth, columns, step, shape, panel):
    """panel (depth, width) = the first columns of b, zero where there are none."""
    for i in range(depth):
        for j in range(0, shape.width, LANES):
            store(panel, i * shape.width + j, load_first(b, i * step + j, columns - j))


@jit
def _copy_transposed(b, depth, columns, step, shape, panel):
    """panel (depth, width) = the first rows of b, transposed, zero where there are none."""
    edge = pointer(panel, -(-depth // LANES) * LANES * shape.width)  # a block of b, filled up with zeros
    for j in range(0, shape.width, LANES):
        for i in range(0, depth, LANES):
            if j + LANES <= columns and i + LANES <= depth:
                transpose(b, j * step + i, step, panel, i * shape.width + j, shape.width)
            else:
                for row in range(LANES):
                    left = depth - i if j + row < columns else 0
                    store(edge, row * LANES, load_first(b, (j + row) * step + i, left))
                transpose(edge, 0, LANES, panel, i * shape.width + j, shape.width)
