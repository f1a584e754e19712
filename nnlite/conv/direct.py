"""Direct convolution on register tiles: the sums of the definition, at the processor's rate.

Forward: a tile of some output positions x some output channels stays in registers while the loops run over taps and
input channels,

    tile[p, k] += x[p + tap, c] * weight[tap, c, k]

The input gradient is the same kernel over dY. The weight gradient is the same tile with other loops: its rows are
weights (tap, c), its columns output channels, and the reduction runs over the pixels of an image,

    tile[(tap, c), k] += x[p + tap, c] * dy[p, k]

What makes it fast: the tile fills the registers (compiler/tiles.py): MR x NR sums; most instructions are multiply-adds.
The weights of a tile's columns, and those of dY, lie together as a panel, and so do the numbers of x that a tile of dW
reads (nnlite.conv.direct_reduction); no more of one is reduced at a time than stays in cache, and small images are
joined to batches, so that it is read seldom. An image with padding is first copied
into one with a border of zeros: in cache, so almost free. The gradient of ReLU is applied in that copy
(nnlite.conv.direct_packing). Where things lie is in tables (nnlite.conv.direct_plan). The weight gradient of a 1x1
kernel is a matrix product; with enough output channels nnlite.kernels.matmul computes it.
"""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from nnlite.compiler.blocking import LINE_BYTES, PANEL_BYTES
from nnlite.compiler.compilation import ENABLED, jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.reductions import multiply_add
from nnlite.compiler.simd import pointer
from nnlite.compiler.target import LANES
from nnlite.compiler.tiles import (
    load_tile,
    relu_tile,
    repeat_row,
    store_tile,
    table_rows,
)
from nnlite.conv import direct_plan, direct_weight_plan, work_compiled
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.direct_packing import (
    Weights,
    add_copies,
    add_panel,
    pack_b,
    pack_dy,
    pad_images,
)
from nnlite.conv.direct_plan import Correlation
from nnlite.conv.direct_reduction import Band, reduce_band
from nnlite.conv.epilogue import Epilogue, Fused, Gradients
from nnlite.conv.geometry import Geometry
from nnlite.conv.parameters import Parameters
from nnlite.conv.work import WorkItem, touched_taps
from nnlite.kernels.activation import bias_gradient, relu_backward
from nnlite.kernels.matmul import matmul_tn
from nnlite.kernels.start_values import start_values
from nnlite.runtime import memory, threads
from nnlite.runtime.replay import copied, summed


class Direct(Algorithm):
    """Any kernel size, stride, padding, dilation and groups, with bias and ReLU in the store."""

    name = "direct"
    dtypes = (np.float32,)
    parameters: ClassVar[Parameters] = {
        "panel_bytes": (PANEL_BYTES // 3, PANEL_BYTES, 2 * PANEL_BYTES),
        "line_bytes": (LINE_BYTES // 2, LINE_BYTES, 2 * LINE_BYTES),
    }
    panel_bytes, line_bytes = PANEL_BYTES, LINE_BYTES

    def supports(self, geometry: Geometry) -> str | None:
        return None if ENABLED else "its kernels need Numba's compiler, which NUMBA_DISABLE_JIT=1 switches off"

    def saves_multiplications(self, geometry: Geometry) -> bool:
        """Those with padding, which the definition counts."""
        return touched_taps(geometry) < prod(geometry.output_shape[1:3]) * prod(geometry.weight_shape[:2])

    def work(self, geometry: Geometry, pass_name: str, epilogue: Epilogue | None = None) -> list[WorkItem] | None:
        if self.supports(geometry):
            return None
        return work_compiled.direct(geometry, pass_name, epilogue, self.panel_bytes, self.line_bytes)

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _forward(x, weight, None, False, geometry, self.panel_bytes)

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _grad_input(dy, dy, False, weight, geometry, self.panel_bytes)

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _grad_weight(x, dy, dy, False, False, geometry, self.line_bytes)[0]

    def fuses(self, geometry: Geometry, epilogue: Epilogue) -> bool:
        return ENABLED and not epilogue.pool

    def forward_fused(
        self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, epilogue: Epilogue
    ) -> Fused:
        return Fused(x, weight, _forward(x, weight, bias, epilogue.relu, geometry, self.panel_bytes))

    def backward_fused(
        self, ran: Fused, dresult: np.ndarray, geometry: Geometry, epilogue: Epilogue, needs: tuple[bool, bool, bool]
    ) -> Gradients:
        gate = ran.result, epilogue.relu
        dx = _grad_input(dresult, *gate, ran.weight, geometry, self.panel_bytes) if needs[0] else None
        if not (needs[1] or needs[2]):
            return dx, None, None
        dweight, dbias = _grad_weight(ran.x, dresult, *gate, needs[2], geometry, self.line_bytes)
        return dx, dweight if needs[1] else None, dbias


# Forward, and the input gradient -------------------------------------------------------------------------------


class Operands(NamedTuple):
    """y = relu(correlation of x + bias), the ReLU if `relu`; x is whole batches of joined images.

    x is a gradient dY if there is a gate, and is zero then where that, the result of a ReLU, is not above 0.
    """

    x: np.ndarray
    gate: np.ndarray
    is_gated: bool
    weights: Weights
    bias: np.ndarray  # (groups * panels * NR)
    y: np.ndarray
    relu: bool


def _forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, relu: bool, geometry: Geometry, panel_bytes: int
) -> np.ndarray:
    y = memory.empty(geometry.output_shape)
    for first, last, batch in direct_plan.batches(geometry):
        plan, images = direct_plan.forward(batch, False, panel_bytes), x[first:last]
        start = start_values(bias, plan.nest.groups, plan.nest.panels * plan.width)
        _run(plan, Operands(images, images, False, Weights.of(plan, weight, False), start, y[first:last], relu))
    return y


def _grad_input(
    dy: np.ndarray, result: np.ndarray, relu: bool, weight: np.ndarray, geometry: Geometry, panel_bytes: int
) -> np.ndarray:
    """dx; with `relu`, of the gradient dy where result > 0, zero elsewhere."""
    dx = memory.empty(geometry.input_shape)
    for first, last, batch in direct_plan.batches(geometry):
        gradient = dy[first:last], result[first:last], relu
        for phase in direct_plan.grad_input(batch, False, panel_bytes):
            start = start_values(None, phase.nest.groups, phase.nest.panels * phase.width)
            _run(phase, Operands(*gradient, Weights.of(phase, weight, True), start, dx[first:last], False))
    return dx


def _run(plan: Correlation, operands: Operands) -> None:
    nest, num_threads = plan.nest, threads.kernel_parts()
    padded = nest.images * nest.image_padded if operands.is_gated or plan.is_padded else 0
    work = memory.empty((num_threads, nest.kc * plan.width + padded))
    shares = direct_plan.shares_of(plan, len(operands.x), num_threads)
    _correlate.run(num_threads, plan.shape, nest, shares, operands, work)


@kernel
def _correlate(thread, num_threads, shape, nest, shares, operands, work):
    """One share of a correlation, in BLIS's loops around the micro-kernel; 2 and 1 are the macro-kernel's."""
    x, gate, is_gated, weights, bias, y, relu = operands
    panels, nr = nest.groups * nest.panels, shape.width
    (first_unit, first_tile), (last_unit, last_tile) = shares[thread], shares[thread + 1]
    packed = pointer(work, thread * work.shape[1])
    padded = pointer(packed, nest.kc * nr)
    is_copied = is_gated or nest.image_in != nest.image_padded
    if is_copied:
        work[thread, nest.kc * nr :] = 0
    # loop 5: batches of joined images: few enough to stay in cache while all panels of weights pass over them
    # loop 4: panels of NR output channels, a group's after the other's: a tile's width of sums
    for unit in range(first_unit, last_unit + 1):
        first = first_tile if unit == first_unit else 0
        last = last_tile if unit == last_unit else nest.tiles
        if first == last:
            continue
        first_image, index = unit // panels * nest.images, unit % panels
        group, column = index // nest.panels, index % nest.panels * nr
        source = pointer(x, first_image * nest.image_in)
        if is_copied:
            source = padded
            if index == 0 or unit == first_unit:
                pad_images(nest, x, gate, is_gated, first_image, first_image + nest.images, padded)
        panel = Panel(
            pointer(source, group * nest.group_in), packed, pointer(bias, index * nr),
            pointer(y, first_image * nest.image_out + group * nest.group_out + column), nest.group_out - column,
        )  # fmt: skip
        # loop 3: blocks of KC terms of the reduction: their packed weights stay in cache while all tiles pass
        for block in range(nest.blocks.size - 1):
            if panels > 1 or nest.blocks.size > 2 or unit == first_unit:
                pack_b(weights, group, column, nr, nest.blocks[block], nest.blocks[block + 1], packed)
            macro_kernel(shape, nest, panel, first, last, block, relu)


class Panel(NamedTuple):
    """What a macro-kernel multiplies and stores to, as pointers."""

    x: Any  # joined images, at the first channel of a group
    weights: Any  # a block of a panel, packed: (KC, NR)
    start: Any  # (NR): what sums begin with
    y: Any  # at the panel's first output channel
    columns: Any  # from there to the group's last


@jit
def macro_kernel(shape, nest, panel, first, last, block, relu):
    """One block of the reduction of tiles `first` to `last` of a panel; ReLU, if asked for, after the last block."""
    regions, runs, ends, nr = nest.regions, nest.runs, nest.ends, shape.width
    start, is_last = nest.blocks[block], block == nest.blocks.size - 2
    # loop 2: tiles of MR output positions: their sums stay in registers
    for t in range(first, last):
        rows_in = table_rows(shape, t * shape.rows, nest.rows_in.size, nest.rows_in)
        rows_out = table_rows(shape, t * shape.rows, nest.rows_out.size, nest.rows_out)
        if block == 0:
            tile = repeat_row(shape, panel.start, 0)
        else:
            tile = load_tile(shape, panel.y, rows_out, 0, panel.columns)
        # loop 1: runs of taps and channels that lie one after the other in the image, as in the packed weights
        for run in range(ends[regions[t], block], ends[regions[t], block + 1]):
            j = (runs[run, 1] - start) * nr
            tile = multiply_add(tile, panel.x, rows_in, runs[run, 0], 1, panel.weights, j, nr, runs[run, 2])
        if relu and is_last:
            tile = relu_tile(tile)
        store_tile(panel.y, rows_out, 0, tile, panel.columns)


# The weight gradient -------------------------------------------------------------------------------------------


class GradientOperands(NamedTuple):
    """sums = weight gradient of x and dy; with a gate, of dy where that is above 0, zero elsewhere."""

    x: np.ndarray
    dy: np.ndarray
    gate: np.ndarray
    is_gated: bool
    sums: np.ndarray  # (copies, weights): a copy for each thread, or one
    bias_sums: np.ndarray  # (threads, groups, panels * NR), or none


def _grad_weight(
    x: np.ndarray,
    dy: np.ndarray,
    result: np.ndarray,
    relu: bool,
    biased: bool,
    geometry: Geometry,
    line_bytes: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """(dweight, dbias if `biased`); with `relu`, of the gradient dy where result > 0, zero elsewhere."""
    num_threads, dweight = threads.kernel_parts(), memory.empty(geometry.weight_shape)
    if not len(x):
        dweight.fill(0)
        return dweight, np.zeros(dweight.shape[3], np.float32)
    if direct_weight_plan.is_product(geometry, num_threads):
        return _product(x, dy, result, relu, biased, geometry)
    plan = direct_weight_plan.grad_weight(geometry, num_threads, False, line_bytes)
    nest, nr = plan.nest, plan.shape.width
    sums = memory.empty((plan.copies, dweight.size)) if plan.copies > 1 else dweight.reshape(1, -1)
    bias_sums = memory.empty((num_threads if biased else 0, nest.groups, nest.panels * nr))
    packed = 0 if plan.is_packed and not (relu or biased) else nest.groups * nest.panels * nest.band
    own_work = -(-(packed + nest.packed + nest.padded) // LANES) * LANES
    work = memory.empty((num_threads, own_work))
    operands = GradientOperands(x, dy, result, relu, sums, bias_sums)
    _reduce_pixels.run(num_threads, plan.shape, nest, operands, work)
    if plan.copies > 1:
        add_copies(sums, dweight)
    if not biased:
        return dweight, None
    dbias = summed(bias_sums)[:, : nest.group_out]  # (groups, k / groups)
    return dweight, dbias.reshape(-1) if dbias.flags.c_contiguous else copied(dbias).reshape(-1)  # (k)


def _product(
    x: np.ndarray, dy: np.ndarray, result: np.ndarray, relu: bool, biased: bool, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray | None]:
    """As `_grad_weight`, of a 1x1 kernel: one product of all pixels that it reads, with a stride copied together."""
    (n, oh, ow, k), (sh, sw), dbias = geometry.output_shape, geometry.strides, None
    if (sh, sw) != (1, 1):
        x = copied(x[:, ::sh, ::sw])
    pixels, gradient = x.reshape(n * oh * ow, -1), dy.reshape(n * oh * ow, k)
    if relu:
        gradient, dbias = relu_backward(gradient, result.reshape(gradient.shape))
    elif biased:
        dbias = bias_gradient(gradient)
    return matmul_tn(pixels, gradient).reshape(geometry.weight_shape), dbias if biased else None


@kernel
def _reduce_pixels(thread, num_threads, shape, nest, operands, work):
    """One share of the weight gradient: of the pixels, in sums[thread], or where there is one sum, of the weights."""
    x, dy, gate, is_gated, sums, bias_sums = operands
    images, panels, tiles, nr = x.shape[0], nest.groups * nest.panels, nest.inside.shape[0], shape.width
    biased = bias_sums.shape[0] > 0
    is_packed = is_gated or biased or panels > 1 or nest.group_out != nr
    begin, end = 0, nest.batches * nest.bands
    first, last = thread * panels * tiles // num_threads, (thread + 1) * panels * tiles // num_threads
    own_sums, own_bias = pointer(sums, 0), pointer(bias_sums, thread * panels * nr)
    if sums.shape[0] > 1:
        begin, end, first, last = thread * end // num_threads, (thread + 1) * end // num_threads, 0, panels * tiles
        own_sums = pointer(sums, thread * sums.shape[1])
        if begin == end:
            sums[thread] = 0
    if biased:
        bias_sums[thread] = 0
    packed = pointer(work, thread * work.shape[1])
    lines = pointer(packed, panels * nest.band if is_packed else 0)
    padded = pointer(work, (thread + 1) * work.shape[1] - nest.padded)
    work[thread, work.shape[1] - nest.padded :] = 0
    # loop 5: batches of joined images, with their borders: they stay in cache while their bands pass
    # loop 4: bands of output rows: KC pixels, whose packed dY stays in cache while all tiles of weights pass
    for unit in range(begin, end):
        batch, band = unit // nest.bands, unit % nest.bands
        first_image, last_image = batch * images // nest.batches, (batch + 1) * images // nest.batches
        top, bottom = band * nest.h_out // nest.bands, (band + 1) * nest.h_out // nest.bands
        source = pointer(x, first_image * nest.image_in)
        if nest.padded:
            source = padded
            if band == 0 or unit == begin:
                pad_images(nest, x, x, False, first_image, last_image, padded)
        start = first_image * nest.image_out + top * nest.w_out * nest.groups * nest.group_out
        b = pointer(dy, start)
        if is_packed:
            b, pixels = packed, (last_image - first_image) * (bottom - top) * nest.w_out
            of_group = tiles * nest.panels
            for index in range(first // of_group * nest.panels, -(-last // of_group) * nest.panels):
                panel, first_tile = pointer(packed, index * nest.band), index // nest.panels * of_group
                pack_dy(nest, pointer(dy, start), pointer(gate, start), is_gated, pixels, nr, index, panel)
                if biased and first <= first_tile + index % nest.panels < last:  # who has a panel's first tile adds it
                    add_panel(panel, pixels, nr, pointer(own_bias, index * nr))
        pixels_of = Band(
            source, lines, b, own_sums, nest.band, nr, last_image - first_image, top, bottom, unit == begin
        )
        reduce_band(shape, nest, pixels_of, first, last)
