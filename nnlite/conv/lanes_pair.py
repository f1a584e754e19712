"""The first two convolutions of a network at once, with an image in each SIMD lane: see nnlite.conv.pair.

A thread takes a block of LANES images at a time. Between the transposition that brings them in and the one that takes
the second convolution's result out, everything lies as vectors of images.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from nnlite.compiler.compilation import jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.simd import load, pointer, select, store
from nnlite.compiler.target import LANES
from nnlite.conv import checks, direct_plan, direct_weight_plan
from nnlite.conv.direct_packing import prepared
from nnlite.conv.direct_plan import Correlation
from nnlite.conv.epilogue import Fused, Output
from nnlite.conv.lanes import (
    SCRATCH,
    Sums,
    argmax_shape,
    block_size,
    correlate,
    inside,
    load_gradient,
    load_images,
    output,
    reduce_pixels,
    store_result,
)
from nnlite.conv.pair import INTERMEDIATE_BYTES, FusedPair, PairWeights
from nnlite.kernels.dropout import Mask, drop, drop_in_place, drops
from nnlite.runtime import memory, threads
from nnlite.runtime.random import Seed


def computes(pair: FusedPair) -> bool:
    """Whether the kernels here compute it."""
    return pair.first.strides == (1, 1)


def pays(pair: FusedPair) -> bool:
    """Whether a block of images stays in cache between the two."""
    return pair.image_bytes * LANES <= INTERMEDIATE_BYTES


@lru_cache(maxsize=64)
def _first(pair: FusedPair) -> Correlation:
    """The first convolution of one image, whose results go into the second's input, inside its border."""
    plan, second = (direct_plan.forward(g.one_image, lanes=True) for g in (pair.first, pair.second))
    to = second.nest
    rows, columns = np.arange(to.h)[:, None] + to.top, np.arange(to.w) + to.left
    rows_out = ((rows * to.padded_w + columns) * to.c * LANES).ravel()
    return plan._replace(nest=plan.nest._replace(rows_out=rows_out))


# Forward -------------------------------------------------------------------------------------------------------


def forward(x: np.ndarray, weights: PairWeights, pair: FusedPair, seed: Seed) -> Fused:
    """The result (n, oh, ow, k); the residuals (blocks, oh * ow * k * LANES): which of a window's four."""
    first, second = _first(pair), direct_plan.forward(pair.second.one_image, lanes=True)
    nests = prepared(first, weights.first, weights.first_bias), prepared(second, weights.second, weights.second_bias)
    num_threads, out = threads.kernel_parts(), output(pair.second, pair.epilogue)
    sizes = *(nest.image_padded for nest in nests), second.nest.image_out, second.nest.image_out
    work = memory.empty((num_threads, sum(map(block_size, sizes)) + SCRATCH))
    _forward.run(
        num_threads, first.shape, second.shape, *nests, x, pair.relu, pair.second.output_shape[1:], out,
        Mask.of(pair.dropout, seed), work,
    )  # fmt: skip
    return Fused(x, weights, out.y, out.argmax)


@kernel
def _forward(thread, num_threads, first_shape, shape, first, nest, x, first_relu, size, out, mask, work):
    """One share of the blocks of images."""
    blocks, border = -(-x.shape[0] // LANES), block_size(first.image_padded) + block_size(nest.image_padded)
    block_x = pointer(work, thread * work.shape[1])
    intermediate = pointer(block_x, block_size(first.image_padded))
    block_y = pointer(intermediate, block_size(nest.image_padded))
    pooled = pointer(block_y, block_size(nest.image_out))
    scratch = pointer(pooled, block_size(nest.image_out))
    if first.image_in != first.image_padded or nest.image_in != nest.image_padded:
        work[thread, :border] = 0
    for block in range(thread * blocks // num_threads, (thread + 1) * blocks // num_threads):
        load_images(first, x, block, block_x, scratch)
        correlate(first_shape, first, block_x, first_relu, intermediate)
        correlate(shape, nest, intermediate, out.relu and not out.pool, block_y)
        begin, length = store_result(size, block_y, block, x.shape[0], out, pooled, scratch)
        if drops(mask):
            drop_in_place(pointer(out.y, begin), begin, length, mask)


# The gradients of the parameters --------------------------------------------------------------------------------


def backward(ran: Fused, dresult: np.ndarray, pair: FusedPair, seed: Seed) -> PairWeights:
    """The gradients of the parameters, given what `forward` returned and the gradient of its result."""
    x, weights, result, argmax = ran
    if pair.epilogue.pool:
        argmax = checks.argmax(argmax, argmax_shape(pair.second, pair.epilogue))
    num_threads, first = threads.kernel_parts(), _first(pair)
    (phase,) = direct_plan.grad_input(pair.second.one_image, lanes=True)
    plans = [direct_weight_plan.grad_weight(g.one_image, lanes=True) for g in (pair.first, pair.second)]
    first_sums, sums = (Sums.of(plan, num_threads) for plan in plans)
    nests = prepared(first, weights.first, weights.first_bias), prepared(phase, weights.second, None, back=True)
    sizes = *(n.image_padded for n in (nests[0], sums.nest, nests[1])), *(sums.nest.image_out,) * 2, sums.nest.image_in
    _backward.run(
        num_threads, first.shape, plans[0].shape, plans[1].shape, phase.shape, *nests, first_sums, sums,
        x, dresult, pair.relu, Output(result, argmax, pair.epilogue.relu, pair.epilogue.pool),
        Mask.of(pair.dropout, seed), memory.empty((num_threads, sum(map(block_size, sizes)) + SCRATCH)),
    )  # fmt: skip
    return PairWeights(*first_sums.total(pair.first), *sums.total(pair.second))


@kernel
def _backward(
    thread, num_threads, first_shape, first_sums_shape, sums_shape, shape, first, nest, first_sums, sums,
    x, dresult, first_relu, out, mask, work,
):  # fmt: skip
    """One share of the blocks of images: `first` is the first convolution, `nest` the second's input gradient."""
    size = dresult.shape[1] * dresult.shape[2] * dresult.shape[3]
    blocks, second = -(-x.shape[0] // LANES), sums.nest
    block_x = pointer(work, thread * work.shape[1])
    intermediate = pointer(block_x, block_size(first.image_padded))
    block_dy = pointer(intermediate, block_size(second.image_padded))
    pooled = pointer(block_dy, block_size(nest.image_padded))
    dropped = pointer(pooled, block_size(second.image_out))
    dintermediate = pointer(dropped, block_size(second.image_out))
    scratch = pointer(dintermediate, block_size(second.image_in))
    begin, end = block_size(first.image_padded) + block_size(second.image_padded), block_size(nest.image_padded)
    if first.image_in != first.image_padded or second.image_in != second.image_padded:
        work[thread, :begin] = 0
    work[thread, begin : begin + end] = 0
    first_sums.weights[thread], first_sums.bias[thread], sums.weights[thread], sums.bias[thread] = 0, 0, 0, 0
    first_bias = pointer(first_sums.bias, thread * first_sums.bias.shape[1] * LANES)
    bias = pointer(sums.bias, thread * sums.bias.shape[1] * LANES)
    # loop 5: blocks of LANES images, which stay in cache from the first convolution to its gradient
    for block in range(thread * blocks // num_threads, (thread + 1) * blocks // num_threads):
        # forward again: the first convolution
        load_images(first, x, block, block_x, scratch)
        correlate(first_shape, first, block_x, first_relu, intermediate)
        # the second's dY, back through dropout, pooling and ReLU
        start, own_dresult = block * LANES * size, pointer(dresult, 0)
        if drops(mask):
            drop(pointer(dresult, start), dropped, start, min(LANES, x.shape[0] - block * LANES) * size, mask)
            own_dresult = pointer(dropped, -start)
        load_gradient(nest, own_dresult, out, block, pooled, block_dy, scratch, bias)
        # the second's gradients
        reduce_pixels(sums_shape, sums, intermediate, inside(block_dy, nest), nest.padded_w * nest.c, thread)
        correlate(shape, nest, block_dy, False, dintermediate)
        # the first's gradient of its parameters
        _mask_and_add(second, dintermediate, first_relu, intermediate, first_bias)
        reduce_pixels(
            first_sums_shape, first_sums, block_x, inside(intermediate, second), second.padded_w * second.c, thread
        )


@jit
def _mask_and_add(nest, dy, is_masked, y, sums):
    """The pixels of dy (h, w, c, LANES) take the place of those of y, inside its border; sums (c, LANES) += them.

    If masked, they are zero where y is not > 0. In dy's own place that would be a masked store, of zeros, whatever is
    written here: on Zen 3 it takes 12 cycles or more.
    """
    for h in range(nest.h):
        for c in range(nest.c):
            total = load(sums, c * LANES)
            for w in range(nest.w):
                value = load(dy, ((h * nest.w + w) * nest.c + c) * LANES)
                place = (((h + nest.top) * nest.padded_w + w + nest.left) * nest.c + c) * LANES
                if is_masked:
                    value = select(load(y, place) > 0, value, 0)
                store(y, place, value)
                total = total + value
            store(sums, c * LANES, total)
