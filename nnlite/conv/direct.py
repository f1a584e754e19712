"""Direct convolution on register tiles: the sums of the definition, at the processor's rate.

Forward: a tile of some output positions x some output channels stays in registers while the loops run over taps and
input channels,

    tile[p, k] += x[p + tap, c] * weight[tap, c, k]

The input gradient is the same kernel over dY. The weight gradient is the same tile with other loops: its rows are
weights (tap, c), its columns output channels, and the reduction runs over the pixels of an image,

    tile[(tap, c), k] += x[p + tap, c] * dy[p, k]

What makes it fast: the tile fills the registers (compiler/tiles.py): most instructions are multiply-adds.
The weights of a tile's columns, and those of dY, lie together as a panel; no more of one is reduced at a time than
stays in cache, and small images are joined to batches, so that it is read seldom. An image with padding is first copied
into one with a border of zeros: in cache, so almost free. The gradient of ReLU is applied in that copy
(nnlite.conv.direct_panels). Where things lie is in tables (nnlite.conv.direct_plan).
"""

from __future__ import annotations

from math import prod

import numpy as np

from nnlite.compiler.jit import ENABLED, jit, kernel
from nnlite.compiler.simd import pointer
from nnlite.compiler.tiles import (
    even_rows,
    load_tile,
    multiply_add,
    relu_tile,
    repeat_row,
    store_tile,
    table_rows,
    zeros,
)
from nnlite.conv import direct_plan, work_compiled
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.direct_panels import add_panel, add_parts, fill_panel, layout, pad_images, spread_panel, start_values
from nnlite.conv.direct_plan import Correlation
from nnlite.conv.epilogue import Epilogue, Fused, Gradients
from nnlite.conv.geometry import Geometry
from nnlite.conv.work import WorkItem, touched_taps
from nnlite.runtime import memory, threads


class Direct(Algorithm):
    """Any kernel size, stride, padding, dilation and groups, with bias and ReLU in the store."""

    name = "direct"
    dtypes = (np.float32,)

    def supports(self, geometry: Geometry) -> str | None:
        return None if ENABLED else "its kernels need Numba's compiler, which NUMBA_DISABLE_JIT=1 switches off"

    def saves_multiplications(self, geometry: Geometry) -> bool:
        """Those with padding, which the definition counts."""
        return touched_taps(geometry) < prod(geometry.output_shape[1:3]) * prod(geometry.weight_shape[:2])

    def work(self, geometry: Geometry, pass_name: str, epilogue: Epilogue | None = None) -> list[WorkItem] | None:
        return None if self.supports(geometry) else work_compiled.direct(geometry, pass_name, epilogue)

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _forward(x, weight, None, False, geometry)

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _grad_input(dy, dy, False, weight, geometry)

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _grad_weight(x, dy, dy, False, False, geometry)[0]

    def fuses(self, geometry: Geometry, epilogue: Epilogue) -> bool:
        return ENABLED and not epilogue.pool

    def forward_fused(
        self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, epilogue: Epilogue
    ) -> Fused:
        return Fused(x, weight, _forward(x, weight, bias, epilogue.relu, geometry))

    def backward_fused(
        self, ran: Fused, dresult: np.ndarray, geometry: Geometry, epilogue: Epilogue, needs: tuple[bool, bool, bool]
    ) -> Gradients:
        dx = _grad_input(dresult, ran.result, epilogue.relu, ran.weight, geometry) if needs[0] else None
        if not (needs[1] or needs[2]):
            return dx, None, None
        dweight, dbias = _grad_weight(ran.x, dresult, ran.result, epilogue.relu, needs[2], geometry)
        return dx, dweight if needs[1] else None, dbias


# Forward, and the input gradient -------------------------------------------------------------------------------


def _forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, clamp: bool, geometry: Geometry) -> np.ndarray:
    y = memory.empty(geometry.output_shape)
    for first, last, batch in direct_plan.batches(geometry):
        plan = direct_plan.forward(batch)
        _run(plan, x[first:last], x, False, weight, (weight.shape[3], 1), bias, y[first:last], clamp)
    return y


def _grad_input(dy: np.ndarray, result: np.ndarray, masked: bool, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """dx; if `masked`, of the gradient dy where result > 0, zero elsewhere."""
    dx = memory.empty(geometry.input_shape)
    for first, last, batch in direct_plan.batches(geometry):
        for phase in direct_plan.grad_input(batch):
            steps = 1, weight.shape[3]
            _run(phase, dy[first:last], result[first:last], masked, weight, steps, None, dx[first:last], False)
    return dx


def _run(
    plan: Correlation,
    x: np.ndarray,
    result: np.ndarray,
    masked: bool,
    weight: np.ndarray,
    steps: tuple[int, int],
    bias: np.ndarray | None,
    y: np.ndarray,
    clamp: bool,
) -> None:
    """y = relu(correlation of x + bias), the clamp and the bias if asked for; x is whole batches of joined images.

    `steps` are those in `weight` from one channel of the correlation's input, and of its output, to the next.
    """
    sizes = plan.sizes
    start = start_values(bias, sizes.groups, sizes.panels * plan.width)
    copied = masked or plan.image.is_padded
    parts = threads.kernel_parts()
    work = memory.empty((parts if copied else 0, sizes.images * sizes.image_padded))
    panel_work = memory.empty((parts, int(np.diff(plan.tables.blocks).max()) * plan.width))
    _correlate.run(
        parts, plan.shape, plan.image, sizes, plan.tables, direct_plan.shares_of(plan, len(x), parts),
        x, result, masked, copied, work, weight.reshape(-1), layout(plan, weight, *steps), panel_work, start, y, clamp,
    )  # fmt: skip


@kernel
def _correlate(
    part, parts, shape, image, sizes, tables, shares,
    x, result, masked, copied, work, weight, places, panel_work, bias, y, clamp,
):  # fmt: skip
    """One share of a correlation: some of the tiles of all panels of weights, of all batches of joined images."""
    panels, blocks = sizes.groups * sizes.panels, tables.blocks
    (first_unit, first_tile), (last_unit, last_tile) = shares[part], shares[part + 1]
    weights = pointer(panel_work, part * panel_work.shape[1])
    if copied:
        work[part] = 0
    for unit in range(first_unit, last_unit + 1):
        first = first_tile if unit == first_unit else 0
        last = last_tile if unit == last_unit else sizes.tiles
        if first == last:
            continue
        first_image, index = unit // panels * sizes.images, unit % panels
        group, panel = index // sizes.panels, index % sizes.panels
        source = pointer(x, first_image * sizes.image_in)
        if copied:
            source = pointer(work, part * work.shape[1])
            if index == 0 or unit == first_unit:
                pad_images(x, result, masked, image, first_image, first_image + sizes.images, source)
        column = first_image * sizes.image_out + group * sizes.group_out + panel * shape.width
        columns = sizes.group_out - panel * shape.width
        for block in range(blocks.size - 1):
            first_row, last_row = blocks[block], blocks[block + 1]
            if panels > 1 or blocks.size > 2 or unit == first_unit:
                fill_panel(weight, places, group, panel * shape.width, shape.width, first_row, last_row, weights)
            correlate_tiles(
                shape, tables, first, last, block, pointer(source, group * sizes.group_in), weights,
                pointer(bias, index * shape.width), pointer(y, column), columns, clamp and block == blocks.size - 2,
            )  # fmt: skip


@jit
def correlate_tiles(shape, tables, first, last, block, source, weights, bias, y, columns, clamp):
    """One block of the reduction of tiles `first` to `last` of a panel, of which `weights` are the block's rows."""
    regions, runs, ends = tables.regions, tables.runs, tables.ends
    for t in range(first, last):
        tile_in = table_rows(shape, t * shape.rows, tables.rows_in.size, tables.rows_in)
        tile_out = table_rows(shape, t * shape.rows, tables.rows_out.size, tables.rows_out)
        if block == 0:
            tile = repeat_row(shape, bias, 0)
        else:
            tile = load_tile(shape, y, tile_out, 0, columns)
        for run in range(ends[regions[t], block], ends[regions[t], block + 1]):
            j = (runs[run, 1] - tables.blocks[block]) * shape.width
            tile = multiply_add(tile, source, tile_in, runs[run, 0], 1, weights, j, shape.width, runs[run, 2])
        if clamp:
            tile = relu_tile(tile)
        store_tile(y, tile_out, 0, tile, columns)


# The weight gradient -------------------------------------------------------------------------------------------


def _grad_weight(
    x: np.ndarray, dy: np.ndarray, result: np.ndarray, masked: bool, biased: bool, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray | None]:
    """(dweight, dbias if `biased`); if `masked`, of the gradient dy where result > 0, zero elsewhere."""
    plan, parts, images = direct_plan.grad_weight(geometry.one_image), threads.kernel_parts(), len(x)
    sizes, image, width = plan.sizes, plan.image, plan.shape.width
    panels = sizes.groups * sizes.panels
    dweight = memory.empty(geometry.weight_shape)
    if not images:
        dweight.fill(0)
        return dweight, np.zeros(dweight.shape[3], np.float32)
    copies = parts  # of the weights, each the sum over some of the pixels
    if parts * dweight.size > x.size + dy.size:
        copies = 1  # it is cheaper for each part to see all pixels, and have some of the weights
    batches = min(images, -(-images // (plan.images * copies)) * copies)
    bands = min(sizes.h_out, max(plan.bands, -(-copies // images)))
    joined = -(-images // batches)
    padded = memory.empty((parts if image.is_padded else 0, joined * sizes.image_padded))
    band_size = joined * -(-sizes.h_out // bands) * sizes.w_out * width
    is_copied = masked or biased or not plan.is_panel
    spread = memory.empty((parts if is_copied else 0, panels * band_size))
    sums = memory.empty((copies, dweight.size)) if copies > 1 else dweight.reshape(1, -1)
    bias_sums = memory.empty((parts if biased else 0, sizes.groups, sizes.panels * width))
    _reduce_pixels.run(
        parts, plan.shape, image, sizes, plan.rows, plan.inside, batches, bands, band_size,
        x, dy, result, masked, padded, spread, sums, bias_sums,
    )  # fmt: skip
    if copies > 1:
        add_parts(sums, dweight)
    if not biased:
        return dweight, None
    dbias = np.add.reduce(bias_sums)[:, : sizes.group_out]  # (groups, k / groups)
    return dweight, np.ascontiguousarray(dbias.reshape(-1))  # (k)


@kernel
def _reduce_pixels(
    part, parts, shape, image, sizes, rows, inside, batches, bands, band_size,
    x, dy, result, masked, padded, spread, sums, bias_sums,
):  # fmt: skip
    """One share of the weight gradient: of the pixels, in sums[part], or where there is one sum, of the weights."""
    images, tiles = x.shape[0], inside.shape[0]
    panels, columns = sizes.groups * sizes.panels, sizes.groups * sizes.group_out
    begin, end, first, last = 0, batches * bands, part * panels * tiles // parts, (part + 1) * panels * tiles // parts
    own_sums = pointer(sums, 0)
    if sums.shape[0] > 1:
        begin, end, first, last = part * end // parts, (part + 1) * end // parts, 0, panels * tiles
        own_sums = pointer(sums, part * sums.shape[1])
        if begin == end:
            sums[part] = 0
    own_bias = pointer(bias_sums, 0)
    if bias_sums.shape[0]:
        bias_sums[part] = 0
        own_bias = pointer(bias_sums, part * panels * shape.width)
    if padded.shape[0]:
        padded[part] = 0
    for unit in range(begin, end):
        batch, band = unit // bands, unit % bands
        first_image, last_image = batch * images // batches, (batch + 1) * images // batches
        source = pointer(x, first_image * sizes.image_in)
        if padded.shape[0]:
            source = pointer(padded, part * padded.shape[1])
            if band == 0 or unit == begin:
                pad_images(x, x, False, image, first_image, last_image, source)
        top, bottom = band * sizes.h_out // bands, (band + 1) * sizes.h_out // bands
        start = first_image * sizes.image_out + top * sizes.w_out * columns
        own_dy = pointer(dy, start)
        if spread.shape[0]:
            own_dy = pointer(spread, part * spread.shape[1])
            pixels = (last_image - first_image) * (bottom - top) * sizes.w_out
            for index in range(first // tiles, -(-last // tiles)):
                panel = pointer(own_dy, index * band_size)
                spread_panel(
                    pointer(dy, start), pointer(result, start), masked, pixels, sizes, shape.width, index, panel
                )
                if bias_sums.shape[0] and index * tiles >= first:  # the part that has a panel's first tile adds it up
                    add_panel(panel, pixels, shape.width, pointer(own_bias, index * shape.width))
        for t in range(first, last):
            index, row = t // tiles, t % tiles
            group, column = index // sizes.panels, index % sizes.panels * shape.width
            weights = table_rows(shape, row * shape.rows, sizes.reduced, rows)
            places = even_rows(shape, row * shape.rows, sizes.reduced, columns)
            k, width = group * sizes.group_out + column, sizes.group_out - column
            if unit == begin:
                tile = zeros(shape)
            else:
                tile = load_tile(shape, own_sums, places, k, width)
            first_w, last_w = inside[row, 2], inside[row, 3]
            for n in range(last_image - first_image):
                for h in range(max(top, inside[row, 0]), min(bottom, inside[row, 1])):
                    i = group * sizes.group_in + n * sizes.image_padded + h * sizes.line
                    j = index * band_size + (n * (bottom - top) + h - top) * sizes.w_out * shape.width
                    tile = multiply_add(
                        tile, source, weights, i + first_w * sizes.pixel, sizes.pixel,
                        own_dy, j + first_w * shape.width, shape.width, last_w - first_w,
                    )  # fmt: skip
            store_tile(own_sums, places, k, tile, width)
