"""float32 matrix products of a small batch: x (m, k) and weight (k, n), with m up to MOST.

Each weight is used m times only, so the time goes to reading the weights, or to writing their gradient: both pass once,
as they lie in memory, a few rows at a time; but for columns at the edge, nothing is packed.
"""

from __future__ import annotations

import numpy as np

from nnlite.compiler.launch import kernel
from nnlite.compiler.reductions import multiply_add
from nnlite.compiler.simd import load_first, pointer, store
from nnlite.compiler.target import LANES, REGISTERS
from nnlite.compiler.tile_shapes import TileShape
from nnlite.compiler.tiles import even_rows, load_tile, relu_tile, repeat_row, store_tile, zero_tile
from nnlite.kernels import tall_skinny
from nnlite.kernels.dropout import Mask, drop_in_place, drops
from nnlite.kernels.start_values import start_values
from nnlite.runtime import memory, threads
from nnlite.runtime.replay import copied, filled, noted

#: the most rows
MOST = 4
#: tiles for one row, and for more
_ONE, _MORE = TileShape(1, 4), TileShape(MOST, 4 if REGISTERS == 32 else 2)
#: rows of weights that are read side by side
_BLOCK = 8


def matmul(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, relu: bool, mask: Mask) -> np.ndarray:
    """dropout(x @ weight + bias): x (m, k), weight (k, n), bias (n) -> (m, n); with `relu`, of max(that, 0)."""
    m, n = len(x), weight.shape[1]
    shape = _ONE if m == 1 else _MORE
    start = start_values(bias, 1, -(-n // shape.width) * shape.width)
    y, num_threads = memory.empty((m, n)), threads.kernel_parts()
    work = memory.empty((num_threads, _BLOCK * shape.width))
    _forward.run(num_threads, shape, x, weight, start, relu, mask, y, work)
    return y


@kernel
def _forward(thread, num_threads, shape, x, weight, bias, relu, mask, y, work):
    """A share of the columns of y."""
    (m, k), n, nr = x.shape, weight.shape[1], shape.width
    panels, edge = -(-n // nr), pointer(work, thread * work.shape[1])
    first, last = thread * panels // num_threads, (thread + 1) * panels // num_threads
    rows, rows_out = even_rows(shape, 0, m, k), even_rows(shape, 0, m, n)
    for i in range(0, max(k, 1), _BLOCK):
        count = min(_BLOCK, k - i)
        for column in range(first * nr, last * nr, nr):
            columns = n - column
            tile = repeat_row(shape, bias, column) if i == 0 else load_tile(shape, y, rows_out, column, columns)
            if columns >= nr:
                tile = multiply_add(tile, x, rows, i, 1, weight, i * n + column, n, count)
            else:  # what lies beyond the last column is not read
                for row in range(count):
                    for j in range(0, nr, LANES):
                        store(edge, row * nr + j, load_first(weight, (i + row) * n + column + j, columns - j))
                tile = multiply_add(tile, x, rows, i, 1, edge, 0, nr, count)
            if relu and i + count >= k:
                tile = relu_tile(tile)
            store_tile(y, rows_out, column, tile, columns)
    if drops(mask) and first < last:
        for row in range(m):
            place = row * n + first * nr
            drop_in_place(pointer(y, place), place, min(n, last * nr) - first * nr, mask)


def grad_input(dy: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """dy @ weight.T: dy (m, n), weight (k, n) -> (m, k)."""
    return copied(tall_skinny.matmul(weight, copied(dy.T), None, False).T)


def grad_weight(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """x.T @ dy: x (m, k), dy (m, n) -> (k, n)."""
    (m, k), n = x.shape, dy.shape[1]
    padded = filled((m, -(-n // _ONE.width) * _ONE.width), np.float32, 0)  # so that whole vectors can be read
    noted(np.copyto, padded[:, :n], dy)
    dweight = memory.empty((k, n))
    _outer.run(threads.kernel_parts(), _ONE, x, padded, dweight)
    return dweight


@kernel
def _outer(thread, num_threads, shape, x, dy, dweight):
    """A share of the rows of x.T @ dy."""
    (m, k), n, nr = x.shape, dweight.shape[1], shape.width
    for row in range(thread * k // num_threads, (thread + 1) * k // num_threads):
        rows_out = even_rows(shape, row, k, n)
        for column in range(0, n, nr):
            tile = multiply_add(zero_tile(shape), x, even_rows(shape, 0, 1, 1), row, k, dy, column, dy.shape[1], m)
            store_tile(dweight, rows_out, column, tile, n - column)
