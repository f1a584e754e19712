"""The rates of compiled convolution algorithms: the inner loops of their products, their transforms and copies.

They are the algorithms' own functions, on all of the kernels' threads and on arrays of no layer: products over an image
or a block of tiles as large as the layer's, transforms and copies of a small standard image. What a step fetches from
the whole batch or stores to it (images, results) lies in as many blocks as fill the work item's working set, so that
it comes from the level of cache, or the memory, that it comes from in a step; what stays in a thread's workspace stays
in its cache. An array is (blocks, numbers), several blocks per thread, used in turn; a workspace has one per thread.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from nnlite import conv
from nnlite.compiler.compilation import jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.simd import pointer
from nnlite.compiler.target import LANES
from nnlite.conv import direct_weight_plan, grouped_plan
from nnlite.conv.direct import Panel, macro_kernel
from nnlite.conv.direct_packing import prepared
from nnlite.conv.direct_reduction import Band, reduce_band
from nnlite.conv.epilogue import Output
from nnlite.conv.geometry import Geometry
from nnlite.conv.lanes import Sums, block_size, correlate, reduce_pixels
from nnlite.conv.lanes_layout import add_pixels, max_pool, to_lanes
from nnlite.conv.winograd import multiply_v_dm, multiply_v_u
from nnlite.conv.winograd_fetch import Ahead
from nnlite.conv.winograd_tiles import (
    add_dx,
    gradient_shapes,
    product_shape,
    sizes_of,
    transform_dy,
    transform_input,
    transform_output,
    workspace,
    workspace_at,
)
from nnlite.conv.winograd_weights import transformed
from nnlite.conv.work import ITEMSIZE
from nnlite.conv.work_compiled import correlation_flops, correlations, weight_flops, winograd_rows
from nnlite.conv.work_grouped import gradient_flops, sums_flops
from nnlite.performance.microbenchmarks.base import KINDS, Kind, Work, kind, ones
from nnlite.runtime import memory, threads

#: FLOPs, and bytes transferred, per thread and sample: about a millisecond
FLOPS, BYTES = 1e8, 8e6
_SIDE = 28  # of a standard image


class Blocks:
    """The arrays of a problem, with `numbers` small numbers per block or thread.

    Small, so that sums over many rounds do not overflow.
    """

    def __init__(self, moved: int = 1, working_set: int = 0):
        """As many blocks as fill the working set, for each of which a step moves `moved` elements."""
        self.threads = threads.kernel_parts()
        self.count = max(1, working_set // (ITEMSIZE * self.threads * moved))

    def moved(self, numbers: int) -> np.ndarray:
        """An array of the whole batch."""
        return _filled((self.threads * self.count, numbers))

    def own(self, numbers: int) -> np.ndarray:
        """The threads' workspaces."""
        return _filled((self.threads, numbers))

    def products(self, run: kernel, once: float, *rest: Any) -> Work:
        """All blocks, again and again for FLOPS in all; `once` is a block's."""
        return self._work(run, max(self.count, round(FLOPS / once)), once, rest)

    def copies(self, run: kernel, once: float, *rest: Any, written: tuple[np.ndarray, ...] = ()) -> Work:
        """All blocks once, as in a step, or a single one for BYTES; another kernel has just written `written`."""
        return self._work(run, self.count if self.count > 1 else max(1, round(BYTES / once)), once, rest, written)

    def _work(
        self, run: kernel, rounds: int, once: float, rest: tuple[Any, ...], written: tuple[np.ndarray, ...] = ()
    ) -> Work:
        return Work(lambda: run(rounds, *rest), rounds * self.threads * float(once), own=written)


def _filled(shape: tuple[int, ...]) -> np.ndarray:
    array = memory.empty(shape)
    array.fill(1e-3)
    return array


@jit
def _block(array, turn):
    """The number of the block that a thread uses in a round; `turn` is (round, thread, num_threads)."""
    round, thread, num_threads = turn
    blocks = array.shape[0] // num_threads
    return thread * blocks + round % blocks


@jit
def _own(array, turn):
    """The block that a thread uses in a round."""
    return pointer(array, _block(array, turn) * array.shape[1])


# Products of direct ---------------------------------------------------------------------------------------------------


@kernel
def _direct(thread, num_threads, rounds, shape, nest, x, weights, y):
    for round in range(rounds):
        turn = (round, thread, num_threads)
        for index in range(nest.groups * nest.panels):
            group, column = index // nest.panels, index % nest.panels * shape.width
            own_x, own_y = pointer(_own(x, turn), group * nest.group_in), _own(y, turn)
            place, start = group * nest.group_out + column, _own(weights, turn)
            panel = Panel(own_x, start, start, pointer(own_y, place), nest.group_out - column)
            for block in range(nest.blocks.size - 1):
                macro_kernel(shape, nest, panel, 0, nest.tiles, block, False)


@kind("product")
def tiles(problem: tuple[Any, ...], working_set: int) -> Work:
    """All panels of packed weights over joined images."""
    *plans, phase = problem
    plan = correlations(*plans)[phase]
    nest = plan.nest
    x, y = nest.images * nest.image_padded, nest.images * nest.image_out
    blocks = Blocks(x + y, working_set)
    weights = blocks.own(nest.kc * plan.shape.width)
    rest = plan.shape, nest, blocks.moved(x), weights, blocks.moved(y)
    return blocks.products(_direct, correlation_flops(plan), *rest)


@kernel
def _direct_weights(thread, num_threads, rounds, shape, nest, x, lines, dy, sums):
    for round in range(rounds):
        turn = (round, thread, num_threads)
        for band in range(nest.bands):
            top, bottom = band * nest.h_out // nest.bands, (band + 1) * nest.h_out // nest.bands
            own = Band(
                _own(x, turn), _own(lines, turn), _own(dy, turn), _own(sums, turn), nest.band, shape.width, 1,
                top, bottom, round + band == 0,
            )  # fmt: skip
            reduce_band(shape, nest, own, 0, nest.groups * nest.panels * nest.inside.shape[0])


@kind("product")
def weight_tiles(problem: tuple[Any, ...], working_set: int) -> Work:
    """All tiles of dW over an image, the packing of its lines included."""
    one, line_bytes = problem
    plan = direct_weight_plan.grad_weight(one, line_bytes=line_bytes)
    nest = plan.nest
    blocks = Blocks(nest.image_in, working_set)
    x, lines = blocks.moved(nest.image_padded), blocks.own(nest.packed + 1)
    dy, sums = blocks.own(nest.groups * nest.panels * nest.band), blocks.own(prod(one.weight_shape))
    return blocks.products(_direct_weights, weight_flops(plan), plan.shape, nest, x, lines, dy, sums)


# Products of lanes ----------------------------------------------------------------------------------------------------


@kernel
def _lanes(thread, num_threads, rounds, shape, nest, x, y):
    for round in range(rounds):
        turn = (round, thread, num_threads)
        correlate(shape, nest, _own(x, turn), False, _own(y, turn))


@kind("product")
def lane_tiles(problem: tuple[Any, ...], working_set: int) -> Work:
    """A block of images in lanes."""
    one, pass_name = problem[:2]
    (plan,) = correlations(*problem[:-1])
    nest, blocks = prepared(plan, _filled(one.weight_shape), None, pass_name != "forward"), Blocks()
    x, y = blocks.own(block_size(nest.image_padded)), blocks.own(block_size(nest.image_out))
    return blocks.products(_lanes, correlation_flops(plan), plan.shape, nest, x, y)


@kernel
def _lanes_weights(thread, num_threads, rounds, shape, sums, x, dy, line):
    for round in range(rounds):
        turn = (round, thread, num_threads)
        reduce_pixels(shape, sums, _own(x, turn), _own(dy, turn), line, thread)


@kind("product")
def vector_tiles(problem: tuple[Any, ...], working_set: int) -> Work:
    """All tiles of dW over a block of images in lanes."""
    plan, blocks = direct_weight_plan.grad_weight(problem[0], lanes=True), Blocks()
    nest, sums, line = plan.nest, Sums.of(plan, blocks.threads), plan.nest.w_out * problem[0].weight_shape[3]
    sums.weights.fill(0)
    x, dy = blocks.own(block_size(nest.image_padded)), blocks.own(block_size(nest.h_out * line))
    once = 2.0 * nest.groups * nest.panels * len(nest.inside) * plan.shape.rows * plan.shape.width
    return blocks.products(_lanes_weights, once * nest.h_out * nest.w_out, plan.shape, sums, x, dy, line)


# Winograd -------------------------------------------------------------------------------------------------------------


@kernel
def _v_u(thread, num_threads, rounds, shape, sizes, u, work):
    for round in range(rounds):
        own = workspace_at(_own(work, (round, thread, num_threads)), sizes)
        nothing = Ahead(own.v, 0, 0, 1)
        multiply_v_u(shape, sizes, sizes.block, u, own, nothing, nothing)


@kernel
def _v_dm(thread, num_threads, rounds, taller, lower, sizes, work, du):
    for round in range(rounds):
        turn = (round, thread, num_threads)
        own = workspace_at(_own(work, turn), sizes)
        nothing = Ahead(own.v, 0, 0, 1)
        multiply_v_dm(taller, lower, sizes, sizes.block, own, _own(du, turn), du.shape[1] // 36, True, nothing, nothing)


@kind("product")
def winograd_products(problem: tuple[Any, ...], working_set: int) -> Work:
    """The 36 products of a block of tiles: V U, or V' dM, which is added to dU."""
    sizes, is_gradient = problem
    blocks = Blocks()
    work, size = _filled(workspace(sizes, blocks.threads).shape), sizes.c * sizes.k_wide
    once = 2.0 * 36 * winograd_rows(sizes, is_gradient) * sizes.k_wide * (sizes.block if is_gradient else sizes.c)
    if is_gradient:
        shapes = gradient_shapes(sizes.c, sizes.k)[:2]
        return blocks.products(_v_dm, once, *shapes, sizes, work, blocks.own(36 * size))
    return blocks.products(_v_u, once, product_shape(sizes.k), sizes, _filled((36, size + LANES)), work)


_INPUT, _OUTPUT, _DY, _DX = range(4)


@kernel
def _transform(thread, num_threads, rounds, which, sizes, x, dy, out, is_fused, bias, work):
    for round in range(rounds):
        turn = (round, thread, num_threads)
        own, first, own_bias = (
            workspace_at(_own(work, turn), sizes),
            _block(out.y, turn) * sizes.tiles,
            _own(bias, turn),
        )
        if which == _INPUT:
            transform_input(sizes, _own(x, turn), 0, sizes.tiles, own)
        elif which == _OUTPUT:
            transform_output(sizes, first, sizes.tiles, own_bias, own, out)
        elif which == _DY:
            transform_dy(sizes, pointer(dy, 0), out, first, sizes.tiles, own, own_bias, is_fused)
        else:
            add_dx(sizes, 0, sizes.tiles, own, _own(x, turn), (0, sizes.h))


def _winograd(which: int, size: tuple[int, ...], working_set: int) -> Work:
    """The tiles of an image; `size` is (channels, whether anything follows the convolution, a ReLU, a max pooling)."""
    channels, is_fused, relu, pool = size
    one = Geometry.of((1, _SIDE + 2, _SIDE + 2, channels), (3, 3, channels, channels))
    sizes = sizes_of(one, least_tiles=prod(one.output_shape) // 16)  # all tiles at a time
    side = _SIDE // 2 if pool else _SIDE
    image, result = sizes.h * sizes.w * channels, side * side * channels
    blocks = Blocks({_OUTPUT: result, _DY: result * (1 + relu)}.get(which, image), working_set)
    x, dy, y = blocks.moved(image), blocks.moved(result), blocks.moved(result).reshape(-1, side, side, channels)
    out = Output(y, np.zeros(y.shape, np.uint8), bool(relu), bool(pool))
    bias, work = blocks.own(sizes.k_wide), _filled(workspace(sizes, blocks.threads).shape)
    written = {_INPUT: (x,), _DY: (dy,)}.get(which, ())
    once = ITEMSIZE * 36 * sizes.tiles * sizes.c_wide
    rest = which, sizes, x, dy, out, bool(is_fused), bias, work
    return blocks.copies(_transform, once, *rest, written=written)


_NAMES = ("winograd_input", "winograd_output", "winograd_dy", "winograd_dx")
KINDS.update({name: Kind(partial(_winograd, which), "cache") for which, name in enumerate(_NAMES)})


@kind("cache")
def winograd_weight(size: tuple[int, ...], working_set: int) -> Work:
    """All threads transform the weights together."""
    k, c = size[0], 16
    weight, num_threads = np.ones((3, 3, c, k), np.float32), threads.kernel_parts()
    columns = -(-k // product_shape(k).width) * product_shape(k).width
    return Work(lambda: transformed(weight, False, num_threads), float(36 * ITEMSIZE * c * columns))


# Copies of lanes ------------------------------------------------------------------------------------------------------


@kernel
def _into_lanes(thread, num_threads, rounds, length, x, out, scratch):
    for round in range(rounds):
        turn = (round, thread, num_threads)
        to_lanes(_own(x, turn), length, LANES, length, _own(out, turn), _own(scratch, turn))


@kind("cache")
def transpose(size: tuple[int, ...], working_set: int) -> Work:
    """Images into lanes; out of them is as fast."""
    length, numbers = size[0], LANES * size[0]
    blocks = Blocks(numbers, working_set)
    x, out, scratch = blocks.moved(numbers), blocks.own(block_size(length)), blocks.own(LANES * LANES)
    return blocks.copies(_into_lanes, ITEMSIZE * numbers, length, x, out, scratch, written=(x,))


@kernel
def _pixels(thread, num_threads, rounds, k, y, result, argmax, sums):
    for round in range(rounds):
        turn = (round, thread, num_threads)
        max_pool(_own(y, turn), _SIDE, _SIDE, k, True, _own(result, turn), _own(argmax, turn))
        add_pixels(_own(y, turn), _SIDE, _SIDE, k, _SIDE * k, _own(sums, turn))


@kind("cache")
def lane_pixels(size: tuple[int, ...], working_set: int) -> Work:
    """A pass over a block of images in lanes: its pooling, and sums of its pixels."""
    blocks, y = Blocks(), LANES * _SIDE * _SIDE * size[0]
    arrays = (
        blocks.own(y),
        blocks.own(y // 4),
        np.zeros((blocks.threads, y // 4), np.uint8),
        blocks.own(size[0] * LANES),
    )
    return blocks.copies(_pixels, ITEMSIZE * (y + y // 4 + y), size[0], *arrays)


# Grouped --------------------------------------------------------------------------------------------------------------


def _grouped(is_gradient: bool, problem: tuple[int, ...], working_set: int) -> Work:
    """A pass over small images of about 64 channels, with as many in a group and the same taps."""
    group_in, group_out, kh, kw, *strides = problem
    groups, side = max(1, 64 // max(group_in, group_out)), (max(32, kh), max(32, kw))
    image = prod(side) * groups * (group_in + group_out)
    n = threads.kernel_parts() * max(4, working_set // (ITEMSIZE * image * threads.kernel_parts()))
    shape, weights = (n, *side, groups * group_in), (kh, kw, group_in, groups * group_out)
    geometry = Geometry.of(shape, weights, strides=(strides[0], strides[1]), padding="same", groups=groups)
    plan, algorithm = grouped_plan.forward(geometry, 1), conv.get("grouped")
    x, weight, dy = ones(shape), ones(weights), ones(geometry.output_shape)
    if is_gradient:
        return Work(lambda: algorithm.grad_weight(x, dy, geometry), gradient_flops(plan, n), own=(x, dy))
    return Work(lambda: algorithm.forward(x, weight, geometry), sums_flops(plan, n), own=(x,))


KINDS["grouped_sums"] = Kind(partial(_grouped, False), "product")
KINDS["grouped_gradient"] = Kind(partial(_grouped, True), "product")
