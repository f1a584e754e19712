"""The first two convolutions of a network at once, the second by Winograd's algorithm: see nnlite.conv.pair.

A thread takes an image at a time: the first convolution, direct on register tiles, into an array of that image, whose
tiles Winograd's transforms then read. The backward pass does the same, and then the first's weight gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nnlite.compiler.compilation import jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.simd import load_first, pointer, select, store_first
from nnlite.compiler.target import LANES
from nnlite.conv import checks, direct_plan, direct_weight_plan
from nnlite.conv.direct import Panel, macro_kernel
from nnlite.conv.direct_packing import pad_images, prepared
from nnlite.conv.direct_reduction import Band, reduce_band
from nnlite.conv.epilogue import Fused, Output
from nnlite.conv.pair import INTERMEDIATE_BYTES, FusedPair, PairWeights
from nnlite.conv.winograd import (
    Operands,
    multiply_dm_u,
    multiply_v_dm,
    multiply_v_u,
    output,
)
from nnlite.conv.winograd_fetch import ahead_y
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
from nnlite.conv.winograd_weights import transformed, weight_gradient
from nnlite.kernels.dropout import Mask, drop, drop_in_place, drops
from nnlite.kernels.start_values import start_values
from nnlite.runtime import memory, threads
from nnlite.runtime.random import Seed
from nnlite.runtime.replay import filled, summed

#: with fewer tiles in an image, a block of tiles of several images is better
LEAST_TILES = 24


def computes(pair: FusedPair) -> bool:
    """Whether the kernels here compute it."""
    return pair.first.groups == 1 and len(direct_plan.forward(pair.first.one_image).nest.blocks) == 2


def pays(pair: FusedPair) -> bool:
    """Whether an image stays in cache between the two, and has enough tiles."""
    return pair.image_bytes <= INTERMEDIATE_BYTES and sizes_of(pair.second.one_image).tiles >= LEAST_TILES


@jit
def image_size(elements, beyond):
    """Numbers that an image takes, with what a row of a register tile, of `beyond`, reads beyond its end."""
    return -(-elements // LANES) * LANES + beyond


# Forward -------------------------------------------------------------------------------------------------------


def forward(x: np.ndarray, weights: PairWeights, pair: FusedPair, seed: Seed) -> Fused:
    """The result (n, oh, ow, k); the residuals: of each maximum, which of its window's four it is."""
    plan, sizes, num_threads = (
        direct_plan.forward(pair.first.one_image),
        sizes_of(pair.second.one_image),
        threads.kernel_parts(),
    )
    first, out = prepared(plan, weights.first, weights.first_bias), output(pair.second, pair.epilogue)
    _forward.run(
        num_threads, plan.shape, product_shape(sizes.k), first, sizes, x, pair.relu,
        transformed(weights.second, False, num_threads),
        start_values(weights.second_bias, 1, sizes.k_wide), out, Mask.of(pair.dropout, seed),
        workspace(sizes, num_threads, image_size(first.image_padded, LANES) + image_size(first.image_out, LANES)),
    )  # fmt: skip
    return Fused(x, weights, out.y, out.argmax)


@kernel
def _forward(thread, num_threads, first_shape, shape, first, sizes, x, first_relu, u, bias, out, mask, work):
    """One share of the images."""
    images, size = x.shape[0], out.y.shape[1] * out.y.shape[2] * out.y.shape[3]
    padded = pointer(work, thread * work.shape[1])
    intermediate = pointer(padded, image_size(first.image_padded, LANES))
    own = workspace_at(pointer(intermediate, image_size(first.image_out, LANES)), sizes)
    work[thread, : first.image_padded] = 0
    turns = 36 * (sizes.k_wide // shape.width)
    for n in range(thread * images // num_threads, (thread + 1) * images // num_threads):
        _correlate(first_shape, first, x, n, first_relu, padded, intermediate)
        for tile in range(0, sizes.tiles, sizes.block):
            count = min(sizes.block, sizes.tiles - tile)
            transform_input(sizes, intermediate, tile, count, own)
            y = ahead_y(sizes, out.y, out.pool, n * sizes.tiles + tile, n * sizes.tiles + tile + count, turns)
            multiply_v_u(shape, sizes, count, u, own, y, y)
            transform_output(sizes, n * sizes.tiles + tile, count, bias, own, out)
        if drops(mask):
            drop_in_place(pointer(out.y, n * size), n * size, size, mask)


@jit
def _correlate(shape, nest, x, n, relu, padded, y):
    """y = relu(correlation of image n + bias), the ReLU if asked for: as nnlite.conv.direct does."""
    source = _padded_image(nest, x, n, padded)
    for column in range(0, nest.group_out, shape.width):
        panel = Panel(
            source, pointer(nest.weights, column * nest.reduction), pointer(nest.start, column),
            pointer(y, column), nest.group_out - column,
        )  # fmt: skip
        macro_kernel(shape, nest, panel, 0, nest.tiles, 0, relu)


@jit
def _padded_image(nest, x, n, padded):
    """Image n, in its border of zeros where `nest` has one."""
    if nest.image_in == nest.image_padded:
        return pointer(x, n * nest.image_in)
    pad_images(nest, x, x, False, n, n + 1, padded)
    return pointer(padded, 0)


# The gradients of the parameters --------------------------------------------------------------------------------


def backward(ran: Fused, dresult: np.ndarray, pair: FusedPair, seed: Seed) -> PairWeights:
    """The gradients of the parameters, given what `forward` returned and the gradient of its result."""
    x, weights, result, argmax = ran
    if pair.epilogue.pool:
        argmax = checks.argmax(argmax, result.shape)
    plan, reduction = direct_plan.forward(pair.first.one_image), direct_weight_plan.grad_weight(pair.first.one_image)
    first, sizes, num_threads = (
        prepared(plan, weights.first, weights.first_bias),
        sizes_of(pair.second.one_image),
        threads.kernel_parts(),
    )
    sums = FirstSums(
        filled((num_threads, reduction.nest.reduced, sizes.c), np.float32, 0),
        filled((num_threads, sizes.c), np.float32, 0),
    )
    du = memory.empty((num_threads, 36, sizes.k_wide * sizes.c + LANES))
    dbias = filled((num_threads, sizes.k_wide), np.float32, 0)
    nothing = np.empty((0, 0, 0, 0), np.float32)
    operands = Operands(x, transformed(weights.second, True, num_threads), dresult, nothing, du, dbias)
    nr, size = reduction.shape.width, result[0].size if len(result) else 0
    lengths = (
        image_size(first.image_padded, LANES), image_size(reduction.nest.image_padded, LANES),
        2 * image_size(first.image_out, nr), image_size(size, LANES), image_size(reduction.nest.packed, 0),
    )  # fmt: skip
    _backward.run(
        num_threads, plan.shape, reduction.shape, product_shape(sizes.c), *gradient_shapes(sizes.c, sizes.k)[:2],
        first, reduction.nest, sizes, sums, operands, pair.relu,
        Output(result, argmax, pair.epilogue.relu, pair.epilogue.pool), Mask.of(pair.dropout, seed),
        workspace(sizes, num_threads, sum(lengths)),
    )  # fmt: skip
    return PairWeights(
        summed(sums.weights).reshape(pair.first.weight_shape),
        summed(sums.bias),
        weight_gradient(du, sizes, pair.second),
        summed(dbias)[: sizes.k],
    )


class FirstSums(NamedTuple):
    """The gradients of the first convolution's parameters, as each thread sums them over its images."""

    weights: np.ndarray  # (threads, reduced, k)
    bias: np.ndarray  # (threads, k)


@kernel
def _backward(
    thread, num_threads, first_shape, reduction_shape, shape, taller, lower, first, nest, sizes, sums,
    operands, first_relu, out, mask, work,
):  # fmt: skip
    """One share of the images: `first` is the first convolution, `nest` its weight gradient, `sizes` the second's."""
    x, u, dresult, _, du, dbias = operands
    images, k, nr = x.shape[0], sizes.c, reduction_shape.width
    size = dresult.shape[1] * dresult.shape[2] * dresult.shape[3]
    own_x = pointer(work, thread * work.shape[1])
    border = pointer(own_x, image_size(first.image_padded, LANES))
    y = pointer(border, image_size(nest.image_padded, LANES))
    dy = pointer(y, image_size(first.image_out, nr))
    dropped = pointer(dy, image_size(first.image_out, nr))
    packed = pointer(dropped, image_size(size, LANES))
    own = workspace_at(pointer(packed, image_size(nest.packed, 0)), sizes)
    own_du, own_dbias = pointer(du, thread * 36 * du.shape[2]), pointer(dbias, thread * sizes.k_wide)
    own_sums, own_bias = pointer(sums.weights, thread * nest.reduced * k), pointer(sums.bias, thread * k)
    work[thread, : image_size(first.image_padded, LANES) + nest.image_padded] = 0
    du[thread] = 0
    turns = 36 * (sizes.c_wide // shape.width)
    # loop 5: images: the intermediate tensor and its gradient stay in cache
    for n in range(thread * images // num_threads, (thread + 1) * images // num_threads):
        # forward again: the first convolution
        _correlate(first_shape, first, x, n, first_relu, own_x, y)
        own_dresult = pointer(dresult, 0)
        if drops(mask):
            drop(pointer(dresult, n * size), dropped, n * size, size, mask)
            own_dresult = pointer(dropped, -n * size)
        # loop 4: blocks of Winograd tiles: both gradients of the second convolution, while V and M stay in cache
        for tile in range(0, sizes.tiles, sizes.block):
            count = min(sizes.block, sizes.tiles - tile)
            transform_dy(sizes, own_dresult, out, n * sizes.tiles + tile, count, own, own_dbias, True)
            transform_input(sizes, y, tile, count, own)
            after = n * sizes.tiles + tile + count
            next_dy = ahead_y(sizes, dresult, out.pool, after, after + sizes.block, turns)
            next_y = ahead_y(sizes, out.y, out.pool, after, after + sizes.block, turns)
            multiply_v_dm(taller, lower, sizes, count, own, own_du, du.shape[2], True, next_y, next_y)
            multiply_dm_u(shape, sizes, count, u, own, next_dy, next_dy)
            add_dx(sizes, tile, count, own, dy, (0, sizes.h))
        # the first convolution's gradient of its parameters: loops 3 to 1 are direct convolution's
        _mask_and_sum(dy, y, first_relu, sizes.h * sizes.w, k, own_bias)
        source = pointer(x, n * nest.image_in) if nest.packed else _padded_image(nest, x, n, border)
        for band in range(nest.bands):
            top, bottom = band * nest.h_out // nest.bands, (band + 1) * nest.h_out // nest.bands
            own_dy = pointer(dy, top * nest.w_out * k)
            lines = Band(source, packed, own_dy, own_sums, nr, k, 1, top, bottom, False)
            reduce_band(reduction_shape, nest, lines, 0, nest.panels * nest.inside.shape[0])


@jit
def _mask_and_sum(dy, y, is_masked, pixels, k, sums):
    """dy (pixels, k), if masked zeroed where y is not above 0, and its pixels added to sums (k)."""
    for column in range(0, k, LANES):
        total, left = load_first(sums, column, k - column), k - column
        for p in range(pixels):
            value = load_first(dy, p * k + column, left)
            if is_masked:
                value = select(load_first(y, p * k + column, left) > 0, value, 0)
                store_first(dy, p * k + column, value, left)
            total = total + value
        store_first(sums, column, total, left)
