"""The rates of what compiled convolution algorithms do in cache: register tiles, transforms, copies into lanes.

Each works on a small problem on one thread, again and again, so that its data stay in the second cache. More threads
share nothing there: they multiply the rate as they multiply that of multiply-adds in registers (nnlite.rates), and the
kernels that measure need not be compiled for many threads, which takes as long again.
"""

from __future__ import annotations

import numpy as np

from nnlite.conv import stage_kernels
from nnlite.conv.direct_plan import Image, grad_weight
from nnlite.conv.geometry import Geometry
from nnlite.conv.stage_kernels import Loops
from nnlite.conv.stages import ITEMSIZE
from nnlite.conv.winograd_tiles import Sizes, sizes_of, transform_weight
from nnlite.jit import kernel
from nnlite.rates.measure import Work, kind
from nnlite.simd import LANES, TileShape, lane_tile_shape, tile_shape

#: FLOPs that a thread does in a sample: some milliseconds
_FLOPS = 2e8
#: numbers that a thread moves in a sample
_NUMBERS = 2_000_000
_SIDE = 16  # of a standard image


# Products on register tiles -----------------------------------------------------------------------------------------


@kind
def tiles(size: tuple[int, ...], working_set: int) -> Work:
    loops = Loops(*size)
    return _sums(stage_kernels.tile_sums, tile_shape(loops.columns), loops)


@kind
def lane_tiles(size: tuple[int, ...], working_set: int) -> Work:
    loops = Loops(*size)
    return _sums(stage_kernels.lane_sums, lane_tile_shape(loops.columns), loops)


@kind
def vector_tiles(size: tuple[int, ...], working_set: int) -> Work:
    loops = Loops(*size)
    return _sums(stage_kernels.vector_sums, lane_tile_shape(loops.columns), loops)


def _sums(function: kernel, shape: TileShape, loops: Loops) -> Work:
    rows = loops.tiles * shape.rows
    reach = rows * loops.row_step + loops.runs * loops.run_step + loops.length * loops.step
    x = _numbers(reach + loops.batches * loops.x_batch + LANES)
    b = _numbers(loops.terms * loops.b_step + loops.batches * loops.b_batch + shape.width)
    y = np.zeros((1, rows * loops.pitch + loops.batches * loops.y_batch + shape.width), np.float32)
    once = 2.0 * loops.batches * rows * shape.width * loops.terms
    rounds = max(1, round(_FLOPS / once))
    return Work(lambda: function.serial(0, 1, rounds, shape, loops, x, b, y), rounds * once)


def _numbers(size: int) -> np.ndarray:
    """(1, size) small numbers: sums over many rounds neither overflow nor vanish."""
    return np.full((1, size), 1e-3, np.float32)


# Winograd's transforms -----------------------------------------------------------------------------------------------


def _standard(c: int, k: int) -> tuple[int, Sizes, int]:
    """(images, sizes, tiles) of a small problem: some whole images."""
    each = 3
    geometry = Geometry.of((each, _SIDE + 2, _SIDE + 2, c), (3, 3, c, k))
    sizes = sizes_of(geometry)
    return geometry.input_shape[0], sizes, each * sizes.tiles


def _rounds(numbers: int) -> int:
    return max(1, _NUMBERS // max(1, numbers))


def _scratch() -> np.ndarray:
    return np.zeros((1, 36 * LANES), np.float32)


@kind
def winograd_input(size: tuple[int, ...], working_set: int) -> Work:
    images, sizes, count = _standard(size[0], size[0])
    sizes = _with_block(sizes, count)
    x = _numbers(images * sizes.h * sizes.w * sizes.c).reshape(images, sizes.h, sizes.w, sizes.c)
    v, rounds = _numbers(36 * sizes.v_step), _rounds(36 * count * sizes.c)
    amount = ITEMSIZE * 36.0 * rounds * count * sizes.c_wide
    return Work(lambda: stage_kernels.winograd_input.serial(0, 1, rounds, count, sizes, x, v, _scratch()), amount)


@kind
def winograd_output(size: tuple[int, ...], working_set: int) -> Work:
    k, clamp, pool = size[0], bool(size[1]), bool(size[2])
    images, sizes, count = _standard(k, k)
    sizes = _with_block(sizes, count)
    side = _SIDE // 2 if pool else _SIDE
    y = np.zeros((images, side, side, k), np.float32)
    winners, bias = np.zeros(y.shape, np.uint8), np.zeros(sizes.k_wide, np.float32)
    m, rounds = _numbers(36 * sizes.m_step), _rounds(36 * count * k)
    amount = ITEMSIZE * 36.0 * rounds * count * sizes.k_wide
    return Work(
        lambda: stage_kernels.winograd_output.serial(
            0, 1, rounds, count, sizes, m, bias, _scratch(), y, winners, clamp, pool
        ),
        amount,
    )


@kind
def winograd_dy(size: tuple[int, ...], working_set: int) -> Work:
    k, fused, clamp, pool = size[0], bool(size[1]), bool(size[2]), bool(size[3])
    images, sizes, count = _standard(k, k)
    sizes = _with_block(sizes, count)
    side = _SIDE // 2 if pool else _SIDE
    dy = _numbers(images * side * side * k).reshape(images, side, side, k)
    winners, dbias = np.zeros(dy.shape, np.uint8), np.zeros((1, sizes.k_wide), np.float32)
    dm, rounds = _numbers(36 * sizes.m_step), _rounds(36 * count * k)
    amount = ITEMSIZE * 36.0 * rounds * count * sizes.k_wide
    return Work(
        lambda: stage_kernels.winograd_dy.serial(
            0, 1, rounds, count, sizes, dy, dy, winners, fused, clamp, pool, _scratch(), dm, dbias
        ),
        amount,
    )


@kind
def winograd_dx(size: tuple[int, ...], working_set: int) -> Work:
    images, sizes, count = _standard(size[0], size[0])
    sizes = _with_block(sizes, count)
    dx = np.zeros((images, sizes.h, sizes.w, sizes.c), np.float32)
    dv, rounds = _numbers(36 * sizes.v_step), _rounds(36 * count * sizes.c)
    amount = ITEMSIZE * 36.0 * rounds * count * sizes.c_wide
    return Work(lambda: stage_kernels.winograd_dx.serial(0, 1, rounds, count, sizes, dv, _scratch(), dx), amount)


@kind
def winograd_weight(size: tuple[int, ...], working_set: int) -> Work:
    """On one thread, as it is called."""
    k, c = size[0], 16
    columns = -(-k // tile_shape(k).width) * tile_shape(k).width
    weight, u, scratch = np.ones((3, 3, c, k), np.float32), np.zeros((36, c, columns), np.float32), _scratch()
    return Work(lambda: transform_weight(weight, u, scratch), float(u.nbytes))


def _with_block(sizes: Sizes, count: int) -> Sizes:
    """The sizes with blocks of exactly `count` tiles."""
    return sizes._replace(block=count, v_step=count * sizes.c_wide + LANES, m_step=count * sizes.k_wide + LANES)


# Copies into and out of an image's workspace -------------------------------------------------------------------


@kind
def pad(size: tuple[int, ...], working_set: int) -> Work:
    masked, c = bool(size[0]), 16
    image = Image(_SIDE, _SIDE, c, 1, 1, _SIDE + 2, _SIDE + 2)
    x, out = _numbers(_SIDE * _SIDE * c), np.zeros((1, (_SIDE + 2) ** 2 * c), np.float32)
    rounds = _rounds(x.shape[1])
    return Work(lambda: stage_kernels.pad.serial(0, 1, rounds, image, x, x, masked, out), float(rounds * x.nbytes))


@kind
def spread(size: tuple[int, ...], working_set: int) -> Work:
    k, masked = size[0], bool(size[1])
    sizes = grad_weight(Geometry.of((1, _SIDE + 2, _SIDE + 2, 1), (3, 3, 1, k))).sizes
    pixels = _SIDE * _SIDE
    dy, out = _numbers(pixels * k), np.zeros((1, pixels * sizes.spread), np.float32)
    bias, rounds = np.zeros((1, sizes.spread), np.float32), _rounds(pixels * sizes.spread)
    work = stage_kernels.spread_channels
    return Work(lambda: work.serial(0, 1, rounds, pixels, sizes, dy, dy, masked, out, bias), float(rounds * out.nbytes))


@kind
def to_lanes(size: tuple[int, ...], working_set: int) -> Work:
    masked, length = bool(size[0]), 1024
    x, out = _numbers(LANES * length), _numbers(LANES * (length + LANES))
    scratch, rounds = np.zeros((1, LANES * LANES), np.float32), _rounds(x.size)
    work = stage_kernels.block_to_lanes
    return Work(lambda: work.serial(0, 1, rounds, length, x, x, masked, out, scratch), float(rounds * x.nbytes))


@kind
def from_lanes(size: tuple[int, ...], working_set: int) -> Work:
    length = 1024
    x, out = _numbers(LANES * length), _numbers(LANES * length)
    scratch, rounds = np.zeros((1, LANES * LANES), np.float32), _rounds(x.size)
    work = stage_kernels.block_from_lanes
    return Work(lambda: work.serial(0, 1, rounds, length, x, out, scratch), float(rounds * x.nbytes))


@kind
def lanes_max_pool(size: tuple[int, ...], working_set: int) -> Work:
    k, clamp = size[0], bool(size[1])
    y = _numbers(_SIDE * _SIDE * k * LANES)
    result = np.zeros((1, y.shape[1] // 4), np.float32)
    winners, rounds = np.zeros(result.shape, np.uint8), _rounds(y.shape[1])
    work = stage_kernels.lanes_max_pool
    return Work(lambda: work.serial(0, 1, rounds, _SIDE, k, clamp, y, result, winners), float(rounds * y.nbytes))


@kind
def lanes_unpool(size: tuple[int, ...], working_set: int) -> Work:
    k = size[0]
    dresult = _numbers(_SIDE * _SIDE * k * LANES)
    winners, out = np.zeros(dresult.shape, np.uint8), np.zeros((1, 4 * dresult.shape[1]), np.float32)
    rounds, work = _rounds(dresult.size), stage_kernels.lanes_unpool
    return Work(lambda: work.serial(0, 1, rounds, _SIDE, k, dresult, winners, out), float(rounds * dresult.nbytes))


@kind
def lanes_bias(size: tuple[int, ...], working_set: int) -> Work:
    k = size[0]
    dy, sums = _numbers(_SIDE * _SIDE * k * LANES), np.zeros((1, k * LANES), np.float32)
    rounds, work = _rounds(dy.size), stage_kernels.lanes_bias
    return Work(lambda: work.serial(0, 1, rounds, _SIDE, k, dy, sums), float(rounds * dy.nbytes))
