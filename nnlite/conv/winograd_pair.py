"""The first two convolutions of a network at once, the second by Winograd's algorithm: see nnlite.conv.pair.

A thread takes an image at a time: the first convolution, direct on register tiles, into an array of that image, whose
tiles Winograd's transforms then read. Backward likewise, with the first's gradient of the weights behind it.
"""

from __future__ import annotations

import numpy as np

from nnlite.compiler.jit import jit, kernel
from nnlite.compiler.simd import LANES, load_first, pointer, select, store_first
from nnlite.compiler.tiles import even_rows, load_tile, multiply_add, store_tile, table_rows
from nnlite.conv import checks, direct_plan
from nnlite.conv.direct import correlate_tiles
from nnlite.conv.direct_panels import pad_images, prepared, start_values
from nnlite.conv.direct_plan import Image
from nnlite.conv.epilogue import Fused
from nnlite.conv.pair import INTERMEDIATE_BYTES, FusedPair, PairWeights
from nnlite.conv.winograd import (
    multiply_dm_u,
    multiply_v_dm,
    multiply_v_u,
    scratch,
    swap_channels,
)
from nnlite.conv.winograd_tiles import (
    add_dx,
    gradient_shape,
    product_shape,
    sizes_of,
    transform_du,
    transform_dy,
    transform_input,
    transform_output,
    transform_weight,
)
from nnlite.kernels.dropout import Mask, drop, drop_in_place
from nnlite.runtime import memory, threads

#: with fewer tiles in an image, a block of tiles of several images is better
LEAST_TILES = 24


def fits(pair: FusedPair) -> bool:
    """Whether the kernels here compute it, and keep what they work on in cache."""
    plan = direct_plan.forward(pair.first.one_image)
    return (
        pair.first.groups == 1
        and len(plan.tables.blocks) == 2
        and pair.image_bytes <= INTERMEDIATE_BYTES
        and sizes_of(pair.second.one_image).tiles >= LEAST_TILES
    )


def _room(elements: int, width: int = LANES) -> int:
    """Numbers that an image takes, with what a vector, or a row of a register tile of `width`, reads beyond its end."""
    return elements + width


def _padded(image: Image, parts: int) -> np.ndarray:
    """Room for an image with a border, if it has one, for each part."""
    return memory.empty((parts, _room(image.padded_h * image.padded_w * image.c) if image.is_padded else 0))


# Forward -------------------------------------------------------------------------------------------------------


def forward(x: np.ndarray, weights: PairWeights, pair: FusedPair, seed: int) -> Fused:
    """The result (n, oh, ow, k); the residuals: of each maximum, which of its window's four it is."""
    plan, sizes, parts = (
        direct_plan.forward(pair.first.one_image),
        sizes_of(pair.second.one_image),
        threads.kernel_parts(),
    )
    result = memory.empty(pair.epilogue.result_shape(pair.second.output_shape))
    winners = memory.empty(result.shape if pair.epilogue.pool else (0, 0, 0, 0), np.uint8)
    u = memory.empty((parts, 36 * sizes.c * sizes.k_wide))
    v, m = memory.empty((parts, 36 * sizes.v_step)), memory.empty((parts, 36 * sizes.m_step))
    _forward.run(
        parts, plan.shape, prepared(plan, weights.first, weights.first_bias), x, pair.relu,
        _padded(plan.image, parts), memory.empty((parts, _room(plan.sizes.image_out))),
        product_shape(sizes.k), sizes, weights.second, start_values(weights.second_bias, 1, sizes.k_wide),
        u, v, m, scratch(parts),
        result, winners, pair.epilogue.relu, pair.epilogue.pool, pair.dropout > 0, Mask.of(pair.dropout, seed),
    )  # fmt: skip
    return Fused(x, weights, result, winners)


@kernel
def _forward(
    part, parts, shape, first, x, first_clamp, padded, between,
    shape_k, sizes, weight, bias, u, v, m, scratch, y, winners, clamp, pool, drops, mask,
):  # fmt: skip
    """One share of the images."""
    images, size = x.shape[0], y.shape[1] * y.shape[2] * y.shape[3]
    own_x, own_y = pointer(padded, part * padded.shape[1]), pointer(between, part * between.shape[1])
    own_v, own_m = pointer(v, part * v.shape[1]), pointer(m, part * m.shape[1])
    own_u, own_scratch = pointer(u, part * u.shape[1]), pointer(scratch, part * scratch.shape[1])
    transform_weight(weight, sizes.k_wide, own_u, own_scratch)
    padded[part] = 0
    for n in range(part * images // parts, (part + 1) * images // parts):
        _correlate(shape, first, x, n, first_clamp, own_x, own_y)
        for tile in range(0, sizes.tiles, sizes.block):
            count = min(sizes.block, sizes.tiles - tile)
            transform_input(own_y, tile, count, sizes, own_v, own_scratch)
            multiply_v_u(shape_k, sizes, count, own_v, own_u, own_m)
            transform_output(own_m, n * sizes.tiles + tile, count, sizes, bias, own_scratch, y, winners, clamp, pool)
        if drops:
            drop_in_place(pointer(y, n * size), n * size, size, mask)


@jit
def _correlate(shape, plan, x, n, clamp, padded, y):
    """y = relu(correlation of image n + bias), the clamp if asked for: what nnlite.conv.direct does."""
    sizes, source = plan.sizes, pointer(x, n * plan.sizes.image_in)
    if sizes.image_in != sizes.image_padded:
        pad_images(x, x, False, plan.image, n, n + 1, padded)
        source = padded
    for column in range(0, sizes.group_out, shape.width):
        weights, start = pointer(plan.weights, column * sizes.reduction), pointer(plan.start, column)
        correlate_tiles(
            shape, plan.tables, 0, sizes.tiles, 0, source, weights, start, pointer(y, column),
            sizes.group_out - column, clamp,
        )  # fmt: skip


# The gradients of the parameters --------------------------------------------------------------------------------


def backward(ran: Fused, dresult: np.ndarray, pair: FusedPair, seed: int) -> PairWeights:
    """The gradients of the parameters, given what `forward` returned and the gradient of its result."""
    x, weights, result, winners = ran
    if pair.epilogue.pool:
        winners = checks.argmax(winners, result.shape)
    plan, reduction = direct_plan.forward(pair.first.one_image), direct_plan.grad_weight(pair.first.one_image)
    sizes, parts, k = sizes_of(pair.second.one_image), threads.kernel_parts(), pair.first.output_shape[3]
    between = memory.empty((parts, 2, _room(plan.sizes.image_out, reduction.shape.width)))
    v, dm = memory.empty((parts, 36 * sizes.v_step)), memory.empty((parts, 36 * sizes.m_step))
    u = memory.empty((parts, 36 * sizes.k * sizes.c_wide))
    du = memory.empty((parts, 36, sizes.c, sizes.k_wide))
    dbias = np.zeros((parts, sizes.k_wide), np.float32)
    dfirst = np.zeros((parts, reduction.sizes.reduced, k), np.float32)
    dfirst_bias = np.zeros((parts, k), np.float32)
    _backward.run(
        parts, plan.shape, prepared(plan, weights.first, weights.first_bias), x, pair.relu,
        _padded(plan.image, parts), between, _padded(reduction.image, parts),
        reduction.shape, reduction.image, reduction.sizes, reduction.rows, dfirst, dfirst_bias,
        product_shape(sizes.c), gradient_shape(sizes.k), sizes, swap_channels(weights.second),
        dresult, result, winners, pair.epilogue.relu, pair.epilogue.pool, u, v, dm, scratch(parts), du, dbias,
        pair.dropout > 0, Mask.of(pair.dropout, seed), memory.empty((parts, result[0].size if len(result) else 0)),
    )  # fmt: skip
    dweight = memory.empty(pair.second.weight_shape)
    transform_du.run(parts, du, scratch(parts), dweight)
    return PairWeights(
        np.add.reduce(dfirst).reshape(pair.first.weight_shape),
        np.add.reduce(dfirst_bias),
        dweight,
        np.add.reduce(dbias)[: sizes.k],
    )


@kernel
def _backward(
    part, parts, shape, first, x, first_clamp, padded, between, bordered,
    shape_first, reduced_image, reduced_sizes, rows, dfirst, dfirst_bias,
    shape_c, shape_k, sizes, weight, dy, result, winners, clamp, pool, u, v, dm, scratch, du, dbias,
    drops, mask, dropped,
):  # fmt: skip
    """One share of the images."""
    images, size = x.shape[0], dropped.shape[1]
    own_dropped = pointer(dropped, part * size)
    own_x, own_y = pointer(padded, part * padded.shape[1]), pointer(between, part * 2 * between.shape[2])
    own_dy, own_bordered = pointer(own_y, between.shape[2]), pointer(bordered, part * bordered.shape[1])
    own_v, own_dm = pointer(v, part * v.shape[1]), pointer(dm, part * dm.shape[1])
    own_scratch, own_dbias = pointer(scratch, part * scratch.shape[1]), pointer(dbias, part * sizes.k_wide)
    own_u, own_du = pointer(u, part * u.shape[1]), pointer(du, part * 36 * sizes.c * sizes.k_wide)
    transform_weight(weight, sizes.c_wide, own_u, own_scratch)
    own_dfirst = pointer(dfirst, part * dfirst.shape[1] * dfirst.shape[2])
    own_dfirst_bias = pointer(dfirst_bias, part * dfirst_bias.shape[1])
    padded[part] = 0
    bordered[part] = 0
    du[part] = 0
    for n in range(part * images // parts, (part + 1) * images // parts):
        _correlate(shape, first, x, n, first_clamp, own_x, own_y)
        own_dresult = pointer(dy, 0)
        if drops:
            drop(pointer(dy, n * size), own_dropped, n * size, size, mask)
            own_dresult = pointer(own_dropped, -n * size)
        for tile in range(0, sizes.tiles, sizes.block):
            count = min(sizes.block, sizes.tiles - tile)
            begin = n * sizes.tiles + tile
            transform_dy(
                own_dresult, result, winners, begin, count, sizes, True, clamp, pool, own_scratch, own_dm, own_dbias
            )
            transform_input(own_y, tile, count, sizes, own_v, own_scratch)
            multiply_v_dm(shape_k, sizes, count, own_v, own_dm, own_du)
            multiply_dm_u(shape_c, sizes, count, own_dm, own_u, own_v)
            add_dx(own_v, tile, count, sizes, own_scratch, own_dy)
        _mask_and_sum(own_dy, own_y, first_clamp, sizes.h * sizes.w, sizes.c, own_dfirst_bias)
        source = pointer(x, n * reduced_sizes.image_in)
        if reduced_sizes.image_in != reduced_sizes.image_padded:
            source = own_bordered
            pad_images(x, x, False, reduced_image, n, n + 1, source)
        _reduce_pixels(shape_first, reduced_sizes, rows, source, own_dy, sizes.c, own_dfirst)


@jit
def _mask_and_sum(dy, y, masked, pixels, k, sums):
    """dy (pixels, k), if `masked` zeroed where y is not above 0, and its pixels added to sums (k)."""
    for column in range(0, k, LANES):
        total, left = load_first(sums, column, k - column), k - column
        for p in range(pixels):
            value = load_first(dy, p * k + column, left)
            if masked:
                value = select(load_first(y, p * k + column, left) > 0, value, 0)
                store_first(dy, p * k + column, value, left)
            total = total + value
        store_first(sums, column, total, left)


@jit
def _reduce_pixels(shape, sizes, rows, x, dy, k, sums):
    """sums (reduced, k) += the weight gradient of one image: as nnlite.conv.direct's, but dY is read where it is."""
    for column in range(0, k, shape.width):
        for t in range(-(-sizes.reduced // shape.rows)):
            weights = table_rows(shape, t * shape.rows, sizes.reduced, rows)
            places = even_rows(shape, t * shape.rows, sizes.reduced, k)
            tile = load_tile(shape, sums, places, column, k - column)
            for h in range(sizes.h_out):
                pixel = h * sizes.w_out * k + column
                tile = multiply_add(tile, x, weights, h * sizes.line, sizes.pixel, dy, pixel, k, sizes.w_out)
            store_tile(sums, places, column, tile, k - column)
