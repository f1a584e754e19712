"""float32 matrix products on register tiles: a layer's forward product and the two of its backward pass.

A tile of rows x columns of the result stays in registers while the reduction runs. What a tile reads lies so that each
term of its reduction is at a constant distance from the last: the columns of b are copied to lie together (a panel), a
transposed b is turned over in that copy, and of a transposed a each tile's rows are copied to lie together. Rows of an
a that is not transposed are read as they lie.

The same number of threads gives the same bits, and other numbers do too: threads share out the tiles, and a tile's
sum does not depend on them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nnlite.compiler.blocking import BLOCK_BYTES, PANEL_BYTES
from nnlite.compiler.compilation import jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.reductions import multiply_add
from nnlite.compiler.simd import load, load_first, pointer, store
from nnlite.compiler.target import LANES
from nnlite.compiler.tile_shapes import TileShape, tile_shape
from nnlite.compiler.tiles import adjacent_rows, copy_column, even_rows, load_tile, relu_tile, repeat_row, store_tile
from nnlite.compiler.transposition import transpose
from nnlite.kernels import few_rows
from nnlite.kernels.dropout import Mask, drop_in_place, drops
from nnlite.kernels.start_values import start_values
from nnlite.runtime import memory, threads
from nnlite.runtime.replay import copied

_NO_MASK = Mask.of(0.0, 0)


def matmul(
    a: np.ndarray, b: np.ndarray, bias: np.ndarray | None = None, relu: bool = False, mask: Mask | None = None
) -> np.ndarray:
    """a @ b + bias: a (m, k), b (k, n), bias (n) -> (m, n); with `relu`, max(that, 0), where NaN stays NaN.

    With a `mask`, dropout of that.
    """
    m, k = a.shape
    if 0 < m <= few_rows.MOST:
        return few_rows.matmul(a, b, bias, relu, mask or _NO_MASK)
    return _product(a, b, _plan(m, b.shape[1], k), bias, relu, mask)


def matmul_nt(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b.T: a (m, k), b (n, k) -> (m, n)."""
    m, k = a.shape
    if 0 < m <= few_rows.MOST:
        return few_rows.grad_input(a, b)
    return _product(a, b, _plan(m, b.shape[0], k, is_b_transposed=True))


def matmul_tn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a.T @ b: a (k, m), b (k, n) -> (m, n)."""
    (k, m), n = a.shape, b.shape[1]
    if 0 < k <= few_rows.MOST:
        return few_rows.grad_weight(a, b)
    if n < LANES < m:  # so few columns leave lanes empty: compute the transposed result
        return copied(_product(b, a, _plan(n, m, k, is_a_transposed=True)).T)  # (m, n)
    return _product(a, b, _plan(m, n, k, is_a_transposed=True))


class Sizes(NamedTuple):
    """The numbers that the compiled loops of a product need."""

    m: int
    n: int
    k: int
    is_a_transposed: bool  # whether a is given as (k, m)
    is_b_transposed: bool  # whether b is given as (n, k)
    kc: int  # terms of the reduction that are summed at a time
    block: int  # tiles whose rows of a are packed at a time
    packed_b: int  # numbers of a packed panel of b


class Plan(NamedTuple):
    """How products of some sizes are computed."""

    shape: TileShape
    sizes: Sizes
    packed_size: int  # numbers of a thread's packed operands
    no_bias: np.ndarray  # zeros (n, to whole tiles)


def _shape(columns: int) -> TileShape:
    """The register tile of a product. Four rows divide most batches; of 128 a tile of six computes four in vain."""
    shape = tile_shape(columns)
    return TileShape(4, 4) if shape.vectors == 4 else shape


@lru_cache(maxsize=1024)
def _plan(m: int, n: int, k: int, *, is_a_transposed: bool = False, is_b_transposed: bool = False) -> Plan:
    shape = _shape(n)
    blocks = -(-k * shape.width * 4 // PANEL_BYTES)
    kc = max(1, -(-k // max(blocks, 1)))
    packed_b = -(-kc // LANES) * LANES * shape.width + LANES * LANES
    tiles = max(1, -(-m // shape.rows))
    block = min(tiles, max(1, BLOCK_BYTES // (4 * kc * shape.rows))) if is_a_transposed else tiles
    packed_a = block * kc * shape.rows if is_a_transposed else 0
    no_bias = np.zeros(-(-n // shape.width) * shape.width, np.float32)
    sizes = Sizes(m, n, k, is_a_transposed, is_b_transposed, kc, block, packed_b)
    return Plan(shape, sizes, packed_a + packed_b, no_bias)


def _product(
    a: np.ndarray,
    b: np.ndarray,
    plan: Plan,
    bias: np.ndarray | None = None,
    relu: bool = False,
    mask: Mask | None = None,
) -> np.ndarray:
    shape, sizes, packed_size, start = plan
    c = memory.empty((sizes.m, sizes.n))
    if bias is not None:
        start = start_values(bias, 1, len(start))
    if c.size:
        num_threads = threads.kernel_parts()
        work = memory.empty((num_threads, packed_size))
        _gemm.run(num_threads, shape, sizes, a, b, start, c, relu, mask or _NO_MASK, work)
    return c


@kernel
def _gemm(thread, num_threads, shape, sizes, a, b, bias, c, relu, mask, work):
    """One share of the tiles of c = dropout(relu(a b + bias)), in BLIS's loops around the micro-kernel.

    There is no loop 5: the matrices of a layer are small enough for the cache that it would serve.
    """
    mr, nr = shape.rows, shape.width
    tiles = -(-sizes.m // mr)
    total = -(-sizes.n // nr) * tiles
    begin, end = thread * total // num_threads, (thread + 1) * total // num_threads
    first_panel, last_panel = begin // tiles, -(-end // tiles)
    packed_b = pointer(work, thread * work.shape[1])
    packed_a = pointer(packed_b, sizes.packed_b)
    # loop 3: blocks of rows of a: their packed a stays in cache while all panels of b pass
    for top in range(0, tiles, sizes.block):
        bottom = min(top + sizes.block, tiles)
        if first_panel + 1 == last_panel:  # a share of one panel needs its own tiles only
            top, bottom = max(top, begin - first_panel * tiles), min(bottom, end - first_panel * tiles)
        # loop 4: blocks of KC terms of the reduction: their packed b stays in cache while all tiles pass
        for first in range(0, max(sizes.k, 1), sizes.kc):
            kc = min(sizes.kc, sizes.k - first)
            if sizes.is_a_transposed:
                _pack_a(pointer(a, first * sizes.m), kc, sizes.m, top, bottom, shape, packed_a)
            # loop 2: panels of NR columns of b
            for index in range(first_panel, last_panel):
                column, columns = index * nr, sizes.n - index * nr
                first_tile, last_tile = max(begin - index * tiles, top), min(end - index * tiles, bottom)
                if first_tile >= last_tile:
                    continue
                if sizes.is_b_transposed:
                    _pack_transposed(pointer(b, column * sizes.k + first), kc, columns, sizes.k, shape, packed_b)
                else:
                    _pack_b(pointer(b, first * sizes.n + column), kc, columns, sizes.n, shape, packed_b)
                # loop 1: tiles of MR rows of a: their sums stay in registers
                for t in range(first_tile, last_tile):
                    rows_out = even_rows(shape, t * mr, sizes.m, sizes.n)
                    if first == 0:
                        tile = repeat_row(shape, bias, column)
                    else:
                        tile = load_tile(shape, c, rows_out, column, columns)
                    if sizes.is_a_transposed:
                        rows, panel = adjacent_rows(shape), (t - top) * kc * mr
                        tile = multiply_add(tile, packed_a, rows, panel, mr, packed_b, 0, nr, kc)
                    else:
                        rows = even_rows(shape, t * mr, sizes.m, sizes.k)
                        tile = multiply_add(tile, a, rows, first, 1, packed_b, 0, nr, kc)
                    if relu and first + kc == sizes.k:
                        tile = relu_tile(tile)
                    store_tile(c, rows_out, column, tile, columns)
                if drops(mask) and first + kc == sizes.k:
                    for row in range(first_tile * mr, min(last_tile * mr, sizes.m)):
                        place = row * sizes.n + column
                        drop_in_place(pointer(c, place), place, min(nr, columns), mask)


@jit
def _pack_a(a, kc, m, top, bottom, shape, packed):
    """packed (tiles, KC, MR) = the first KC rows of a (k, m), for tiles `top` to `bottom`; the last column repeated."""
    mr = shape.rows
    for i in range(kc):  # a row at a time: rows may lie pages apart
        for t in range(top, bottom):
            place = ((t - top) * kc + i) * mr
            if (t + 1) * mr <= m:
                copy_column(shape, a, i * m + t * mr, packed, place)
            else:
                for row in range(mr):
                    packed[place + row] = a[i * m + min(t * mr + row, m - 1)]


@jit
def _pack_b(b, kc, columns, step, shape, packed):
    """packed (KC, NR) = the first columns of b, zero where there are none."""
    for i in range(kc):
        for j in range(0, shape.width, LANES):
            if shape.width <= columns:
                store(packed, i * shape.width + j, load(b, i * step + j))
            else:
                store(packed, i * shape.width + j, load_first(b, i * step + j, columns - j))


@jit
def _pack_transposed(b, kc, columns, step, shape, packed):
    """packed (KC, NR) = the first rows of b, transposed, zero where there are none."""
    edge = pointer(packed, -(-kc // LANES) * LANES * shape.width)  # a block of b, filled up with zeros
    for j in range(0, shape.width, LANES):
        for i in range(0, kc, LANES):
            if j + LANES <= columns and i + LANES <= kc:
                transpose(b, j * step + i, step, packed, i * shape.width + j, shape.width)
            else:
                for row in range(LANES):
                    left = kc - i if j + row < columns else 0
                    store(edge, row * LANES, load_first(b, (j + row) * step + i, left))
                transpose(edge, 0, LANES, packed, i * shape.width + j, shape.width)
