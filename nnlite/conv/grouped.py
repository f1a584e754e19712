"""Convolutions of few channels per group, with channels in the SIMD lanes: depthwise, and groups of a few channels.

A vector holds LANES output channels of a pixel, as they lie in memory. The sums of some outputs of a line stay in
registers while a loop runs over the taps, and over the input channels of a group:

    sum[p] += x[p + tap, j] * weight[tap, j]                              (a vector times a vector)

where x[:, j] has, in each lane, the j-th channel that this lane's output channel reads. The input gradient is the same
over dY. For the weight gradient, the sums of some taps stay in registers while pixels pass:

    sum[tap, j] += x[p + tap, j] * dy[p]

What makes it fast: no lane is empty, and all but a few instructions of the inner loops are multiply-adds with an
operand from memory. Lines of the input are packed once, with their padding, in the order in which the loops read them
(nnlite.conv.grouped_plan), into a ring of as many lines as a kernel is high, which stays in cache; so that the input is
read once, in order, and the result is written once. What the next row reads and writes is fetched during the sums of
this one: otherwise memory would wait for the sums, and the sums for memory.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np

from nnlite.compiler.blocking import LINE
from nnlite.compiler.compilation import ENABLED, jit
from nnlite.compiler.launch import arrayless_kernel
from nnlite.compiler.simd import load, opaque, pointer, prefetch, prefetch_to_write, relu, store, store_first
from nnlite.compiler.target import LANES
from nnlite.conv import grouped_plan, work_grouped
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.epilogue import Epilogue, Fused, Gradients
from nnlite.conv.geometry import Geometry
from nnlite.conv.grouped_packing import Lines, pack_gradient, pack_lines
from nnlite.conv.grouped_plan import LINES_SHARE, PIXELS, TAPS, Grouped
from nnlite.conv.parameters import Parameters
from nnlite.conv.work import WorkItem
from nnlite.kernels.start_values import start_values
from nnlite.runtime import memory, threads
from nnlite.runtime.replay import summed, taken


class GroupedLanes(Algorithm):
    """Any kernel size, stride, padding, dilation and groups, with bias and ReLU in the store. float32."""

    name = "grouped"
    dtypes = (np.float32,)
    parameters: ClassVar[Parameters] = {"lines_share": (LINES_SHARE / 4, LINES_SHARE / 2, LINES_SHARE, 2 * LINES_SHARE)}
    lines_share = LINES_SHARE

    def supports(self, geometry: Geometry) -> str | None:
        return None if ENABLED else "its kernels need Numba's compiler, which NUMBA_DISABLE_JIT=1 switches off"

    def saves_multiplications(self, geometry: Geometry) -> bool:
        """Those with lines of padding, which the definition counts."""
        return geometry.pads[0] != (0, 0)

    def work(self, geometry: Geometry, pass_name: str, epilogue: Epilogue | None = None) -> list[WorkItem] | None:
        return None if self.supports(geometry) else work_grouped.grouped(geometry, pass_name, epilogue)

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _forward(x, weight, None, False, geometry, self.lines_share)

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _grad_input(dy, dy, False, weight, geometry, self.lines_share)

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _grad_weight(x, dy, dy, False, geometry, self.lines_share)[0]

    def fuses(self, geometry: Geometry, epilogue: Epilogue) -> bool:
        return ENABLED and not epilogue.pool

    def forward_fused(
        self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, epilogue: Epilogue
    ) -> Fused:
        return Fused(x, weight, _forward(x, weight, bias, epilogue.relu, geometry, self.lines_share))

    def backward_fused(
        self, ran: Fused, dresult: np.ndarray, geometry: Geometry, epilogue: Epilogue, needs: tuple[bool, bool, bool]
    ) -> Gradients:
        gate, share = (ran.result, epilogue.relu), self.lines_share
        dx = _grad_input(dresult, *gate, ran.weight, geometry, share) if needs[0] else None
        if not (needs[1] or needs[2]):
            return dx, None, None
        dweight, dbias = _grad_weight(ran.x, dresult, *gate, geometry, share)
        return dx, dweight if needs[1] else None, dbias if needs[2] else None


# Forward, and the input gradient -------------------------------------------------------------------------------


class Operands(NamedTuple):
    """y = relu(correlation of x + start), the ReLU if `relu`.

    x is a gradient dY if there is a gate, and is zero then where that, the result of a ReLU, is not above 0.
    """

    x: np.ndarray
    gate: np.ndarray
    is_gated: bool
    weights: np.ndarray  # (blocks, taps, LANES)
    start: np.ndarray  # (blocks * LANES)
    y: np.ndarray
    relu: bool


def _forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, relu: bool, geometry: Geometry, share: float
) -> np.ndarray:
    y = memory.empty(geometry.output_shape)
    _run(grouped_plan.forward(geometry, threads.kernel_parts(), share), x, x, False, weight, bias, y, relu)
    return y


def _grad_input(
    dy: np.ndarray, result: np.ndarray, relu: bool, weight: np.ndarray, geometry: Geometry, share: float
) -> np.ndarray:
    """dx; with `relu`, of the gradient dy where result > 0, zero elsewhere."""
    dx = memory.empty(geometry.input_shape)
    plan = grouped_plan.grad_input(geometry, threads.kernel_parts(), share)
    _run(plan, dy, result, relu, weight, None, dx, False)
    return dx


def _run(
    plan: Grouped,
    x: np.ndarray,
    gate: np.ndarray,
    is_gated: bool,
    weight: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    relu: bool,
) -> None:
    nest, num_threads = plan.nest, threads.kernel_parts()
    weights, start = taken(weight, plan.source), start_values(bias, 1, nest.blocks * LANES)
    operands = Operands(x, gate, is_gated, weights, start, y, relu)
    _correlate.run(num_threads, nest, operands, _packed_lines(plan, num_threads))


def _packed_lines(plan: Grouped, num_threads: int) -> np.ndarray:
    """Room for each thread's packed lines, and for one of dY."""
    nest = plan.nest
    return memory.empty((num_threads, nest.ring + nest.chunk * nest.w_out * LANES))


@arrayless_kernel
def _correlate(thread, num_threads, nest, operands, packed):
    """One share of the bands of rows of chunks of channels of images."""
    packed[thread, : nest.ring] = 0
    chunks = -(-nest.blocks // nest.chunk)
    units = operands.y.shape[0] * nest.bands * chunks
    for unit in range(thread * units // num_threads, (thread + 1) * units // num_threads):
        image, band, chunk = unit // (nest.bands * chunks), unit // chunks % nest.bands, unit % chunks
        start = image * nest.h * nest.w * nest.c
        x = Lines(
            pointer(operands.x, start), pointer(operands.gate, start), operands.is_gated,
            pointer(packed, thread * packed.shape[1]), chunk * nest.chunk, min(nest.blocks, (chunk + 1) * nest.chunk),
        )  # fmt: skip
        y = pointer(operands.y, image * nest.h_out * nest.w_out * nest.k)
        next_line = 0
        for count in range(band * nest.count // nest.bands, (band + 1) * nest.count // nest.bands):
            next_line = pack_lines(nest, x, count, next_line)
            for phase in range(nest.rows.shape[0]):
                if count < nest.rows[phase, 1]:
                    row = nest.rows[phase, 0] + count * nest.row_step
                    ahead = next_line - nest.top
                    correlate_row(nest, operands, x, count, phase, pointer(y, row * nest.w_out * nest.k), ahead)


@jit
def correlate_row(nest, operands, x, count, phase, y, next_line):
    """A row of outputs of a chunk. Meanwhile the lines that the next one reads and writes are asked for."""
    first_line = count * nest.line_step
    places = pointer(nest.places, first_line % nest.slots * nest.places.shape[1])
    # the rows of the kernel that read lines inside the image
    begin, end, before = nest.rows[phase, 2], nest.rows[phase, 3], 0
    while begin < end and first_line + nest.shifts[begin] < 0:
        begin, before = begin + 1, before + 1
    while begin < end and first_line + nest.shifts[end - 1] >= nest.h:
        end -= 1
    step, size = nest.column_step * nest.k, operands.weights.shape[1] * LANES
    for column_phase in range(nest.columns.shape[0]):
        first, columns, taps = nest.columns[column_phase]
        start = nest.begins[phase, column_phase] + before * taps * nest.terms
        own_places, weights, out = pointer(places, start), pointer(operands.weights, start * LANES), first * nest.k
        for block in range(x.first, x.last):
            here, there = (next_line * nest.c + block * LANES) * nest.w, (nest.k + block * LANES) * nest.w_out
            correlate_line(
                pointer(x.ring, (block - x.first) * nest.terms * nest.copy), pointer(weights, block * size), own_places,
                (end - begin) * taps * nest.terms, load(operands.start, block * LANES), operands.relu,
                pointer(y, out + block * LANES), step, columns, nest.k - block * LANES,
                (pointer(x.x, here), pointer(x.gate, here), pointer(y, there)),
            )  # fmt: skip


@jit
def correlate_line(x, weights, places, taps, start, is_relu, y, step, columns, channels, ahead):
    """A row of outputs of a block, `step` apart in y, each a vector of `channels`."""
    for pixel in range(0, columns, PIXELS):
        for i in range(pixel * LANES, (pixel + PIXELS) * LANES, LINE // 4):
            prefetch(ahead[0], i)
            prefetch(ahead[1], i)
            prefetch_to_write(ahead[2], i)
        sum_taps(
            pointer(x, pixel * LANES), weights, places, taps, start, is_relu,
            pointer(y, pixel * step), step, columns - pixel, channels,
        )  # fmt: skip


@jit
def sum_taps(x, weights, places, taps, start, is_relu, y, step, pixels, channels):
    """The micro-kernel: up to PIXELS outputs of a line, `step` apart in y, each a vector of `channels`."""
    step = opaque(step)
    a = b = c = d = e = f = g = h = start
    for tap in range(taps):
        i, weight = places[tap], load(weights, tap * LANES)
        a = a + load(x, i) * weight
        b = b + load(x, i + LANES) * weight
        c = c + load(x, i + 2 * LANES) * weight
        d = d + load(x, i + 3 * LANES) * weight
        e = e + load(x, i + 4 * LANES) * weight
        f = f + load(x, i + 5 * LANES) * weight
        g = g + load(x, i + 6 * LANES) * weight
        h = h + load(x, i + 7 * LANES) * weight
    if is_relu:
        a, b, c, d, e, f, g, h = relu(a), relu(b), relu(c), relu(d), relu(e), relu(f), relu(g), relu(h)
    if pixels >= PIXELS and channels >= LANES:
        store(y, 0, a)
        store(y, step, b)
        store(y, 2 * step, c)
        store(y, 3 * step, d)
        store(y, 4 * step, e)
        store(y, 5 * step, f)
        store(y, 6 * step, g)
        store(y, 7 * step, h)
    elif channels >= LANES:  # a masked store takes many times as long on some processors
        for n, value in enumerate((a, b, c, d, e, f, g, h)):
            if n < pixels:
                store(y, n * step, value)
    else:
        store_first(y, 0, a, channels)
        for n, value in enumerate((b, c, d, e, f, g, h)):
            if n + 1 < pixels:
                store_first(y, (n + 1) * step, value, channels)


# The weight gradient -------------------------------------------------------------------------------------------


class GradientOperands(NamedTuple):
    """sums = weight gradient of x and dy; with a gate, of dy where that is above 0, zero elsewhere."""

    x: np.ndarray
    dy: np.ndarray
    gate: np.ndarray
    is_gated: bool
    sums: np.ndarray  # (threads, blocks, taps, LANES)
    bias_sums: np.ndarray  # (threads, blocks * LANES)


def _grad_weight(
    x: np.ndarray, dy: np.ndarray, result: np.ndarray, relu: bool, geometry: Geometry, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """(dweight, dbias); with `relu`, of the gradient dy where result > 0, zero elsewhere."""
    num_threads = threads.kernel_parts()
    plan = grouped_plan.forward(geometry, num_threads, share)
    nest = plan.nest
    sums = memory.empty((num_threads, *plan.source.shape))
    operands = GradientOperands(x, dy, result, relu, sums, np.empty((num_threads, nest.blocks * LANES), np.float32))
    _reduce.run(num_threads, nest, operands, _packed_lines(plan, num_threads))
    dweight = taken(summed(sums), grouped_plan.packed_places(geometry, num_threads))
    return dweight.reshape(geometry.weight_shape), summed(operands.bias_sums)[: nest.k]


@arrayless_kernel
def _reduce(thread, num_threads, nest, operands, packed):
    """One share of the bands of rows of chunks of channels of images."""
    packed[thread, : nest.ring] = 0
    operands.sums[thread] = 0
    operands.bias_sums[thread] = 0
    ring = pointer(packed, thread * packed.shape[1])
    packed_dy = pointer(ring, nest.ring)
    bias_sums = pointer(operands.bias_sums, thread * nest.blocks * LANES)
    sums = pointer(operands.sums, thread * nest.blocks * nest.places.shape[1] * LANES)
    chunks = -(-nest.blocks // nest.chunk)
    units = operands.x.shape[0] * nest.bands * chunks
    for unit in range(thread * units // num_threads, (thread + 1) * units // num_threads):
        image, band, chunk = unit // (nest.bands * chunks), unit // chunks % nest.bands, unit % chunks
        source = pointer(operands.x, image * nest.h * nest.w * nest.c)
        x = Lines(source, source, False, ring, chunk * nest.chunk, min(nest.blocks, (chunk + 1) * nest.chunk))
        next_line = 0
        for row in range(band * nest.count // nest.bands, (band + 1) * nest.count // nest.bands):
            next_line = pack_lines(nest, x, row, next_line)
            start = (image * nest.h_out + row) * nest.w_out * nest.k
            pack_gradient(nest, operands, start, x.first, x.last, packed_dy, bias_sums)
            next_dy = pointer(operands.dy, start + nest.w_out * nest.k)
            reduce_row(nest, x, row, packed_dy, sums, next_line - nest.top, next_dy)


@jit
def reduce_row(nest, x, row, dy, sums, next_line, next_dy):
    """sums (blocks, taps, LANES) += the weight gradient of a row of outputs of a chunk, whose packed gradient is dy.

    Meanwhile the lines that the next one reads are asked for.
    """
    taps = nest.places.shape[1]
    places = pointer(nest.places, row * nest.line_step % nest.slots * taps)
    for block in range(x.first, x.last):
        own_x = pointer(x.ring, (block - x.first) * nest.terms * nest.copy)
        here, there = (next_line * nest.c + block * LANES) * nest.w, block * LANES * nest.w_out
        ahead = pointer(x.x, here), pointer(next_dy, there)
        own_dy, own_sums = pointer(dy, (block - x.first) * nest.w_out * LANES), pointer(sums, block * taps * LANES)
        for tap in range(0, taps, TAPS):
            sum_pixels(own_x, pointer(places, tap), own_dy, nest.w_out, pointer(own_sums, tap * LANES), ahead)


@jit
def sum_pixels(x, places, dy, pixels, sums, ahead):
    """The micro-kernel: the sums of TAPS taps += those over the pixels of a line."""
    i0, i1, i2, i3, i4 = places[0], places[1], places[2], places[3], places[4]
    i5, i6, i7, i8 = places[5], places[6], places[7], places[8]
    a, b, c = load(sums, 0), load(sums, LANES), load(sums, 2 * LANES)
    d, e, f = load(sums, 3 * LANES), load(sums, 4 * LANES), load(sums, 5 * LANES)
    g, h, k = load(sums, 6 * LANES), load(sums, 7 * LANES), load(sums, 8 * LANES)
    for i in range(0, pixels * LANES, LANES):
        value = load(dy, i)
        prefetch(ahead[0], i)
        prefetch(ahead[1], i)
        a = a + load(x, i0 + i) * value
        b = b + load(x, i1 + i) * value
        c = c + load(x, i2 + i) * value
        d = d + load(x, i3 + i) * value
        e = e + load(x, i4 + i) * value
        f = f + load(x, i5 + i) * value
        g = g + load(x, i6 + i) * value
        h = h + load(x, i7 + i) * value
        k = k + load(x, i8 + i) * value
    for n, value in enumerate((a, b, c, d, e, f, g, h, k)):
        store(sums, n * LANES, value)
