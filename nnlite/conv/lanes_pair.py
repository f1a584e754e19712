"""The first two convolutions of a network at once, with an image in each SIMD lane: see nnlite.conv.pair.

A thread takes a block of LANES images at a time. Between the transposition that brings them in and the one that takes
the second convolution's result out, everything lies as vectors of images.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from nnlite.compiler.jit import jit, kernel
from nnlite.compiler.simd import LANES, load, pointer, select, store
from nnlite.conv import checks, direct_plan
from nnlite.conv.direct_panels import prepared
from nnlite.conv.direct_plan import Correlation, Image
from nnlite.conv.epilogue import Fused
from nnlite.conv.geometry import Geometry
from nnlite.conv.lanes import (
    SCRATCH,
    Sums,
    bring_gradient,
    bring_images,
    correlate,
    inside,
    reduce_pixels,
    room,
    take_result,
    winners_shape,
)
from nnlite.conv.pair import INTERMEDIATE_BYTES, FusedPair, PairWeights
from nnlite.kernels.dropout import Mask, drop, drop_in_place
from nnlite.runtime import memory, threads


def fits(pair: FusedPair) -> bool:
    """Whether the kernels here compute it: a block of the intermediate tensor stays in cache."""
    return pair.first.strides == (1, 1) and pair.image_bytes * LANES <= INTERMEDIATE_BYTES


@lru_cache(maxsize=64)
def _first(geometry: Geometry, image: Image) -> Correlation:
    """The first convolution of one image, whose results go into the second's input `image`, inside its border."""
    plan = direct_plan.forward(geometry, lanes=True)
    rows, columns = np.arange(image.h)[:, None] + image.top, np.arange(image.w) + image.left
    inside = ((rows * image.padded_w + columns) * image.c * LANES).ravel()
    return plan._replace(tables=plan.tables._replace(rows_out=inside))


# Forward -------------------------------------------------------------------------------------------------------


def forward(x: np.ndarray, weights: PairWeights, pair: FusedPair, seed: int) -> Fused:
    """The result (n, oh, ow, k); residuals are winners (blocks, oh * ow * k * LANES): which of a window's four."""
    second = direct_plan.forward(pair.second.one_image, lanes=True)
    first = _first(pair.first.one_image, second.image)
    parts, pool = threads.kernel_parts(), pair.epilogue.pool
    result = memory.empty(pair.epilogue.result_shape(pair.second.output_shape))
    winners = memory.empty(winners_shape(pair.second, pair.epilogue) if pool else (0, 0), np.uint8)
    rooms = room(first.sizes.image_padded) + room(second.sizes.image_padded) + 2 * room(second.sizes.image_out)
    _forward.run(
        parts, first.shape, prepared(first, weights.first, weights.first_bias), x, pair.relu,
        second.shape, prepared(second, weights.second, weights.second_bias), pair.second.output_shape[1:],
        memory.empty((parts, rooms + SCRATCH)), result, winners, pair.epilogue.relu, pool,
        pair.dropout > 0, Mask.of(pair.dropout, seed),
    )  # fmt: skip
    return Fused(x, weights, result, winners)


@kernel
def _forward(
    part, parts, first_shape, first, x, first_clamp, shape, plan, out, work, result, winners, clamp, pool, drops, mask
):  # fmt: skip
    """One share of the blocks of images."""
    sizes, blocks = plan.sizes, -(-x.shape[0] // LANES)
    block_x = pointer(work, part * work.shape[1])
    block_between = pointer(block_x, room(first.sizes.image_padded))
    block_y = pointer(block_between, room(sizes.image_padded))
    block_result = pointer(block_y, room(sizes.image_out))
    scratch = pointer(block_result, room(sizes.image_out))
    if first.sizes.image_in != first.sizes.image_padded or sizes.image_in != sizes.image_padded:
        work[part, : room(first.sizes.image_padded) + room(sizes.image_padded)] = 0
    for block in range(part * blocks // parts, (part + 1) * blocks // parts):
        bring_images(first.image, x, block, block_x, scratch)
        correlate(first_shape, first, block_x, first_clamp, block_between)
        correlate(shape, plan, block_between, clamp and not pool, block_y)
        begin, size = take_result(block_y, block, x.shape[0], out, clamp, pool, block_result, result, winners, scratch)
        if drops:
            drop_in_place(pointer(result, begin), begin, size, mask)


# The gradients of the parameters --------------------------------------------------------------------------------


def backward(ran: Fused, dresult: np.ndarray, pair: FusedPair, seed: int) -> PairWeights:
    """The gradients of the parameters, given what `forward` returned and the gradient of its result."""
    x, weights, result, winners = ran
    if pair.epilogue.pool:
        winners = checks.argmax(winners, winners_shape(pair.second, pair.epilogue))
    parts, (phase,) = threads.kernel_parts(), direct_plan.grad_input(pair.second.one_image, lanes=True)
    first_reduction, reduction = (direct_plan.grad_weight(g.one_image, lanes=True) for g in (pair.first, pair.second))
    first = _first(pair.first.one_image, reduction.image)
    sums, first_sums = Sums.of(reduction, parts), Sums.of(first_reduction, parts)
    rooms = (
        first.sizes.image_padded, reduction.sizes.image_padded, phase.sizes.image_padded, reduction.sizes.image_out,
        reduction.sizes.image_in, reduction.sizes.image_out,
    )  # fmt: skip
    _backward.run(
        parts, first.shape, prepared(first, weights.first, weights.first_bias), x, pair.relu,
        first_reduction.shape, first_sums, reduction.shape, sums,
        phase.shape, prepared(phase, weights.second, None, back=True),
        dresult, result, winners, pair.epilogue.relu, pair.epilogue.pool,
        memory.empty((parts, sum(map(room, rooms)) + SCRATCH)), pair.dropout > 0, Mask.of(pair.dropout, seed),
    )  # fmt: skip
    return PairWeights(*first_sums.total(pair.first), *sums.total(pair.second))


@kernel
def _backward(
    part, parts, first_shape, first, x, first_clamp, first_sums_shape, first_sums, sums_shape, sums, shape, plan,
    dresult, result, winners, clamp, pool, work, drops, mask,
):  # fmt: skip
    """One share of the blocks of images."""
    sizes, image, k, blocks = sums.sizes, sums.image, plan.image.c, -(-x.shape[0] // LANES)
    block_x = pointer(work, part * work.shape[1])
    block_between = pointer(block_x, room(first.sizes.image_padded))
    block_dy = pointer(block_between, room(sizes.image_padded))
    rooms_before = room(first.sizes.image_padded) + room(sizes.image_padded)
    block_dresult = pointer(block_dy, room(plan.sizes.image_padded))
    block_dbetween = pointer(block_dresult, room(sizes.image_out))
    dropped = pointer(block_dbetween, room(sizes.image_in))
    scratch = pointer(dropped, room(sizes.image_out))
    bordered = first.sizes.image_in != first.sizes.image_padded or sizes.image_in != sizes.image_padded
    zeroed = 0 if bordered else rooms_before
    work[part, zeroed : rooms_before + room(plan.sizes.image_padded)] = 0
    first_sums.weights[part], first_sums.bias[part], sums.weights[part], sums.bias[part] = 0, 0, 0, 0
    dy, dy_line = inside(block_dy, plan.image)
    line, size = image.w * image.c, dresult.shape[1] * dresult.shape[2] * k
    for block in range(part * blocks // parts, (part + 1) * blocks // parts):
        count = min(LANES, x.shape[0] - block * LANES)
        bring_images(first.image, x, block, block_x, scratch)
        correlate(first_shape, first, block_x, first_clamp, block_between)
        own_dresult = pointer(dresult, 0)
        if drops:
            drop(pointer(dresult, block * LANES * size), dropped, block * LANES * size, count * size, mask)
            own_dresult = pointer(dropped, -block * LANES * size)
        bring_gradient(
            own_dresult, result, winners, block, clamp, pool, plan.image, block_dresult, block_dy, scratch,
            pointer(sums.bias, part * k * LANES),
        )  # fmt: skip
        reduce_pixels(sums_shape, sums, block_between, dy, dy_line, part)
        correlate(shape, plan, block_dy, False, block_dbetween)
        first_bias_sums = pointer(first_sums.bias, part * image.c * LANES)
        _mask_and_add(block_dbetween, block_between, first_clamp, image, first_bias_sums)
        reduce_pixels(first_sums_shape, first_sums, block_x, block_dbetween, line, part)


@jit
def _mask_and_add(dy, y, masked, image, sums):
    """sums (c, LANES) += the pixels of dy (h, w, c, LANES), if `masked` zeroed where y, with a border, is not > 0."""
    for c in range(image.c):
        total = load(sums, c * LANES)
        for h in range(image.h):
            for w in range(image.w):
                place = ((h * image.w + w) * image.c + c) * LANES
                value = load(dy, place)
                if masked:
                    inside = ((h + image.top) * image.padded_w + w + image.left) * image.c + c
                    value = select(load(y, inside * LANES) > 0, value, 0)
                    store(dy, place, value)
                total = total + value
        store(sums, c * LANES, total)
