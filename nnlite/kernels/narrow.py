"""Matrix products with few output columns, as in a network's last layer: x (m, k) @ weight (k, n), n up to WIDEST.

So few columns fill no vector, so the long axis does: forward, the lanes hold terms of the reduction over k and are
added up at the end; backward, they hold neighbouring columns of x. Backward takes a strip of columns at a time, so that
both gradients read x and write dx once:

    tile[j, :] += dy[i, j] * x[i, strip]   over i   (dweight, transposed)
    tile[i, :] += dy[i, j] * weight[strip, j]   over j   (dx)
"""

from __future__ import annotations

import numpy as np

from nnlite import memory, threads
from nnlite.jit import jit, kernel
from nnlite.simd import LANES, REGISTERS, load_first, pointer, store
from nnlite.tiles import TileShape, even_rows, multiply_add, multiply_add_vectors, store_tile, zeros

#: the most columns
WIDEST = 12
#: backward: rows of sums for some columns, or for rows of dx
_STRIP = TileShape(6, 4 if REGISTERS == 32 else 1)
#: forward: rows of x, and a vector of sums for each column
_ROWS = 2 if REGISTERS == 32 else 1


def matmul(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, relu: bool) -> np.ndarray:
    """x @ weight + bias: x (m, k), weight (k, n), bias (n) -> (m, n); with `relu`, max(that, 0)."""
    (m, k), n = x.shape, weight.shape[1]
    y = memory.empty((m, n))
    start = np.zeros(n, np.float32) if bias is None else bias
    panels = memory.empty((threads.get_num_threads(), -(-k // LANES) * n * LANES + _ROWS * WIDEST * LANES))
    _forward(TileShape(_ROWS, n), x, weight, start, relu, panels, y)
    return y


@kernel
def _forward(part, parts, shape, x, weight, bias, clamp, panels, y):
    """A share of the rows of y."""
    (m, k), n = x.shape, weight.shape[1]
    begin, end = part * m // parts, (part + 1) * m // parts
    panel = pointer(panels, part * panels.shape[1])
    whole = k // LANES * LANES
    sums = pointer(panel, -(-k // LANES) * n * LANES)
    if begin < end:
        _lanes_of_terms(weight, k, n, panel)
    for first in range(begin, end, shape.rows):
        rows = even_rows(shape, first, end, k)
        tile = zeros(shape)
        for i in range(0, whole, LANES):
            tile = multiply_add_vectors(tile, x, rows, i, panel, i * n)
        store_tile(sums, even_rows(shape, 0, shape.rows, n * LANES), 0, tile, n * LANES)
        for row in range(min(shape.rows, end - first)):
            for j in range(n):
                total = bias[j]
                for lane in range(LANES):
                    total += sums[(row * n + j) * LANES + lane]
                for i in range(whole, k):
                    total += x[first + row, i] * weight[i, j]
                y[first + row, j] = np.float32(0) if clamp and total < 0 else total


@jit
def _lanes_of_terms(weight, k, n, panel):
    """panel (k / LANES, n, LANES) = weight (k, n): the terms of a reduction beside each other."""
    for i in range(0, k - k % LANES, LANES):
        for j in range(n):
            for lane in range(LANES):
                panel[i * n + j * LANES + lane] = weight[i + lane, j]


def gradients(
    x: np.ndarray, weight: np.ndarray, dy: np.ndarray, needs: tuple[bool, bool]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(dy @ weight.T (m, k), x.T @ dy (k, n)), None for what `needs` does not ask for."""
    (m, k), n = x.shape, dy.shape[1]
    nothing = np.empty((0, 0), np.float32)
    dx = memory.empty((m, k)) if needs[0] else nothing
    dweight = memory.empty((k, n)) if needs[1] else nothing
    scratch = memory.empty((threads.get_num_threads(), (WIDEST + 1) * _STRIP.width))
    _backward(_STRIP, x, weight, dy, scratch, dx, dweight)
    return (dx if needs[0] else None), (dweight if needs[1] else None)


@kernel
def _backward(part, parts, shape, x, weight, dy, scratch, dx, dweight):
    """Both gradients for a share of the columns of x."""
    (m, k), n = x.shape, dy.shape[1]
    strips = -(-k // shape.width)
    strip = pointer(scratch, part * scratch.shape[1])
    for index in range(part * strips // parts, (part + 1) * strips // parts):
        first = index * shape.width
        width = min(shape.width, k - first)
        if dweight.size:
            _reduce_rows(shape, pointer(x, first), m, k, n, width, dy, strip)
            for i in range(width):
                for j in range(n):
                    dweight[first + i, j] = strip[j * shape.width + i]
        if dx.size:
            for j in range(n):
                for i in range(width):
                    strip[j * shape.width + i] = weight[first + i, j]
            for row in range(0, m, shape.rows):
                rows = even_rows(shape, row, m, n)
                tile = zeros(shape)
                for j in range(n):
                    tile = multiply_add(tile, dy, rows, j, strip, j * shape.width)
                store_tile(dx, even_rows(shape, row, m, k), first, tile, width)


@jit
def _reduce_rows(shape, x, m, k, n, width, dy, strip):
    """strip (n, shape.width) = dy.T @ a strip of x."""
    line = pointer(strip, n * shape.width)
    for first in range(0, n, shape.rows):
        columns = even_rows(shape, first, n, 1)
        tile = zeros(shape)
        if width == shape.width:
            for i in range(m):
                tile = multiply_add(tile, dy, columns, i * n, x, i * k)
        else:  # the last strip: its lines are copied, so that nothing beyond the array is read
            for i in range(m):
                for j in range(0, shape.width, LANES):
                    store(line, j, load_first(x, i * k + j, width - j))
                tile = multiply_add(tile, dy, columns, i * n, line, 0)
        store_tile(strip, even_rows(shape, first, n, shape.width), 0, tile, shape.width)
