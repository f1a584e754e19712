"""The first two convolutions of a network at once, with an image in each SIMD lane: see nnlite.conv.stem.

A thread takes a block of LANES images at a time. Between the transposition that brings them in and the one that takes
the second convolution's result out, everything lies as vectors of images.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from nnlite import memory, threads
from nnlite.conv import direct_plan
from nnlite.conv.direct_panels import panels, start_values
from nnlite.conv.direct_plan import Image
from nnlite.conv.lanes import (
    SCRATCH,
    add_lanes,
    blocks_of,
    bring_gradient,
    correlate,
    reduce_pixels,
    room,
)
from nnlite.conv.lanes_layout import from_lanes, image_to_lanes, max_pool
from nnlite.conv.stem import BETWEEN_BYTES, Stem, StemWeights
from nnlite.jit import jit, kernel
from nnlite.kernels.dropout import Mask, drop, drop_in_place
from nnlite.simd import LANES, load, pointer, select, store


def fits(stem: Stem) -> bool:
    """Whether a block of the tensor between stays in cache."""
    return stem.image_bytes * LANES <= BETWEEN_BYTES


@lru_cache(maxsize=64)
def _rows_inside(image: Image) -> np.ndarray:
    """Where the first convolution's results belong in the second's input, with its border: (positions)."""
    rows, columns = np.arange(image.h)[:, None] + image.top, np.arange(image.w) + image.left
    return ((rows * image.padded_w + columns) * image.c * LANES).ravel()


# Forward -------------------------------------------------------------------------------------------------------


def forward(x: np.ndarray, weights: StemWeights, stem: Stem, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(result (n, oh, ow, k) after the epilogue, winners (blocks, oh * ow * k * LANES): which of a window's four)."""
    first, second = (direct_plan.forward(g.one_image, lanes=True) for g in (stem.first, stem.second))
    parts, pool = threads.kernel_parts(), stem.epilogue.pool
    result = memory.empty(stem.epilogue.result_shape(stem.second.output_shape))
    size = result[0].size * LANES if pool and len(result) else 0
    winners = memory.empty((blocks_of(stem.second) if pool else 0, size), np.uint8)
    rooms = room(first.sizes.image_padded) + room(second.sizes.image_padded) + 2 * room(second.sizes.image_out)
    _forward(
        first.shape, first.image, first.image.is_padded, first.sizes, first.rows_in, _rows_inside(second.image),
        first.runs, x, panels(first, weights.first, weights.first.shape[3], 1),
        start_values(weights.first_bias, first.sizes.groups, first.sizes.panels * first.width), stem.relu,
        second.shape, second.sizes, second.rows_in, second.rows_out, second.runs,
        panels(second, weights.second, weights.second.shape[3], 1),
        start_values(weights.second_bias, second.sizes.groups, second.sizes.panels * second.width),
        stem.second.output_shape[1:],
        memory.empty((parts, rooms + SCRATCH)), result, winners, stem.epilogue.relu, pool,
        stem.dropout > 0, Mask.of(stem.dropout, seed),
    )  # fmt: skip
    return result, winners


@kernel
def _forward(
    part, parts, first_shape, image, padded, first_sizes, first_rows_in, first_rows_out,
    first_runs, x, first_weights, first_start, first_clamp,
    shape, sizes, rows_in, rows_out, runs, weights, start, out, work, result, winners, clamp, pool,
    drops, mask,
):  # fmt: skip
    """One share of the blocks of images."""
    blocks = -(-x.shape[0] // LANES)
    block_x = pointer(work, part * work.shape[1])
    block_between = pointer(block_x, room(first_sizes.image_padded))
    block_y = pointer(block_between, room(sizes.image_padded))
    block_result = pointer(block_y, room(sizes.image_out))
    scratch = pointer(block_result, room(sizes.image_out))
    if padded or sizes.image_padded != first_sizes.image_out:
        work[part, : room(first_sizes.image_padded) + room(sizes.image_padded)] = 0
    result_size = sizes.image_out
    if pool:
        result_size = (out[0] // 2) * (out[1] // 2) * out[2]
    for block in range(part * blocks // parts, (part + 1) * blocks // parts):
        count, first = min(LANES, x.shape[0] - block * LANES), block * LANES
        source = pointer(x, first * first_sizes.image_in)
        image_to_lanes(source, first_sizes.image_in, count, image, padded, block_x, scratch)
        correlate(
            first_shape, first_sizes, first_rows_in, first_rows_out, first_runs,
            block_x, first_weights, first_start, first_clamp, block_between,
        )  # fmt: skip
        correlate(
            shape, sizes, rows_in, rows_out, runs, block_between, weights, start, clamp and not pool, block_y,
        )  # fmt: skip
        to = pointer(result, first * result_size)
        if pool:
            places = pointer(winners, block * winners.shape[1])
            max_pool(block_y, out[0], out[1], out[2], clamp, block_result, places)
            from_lanes(block_result, count, result_size, to, result_size, scratch)
        else:
            from_lanes(block_y, count, result_size, to, result_size, scratch)
        if drops:
            drop_in_place(to, first * result_size, count * result_size, mask)


# The gradients of the parameters --------------------------------------------------------------------------------


def backward(
    x: np.ndarray,
    weights: StemWeights,
    result: np.ndarray,
    winners: np.ndarray,
    dresult: np.ndarray,
    stem: Stem,
    seed: int,
) -> StemWeights:
    """The gradients of the parameters, given what `forward` returned and the gradient of its result."""
    parts, first = threads.kernel_parts(), direct_plan.forward(stem.first.one_image, lanes=True)
    (phase,) = direct_plan.grad_input(stem.second.one_image, lanes=True)
    first_reduction, reduction = (direct_plan.grad_weight(g.one_image, lanes=True) for g in (stem.first, stem.second))
    sums, first_sums = (
        np.zeros((parts, r.sizes.groups, r.sizes.panels, r.sizes.reduced, r.shape.vectors, LANES), np.float32)
        for r in (reduction, first_reduction)
    )
    bias_sums, first_bias_sums = (
        np.zeros((parts, g.output_shape[3], LANES), np.float32) for g in (stem.second, stem.first)
    )  # fmt: skip
    rooms = (
        first.sizes.image_padded, reduction.sizes.image_padded, phase.sizes.image_padded, reduction.sizes.image_out,
        reduction.sizes.image_in, reduction.sizes.image_out,
    )  # fmt: skip
    _backward(
        first.shape, first.image, first.image.is_padded, first.sizes, first.rows_in, _rows_inside(reduction.image),
        first.runs, x, panels(first, weights.first, weights.first.shape[3], 1),
        start_values(weights.first_bias, first.sizes.groups, first.sizes.panels * first.width), stem.relu,
        first_reduction.shape, first_reduction.sizes, first_reduction.rows, first_sums, first_bias_sums,
        reduction.image, reduction.shape, reduction.sizes, reduction.rows, sums, bias_sums,
        phase.image, phase.image.is_padded, phase.shape, phase.sizes, phase.rows_in, phase.rows_out, phase.runs,
        panels(phase, weights.second, 1, weights.second.shape[3]),
        start_values(None, phase.sizes.groups, phase.sizes.panels * phase.width),
        dresult, result, winners, stem.epilogue.relu, stem.epilogue.pool, stem.second.output_shape[3],
        memory.empty((parts, sum(map(room, rooms)) + SCRATCH)), stem.dropout > 0, Mask.of(stem.dropout, seed),
    )  # fmt: skip
    gradients = []
    for geometry, r, s, b in (
        (stem.first, first_reduction, first_sums, first_bias_sums), (stem.second, reduction, sums, bias_sums),
    ):  # fmt: skip
        dweight, dbias = np.empty(geometry.weight_shape, np.float32), np.empty(geometry.output_shape[3], np.float32)
        add_lanes(s, b, dweight.reshape(-1, r.sizes.groups, r.sizes.group_out), dbias)
        gradients += [dweight, dbias]
    return StemWeights(*gradients)


@kernel
def _backward(
    part, parts, first_shape, x_image, x_padded, first_sizes, first_rows_in, first_rows_out,
    first_runs, x, first_weights, first_start, first_clamp,
    first_weight_shape, first_weight_sizes, first_weight_rows, first_sums, first_bias_sums,
    image, weight_shape, weight_sizes, weight_rows, sums, bias_sums,
    dy_image, dy_padded, shape, sizes, rows_in, rows_out, runs, weights, start,
    dresult, result, winners, clamp, pool, k, work, drops, mask,
):  # fmt: skip
    """One share of the blocks of images."""
    blocks = -(-x.shape[0] // LANES)
    block_x = pointer(work, part * work.shape[1])
    block_between = pointer(block_x, room(first_sizes.image_padded))
    block_dy = pointer(block_between, room(weight_sizes.image_padded))
    rooms_before = room(first_sizes.image_padded) + room(weight_sizes.image_padded)
    block_dresult = pointer(block_dy, room(sizes.image_padded))
    block_dbetween = pointer(block_dresult, room(weight_sizes.image_out))
    dropped = pointer(block_dbetween, room(weight_sizes.image_in))
    scratch = pointer(dropped, room(weight_sizes.image_out))
    zeroed = 0 if x_padded or weight_sizes.image_padded != weight_sizes.image_in else rooms_before
    work[part, zeroed : rooms_before + room(sizes.image_padded)] = 0
    own_sums = pointer(sums, part * (sums.size // sums.shape[0]))
    own_first_sums = pointer(first_sums, part * (first_sums.size // first_sums.shape[0]))
    own_bias_sums = pointer(bias_sums, part * k * LANES)
    own_first_bias_sums = pointer(first_bias_sums, part * image.c * LANES)
    dy, dy_line = (
        pointer(block_dy, (dy_image.top * dy_image.padded_w + dy_image.left) * k * LANES),
        dy_image.padded_w * k,
    )
    line, size = image.w * image.c, dresult.shape[1] * dresult.shape[2] * k
    for block in range(part * blocks // parts, (part + 1) * blocks // parts):
        count = min(LANES, x.shape[0] - block * LANES)
        source = pointer(x, block * LANES * first_sizes.image_in)
        image_to_lanes(source, first_sizes.image_in, count, x_image, x_padded, block_x, scratch)
        correlate(
            first_shape, first_sizes, first_rows_in, first_rows_out, first_runs,
            block_x, first_weights, first_start, first_clamp, block_between,
        )  # fmt: skip
        own_dresult = pointer(dresult, 0)
        if drops:
            drop(pointer(dresult, block * LANES * size), dropped, block * LANES * size, count * size, mask)
            own_dresult = pointer(dropped, -block * LANES * size)
        bring_gradient(
            own_dresult, result, winners, block, count, dresult.shape[1], dresult.shape[2], k, clamp, pool,
            dy_image, dy_padded, block_dresult, block_dy, scratch, own_bias_sums,
        )  # fmt: skip
        reduce_pixels(weight_shape, weight_sizes, weight_rows, block_between, dy, dy_line, k, own_sums)
        correlate(shape, sizes, rows_in, rows_out, runs, block_dy, weights, start, False, block_dbetween)
        _mask_and_add(block_dbetween, block_between, first_clamp, image, own_first_bias_sums)
        reduce_pixels(
            first_weight_shape, first_weight_sizes, first_weight_rows, block_x, block_dbetween, line, image.c,
            own_first_sums,
        )  # fmt: skip


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
