"""Winograd's weights to U, and dU to the weights' gradient: the threads share the channels."""

from __future__ import annotations

import numpy as np

from nnlite.compiler.compilation import jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.simd import load, load_first, pointer, store, store_first
from nnlite.compiler.target import LANES
from nnlite.compiler.transposition import transpose
from nnlite.conv.geometry import Geometry
from nnlite.conv.winograd_tiles import WinogradSizes, product_shape
from nnlite.conv.winograd_transforms import G, sandwich
from nnlite.runtime import memory

_g_w_gt, _gt_du_g = sandwich(G), sandwich(G.T)


def transformed(weight: np.ndarray, is_swapped: bool, num_threads: int) -> np.ndarray:
    """U (36, panels) of weights (3, 3, c, k), or of these with c and k swapped, and what the threads use for it."""
    depth, columns = weight.shape[:1:-1] if is_swapped else weight.shape[2:]
    shape = product_shape(columns)
    # a vector more than needed: otherwise the 36 elements fall on the same lines of the cache
    step = -(-columns // shape.width) * shape.width * depth + LANES
    u = memory.empty((36 + -(-10 * LANES * LANES * num_threads // step), step))
    transform_weight.run(num_threads, shape, is_swapped, weight, u)
    return u


@kernel
def transform_weight(thread, num_threads, shape, is_swapped, weight, u):
    """One share of U = G g G' of weights (3, 3, c, k), zero beyond the last of k. With c and k swapped if `is_swapped`.

    U lies in panels as wide as a register tile: (36, k_wide / NR, c, NR), each element in a row of `u`.
    """
    c, k = weight.shape[2:]
    depth, columns = (k, c) if is_swapped else (c, k)
    nr, step, blocks = shape.width, u.shape[1], -(-depth // LANES)
    total = -(-columns // nr) * blocks
    scratch = pointer(u, 36 * step + thread * 10 * LANES * LANES)
    for index in range(thread * total // num_threads, (thread + 1) * total // num_threads):
        panel, first = index // blocks, index % blocks * LANES
        for column in range(panel * nr, (panel + 1) * nr, LANES):
            _gather_weight(weight, is_swapped, first, column, scratch)
            for i in range(min(LANES, depth - first)):
                place = (panel * depth + first + i) * nr + column % nr
                _g_w_gt(scratch, i * LANES, 3 * LANES * LANES, LANES * LANES, u, place, 6 * step, step)


@jit
def _gather_weight(weight, is_swapped, first, column, scratch):
    """Of each tap a block of channels: rows from `first` on, vectors at `column`, zero where there are none."""
    c, k = weight.shape[2:]
    block = LANES * LANES
    row, left = (column, k - first) if is_swapped else (first, k - column)
    for tap in range(9):
        source = pointer(weight, (tap * c + row) * k + (first if is_swapped else column))
        copy = pointer(scratch, (9 if is_swapped else tap) * block)
        for i in range(LANES):
            store(copy, i * LANES, load_first(source, i * k, left if row + i < c else 0))
        if is_swapped:
            transpose(copy, 0, LANES, scratch, tap * block, LANES)


def weight_gradient(du: np.ndarray, sizes: WinogradSizes, geometry: Geometry) -> np.ndarray:
    """dweight (3, 3, c, k) of the threads' sums."""
    dweight = memory.empty(geometry.weight_shape)
    transform_du.run(len(du), product_shape(sizes.k), sizes, du, memory.empty((len(du), 36 * LANES)), dweight)
    return dweight


@kernel
def transform_du(thread, num_threads, shape, sizes, du, scratch, dweight):
    """One share of dweight = G' dU G, dU (copies, 36, k_wide / NR, c, NR) being summed over the copies in order.

    The sums are made first, in the order of memory: a cache far away hands over lines that are asked for one by one
    much slower than a run of them.
    """
    (copies, _, step), (_, _, channels, k), nr = du.shape, dweight.shape, shape.width
    begin, end = thread * channels // num_threads, (thread + 1) * channels // num_threads
    own_scratch = pointer(scratch, thread * scratch.shape[1])
    sums = pointer(du, thread * 36 * step)
    if copies > 1:
        for panel in range(36 * sizes.k_wide // nr):
            start = panel * nr // sizes.k_wide * step + panel * nr % sizes.k_wide * channels
            for i in range(start + begin * nr, start + end * nr, LANES):
                total = load(du, i)
                for copy in range(1, copies):
                    total = total + load(du, copy * 36 * step + i)
                store(sums, i, total)
    for c in range(begin, end):
        for column in range(0, k, LANES):
            place = (column // nr * channels + c) * nr + column % nr
            _gt_du_g(sums, place, 6 * step, step, own_scratch, 0, 3 * LANES, LANES)
            for tap in range(9):
                store_first(dweight, (tap * channels + c) * k + column, load(own_scratch, tap * LANES), k - column)
