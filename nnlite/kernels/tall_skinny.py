"""Matrix products with few output columns, as in a network's last layer: x (m, k) @ weight (k, n), n up to WIDEST.

So few columns fill no vector, so the long axis does: forward, the lanes hold terms of the reduction over k and are
added up at the end; backward, they hold neighbouring columns of x. Backward takes a strip of columns at a time, so that
both gradients read x and write dx once:

    tile[j, :] += dy[i, j] * x[i, strip]   over i   (dweight, transposed)
    tile[i, :] += dy[i, j] * weight[strip, j]   over j   (dx)

Where x is long, a strip's rows lie pages apart, which no processor foresees: what the strip writes and the next one
reads is asked for beforehand.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from nnlite.compiler.compilation import jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.reductions import multiply_add, multiply_add_vectors
from nnlite.compiler.simd import load, load_first, pointer, prefetch, prefetch_to_write, store
from nnlite.compiler.target import LANES, REGISTERS
from nnlite.compiler.tile_shapes import TileShape
from nnlite.compiler.tiles import even_rows, store_tile, zero_tile
from nnlite.compiler.transposition import transpose
from nnlite.runtime import memory, threads
from nnlite.runtime.replay import filled

#: the most columns
WIDEST = 12
#: columns of a matrix as lines of lanes come in whole blocks of LANES lines
_LINES = -(-WIDEST // LANES) * LANES
#: vectors of a strip, and the rows of dx that are computed at a time
_STRIP, _BLOCK = (2, 8) if REGISTERS == 32 else (1, 6)
#: forward: rows of x, and a vector of sums for each column
_ROWS = 2 if REGISTERS == 32 else 1
_NOTHING = np.empty((0, 0), np.float32)

_shape = cache(TileShape)  # to make one costs as much as to start a kernel


def matmul(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, relu: bool) -> np.ndarray:
    """x @ weight + bias: x (m, k), weight (k, n), bias (n) -> (m, n); with `relu`, max(that, 0)."""
    (m, k), n = x.shape, weight.shape[1]
    y = memory.empty((m, n))
    start = filled((n,), np.float32, 0) if bias is None else bias
    num_threads = threads.kernel_parts()
    work = memory.empty((num_threads, (-(-k // LANES) * n + _ROWS * WIDEST + _LINES) * LANES))
    _forward.run(num_threads, _shape(_ROWS, n), x, weight, start, relu, y, work)
    return y


@kernel
def _forward(thread, num_threads, shape, x, weight, bias, relu, y, work):
    """A share of the rows of y."""
    (m, k), n = x.shape, weight.shape[1]
    begin, end = thread * m // num_threads, (thread + 1) * m // num_threads
    packed = pointer(work, thread * work.shape[1])
    whole = k // LANES * LANES
    sums = pointer(packed, -(-k // LANES) * n * LANES)
    if begin < end:
        for i in range(0, whole, LANES):
            _columns_to_lines(weight, i, pointer(packed, i * n), LANES)
    for first in range(begin, end, shape.rows):
        rows = even_rows(shape, first, end, k)
        tile = zero_tile(shape)
        tile = multiply_add_vectors(tile, x, rows, 0, LANES, packed, 0, LANES * n, whole // LANES)
        store_tile(sums, even_rows(shape, 0, shape.rows, n * LANES), 0, tile, n * LANES)
        for row in range(min(shape.rows, end - first)):
            for j in range(n):
                total = bias[j]
                for lane in range(LANES):
                    total += sums[(row * n + j) * LANES + lane]
                for i in range(whole, k):
                    total += x[first + row, i] * weight[i, j]
                y[first + row, j] = np.float32(0) if relu and total < 0 else total


def gradients(
    x: np.ndarray, weight: np.ndarray, dy: np.ndarray, needs: tuple[bool, bool]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(dy @ weight.T (m, k), x.T @ dy (k, n)), None for what `needs` does not ask for."""
    (m, k), n = x.shape, dy.shape[1]
    dx = memory.empty((m, k)) if needs[0] else _NOTHING
    dweight = memory.empty((k, n)) if needs[1] else _NOTHING
    sums, block = _shape(n, _STRIP), _shape(_BLOCK, _STRIP)
    num_threads = threads.kernel_parts()
    work = memory.empty((num_threads, (_LINES + WIDEST + 1) * sums.width))
    _backward.run(num_threads, sums, block, x, weight, dy, dx, dweight, work)
    return (dx if needs[0] else None), (dweight if needs[1] else None)


@kernel
def _backward(thread, num_threads, sums, block, x, weight, dy, dx, dweight, work):
    """Both gradients for a share of the columns of x."""
    (m, k), n = x.shape, dy.shape[1]
    strips = -(-k // sums.width)
    lines = pointer(work, thread * work.shape[1])
    spare = pointer(lines, _LINES * sums.width)
    for index in range(thread * strips // num_threads, (thread + 1) * strips // num_threads):
        first = index * sums.width
        width = min(sums.width, k - first)
        if dweight.size:
            _reduce_rows(sums, x, first, width, dy, dx, spare, lines)
            for j in range(0, width, LANES):
                _lines_to_columns(pointer(lines, j), sums.width, first + j, spare, dweight)
        if dx.size:
            for j in range(0, width, LANES):
                _columns_to_lines(weight, first + j, pointer(lines, j), sums.width)
            for row in range(0, m, block.rows):
                rows = even_rows(block, row, m, n)
                tile = zero_tile(block)
                tile = multiply_add(tile, dy, rows, 0, 1, lines, 0, block.width, n)
                store_tile(dx, even_rows(block, row, m, k), first, tile, width)


@jit
def _reduce_rows(shape, x, first, width, dy, dx, spare, lines):
    """lines (n, shape.width) = dy.T @ the `width` columns of x from `first` on; those of dx are written next."""
    (m, k), n = x.shape, dy.shape[1]
    columns = even_rows(shape, 0, n, 1)
    tile = zero_tile(shape)
    if width == shape.width:
        for i in range(m):
            for j in range(first, first + shape.width, LANES):
                prefetch(x, i * k + shape.width + j)
                prefetch_to_write(dx, i * k + j)
            tile = multiply_add(tile, dy, columns, i * n, 0, x, i * k + first, 0, 1)
    else:  # the last strip: its rows are copied, so that nothing beyond the array is read
        for i in range(m):
            for j in range(0, shape.width, LANES):
                store(spare, j, load_first(x, i * k + first + j, width - j))
            tile = multiply_add(tile, dy, columns, i * n, 0, spare, 0, 0, 1)
    store_tile(lines, even_rows(shape, 0, n, shape.width), 0, tile, shape.width)


# Columns of a (k, n) matrix as lines of lanes and back -----------------------------------------------------------


@jit
def _columns_to_lines(weight, first, lines, step):
    """lines[j * step:][:LANES] = weight[first:, j], zero beyond its end, for each column j; what follows is lost."""
    k, n = weight.shape
    if (first + LANES) * n + LANES <= k * n:
        for j in range(0, n, LANES):
            transpose(weight, first * n + j, n, lines, j * step, step)
    else:
        for j in range(n):
            for i in range(LANES):
                lines[j * step + i] = weight[first + i, j] if first + i < k else np.float32(0)


@jit
def _lines_to_columns(lines, step, first, block, weight):
    """The reverse: weight[first:, j] = lines[j * step:][:LANES]; `block` is scratch."""
    k, n = weight.shape
    for j in range((n - 1) // LANES * LANES, -1, -LANES):  # what is written beyond a row is overwritten by the next
        transpose(lines, j * step, step, block, j, n)
    if first + LANES <= k:
        for i in range(0, n * LANES, LANES):
            store(weight, first * n + i, load(block, i))
    else:
        for i in range(first, k):
            for j in range(n):
                weight[i, j] = block[(i - first) * n + j]
