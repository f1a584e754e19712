"""Direct convolution with an image in each SIMD lane: for layers with too few channels to fill a vector.

The sums are those of the definition, computed for LANES images at once. With x, y and dy as (pixel, channel, image),
every number of them a vector of images, a register tile holds some output positions x some output channels:

    tile[p, k] += x[p + tap, c] * weight[tap, c, k]                       (a vector times a number)

The input gradient is the same over dY, with the weights flipped and their channels swapped. The weight gradient's tile
holds weights instead, and its reduction runs over pixels; the lanes are added up once, at the end:

    tile[(tap, c), k] += x[p + tap, c] * dy[p, k]                         (a vector times a vector)

What makes it fast: nothing is wasted on 4 channels, or on 1, and a block of LANES images stays in cache from the
transposition that brings it in (nnlite.conv.lanes_layout) to the one that takes the result out; so bias, ReLU and
max pooling, forward and back, cost next to nothing. Where things lie is in tables (nnlite.conv.direct_plan).
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from nnlite.compiler.compilation import ENABLED, jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.reductions import multiply_add_lanes, multiply_add_vectors
from nnlite.compiler.simd import pointer
from nnlite.compiler.target import LANES
from nnlite.compiler.tiles import even_rows, load_tile, relu_tile, repeat_numbers, store_tile, table_rows
from nnlite.conv import checks, direct_plan, direct_weight_plan, work_compiled, work_pair
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.direct_packing import prepared
from nnlite.conv.direct_weight_plan import WeightGradient, WeightLoopNest
from nnlite.conv.epilogue import Epilogue, Fused, Gradients, Output
from nnlite.conv.geometry import Geometry
from nnlite.conv.lanes_layout import (
    add_pixels,
    from_lanes,
    gradient_to_lanes,
    image_to_lanes,
    max_pool,
    positive_to_lanes,
    to_lanes,
    unpool,
)
from nnlite.conv.pair import FusedPair
from nnlite.conv.work import WorkItem
from nnlite.runtime import memory, threads
from nnlite.runtime.replay import noted

SCRATCH = LANES * LANES
_NOTHING = np.empty((0, 0, 0, 0), np.float32)
_NO_BYTES = np.empty((0, 0), np.uint8)


class Lanes(Algorithm):
    """Stride 1, any kernel size, padding, dilation and groups, with bias, ReLU and 2x2 max pooling. float32."""

    name = "lanes"
    dtypes = (np.float32,)
    pair_module, pair_first = "nnlite.conv.lanes_pair", "lanes"

    def supports(self, geometry: Geometry) -> str | None:
        if not ENABLED:
            return "its kernels need Numba's compiler, which NUMBA_DISABLE_JIT=1 switches off"
        return None if geometry.strides == (1, 1) else "it is for stride 1"

    def work(self, geometry: Geometry, pass_name: str, epilogue: Epilogue | None = None) -> list[WorkItem] | None:
        return None if self.supports(geometry) else work_compiled.lanes(geometry, pass_name, epilogue)

    def shares(self, geometry: Geometry) -> int | None:
        return blocks_of(geometry)

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _run_forward(x, weight, None, geometry, Epilogue()).result

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _gradients(None, weight, dy, _alone(dy), geometry)[0]  # type: ignore[return-value]

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _gradients(x, None, dy, _alone(dy), geometry)[1]  # type: ignore[return-value]

    def backward(
        self, x: np.ndarray, weight: np.ndarray, dy: np.ndarray, geometry: Geometry, needs: tuple[bool, bool]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        asked = x if needs[1] else None, weight if needs[0] else None
        return _gradients(*asked, dy, _alone(dy), geometry)[:2]

    def fuses(self, geometry: Geometry, epilogue: Epilogue) -> bool:
        return self.supports(geometry) is None

    def forward_fused(
        self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, epilogue: Epilogue
    ) -> Fused:
        return _run_forward(x, weight, bias, geometry, epilogue)

    def backward_fused(
        self, ran: Fused, dresult: np.ndarray, geometry: Geometry, epilogue: Epilogue, needs: tuple[bool, bool, bool]
    ) -> Gradients:
        asked = ran.x if needs[1] else None, ran.weight if needs[0] else None
        argmax = checks.argmax(ran.residuals, argmax_shape(geometry, epilogue)) if epilogue.pool else _NO_BYTES
        out = Output(ran.result, argmax, epilogue.relu, epilogue.pool)
        dx, dweight, dbias = _gradients(*asked, dresult, out, geometry)
        return dx, dweight, dbias if needs[2] else None

    def work_pair(self, pair: FusedPair, pass_name: str) -> list[WorkItem] | None:
        return work_pair.lanes(pair, pass_name)


def blocks_of(geometry: Geometry) -> int:
    """Of images, the last perhaps not full."""
    return -(-geometry.input_shape[0] // LANES)


def argmax_shape(geometry: Geometry, epilogue: Epilogue) -> tuple[int, int]:
    """Of a max pooling's argmax indices: for each block of images, which of its window's four each maximum is."""
    return blocks_of(geometry), prod(epilogue.result_shape(geometry.output_shape)[1:]) * LANES


def output(geometry: Geometry, epilogue: Epilogue) -> Output:
    """Not yet written."""
    argmax = memory.empty(argmax_shape(geometry, epilogue), np.uint8) if epilogue.pool else _NO_BYTES
    return Output(memory.empty(epilogue.result_shape(geometry.output_shape)), argmax, epilogue.relu, epilogue.pool)


def _alone(dy: np.ndarray) -> Output:
    """The output of a convolution that nothing follows, for its backward pass."""
    return Output(dy, _NO_BYTES, False, False)


@jit
def block_size(elements):
    """Numbers that a block of images of `elements` elements takes, with what a transposition writes beyond its end."""
    return (elements + LANES) * LANES


# Forward, and the input gradient -------------------------------------------------------------------------------


def _run_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, epilogue: Epilogue
) -> Fused:
    plan, num_threads = direct_plan.forward(geometry.one_image, lanes=True), threads.kernel_parts()
    nest, out = prepared(plan, weight, bias), output(geometry, epilogue)
    work = memory.empty((num_threads, block_size(nest.image_padded) + 2 * block_size(nest.image_out) + SCRATCH))
    _forward.run(num_threads, plan.shape, nest, x, geometry.output_shape[1:], out, work)
    return Fused(x, weight, out.y, out.argmax)


@kernel
def _forward(thread, num_threads, shape, nest, x, size, out, work):
    """One share of the blocks of images; `size` is that of a convolution's output."""
    blocks = -(-x.shape[0] // LANES)
    block_x = pointer(work, thread * work.shape[1])
    block_y = pointer(block_x, block_size(nest.image_padded))
    pooled = pointer(block_y, block_size(nest.image_out))
    scratch = pointer(pooled, block_size(nest.image_out))
    if nest.image_in != nest.image_padded:
        work[thread] = 0
    for block in range(thread * blocks // num_threads, (thread + 1) * blocks // num_threads):
        load_images(nest, x, block, block_x, scratch)
        correlate(shape, nest, block_x, out.relu and not out.pool, block_y)
        store_result(size, block_y, block, x.shape[0], out, pooled, scratch)


@jit
def load_images(nest, x, block, block_x, scratch):
    """A block of the images x (n, h, w, c) into lanes, inside the border that `nest` says."""
    first = block * LANES
    image_to_lanes(nest, pointer(x, first * nest.image_in), min(LANES, x.shape[0] - first), block_x, scratch)


@jit
def store_result(size, y, block, images, out, pooled, scratch):
    """A block of a convolution's output, an image's of that size, out of its lanes, max pooled if asked for.

    Returns (the first element of the result that it is, the number of its elements).
    """
    h, w, k = size
    first, count = block * LANES, min(LANES, images - block * LANES)
    if out.pool:
        max_pool(y, h, w, k, out.relu, pooled, pointer(out.argmax, block * out.argmax.shape[1]))
        length = (h // 2) * (w // 2) * k
        from_lanes(pooled, count, length, pointer(out.y, first * length), length, scratch)
    else:
        length = h * w * k
        from_lanes(y, count, length, pointer(out.y, first * length), length, scratch)
    return first * length, count * length


@jit
def correlate(shape, nest, x, relu, y):
    """y = relu(correlation of x + start) for a block of images, the ReLU if asked for, in BLIS's loops.

    No loop 5, 4 or 3: images are a vector, and with few channels all weights stay in cache.
    """
    runs = nest.runs
    for group in range(nest.groups):
        for panel in range(nest.panels):
            index = group * nest.panels + panel
            column = group * nest.group_out + panel * shape.vectors
            width = (nest.group_out - panel * shape.vectors) * LANES
            # loop 2: tiles of MR output positions: their sums stay in registers
            for t in range(nest.tiles):
                rows_in = table_rows(shape, t * shape.rows, nest.rows_in.size, nest.rows_in)
                rows_out = table_rows(shape, t * shape.rows, nest.rows_out.size, nest.rows_out)
                tile = repeat_numbers(shape, nest.start, index * shape.vectors)
                # loop 1: runs of taps and channels that lie one after the other in the image
                for run in range(runs.shape[0]):
                    i = (group * nest.group_in + runs[run, 0]) * LANES
                    j = (index * nest.reduction + runs[run, 1]) * shape.vectors
                    tile = multiply_add_lanes(tile, x, rows_in, i, LANES, nest.weights, j, shape.vectors, runs[run, 2])
                if relu:
                    tile = relu_tile(tile)
                store_tile(y, rows_out, column * LANES, tile, width)


# Both gradients ------------------------------------------------------------------------------------------------


class Sums(NamedTuple):
    """The gradients of a convolution's parameters, as each thread sums them over its images."""

    nest: WeightLoopNest
    weights: np.ndarray  # (threads, groups, panels, reduced, width, LANES)
    bias: np.ndarray  # (threads, k, LANES)

    @classmethod
    def of(cls, plan: WeightGradient, num_threads: int, *, weights: bool = True) -> Sums:
        """Not yet zero; without those of the weights where their gradient is not asked for."""
        nest, width = plan.nest, plan.shape.vectors
        shape = (num_threads if weights else 0, nest.groups, nest.panels, nest.reduced, width, LANES)
        bias = memory.empty((num_threads, nest.groups * nest.group_out, LANES))
        return cls(nest, memory.empty(shape), bias)

    def total(self, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
        """(dweight, dbias); dweight is empty if it is not asked for."""
        dweight = np.empty(geometry.weight_shape if len(self.weights) else (0, 0, 0, 0), np.float32)
        dbias = np.empty(geometry.weight_shape[3], np.float32)
        noted(_add_lanes, self.weights, self.bias, dweight.reshape(-1, self.nest.groups, self.nest.group_out), dbias)
        return dweight, dbias


def _gradients(
    x: np.ndarray | None, weight: np.ndarray | None, dy: np.ndarray, out: Output, geometry: Geometry
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray]:
    """(dx, dweight, dbias): dx if given the weight, dweight if given x."""
    one, num_threads = geometry.one_image, threads.kernel_parts()
    (phase,) = direct_plan.grad_input(one, lanes=True)
    reduction = direct_weight_plan.grad_weight(one, lanes=True)
    if weight is None:  # dY needs no border then
        dx, nest = _NOTHING, phase.nest
        nest = nest._replace(top=0, left=0, padded_h=nest.h, padded_w=nest.w, image_padded=nest.image_in)
    else:
        dx, nest = memory.empty(geometry.input_shape), prepared(phase, weight, None, back=True)
    sums = Sums.of(reduction, num_threads, weights=x is not None)
    sizes = sums.nest.image_padded, nest.image_padded, sums.nest.image_out, sums.nest.image_in
    work = memory.empty((num_threads, sum(map(block_size, sizes)) + SCRATCH))
    given = _NOTHING if x is None else x
    _backward.run(num_threads, phase.shape, nest, reduction.shape, sums, given, dy, dx, out, work)
    dweight, dbias = sums.total(geometry)
    return None if weight is None else dx, None if x is None else dweight, dbias


@jit
def _add_lanes(sums, bias_sums, dweight, dbias):
    """dweight (reduced, groups, k / groups) and dbias (k) = the threads' sums over images, added in their order."""
    for k in range(dbias.size):
        total = np.float32(0)
        for thread in range(bias_sums.shape[0]):
            for lane in range(LANES):
                total += bias_sums[thread, k, lane]
        dbias[k] = total
    width = sums.shape[4]
    for row in range(dweight.shape[0]):
        for group in range(dweight.shape[1]):
            for k in range(dweight.shape[2]):
                total = np.float32(0)
                for thread in range(sums.shape[0]):
                    for lane in range(LANES):
                        total += sums[thread, group, k // width, row, k % width, lane]
                dweight[row, group, k] = total


@kernel
def _backward(thread, num_threads, shape, nest, sums_shape, sums, x, dy, dx, out, work):
    """Both gradients over one share of the blocks of images; none where x or dx is empty."""
    images = dy.shape[0]
    blocks, border = -(-images // LANES), block_size(sums.nest.image_padded) + block_size(nest.image_padded)
    block_x = pointer(work, thread * work.shape[1])
    block_dy = pointer(block_x, block_size(sums.nest.image_padded))
    pooled = pointer(block_dy, block_size(nest.image_padded))
    block_dx = pointer(pooled, block_size(sums.nest.image_out))
    scratch = pointer(block_dx, block_size(nest.image_out))
    work[thread, :border] = 0
    sums.bias[thread] = 0
    if sums.weights.size:
        sums.weights[thread] = 0
    for block in range(thread * blocks // num_threads, (thread + 1) * blocks // num_threads):
        bias_sums = pointer(sums.bias, thread * sums.bias.shape[1] * LANES)
        load_gradient(nest, pointer(dy, 0), out, block, pooled, block_dy, scratch, bias_sums)
        if sums.weights.size:
            load_images(sums.nest, x, block, block_x, scratch)
            reduce_pixels(sums_shape, sums, block_x, inside(block_dy, nest), nest.padded_w * nest.c, thread)
        if dx.size:
            correlate(shape, nest, block_dy, False, block_dx)
            first, size = block * LANES, nest.image_out
            count = min(LANES, images - first)
            from_lanes(block_dx, count, size, pointer(dx, first * size), size, scratch)


@jit
def inside(y, nest):
    """Where an image begins behind its border."""
    return pointer(y, (nest.top * nest.padded_w + nest.left) * nest.c * LANES)


@jit
def load_gradient(nest, dresult, out, block, pooled, block_dy, scratch, bias_sums):
    """The gradient before the epilogue, of a block of images, into lanes: to block_dy, inside its border of zeros.

    dresult is that of the result `out.y`, and as it lies in memory.
    """
    (n, h, w, k), line = out.y.shape, nest.padded_w * nest.c
    count, size = min(LANES, n - block * LANES), h * w * k
    d, y = pointer(dresult, block * LANES * size), pointer(out.y, block * LANES * size)
    dy = inside(block_dy, nest)
    if out.pool:
        if out.relu:
            positive_to_lanes(d, y, size, count, size, pooled, scratch)
        else:
            to_lanes(d, size, count, size, pooled, scratch)
        add_pixels(pooled, h, w, k, w * k, bias_sums)
        unpool(pooled, pointer(out.argmax, block * out.argmax.shape[1]), h, w, k, dy, line)
    else:
        gradient_to_lanes(nest, d, y, out.relu, count, block_dy, scratch)
        add_pixels(dy, h, w, k, line, bias_sums)


@jit
def reduce_pixels(shape, sums, x, dy, dy_line, thread):
    """A thread's sums += the weight gradient of a block of images, in BLIS's loops."""
    nest, k = sums.nest, sums.bias.shape[1]
    # loop 4: lines of the output: what they read of x and dY stays in the first cache
    for h in range(nest.h_out):
        # loop 3: panels of output channels, a tile wide (NR), of each group
        for group in range(nest.groups):
            for panel in range(nest.panels):
                index = (thread * nest.groups + group) * nest.panels + panel
                panel_sums = pointer(sums.weights, index * nest.reduced * shape.width)
                i = (group * nest.group_in + h * nest.line) * LANES
                j = (h * dy_line + group * nest.group_out + panel * shape.vectors) * LANES
                # loop 2: tiles of MR weights; the micro-kernel's loop is over the pixels of the line
                for t in range(nest.inside.shape[0]):
                    rows = table_rows(shape, t * shape.rows, nest.reduced, nest.rows)
                    rows_out = even_rows(shape, t * shape.rows, nest.reduced, shape.width)
                    tile = load_tile(shape, panel_sums, rows_out, 0, shape.width)
                    tile = multiply_add_vectors(tile, x, rows, i, nest.pixel * LANES, dy, j, k * LANES, nest.w_out)
                    store_tile(panel_sums, rows_out, 0, tile, shape.width)
