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

from typing import Any

import numpy as np

from nnlite import memory, threads
from nnlite.conv import direct_plan
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.direct_panels import panels, start_values
from nnlite.conv.epilogue import Epilogue
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
from nnlite.conv.stages import Stage
from nnlite.conv.stem import Stem
from nnlite.jit import ENABLED, jit, kernel
from nnlite.simd import LANES, pointer
from nnlite.tiles import (
    even_rows,
    load_tile,
    multiply_add_lanes,
    multiply_add_vectors,
    relu_tile,
    repeat_numbers,
    store_tile,
    table_rows,
)

SCRATCH = LANES * LANES
_NOTHING = np.empty((0, 0, 0, 0), np.float32)
_NO_BYTES = np.empty((0, 0), np.uint8)


class Lanes(Algorithm):
    """Stride 1, any kernel size, padding, dilation and groups, with bias, ReLU and 2x2 max pooling. float32."""

    name = "lanes"
    dtypes = (np.float32,)
    stem_module, stem_first = "nnlite.conv.lanes_stem", "lanes"

    def supports(self, geometry: Geometry) -> str | None:
        if not ENABLED:
            return "its kernels need Numba's compiler, which NUMBA_DISABLE_JIT=1 switches off"
        return None if geometry.strides == (1, 1) else "it is for stride 1"

    def stages(self, geometry: Geometry, pass_name: str, epilogue: Epilogue | None = None) -> list[Stage] | None:
        from nnlite.conv import stages_compiled

        return None if self.supports(geometry) else stages_compiled.lanes(geometry, pass_name, epilogue)

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return self.forward_fused(x, weight, None, geometry, Epilogue())[0]

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
    ) -> tuple[np.ndarray, Any]:
        plan, parts = direct_plan.forward(geometry.one_image, lanes=True), threads.kernel_parts()
        sizes = plan.sizes
        start = start_values(bias, sizes.groups, sizes.panels * plan.width)
        result = memory.empty(epilogue.result_shape(geometry.output_shape))
        winners = _NO_BYTES
        if epilogue.pool:
            winners = memory.empty((blocks_of(geometry), result[0].size * LANES if len(result) else 0), np.uint8)
        work = memory.empty((parts, room(sizes.image_padded) + 2 * room(sizes.image_out) + SCRATCH))
        _forward(
            plan.shape, plan.image, plan.image.is_padded, sizes, plan.rows_in, plan.rows_out, plan.runs,
            x, panels(plan, weight, weight.shape[3], 1), start, geometry.output_shape[1:],
            work, result, winners, epilogue.relu, epilogue.pool,
        )  # fmt: skip
        return result, winners

    def backward_fused(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        result: np.ndarray,
        saved: Any,
        dresult: np.ndarray,
        geometry: Geometry,
        epilogue: Epilogue,
        needs: tuple[bool, bool, bool],
    ) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        asked = x if needs[1] else None, weight if needs[0] else None
        dx, dweight, dbias = _gradients(*asked, dresult, result, saved, geometry, epilogue)
        return dx, dweight, dbias if needs[2] else None

    def stages_stem(self, stem: Stem, pass_name: str) -> list[Stage] | None:
        from nnlite.conv import stages_stem

        return stages_stem.lanes(stem, pass_name)


def blocks_of(geometry: Geometry) -> int:
    """Of images, the last perhaps not full."""
    return -(-geometry.input_shape[0] // LANES)


@jit
def room(elements):
    """Numbers that a block of images of so many elements takes, with what a transposition writes beyond its end."""
    return (elements + LANES) * LANES


# Forward, and the input gradient -------------------------------------------------------------------------------


@kernel
def _forward(
    part, parts, shape, image, padded, sizes, rows_in, rows_out, runs,
    x, weights, start, out, work, result, winners, clamp, pool,
):  # fmt: skip
    """One share of the blocks of images."""
    blocks = -(-x.shape[0] // LANES)
    block_x = pointer(work, part * work.shape[1])
    block_y = pointer(block_x, room(sizes.image_padded))
    block_result = pointer(block_y, room(sizes.image_out))
    scratch = pointer(block_result, room(sizes.image_out))
    result_size = sizes.image_out
    if pool:
        result_size = (out[0] // 2) * (out[1] // 2) * out[2]
    if padded:
        work[part] = 0
    for block in range(part * blocks // parts, (part + 1) * blocks // parts):
        count = min(LANES, x.shape[0] - block * LANES)
        first = block * LANES
        image_to_lanes(pointer(x, first * sizes.image_in), sizes.image_in, count, image, padded, block_x, scratch)
        correlate(shape, sizes, rows_in, rows_out, runs, block_x, weights, start, clamp and not pool, block_y)
        if pool:
            places = pointer(winners, block * winners.shape[1])
            max_pool(block_y, out[0], out[1], out[2], clamp, block_result, places)
            from_lanes(block_result, count, result_size, pointer(result, first * result_size), result_size, scratch)
        else:
            from_lanes(block_y, count, result_size, pointer(result, first * result_size), result_size, scratch)


@jit
def correlate(shape, sizes, rows_in, rows_out, runs, x, weights, start, clamp, y):
    """y = relu(correlation of x + start) for a block of images; the clamp if asked for."""
    for group in range(sizes.groups):
        for panel in range(sizes.panels):
            index = group * sizes.panels + panel
            column = group * sizes.group_out + panel * shape.vectors
            width = (sizes.group_out - panel * shape.vectors) * LANES
            for t in range(sizes.tiles):
                tile_in = table_rows(shape, t * shape.rows, sizes.positions, rows_in)
                tile_out = table_rows(shape, t * shape.rows, sizes.positions, rows_out)
                tile = repeat_numbers(shape, start, index * shape.vectors)
                for run in range(runs.shape[0]):
                    i = (group * sizes.group_in + runs[run, 0]) * LANES
                    j = (index * sizes.reduction + runs[run, 1]) * shape.vectors
                    for c in range(runs[run, 2]):
                        tile = multiply_add_lanes(tile, x, tile_in, i + c * LANES, weights, j + c * shape.vectors)
                if clamp:
                    tile = relu_tile(tile)
                store_tile(y, tile_out, column * LANES, tile, width)


# Both gradients ------------------------------------------------------------------------------------------------


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
    dx, flipped = _NOTHING, _NOTHING
    image = phase.image
    if weight is None:  # dY needs no border then
        image = image._replace(top=0, left=0, padded_h=image.h, padded_w=image.w)
    else:
        dx, flipped = memory.empty(geometry.input_shape), panels(phase, weight, 1, weight.shape[3])
    start = np.zeros(phase.sizes.groups * phase.sizes.panels * phase.width, np.float32)
    sums_shape = (sizes.groups, sizes.panels, sizes.reduced, reduction.shape.vectors, LANES)
    sums = memory.empty((parts if x is not None else 0, *sums_shape))
    bias_sums = memory.empty((parts, geometry.output_shape[3], LANES))
    rooms = room(sizes.image_padded) + room(phase.sizes.image_padded) + room(sizes.image_out)
    work = memory.empty((parts, rooms + room(sizes.image_in) + SCRATCH))
    _backward(
        phase.shape, image, image.is_padded, phase.sizes, phase.rows_in, phase.rows_out, phase.runs, flipped, start, dx,
        reduction.shape, reduction.image, reduction.image.is_padded, sizes, reduction.rows,
        _NOTHING if x is None else x, sums,
        dresult, result, winners, epilogue.relu, epilogue.pool, geometry.output_shape[3], bias_sums, work,
    )  # fmt: skip
    dweight = np.empty(geometry.weight_shape if x is not None else (0, 0, 0, 0), np.float32)
    dbias = np.empty(geometry.output_shape[3], np.float32)
    add_lanes(sums, bias_sums, dweight.reshape(-1, sizes.groups, sizes.group_out), dbias)
    return None if weight is None else dx, None if x is None else dweight, dbias


@jit
def add_lanes(sums, bias_sums, dweight, dbias):
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
def _backward(
    part, parts, shape, image, dy_padded, sizes, rows_in, rows_out, runs, weights, start, dx,
    weight_shape, x_image, padded, weight_sizes, weight_rows, x, sums,
    dresult, result, winners, clamp, pool, k, bias_sums, work,
):  # fmt: skip
    """Both gradients over one share of the blocks of images."""
    blocks = -(-dresult.shape[0] // LANES)
    block_x = pointer(work, part * work.shape[1])
    block_dy = pointer(block_x, room(weight_sizes.image_padded))
    block_dresult = pointer(block_dy, room(sizes.image_padded))
    block_dx = pointer(block_dresult, room(weight_sizes.image_out))
    scratch = pointer(block_dx, room(sizes.image_out))
    own_sums = pointer(sums, part * (sums.size // max(1, sums.shape[0])))
    own_bias_sums = pointer(bias_sums, part * k * LANES)
    dy_line = image.padded_w * k
    dy = pointer(block_dy, (image.top * image.padded_w + image.left) * k * LANES)
    work[part, : room(weight_sizes.image_padded) + room(sizes.image_padded)] = 0
    bias_sums[part] = 0
    if sums.size:
        sums[part] = 0
    height, width = dresult.shape[1], dresult.shape[2]
    for block in range(part * blocks // parts, (part + 1) * blocks // parts):
        first = block * LANES
        count = min(LANES, dresult.shape[0] - first)
        bring_gradient(
            dresult, result, winners, block, count, height, width, k, clamp, pool, image, dy_padded,
            block_dresult, block_dy, scratch, own_bias_sums,
        )  # fmt: skip
        if sums.size:
            source = pointer(x, first * weight_sizes.image_in)
            image_to_lanes(source, weight_sizes.image_in, count, x_image, padded, block_x, scratch)
            reduce_pixels(weight_shape, weight_sizes, weight_rows, block_x, dy, dy_line, k, own_sums)
        if dx.size:
            correlate(shape, sizes, rows_in, rows_out, runs, block_dy, weights, start, False, block_dx)
            result_size = sizes.image_out
            from_lanes(block_dx, count, result_size, pointer(dx, first * result_size), result_size, scratch)


@jit
def bring_gradient(
    dresult, result, winners, block, count, height, width, k, clamp, pool, image, padded,
    block_dresult, block_dy, scratch, bias_sums,
):  # fmt: skip
    """The gradient before the epilogue, of a block of images, into lanes: to block_dy, inside its border of zeros."""
    size = height * width * k
    d, r = pointer(dresult, block * LANES * size), pointer(result, block * LANES * size)
    dy, line = pointer(block_dy, (image.top * image.padded_w + image.left) * k * LANES), image.padded_w * k
    if pool:
        if clamp:
            positive_to_lanes(d, r, size, count, size, block_dresult, scratch)
        else:
            to_lanes(d, size, count, size, block_dresult, scratch)
        add_pixels(block_dresult, height, width, k, width * k, bias_sums)
        unpool(block_dresult, pointer(winners, block * winners.shape[1]), height, width, k, dy, line)
    else:
        gradient_to_lanes(d, r, clamp, size, count, image, padded, block_dy, scratch)
        add_pixels(dy, height, width, k, line, bias_sums)


@jit
def reduce_pixels(shape, sizes, rows, x, dy, dy_line, k, sums):
    """sums (groups, panels, reduced, width, LANES) += the weight gradient of a block of images."""
    tiles = -(-sizes.reduced // shape.rows)
    for h in range(sizes.h_out):
        for group in range(sizes.groups):
            for panel in range(sizes.panels):
                panel_sums = pointer(sums, (group * sizes.panels + panel) * sizes.reduced * shape.width)
                i = (group * sizes.group_in + h * sizes.line) * LANES
                j = (h * dy_line + group * sizes.group_out + panel * shape.vectors) * LANES
                for t in range(tiles):
                    weights = table_rows(shape, t * shape.rows, sizes.reduced, rows)
                    places = even_rows(shape, t * shape.rows, sizes.reduced, shape.width)
                    tile = load_tile(shape, panel_sums, places, 0, shape.width)
                    for w in range(sizes.w_out):
                        tile = multiply_add_vectors(
                            tile, x, weights, i + w * sizes.pixel * LANES, dy, j + w * k * LANES
                        )
                    store_tile(panel_sums, places, 0, tile, shape.width)
