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

from nnlite.compiler.jit import jit
from nnlite.compiler.kernel import kernel
from nnlite.compiler.simd import LANES, load, load_first, pointer, store
from nnlite.compiler.tile_shapes import TileShape, tile_shape
from nnlite.compiler.tiles import even_rows, load_tile, multiply_add, relu_tile, repeat_row, store_tile
from nnlite.compiler.transposition import transpose
from nnlite.kernels.dropout import Mask, drop_in_place, drops
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
    return _product(a, b, _plan(m, b.shape[1], k, k, 1), bias, relu, mask)


def matmul_nt(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b.T: a (m, k), b (n, k) -> (m, n)."""
    m, k = a.shape
    return _product(a, b, _plan(m, b.shape[0], k, k, 1, True))


def matmul_tn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a.T @ b: a (k, m), b (k, n) -> (m, n)."""
    (k, m), n = a.shape, b.shape[1]
    if n < LANES < m:  # so few columns leave lanes empty: compute the transposed result
        return np.ascontiguousarray(_product(b, a, _plan(n, m, k, 1, n)).T)  # (m, n)
    return _product(a, b, _plan(m, n, k, 1, m))


class Sizes(NamedTuple):
    """The numbers that the compiled loops of a product need."""

    m: int
    n: int
    k: int
    row: int  # from a row of a to the next
    step: int  # from one term of the reduction to the next, in a
    kc: int  # rows of a panel that are reduced at a time
    is_transposed: bool  # whether b is given as (n, k)


class Plan(NamedTuple):
    """How products of some sizes are computed."""

    shape: TileShape
    sizes: Sizes
    packed_size: int  # numbers of a thread's packed panel
    no_bias: np.ndarray  # zeros (n, to whole tiles)


def _shape(columns: int) -> TileShape:
    """The register tile of a product. Four rows divide most batches; of 128 a tile of six computes four in vain."""
    shape = tile_shape(columns)
    return TileShape(4, 4) if shape.vectors == 4 else shape


@lru_cache(maxsize=1024)
def _plan(m: int, n: int, k: int, row: int, step: int, is_transposed: bool = False) -> Plan:
    shape = _shape(n)
    blocks = -(-k * shape.width * 4 // PANEL_BYTES)
    kc = max(1, -(-k // max(blocks, 1)))
    packed_size = -(-kc // LANES) * LANES * shape.width + LANES * LANES
    no_bias = np.zeros(-(-n // shape.width) * shape.width, np.float32)
    return Plan(shape, Sizes(m, n, k, row, step, kc, is_transposed), packed_size, no_bias)


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
        start = start.copy()
        start[: sizes.n] = bias
    if c.size:
        num_threads = threads.kernel_parts()
        work = memory.empty((num_threads, packed_size))
        _gemm.run(num_threads, shape, sizes, a, b, start, c, relu, mask or _NO_MASK, work)
    return c


@kernel
def _gemm(thread, num_threads, shape, sizes, a, b, bias, c, relu, mask, work):
    """One share of the tiles of c = dropout(relu(a b + bias)), in BLIS's loops around the micro-kernel.

    There are no loops 5 and 3: the matrices of a layer are small enough for the caches that these would serve.
    """
    tiles, nr = -(-sizes.m // shape.rows), shape.width
    total = -(-sizes.n // nr) * tiles
    begin, end = thread * total // num_threads, (thread + 1) * total // num_threads
    packed = pointer(work, thread * work.shape[1])
    # loop 2: panels of NR columns of b
    for index in range(begin // tiles, -(-end // tiles)):
        column = index * nr
        columns, is_whole = sizes.n - column, column + nr <= sizes.n
        first_tile, last_tile = max(begin - index * tiles, 0), min(end - index * tiles, tiles)
        # loop 4: blocks of KC terms of the reduction: their packed b stays in cache while all tiles pass
        for first in range(0, max(sizes.k, 1), sizes.kc):
            kc = min(sizes.kc, sizes.k - first)
            if sizes.is_transposed:
                _pack_transposed(pointer(b, column * sizes.k + first), kc, columns, sizes.k, shape, packed)
            elif not is_whole:
                _pack(pointer(b, first * sizes.n + column), kc, columns, sizes.n, shape, packed)
            # loop 1: tiles of MR rows of a: their sums stay in registers
            for t in range(first_tile, last_tile):
                rows = even_rows(shape, t * shape.rows, sizes.m, sizes.row)
                rows_out = even_rows(shape, t * shape.rows, sizes.m, sizes.n)
                if first == 0:
                    tile = repeat_row(shape, bias, column)
                else:
                    tile = load_tile(shape, c, rows_out, column, columns)
                if t == first_tile and is_whole and not sizes.is_transposed:  # packs its b while it computes
                    for i in range(kc):
                        line = (first + i) * sizes.n + column
                        tile = multiply_add(tile, a, rows, (first + i) * sizes.step, 0, b, line, 0, 1)
                        for j in range(0, nr, LANES):
                            store(packed, i * nr + j, load(b, line + j))
                else:
                    tile = multiply_add(tile, a, rows, first * sizes.step, sizes.step, packed, 0, nr, kc)
                if relu and first + kc == sizes.k:
                    tile = relu_tile(tile)
                store_tile(c, rows_out, column, tile, columns)
        if drops(mask):
            for row in range(first_tile * shape.rows, min(last_tile * shape.rows, sizes.m)):
                place = row * sizes.n + column
                drop_in_place(pointer(c, place), place, min(nr, columns), mask)


@jit
def _pack(b, kc, columns, step, shape, packed):
    """packed (KC, NR) = the first columns of b, zero where there are none."""
    for i in range(kc):
        for j in range(0, shape.width, LANES):
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
