"""The rates of compiled convolution algorithms: register tiles, transforms, copies into lanes.

Each runs a small standard problem on all kernel threads. Data that a step loads from or stores to the whole batch
(images, results) are in as many blocks as fill the working set, so that they come from the same level of the memory
hierarchy as in a step. A thread's workspace stays in its cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.compiler.jit import kernel
from nnlite.compiler.simd import LANES
from nnlite.compiler.tile_shapes import tile_shape
from nnlite.conv.direct_plan import Image, grad_weight
from nnlite.conv.geometry import Geometry
from nnlite.conv.loops import Loops
from nnlite.conv.stages import ITEMSIZE
from nnlite.conv.winograd_tiles import WinogradSizes, sizes_of, transform_weight
from nnlite.kernels.dropout import Mask
from nnlite.performance.microbenchmarks import conv_kernels
from nnlite.performance.microbenchmarks.base import Work, kind
from nnlite.runtime import memory, threads

#: FLOPs, and elements transferred, per thread and sample: about a millisecond
_FLOPS, _NUMBERS = 1e8, 2_000_000
_SIDE = 16  # of a standard image


def _blocks(numbers: int, working_set: int) -> int:
    """The number of blocks of `numbers` elements per thread that fill the working set."""
    return max(1, working_set // (ITEMSIZE * threads.kernel_parts() * numbers))


def _rounds(numbers: int, blocks: int) -> int:
    """Rounds per sample: one for each block, as in a step."""
    return blocks if blocks > 1 else max(1, _NUMBERS // numbers)


def _numbers(rows: int, size: int) -> np.ndarray:
    """(rows, size) small numbers, whose sums over many rounds do not overflow."""
    array = memory.empty((rows, size))
    array.fill(1e-3)
    return array


def _bytes(rows: int, size: int) -> np.ndarray:
    return np.zeros((rows, size), np.uint8)


def _work(function: kernel, rounds: int, blocks: int, amount: float, written: np.ndarray | None, *rest: Any) -> Work:
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
    blocks = _blocks(x_size + y_size, working_set)
    x, y = _numbers(parts * blocks, x_size), _numbers(parts * (1 if loops.load else blocks), y_size)
    b = _numbers(1, loops.terms * loops.b_step + loops.batches * loops.b_batch + shape.width)
    once = 2.0 * loops.batches * rows * shape.width * loops.terms
    rounds = blocks if blocks > 1 else max(1, round(_FLOPS / once))
    return _work(function, rounds, blocks, once, None, shape, loops, x, b, y)


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


def _scratch() -> np.ndarray:
    return np.zeros((threads.kernel_parts(), 36 * LANES), np.float32)


@kind
def winograd_input(size: tuple[int, ...], working_set: int) -> Work:
    parts = threads.kernel_parts()
    images, sizes, count = _standard(size[0], size[0])
    blocks = _blocks(images * sizes.h * sizes.w * sizes.c, working_set)
    x = _numbers(parts * blocks * images, sizes.h * sizes.w * sizes.c)
    v, amount = _numbers(parts, 36 * sizes.v_step), ITEMSIZE * 36.0 * count * sizes.c_wide
    rounds = _rounds(36 * count * sizes.c_wide, blocks)
    return _work(conv_kernels.winograd_input, rounds, blocks, amount, x, count, sizes, x, v, _scratch())


@kind
def winograd_output(size: tuple[int, ...], working_set: int) -> Work:
    parts = threads.kernel_parts()
    k, clamp, pool = size[0], bool(size[1]), bool(size[2])
    images, sizes, count = _standard(k, k)
    numbers = images * _SIDE * _SIDE * k // (4 if pool else 1)
    blocks = _blocks(numbers, working_set)
    y, winners = _numbers(parts * blocks, numbers), _bytes(parts * blocks, numbers)
    m, bias = _numbers(parts, 36 * sizes.m_step), np.zeros(sizes.k_wide, np.float32)
    rounds, amount = _rounds(36 * count * sizes.k_wide, blocks), ITEMSIZE * 36.0 * count * sizes.k_wide
    work = conv_kernels.winograd_output
    return _work(work, rounds, blocks, amount, None, count, sizes, m, bias, _scratch(), y, winners, clamp, pool)


@kind
def winograd_dy(size: tuple[int, ...], working_set: int) -> Work:
    parts = threads.kernel_parts()
    k, fused, clamp, pool = size[0], bool(size[1]), bool(size[2]), bool(size[3])
    images, sizes, count = _standard(k, k)
    numbers = images * _SIDE * _SIDE * k // (4 if pool else 1)
    blocks = _blocks(numbers * (1 + clamp), working_set)
    dy, winners = _numbers(parts * blocks, numbers), _bytes(parts * blocks, numbers)
    result = _numbers(parts * blocks, numbers) if clamp else dy
    dm, dbias = _numbers(parts, 36 * sizes.m_step), np.zeros((parts, sizes.k_wide), np.float32)
    rounds, amount = _rounds(36 * count * sizes.k_wide, blocks), ITEMSIZE * 36.0 * count * sizes.k_wide
    return _work(
        conv_kernels.winograd_dy, rounds, blocks, amount, dy,
        count, sizes, dy, result, winners, fused, clamp, pool, _scratch(), dm, dbias,
    )  # fmt: skip


@kind
def winograd_dx(size: tuple[int, ...], working_set: int) -> Work:
    parts = threads.kernel_parts()
    images, sizes, count = _standard(size[0], size[0])
    blocks = _blocks(images * sizes.h * sizes.w * sizes.c, working_set)
    dx = _numbers(parts * blocks * images, sizes.h * sizes.w * sizes.c)
    dx = dx.reshape(-1, sizes.h, sizes.w, sizes.c)
    dv, amount = _numbers(parts, 36 * sizes.v_step), ITEMSIZE * 36.0 * count * sizes.c_wide
    rounds = _rounds(36 * count * sizes.c_wide, blocks)
    return _work(conv_kernels.winograd_dx, rounds, blocks, amount, None, count, sizes, dv, _scratch(), dx)


@kind
def winograd_weight(size: tuple[int, ...], working_set: int) -> Work:
    """Every thread transforms all weights: the time of one is that of all."""
    k, c = size[0], 16
    columns = -(-k // tile_shape(k).width) * tile_shape(k).width
    weight, u, scratch = np.ones((3, 3, c, k), np.float32), np.zeros((36, c, columns), np.float32), _scratch()
    return Work(lambda: transform_weight(weight, columns, u, scratch), float(u.nbytes))


# Copies into and out of an image's workspace -------------------------------------------------------------------


@kind
def pad(size: tuple[int, ...], working_set: int) -> Work:
    masked, c, parts = bool(size[0]), 16, threads.kernel_parts()
    image, numbers = Image(_SIDE, _SIDE, c, 1, 1, _SIDE + 2, _SIDE + 2), _SIDE * _SIDE * c
    blocks = _blocks(numbers * (1 + masked), working_set)
    x, out = _numbers(parts * blocks, numbers), np.zeros((parts, (_SIDE + 2) ** 2 * c), np.float32)
    result, rounds = _numbers(parts * blocks, numbers) if masked else x, _rounds(numbers, blocks)
    return _work(conv_kernels.pad, rounds, blocks, float(ITEMSIZE * numbers), x, image, x, result, masked, out)


@kind
def spread(size: tuple[int, ...], working_set: int) -> Work:
    k, masked, parts = size[0], bool(size[1]), threads.kernel_parts()
    plan = grad_weight(Geometry.of((1, _SIDE + 2, _SIDE + 2, 1), (3, 3, 1, k)))
    sizes, width = plan.sizes, plan.shape.width
    columns = sizes.panels * width
    pixels = _SIDE * _SIDE
    blocks = _blocks(pixels * k * (1 + masked), working_set)
    dy, out = _numbers(parts * blocks, pixels * k), _numbers(parts, pixels * columns)
    result = _numbers(parts * blocks, pixels * k) if masked else dy
    bias, rounds = _numbers(parts, columns), _rounds(pixels * columns, blocks)
    amount = float(ITEMSIZE * pixels * columns)
    return _work(
        conv_kernels.spread_channels, rounds, blocks, amount, dy, pixels, sizes, width, dy, result, masked, out, bias
    )  # fmt: skip


def _lane_scratch() -> np.ndarray:
    return np.zeros((threads.kernel_parts(), LANES * LANES), np.float32)


@kind
def to_lanes(size: tuple[int, ...], working_set: int) -> Work:
    masked, length, parts = bool(size[0]), size[1], threads.kernel_parts()
    blocks = _blocks(LANES * length * (1 + masked), working_set)
    x, out = _numbers(parts * blocks, LANES * length), _numbers(parts, LANES * (length + LANES))
    result = _numbers(parts * blocks, LANES * length) if masked else x
    rounds, amount = _rounds(LANES * length, blocks), float(ITEMSIZE * LANES * length)
    work = conv_kernels.block_to_lanes
    return _work(work, rounds, blocks, amount, x, length, x, result, masked, out, _lane_scratch())


@kind
def from_lanes(size: tuple[int, ...], working_set: int) -> Work:
    length, parts = size[0], threads.kernel_parts()
    blocks = _blocks(LANES * length, working_set)
    x, out = _numbers(parts, LANES * (length + LANES)), _numbers(parts * blocks, LANES * length)
    rounds, amount = _rounds(LANES * length, blocks), float(ITEMSIZE * LANES * length)
    return _work(conv_kernels.block_from_lanes, rounds, blocks, amount, None, length, x, out, _lane_scratch())


# What lanes do with a block in cache -----------------------------------------------------------------------------


@kind
def lanes_max_pool(size: tuple[int, ...], working_set: int) -> Work:
    k, clamp, parts = size[0], bool(size[1]), threads.kernel_parts()
    numbers = _SIDE * _SIDE * k * LANES
    y, result, winners = _numbers(parts, numbers), _numbers(parts, numbers // 4), _bytes(parts, numbers // 4)
    work, rounds, amount = conv_kernels.lanes_max_pool, _rounds(numbers, 1), float(ITEMSIZE * numbers)
    return Work(lambda: work(rounds, _SIDE, k, clamp, y, result, winners), rounds * parts * amount)


@kind
def lanes_unpool(size: tuple[int, ...], working_set: int) -> Work:
    k, parts = size[0], threads.kernel_parts()
    numbers = _SIDE * _SIDE * k * LANES
    dresult, winners, out = _numbers(parts, numbers), _bytes(parts, numbers), _numbers(parts, 4 * numbers)
    work, rounds, amount = conv_kernels.lanes_unpool, _rounds(numbers, 1), float(ITEMSIZE * numbers)
    return Work(lambda: work(rounds, _SIDE, k, dresult, winners, out), rounds * parts * amount)


@kind
def lanes_bias(size: tuple[int, ...], working_set: int) -> Work:
    k, parts = size[0], threads.kernel_parts()
    numbers = _SIDE * _SIDE * k * LANES
    dy, sums = _numbers(parts, numbers), _numbers(parts, k * LANES)
    work, rounds, amount = conv_kernels.lanes_bias, _rounds(numbers, 1), float(ITEMSIZE * numbers)
    return Work(lambda: work(rounds, _SIDE, k, dy, sums), rounds * parts * amount)


@kind
def drop(size: tuple[int, ...], working_set: int) -> Work:
    parts, numbers = threads.kernel_parts(), size[0]
    x, y, mask = _numbers(parts, numbers), _numbers(parts, numbers), Mask.of(0.25, 1)
    rounds, amount = _rounds(numbers, 1), float(2 * ITEMSIZE * numbers)
    return Work(lambda: conv_kernels.drop_block(rounds, numbers, x, y, mask), rounds * parts * amount)
