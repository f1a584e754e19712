"""Direct convolution on register tiles: the sums of the definition, at the processor's rate.

Forward: a tile of some output positions x some output channels stays in registers while the loops run over taps and
input channels,

    tile[p, k] += x[p + tap, c] * weight[tap, c, k]

The input gradient is the same kernel over dY. The weight gradient is the same tile with other loops: its rows are
weights (tap, c), its columns output channels, and the reduction runs over the pixels of an image,

    tile[(tap, c), k] += x[p + tap, c] * dy[p, k]

What makes it fast: the tile fills the registers (nnlite.simd), so that a multiply-add is what most instructions are.
The weights of a tile's columns lie together, and no more of them are reduced at a time than stay in cache. An image
with padding is first copied into one with a border of zeros, and dY, where its channels do not fill whole vectors,
into one where they do: an image at a time, in cache, so almost free. The gradient of ReLU is applied in that copy.
Where things lie is in tables (nnlite.conv.direct_plan).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite import memory, threads
from nnlite.conv import direct_plan
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.direct_panels import panels
from nnlite.conv.direct_plan import Correlation
from nnlite.conv.epilogue import Epilogue
from nnlite.conv.geometry import Geometry
from nnlite.conv.stages import Stage
from nnlite.jit import ENABLED, jit, kernel
from nnlite.simd import (
    LANES,
    even_rows,
    load,
    load_first,
    load_tile,
    multiply_add,
    pointer,
    relu,
    repeat_row,
    select,
    store,
    store_first,
    store_tile,
    table_rows,
)


class Direct(Algorithm):
    """Any kernel size, stride, padding, dilation and groups, with bias and ReLU in the store."""

    name = "direct"
    dtypes = (np.float32,)

    def supports(self, geometry: Geometry) -> str | None:
        return None if ENABLED else "its kernels need Numba's compiler, which NUMBA_DISABLE_JIT=1 switches off"

    def stages(self, geometry: Geometry, pass_name: str, epilogue: Epilogue | None = None) -> list[Stage] | None:
        from nnlite.conv import stages_compiled

        return None if self.supports(geometry) else stages_compiled.direct(geometry, pass_name, epilogue)

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _forward(x, weight, None, False, geometry)

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _grad_input(dy, dy, False, weight, geometry)

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _grad_weight(x, dy, dy, False, geometry)[0]

    def fuses(self, geometry: Geometry, epilogue: Epilogue) -> bool:
        return ENABLED and not epilogue.pool

    def forward_fused(
        self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, epilogue: Epilogue
    ) -> tuple[np.ndarray, Any]:
        return _forward(x, weight, bias, epilogue.relu, geometry), None

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
        dx = _grad_input(dresult, result, epilogue.relu, weight, geometry) if needs[0] else None
        if not (needs[1] or needs[2]):
            return dx, None, None
        dweight, dbias = _grad_weight(x, dresult, result, epilogue.relu, geometry)
        return dx, dweight if needs[1] else None, dbias if needs[2] else None


# Forward, and the input gradient -------------------------------------------------------------------------------


def _forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, clamp: bool, geometry: Geometry) -> np.ndarray:
    plan = direct_plan.forward(geometry.one_image)
    y = memory.empty(geometry.output_shape)
    _run(plan, x, x, False, panels(plan, weight, weight.shape[3], 1), bias, y, clamp)
    return y


def _grad_input(dy: np.ndarray, result: np.ndarray, masked: bool, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """dx; if `masked`, of the gradient dy where result > 0, zero elsewhere."""
    phases = direct_plan.grad_input(geometry.one_image)
    dx = memory.empty(geometry.input_shape)
    if sum(phase.sizes.positions for phase in phases) < dx.shape[1] * dx.shape[2]:
        dx.fill(0)  # no tap reaches some of the pixels
    for phase in phases:
        _run(phase, dy, result, masked, panels(phase, weight, 1, weight.shape[3]), None, dx, False)
    return dx


def _run(
    plan: Correlation,
    x: np.ndarray,
    result: np.ndarray,
    masked: bool,
    weights: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    clamp: bool,
) -> None:
    """y = relu(correlation of x + bias), the clamp and the bias if asked for."""
    sizes, columns = plan.sizes, plan.sizes.panels * plan.width
    start = np.zeros((sizes.groups, columns), np.float32)
    if bias is not None:
        start[:, : sizes.group_out] = bias.reshape(sizes.groups, sizes.group_out)
    copied = masked or plan.image.is_padded
    work = memory.empty((threads.get_num_threads() if copied else 0, sizes.image_padded))
    _correlate(
        plan.shape, plan.image, sizes, plan.rows_in, plan.rows_out, plan.runs, plan.blocks,
        x, result, masked, copied, work, weights, start, y, clamp,
    )  # fmt: skip


@kernel
def _correlate(
    part, parts, shape, image, sizes, rows_in, rows_out, runs, blocks,
    x, result, masked, copied, work, weights, bias, y, clamp,
):  # fmt: skip
    """One share of a correlation: some of the tiles of all images."""
    total = x.shape[0] * sizes.tiles
    begin, end = part * total // parts, (part + 1) * total // parts
    if copied:
        work[part] = 0
    for n in range(begin // sizes.tiles, -(-end // sizes.tiles)):
        source = pointer(x, n * sizes.image_in)
        if copied:
            _pad(source, pointer(result, n * sizes.image_in), masked, image, pointer(work, part * sizes.image_padded))
            source = pointer(work, part * sizes.image_padded)
        first, last = max(begin - n * sizes.tiles, 0), min(end - n * sizes.tiles, sizes.tiles)
        for group in range(sizes.groups):
            for panel in range(sizes.panels):
                for block in range(blocks.size - 1):
                    for t in range(first, last):
                        tile_in = table_rows(shape, t * shape.rows, sizes.positions, rows_in)
                        tile_out = table_rows(shape, t * shape.rows, sizes.positions, rows_out)
                        column = n * sizes.image_out + group * sizes.group_out + panel * shape.width
                        columns = sizes.group_out - panel * shape.width
                        index = group * sizes.panels + panel
                        if block == 0:
                            tile = repeat_row(shape, bias, index * shape.width)
                        else:
                            tile = load_tile(shape, y, tile_out, column, columns)
                        for run in range(blocks[block], blocks[block + 1]):
                            i = group * sizes.group_in + runs[run, 0]
                            j = (index * sizes.reduction + runs[run, 1]) * shape.width
                            for c in range(runs[run, 2]):
                                tile = multiply_add(tile, source, tile_in, i + c, weights, j + c * shape.width)
                        if clamp and block == blocks.size - 2:
                            tile = relu(tile)
                        store_tile(y, tile_out, column, tile, columns)


@jit
def _pad(source, result, masked, image, out):
    """Copy an image into one with a border of zeros that are there already; if `masked`, only where result > 0."""
    line = image.w * image.c
    for h in range(image.h):
        start = ((h + image.top) * image.padded_w + image.left) * image.c
        for j in range(0, line, LANES):
            values = load_first(source, h * line + j, line - j)
            if masked:
                values = select(load_first(result, h * line + j, line - j) > 0, values, 0)
            store_first(out, start + j, values, line - j)


# The weight gradient -------------------------------------------------------------------------------------------


def _grad_weight(
    x: np.ndarray, dy: np.ndarray, result: np.ndarray, masked: bool, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray]:
    """(dweight, dbias); if `masked`, of the gradient dy where result > 0, zero elsewhere."""
    plan, parts = direct_plan.grad_weight(geometry.one_image), threads.get_num_threads()
    sizes, shape, image = plan.sizes, plan.shape, plan.image
    bands = min(sizes.h_out, max(plan.bands, -(-parts // max(1, x.shape[0]))))
    band_lines = -(-sizes.h_out // bands)
    padded = memory.empty((parts if image.is_padded else 0, sizes.image_padded))
    spread = memory.empty((parts, band_lines * sizes.w_out * sizes.spread))
    sums = memory.empty((parts, sizes.groups, sizes.panels, sizes.reduced, shape.width))
    bias_sums = memory.empty((parts, sizes.groups, sizes.panels * shape.width))
    _reduce_pixels(
        shape, image, sizes, plan.rows, bands, x, dy, result, masked, image.is_padded, padded, spread, sums, bias_sums
    )
    dweight = memory.empty(geometry.weight_shape)
    _gather_sums(sums, dweight.reshape(sizes.reduced, sizes.groups, sizes.group_out))
    dbias = np.add.reduce(bias_sums)[:, : sizes.group_out]  # (groups, k / groups)
    return dweight, np.ascontiguousarray(dbias.reshape(-1))  # (k)


@kernel
def _reduce_pixels(
    part, parts, shape, image, sizes, rows, bands,
    x, dy, result, masked, copied, padded, spread, sums, bias_sums,
):  # fmt: skip
    """sums[part] = the weight gradient of this part's bands of output rows, of all images."""
    sums[part] = 0
    bias_sums[part] = 0
    if copied:
        padded[part] = 0
    tiles = -(-sizes.reduced // shape.rows)
    begin, end = part * x.shape[0] * bands // parts, (part + 1) * x.shape[0] * bands // parts
    for unit in range(begin, end):
        n, band = unit // bands, unit % bands
        source = pointer(x, n * sizes.image_in)
        if copied:
            if band == 0 or unit == begin:
                _pad(source, source, False, image, pointer(padded, part * sizes.image_padded))
            source = pointer(padded, part * sizes.image_padded)
        top, bottom = band * sizes.h_out // bands, (band + 1) * sizes.h_out // bands
        first = n * sizes.image_out + top * sizes.w_out * sizes.groups * sizes.group_out
        pixels = (bottom - top) * sizes.w_out
        band_dy = pointer(spread, part * spread.shape[1])
        band_bias = pointer(bias_sums, part * sizes.spread)
        _spread(pointer(dy, first), pointer(result, first), masked, pixels, sizes, band_dy, band_bias)
        for group in range(sizes.groups):
            for panel in range(sizes.panels):
                index = group * sizes.panels + panel
                panel_sums = pointer(sums, (part * sizes.groups * sizes.panels + index) * sizes.reduced * shape.width)
                for t in range(tiles):
                    weights = table_rows(shape, t * shape.rows, sizes.reduced, rows)
                    places = even_rows(shape, t * shape.rows, sizes.reduced, shape.width)
                    tile = load_tile(shape, panel_sums, places, 0, shape.width)
                    for h in range(top, bottom):
                        i = group * sizes.group_in + h * sizes.line
                        j = (h - top) * sizes.w_out * sizes.spread + index * shape.width
                        for w in range(sizes.w_out):
                            tile = multiply_add(
                                tile, source, weights, i + w * sizes.pixel, band_dy, j + w * sizes.spread
                            )
                    store_tile(panel_sums, places, 0, tile, shape.width)


@jit
def _spread(dy, result, masked, pixels, sizes, out, bias):
    """Copy pixels of dY, each group's channels filled up to whole vectors, and add them to the bias gradient.

    If `masked`, zero where result <= 0.
    """
    group_spread = sizes.spread // sizes.groups
    for group in range(sizes.groups):
        for k in range(0, group_spread, LANES):
            left = sizes.group_out - k
            total = load(bias, group * group_spread + k)
            for p in range(pixels):
                i = (p * sizes.groups + group) * sizes.group_out + k
                values = load_first(dy, i, left)
                if masked:
                    values = select(load_first(result, i, left) > 0, values, 0)
                store(out, p * sizes.spread + group * group_spread + k, values)
                total = total + values
            store(bias, group * group_spread + k, total)


@jit
def _gather_sums(sums, dweight):
    """dweight (reduced, groups, k / groups) = the parts' sums, added in their order."""
    width = sums.shape[4]
    for group in range(dweight.shape[1]):
        for row in range(dweight.shape[0]):
            for k in range(dweight.shape[2]):
                total = np.float32(0)
                for part in range(sums.shape[0]):
                    total += sums[part, group, k // width, row, k % width]
                dweight[row, group, k] = total
