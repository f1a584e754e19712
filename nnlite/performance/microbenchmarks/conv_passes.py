"""The rates of compiled convolution algorithms: register tiles, transforms, copies into lanes.

Each works on a small standard problem, on all of the kernels' threads. What it fetches from the whole batch or stores
to it (images, results) lies in as many blocks as fill the work item's working set, so that it comes from the level of
cache, or the memory, that it comes from in a step; what stays in a thread's workspace stays in its cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.compiler.kernel import kernel
from nnlite.compiler.simd import LANES
from nnlite.compiler.tile_shapes import tile_shape
from nnlite.conv.direct_plan import grad_weight
from nnlite.conv.epilogue import Output
from nnlite.conv.geometry import Geometry
from nnlite.conv.loops import Loops
from nnlite.conv.winograd_tiles import WinogradSizes, Workspace, sizes_of, transform_weight, workspace
from nnlite.conv.work import ITEMSIZE
from nnlite.kernels.dropout import Mask
from nnlite.performance.microbenchmarks import conv_kernels
from nnlite.performance.microbenchmarks.base import Work, kind
from nnlite.runtime import memory, threads

#: FLOPs, and elements transferred, per thread and sample: about a millisecond
_FLOPS, _NUMBERS = 1e8, 2_000_000
_SIDE = 16  # of a standard image


def blocks_for(numbers: int, working_set: int) -> int:
    """The number of blocks of `numbers` elements per thread that fill the working set."""
    return max(1, working_set // (ITEMSIZE * threads.kernel_parts() * numbers))


def rounds_for(numbers: int, blocks: int) -> int:
    """Rounds per sample: one for each block, as in a step."""
    return blocks if blocks > 1 else max(1, _NUMBERS // numbers)


def small_numbers(rows: int, size: int) -> np.ndarray:
    """(rows, size) small numbers, whose sums over many rounds do not overflow."""
    array = memory.empty((rows, size))
    array.fill(1e-3)
    return array


def _bytes(rows: int, size: int) -> np.ndarray:
    return np.zeros((rows, size), np.uint8)


def work_of(function: kernel, rounds: int, blocks: int, amount: float, written: np.ndarray | None, *rest: Any) -> Work:
    """`amount` is the work of one thread per round; `written` is an array that another kernel has just written."""
    own = () if written is None else (written,)
    return Work(lambda: function(rounds, blocks, *rest), rounds * threads.kernel_parts() * amount, own=own)


# Products on register tiles -----------------------------------------------------------------------------------------


@kind
def tiles(size: tuple[int, ...], working_set: int) -> Work:
    return _sums(conv_kernels.tile_sums, Loops(*size), working_set)


@kind
def lane_tiles(size: tuple[int, ...], working_set: int) -> Work:
    return _sums(conv_kernels.lane_sums, Loops(*size), working_set)


@kind
def vector_tiles(size: tuple[int, ...], working_set: int) -> Work:
    return _sums(conv_kernels.vector_sums, Loops(*size), working_set)


def _sums(function: kernel, loops: Loops, working_set: int) -> Work:
    shape, parts = loops.shape, threads.kernel_parts()
    rows = loops.tiles * shape.rows
    reach = rows * loops.row_step + loops.runs * loops.run_step + loops.length * loops.step
    x_size = reach + loops.batches * loops.x_batch + LANES
    y_size = rows * loops.pitch + loops.batches * loops.y_batch + shape.width
    blocks = blocks_for(x_size + y_size, working_set)
    x, y = small_numbers(parts * blocks, x_size), small_numbers(parts * (1 if loops.load else blocks), y_size)
    b = small_numbers(1, loops.terms * loops.b_step + loops.batches * loops.b_batch + shape.width)
    once = 2.0 * loops.batches * rows * shape.width * loops.terms
    rounds = blocks if blocks > 1 else max(1, round(_FLOPS / once))
    return work_of(function, rounds, blocks, once, None, shape, loops, x, b, y)


# Winograd's transforms -----------------------------------------------------------------------------------------------


def _standard(c: int, k: int) -> tuple[int, WinogradSizes, int]:
    """(images per block, sizes, tiles) of a small problem."""
    each = 3
    geometry = Geometry.of((each, _SIDE + 2, _SIDE + 2, c), (3, 3, c, k))
    sizes = sizes_of(geometry)
    count = each * sizes.tiles
    # blocks of exactly `count` tiles
    return (
        each,
        sizes._replace(block=count, v_step=count * sizes.c_wide + LANES, m_step=count * sizes.k_wide + LANES),
        count,
    )


def _workspace(sizes: WinogradSizes) -> np.ndarray:
    work = workspace(sizes, threads.kernel_parts())
    work.fill(1e-3)
    return work


@kind
def winograd_input(size: tuple[int, ...], working_set: int) -> Work:
    images, sizes, count = _standard(size[0], size[0])
    blocks = blocks_for(images * sizes.h * sizes.w * sizes.c, working_set)
    x = small_numbers(threads.kernel_parts() * blocks * images, sizes.h * sizes.w * sizes.c)
    rounds, amount = rounds_for(36 * count * sizes.c_wide, blocks), ITEMSIZE * 36.0 * count * sizes.c_wide
    return work_of(conv_kernels.winograd_input, rounds, blocks, amount, x, count, sizes, x, _workspace(sizes))


@kind
def winograd_output(size: tuple[int, ...], working_set: int) -> Work:
    k, relu, pool = size[0], bool(size[1]), bool(size[2])
    images, sizes, count = _standard(k, k)
    numbers = images * _SIDE * _SIDE * k // (4 if pool else 1)
    blocks = blocks_for(numbers, working_set)
    all_blocks = threads.kernel_parts() * blocks
    out, bias = _output(all_blocks, numbers, relu, pool), np.zeros(sizes.k_wide, np.float32)
    rounds, amount = rounds_for(36 * count * sizes.k_wide, blocks), ITEMSIZE * 36.0 * count * sizes.k_wide
    work = conv_kernels.winograd_output
    return work_of(work, rounds, blocks, amount, None, count, sizes, bias, out, _workspace(sizes))


def _output(rows: int, numbers: int, relu: bool, pool: bool) -> Output:
    return Output(small_numbers(rows, numbers), _bytes(rows, numbers), relu, pool)


@kind
def winograd_dy(size: tuple[int, ...], working_set: int) -> Work:
    parts = threads.kernel_parts()
    k, is_fused, relu, pool = size[0], bool(size[1]), bool(size[2]), bool(size[3])
    images, sizes, count = _standard(k, k)
    numbers = images * _SIDE * _SIDE * k // (4 if pool else 1)
    blocks = blocks_for(numbers * (1 + relu), working_set)
    dy, out = small_numbers(parts * blocks, numbers), _output(parts * blocks, numbers, relu, pool)
    dbias = np.zeros((parts, sizes.k_wide), np.float32)
    rounds, amount = rounds_for(36 * count * sizes.k_wide, blocks), ITEMSIZE * 36.0 * count * sizes.k_wide
    work = conv_kernels.winograd_dy
    return work_of(work, rounds, blocks, amount, dy, count, sizes, dy, out, is_fused, dbias, _workspace(sizes))


@kind
def winograd_dx(size: tuple[int, ...], working_set: int) -> Work:
    images, sizes, count = _standard(size[0], size[0])
    blocks = blocks_for(images * sizes.h * sizes.w * sizes.c, working_set)
    dx = small_numbers(threads.kernel_parts() * blocks * images, sizes.h * sizes.w * sizes.c)
    dx = dx.reshape(-1, sizes.h, sizes.w, sizes.c)
    rounds, amount = rounds_for(36 * count * sizes.c_wide, blocks), ITEMSIZE * 36.0 * count * sizes.c_wide
    return work_of(conv_kernels.winograd_dx, rounds, blocks, amount, None, count, sizes, dx, _workspace(sizes))


@kind
def winograd_weight(size: tuple[int, ...], working_set: int) -> Work:
    """Every thread transforms all weights: the time of one is that of all."""
    k, c = size[0], 16
    columns = -(-k // tile_shape(k).width) * tile_shape(k).width
    weight, u = np.ones((3, 3, c, k), np.float32), np.zeros((36, c, columns), np.float32)
    work = Workspace(u, u, u, np.zeros(36 * LANES, np.float32))
    return Work(lambda: transform_weight(weight, columns, work), float(u.nbytes))


# Copies into and out of an image's workspace -------------------------------------------------------------------


@kind
def pad(size: tuple[int, ...], working_set: int) -> Work:
    is_gated, c, parts = bool(size[0]), 16, threads.kernel_parts()
    nest = grad_weight(Geometry.of((1, _SIDE, _SIDE, c), (3, 3, c, 1), padding="same")).nest
    blocks = blocks_for(nest.image_in * (1 + is_gated), working_set)
    x, out = small_numbers(parts * blocks, nest.image_in), np.zeros((parts, nest.image_padded), np.float32)
    gate, rounds = small_numbers(parts * blocks, nest.image_in) if is_gated else x, rounds_for(nest.image_in, blocks)
    return work_of(conv_kernels.pad, rounds, blocks, float(ITEMSIZE * nest.image_in), x, nest, x, gate, is_gated, out)


@kind
def pack_dy(size: tuple[int, ...], working_set: int) -> Work:
    k, is_gated, parts = size[0], bool(size[1]), threads.kernel_parts()
    plan = grad_weight(Geometry.of((1, _SIDE + 2, _SIDE + 2, 1), (3, 3, 1, k)))
    columns, pixels = plan.nest.panels * plan.shape.width, _SIDE * _SIDE
    blocks = blocks_for(pixels * k * (1 + is_gated), working_set)
    dy, out = small_numbers(parts * blocks, pixels * k), small_numbers(parts, pixels * columns)
    gate = small_numbers(parts * blocks, pixels * k) if is_gated else dy
    bias, rounds, amount = small_numbers(parts, columns), rounds_for(pixels * columns, blocks), float(out[0].nbytes)
    work = conv_kernels.pack_channels
    return work_of(work, rounds, blocks, amount, dy, plan.shape, plan.nest, dy, gate, is_gated, out, bias)


def _lane_scratch() -> np.ndarray:
    return np.zeros((threads.kernel_parts(), LANES * LANES), np.float32)


@kind
def to_lanes(size: tuple[int, ...], working_set: int) -> Work:
    masked, length, parts = bool(size[0]), size[1], threads.kernel_parts()
    blocks = blocks_for(LANES * length * (1 + masked), working_set)
    x, out = small_numbers(parts * blocks, LANES * length), small_numbers(parts, LANES * (length + LANES))
    result = small_numbers(parts * blocks, LANES * length) if masked else x
    rounds, amount = rounds_for(LANES * length, blocks), float(ITEMSIZE * LANES * length)
    work = conv_kernels.block_to_lanes
    return work_of(work, rounds, blocks, amount, x, length, x, result, masked, out, _lane_scratch())


@kind
def from_lanes(size: tuple[int, ...], working_set: int) -> Work:
    length, parts = size[0], threads.kernel_parts()
    blocks = blocks_for(LANES * length, working_set)
    x, out = small_numbers(parts, LANES * (length + LANES)), small_numbers(parts * blocks, LANES * length)
    rounds, amount = rounds_for(LANES * length, blocks), float(ITEMSIZE * LANES * length)
    return work_of(conv_kernels.block_from_lanes, rounds, blocks, amount, None, length, x, out, _lane_scratch())


# What lanes do with a block in cache -----------------------------------------------------------------------------


@kind
def lanes_max_pool(size: tuple[int, ...], working_set: int) -> Work:
    k, relu, parts = size[0], bool(size[1]), threads.kernel_parts()
    numbers = _SIDE * _SIDE * k * LANES
    y, result, argmax = small_numbers(parts, numbers), small_numbers(parts, numbers // 4), _bytes(parts, numbers // 4)
    work, rounds, amount = conv_kernels.lanes_max_pool, rounds_for(numbers, 1), float(ITEMSIZE * numbers)
    return Work(lambda: work(rounds, _SIDE, k, relu, y, result, argmax), rounds * parts * amount)


@kind
def lanes_unpool(size: tuple[int, ...], working_set: int) -> Work:
    k, parts = size[0], threads.kernel_parts()
    numbers = _SIDE * _SIDE * k * LANES
    dresult, argmax, out = small_numbers(parts, numbers), _bytes(parts, numbers), small_numbers(parts, 4 * numbers)
    work, rounds, amount = conv_kernels.lanes_unpool, rounds_for(numbers, 1), float(ITEMSIZE * numbers)
    return Work(lambda: work(rounds, _SIDE, k, dresult, argmax, out), rounds * parts * amount)


@kind
def lanes_bias(size: tuple[int, ...], working_set: int) -> Work:
    k, parts = size[0], threads.kernel_parts()
    numbers = _SIDE * _SIDE * k * LANES
    dy, sums = small_numbers(parts, numbers), small_numbers(parts, k * LANES)
    work, rounds, amount = conv_kernels.lanes_bias, rounds_for(numbers, 1), float(ITEMSIZE * numbers)
    return Work(lambda: work(rounds, _SIDE, k, dy, sums), rounds * parts * amount)


@kind
def drop(size: tuple[int, ...], working_set: int) -> Work:
    parts, numbers = threads.kernel_parts(), size[0]
    x, y, mask = small_numbers(parts, numbers), small_numbers(parts, numbers), Mask.of(0.25, 1)
    rounds, amount = rounds_for(numbers, 1), float(2 * ITEMSIZE * numbers)
    return Work(lambda: conv_kernels.drop_block(rounds, numbers, x, y, mask), rounds * parts * amount)
