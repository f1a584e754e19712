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

from nnlite.compiler.jit import ENABLED, jit, kernel
from nnlite.compiler.simd import LANES, pointer
from nnlite.compiler.tiles import (
    even_rows,
    load_tile,
    multiply_add_lanes,
    multiply_add_vectors,
    relu_tile,
    repeat_numbers,
    store_tile,
    table_rows,
)
from nnlite.conv import checks, direct_plan, work_compiled, work_pair
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.direct_panels import Prepared, prepared
from nnlite.conv.direct_plan import Image, WeightGradient, WeightSizes
from nnlite.conv.epilogue import Epilogue, Fused, Gradients
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

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _run_forward(x, weight, None, geometry, Epilogue()).result

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _gradients(None, weight, dy, dy, _NO_BYTES, geometry, Epilogue())[0]  # type: ignore[return-value]

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _gradients(x, None, dy, dy, _NO_BYTES, geometry, Epilogue())[1]  # type: ignore[return-value]

    def backward(
        self, x: np.ndarray, weight: np.ndarray, dy: np.ndarray, geometry: Geometry, needs: tuple[bool, bool]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        asked = x if needs[1] else None, weight if needs[0] else None
        return _gradients(*asked, dy, dy, _NO_BYTES, geometry, Epilogue())[:2]

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
        residuals = checks.argmax(ran.residuals, winners_shape(geometry, epilogue)) if epilogue.pool else _NO_BYTES
        dx, dweight, dbias = _gradients(*asked, dresult, ran.result, residuals, geometry, epilogue)
        return dx, dweight, dbias if needs[2] else None

    def work_pair(self, pair: FusedPair, pass_name: str) -> list[WorkItem] | None:
        return work_pair.lanes(pair, pass_name)


def blocks_of(geometry: Geometry) -> int:
    """Of images, the last perhaps not full."""
    return -(-geometry.input_shape[0] // LANES)


def winners_shape(geometry: Geometry, epilogue: Epilogue) -> tuple[int, int]:
    """Of what is remembered of a max pooling: for each block of images, which of its window's four each maximum is."""
    return blocks_of(geometry), prod(epilogue.result_shape(geometry.output_shape)[1:]) * LANES


@jit
def room(elements):
    """Numbers that a block of images of so many elements takes, with what a transposition writes beyond its end."""
    return (elements + LANES) * LANES


# Forward, and the input gradient -------------------------------------------------------------------------------


def _run_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, epilogue: Epilogue
) -> Fused:
    plan, parts = direct_plan.forward(geometry.one_image, lanes=True), threads.kernel_parts()
    sizes = plan.sizes
    result = memory.empty(epilogue.result_shape(geometry.output_shape))
    winners = _NO_BYTES
    if epilogue.pool:
        winners = memory.empty(winners_shape(geometry, epilogue), np.uint8)
    work = memory.empty((parts, room(sizes.image_padded) + 2 * room(sizes.image_out) + SCRATCH))
    _forward.run(
        parts, plan.shape, prepared(plan, weight, bias), x, geometry.output_shape[1:], work, result, winners,
        epilogue.relu, epilogue.pool,
    )  # fmt: skip
    return Fused(x, weight, result, winners)


@kernel
def _forward(part, parts, shape, plan, x, out, work, result, winners, clamp, pool):
    """One share of the blocks of images."""
    sizes, blocks = plan.sizes, -(-x.shape[0] // LANES)
    block_x = pointer(work, part * work.shape[1])
    block_y = pointer(block_x, room(sizes.image_padded))
    block_result = pointer(block_y, room(sizes.image_out))
    scratch = pointer(block_result, room(sizes.image_out))
    if sizes.image_in != sizes.image_padded:
        work[part] = 0
    for block in range(part * blocks // parts, (part + 1) * blocks // parts):
        bring_images(plan.image, x, block, block_x, scratch)
        correlate(shape, plan, block_x, clamp and not pool, block_y)
        take_result(block_y, block, x.shape[0], out, clamp, pool, block_result, result, winners, scratch)


@jit
def bring_images(image, x, block, block_x, scratch):
    """A block of the images x (n, h, w, c) into lanes, inside the border that `image` says."""
    size, first = image.h * image.w * image.c, block * LANES
    padded = image.h != image.padded_h or image.w != image.padded_w
    image_to_lanes(pointer(x, first * size), size, min(LANES, x.shape[0] - first), image, padded, block_x, scratch)


@jit
def take_result(y, block, images, out, clamp, pool, pooled, result, winners, scratch):
    """A block of a convolution's output of shape `out` out of its lanes, max pooled if asked for.

    Returns (the first element of `result` that it is, the number of its elements).
    """
    first, count = block * LANES, min(LANES, images - block * LANES)
    size = out[0] * out[1] * out[2]
    if pool:
        max_pool(y, out[0], out[1], out[2], clamp, pooled, pointer(winners, block * winners.shape[1]))
        size = (out[0] // 2) * (out[1] // 2) * out[2]
        from_lanes(pooled, count, size, pointer(result, first * size), size, scratch)
    else:
        from_lanes(y, count, size, pointer(result, first * size), size, scratch)
    return first * size, count * size


@jit
def correlate(shape, plan, x, clamp, y):
    """y = relu(correlation of x + start) for a block of images; the clamp if asked for."""
    sizes, runs = plan.sizes, plan.tables.runs
    for group in range(sizes.groups):
        for panel in range(sizes.panels):
            index = group * sizes.panels + panel
            column = group * sizes.group_out + panel * shape.vectors
            width = (sizes.group_out - panel * shape.vectors) * LANES
            for t in range(sizes.tiles):
                tile_in = table_rows(shape, t * shape.rows, sizes.positions, plan.tables.rows_in)
                tile_out = table_rows(shape, t * shape.rows, sizes.positions, plan.tables.rows_out)
                tile = repeat_numbers(shape, plan.start, index * shape.vectors)
                for run in range(runs.shape[0]):
                    i = (group * sizes.group_in + runs[run, 0]) * LANES
                    j = (index * sizes.reduction + runs[run, 1]) * shape.vectors
                    tile = multiply_add_lanes(tile, x, tile_in, i, LANES, plan.weights, j, shape.vectors, runs[run, 2])
                if clamp:
                    tile = relu_tile(tile)
                store_tile(y, tile_out, column * LANES, tile, width)


# Both gradients ------------------------------------------------------------------------------------------------


class Sums(NamedTuple):
    """The gradients of a convolution's parameters, as each part sums them over its images."""

    image: Image
    sizes: WeightSizes
    rows: np.ndarray  # (reduced): offset of a weight's first pixel in the padded image, in lanes
    weights: np.ndarray  # (parts, groups, panels, reduced, width, LANES)
    bias: np.ndarray  # (parts, k, LANES)

    @classmethod
    def of(cls, plan: WeightGradient, parts: int, *, weights: bool = True) -> Sums:
        """Not yet zero; without those of the weights where their gradient is not asked for."""
        sizes, width = plan.sizes, plan.shape.vectors
        shape = (parts if weights else 0, sizes.groups, sizes.panels, sizes.reduced, width, LANES)
        bias = memory.empty((parts, sizes.groups * sizes.group_out, LANES))
        return cls(plan.image, sizes, plan.rows, memory.empty(shape), bias)

    def total(self, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
        """(dweight, dbias); dweight is empty if it is not asked for."""
        dweight = np.empty(geometry.weight_shape if len(self.weights) else (0, 0, 0, 0), np.float32)
        dbias = np.empty(geometry.weight_shape[3], np.float32)
        _add_lanes(self.weights, self.bias, dweight.reshape(-1, self.sizes.groups, self.sizes.group_out), dbias)
        return dweight, dbias


def _gradients(
    x: np.ndarray | None,
    weight: np.ndarray | None,
    dresult: np.ndarray,
    result: np.ndarray,
    winners: np.ndarray,
    geometry: Geometry,
    epilogue: Epilogue,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray]:
    """(dx, dweight, dbias): dx if given the weight, dweight if given x."""
    one, parts = geometry.one_image, threads.kernel_parts()
    (phase,) = direct_plan.grad_input(one, lanes=True)
    reduction = direct_plan.grad_weight(one, lanes=True)
    sizes = reduction.sizes
    if weight is None:  # dY needs no border then
        dx, image = _NOTHING, phase.image
        image = image._replace(top=0, left=0, padded_h=image.h, padded_w=image.w)
        flipped = Prepared(image, phase.sizes, phase.tables, _NOTHING, _NOTHING.reshape(0, 0))
    else:
        dx, flipped = memory.empty(geometry.input_shape), prepared(phase, weight, None, back=True)
    sums = Sums.of(reduction, parts, weights=x is not None)
    rooms = room(sizes.image_padded) + room(phase.sizes.image_padded) + room(sizes.image_out)
    work = memory.empty((parts, rooms + room(sizes.image_in) + SCRATCH))
    _backward.run(
        parts, phase.shape, flipped, dx, reduction.shape, sums, _NOTHING if x is None else x,
        dresult, result, winners, epilogue.relu, epilogue.pool, work,
    )  # fmt: skip
    dweight, dbias = sums.total(geometry)
    return None if weight is None else dx, None if x is None else dweight, dbias


@jit
def _add_lanes(sums, bias_sums, dweight, dbias):
    """dweight (reduced, groups, k / groups) and dbias (k) = the parts' sums over images, added in their order."""
    for k in range(dbias.size):
        total = np.float32(0)
        for part in range(bias_sums.shape[0]):
            for lane in range(LANES):
                total += bias_sums[part, k, lane]
        dbias[k] = total
    width = sums.shape[4]
    for row in range(dweight.shape[0]):
        for group in range(dweight.shape[1]):
            for k in range(dweight.shape[2]):
                total = np.float32(0)
                for part in range(sums.shape[0]):
                    for lane in range(LANES):
                        total += sums[part, group, k // width, row, k % width, lane]
                dweight[row, group, k] = total


@kernel
def _backward(part, parts, shape, plan, dx, sums_shape, sums, x, dresult, result, winners, clamp, pool, work):
    """Both gradients over one share of the blocks of images."""
    sizes, image, k = plan.sizes, plan.image, sums.bias.shape[1]
    blocks = -(-dresult.shape[0] // LANES)
    block_x = pointer(work, part * work.shape[1])
    block_dy = pointer(block_x, room(sums.sizes.image_padded))
    block_dresult = pointer(block_dy, room(sizes.image_padded))
    block_dx = pointer(block_dresult, room(sums.sizes.image_out))
    scratch = pointer(block_dx, room(sizes.image_out))
    work[part, : room(sums.sizes.image_padded) + room(sizes.image_padded)] = 0
    sums.bias[part] = 0
    if sums.weights.size:
        sums.weights[part] = 0
    for block in range(part * blocks // parts, (part + 1) * blocks // parts):
        first = block * LANES
        count = min(LANES, dresult.shape[0] - first)
        bring_gradient(
            pointer(dresult, 0), result, winners, block, clamp, pool, image, block_dresult, block_dy, scratch,
            pointer(sums.bias, part * k * LANES),
        )  # fmt: skip
        if sums.weights.size:
            bring_images(sums.image, x, block, block_x, scratch)
            dy, line = inside(block_dy, image)
            reduce_pixels(sums_shape, sums, block_x, dy, line, part)
        if dx.size:
            correlate(shape, plan, block_dy, False, block_dx)
            from_lanes(block_dx, count, sizes.image_out, pointer(dx, first * sizes.image_out), sizes.image_out, scratch)


@jit
def inside(y, image):
    """(where an image begins behind its border, channels of one of its lines with the border's)."""
    line = image.padded_w * image.c
    return pointer(y, (image.top * line + image.left * image.c) * LANES), line


@jit
def bring_gradient(dresult, result, winners, block, clamp, pool, image, block_dresult, block_dy, scratch, bias_sums):
    """The gradient before the epilogue, of a block of images, into lanes: to block_dy, inside its border of zeros.

    `result` (n, oh, ow, k) is of the shape of the gradient dresult.
    """
    (n, height, width, k), size = result.shape, result.shape[1] * result.shape[2] * result.shape[3]
    count = min(LANES, n - block * LANES)
    d, r = pointer(dresult, block * LANES * size), pointer(result, block * LANES * size)
    dy, line = inside(block_dy, image)
    if pool:
        if clamp:
            positive_to_lanes(d, r, size, count, size, block_dresult, scratch)
        else:
            to_lanes(d, size, count, size, block_dresult, scratch)
        add_pixels(block_dresult, height, width, k, width * k, bias_sums)
        unpool(block_dresult, pointer(winners, block * winners.shape[1]), height, width, k, dy, line)
    else:
        padded = image.h != image.padded_h or image.w != image.padded_w
        gradient_to_lanes(d, r, clamp, size, count, image, padded, block_dy, scratch)
        add_pixels(dy, height, width, k, line, bias_sums)


@jit
def reduce_pixels(shape, sums, x, dy, dy_line, part):
    """A part's sums += the weight gradient of a block of images."""
    sizes, k = sums.sizes, sums.bias.shape[1]
    tiles = -(-sizes.reduced // shape.rows)
    for h in range(sizes.h_out):
        for group in range(sizes.groups):
            for panel in range(sizes.panels):
                index = (part * sizes.groups + group) * sizes.panels + panel
                panel_sums = pointer(sums.weights, index * sizes.reduced * shape.width)
                i = (group * sizes.group_in + h * sizes.line) * LANES
                j = (h * dy_line + group * sizes.group_out + panel * shape.vectors) * LANES
                for t in range(tiles):
                    weights = table_rows(shape, t * shape.rows, sizes.reduced, sums.rows)
                    places = even_rows(shape, t * shape.rows, sizes.reduced, shape.width)
                    tile = load_tile(shape, panel_sums, places, 0, shape.width)
                    tile = multiply_add_vectors(tile, x, weights, i, sizes.pixel * LANES, dy, j, k * LANES, sizes.w_out)
                    store_tile(panel_sums, places, 0, tile, shape.width)
