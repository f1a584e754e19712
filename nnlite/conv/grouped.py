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
read once, in order, and the result is written once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nnlite.compiler.jit import ENABLED, jit, kernel
from nnlite.compiler.simd import LANES, load, load_first, load_where, pointer, relu, select, splat, store, store_first
from nnlite.conv import grouped_plan
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.direct_packing import start_values
from nnlite.conv.epilogue import Epilogue, Fused, Gradients
from nnlite.conv.geometry import Geometry
from nnlite.conv.grouped_plan import PIXELS, TAPS, Grouped
from nnlite.runtime import memory, threads


class GroupedLanes(Algorithm):
    """Any kernel size, stride, padding, dilation and groups, with bias and ReLU in the store. float32."""

    name = "grouped"
    dtypes = (np.float32,)

    def supports(self, geometry: Geometry) -> str | None:
        return None if ENABLED else "its kernels need Numba's compiler, which NUMBA_DISABLE_JIT=1 switches off"

    def saves_multiplications(self, geometry: Geometry) -> bool:
        """Those with lines of padding, which the definition counts."""
        return geometry.pads[0] != (0, 0)

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
    ) -> Fused:
        return Fused(x, weight, _forward(x, weight, bias, epilogue.relu, geometry))

    def backward_fused(
        self, ran: Fused, dresult: np.ndarray, geometry: Geometry, epilogue: Epilogue, needs: tuple[bool, bool, bool]
    ) -> Gradients:
        dx = _grad_input(dresult, ran.result, epilogue.relu, ran.weight, geometry) if needs[0] else None
        if not (needs[1] or needs[2]):
            return dx, None, None
        dweight, dbias = _grad_weight(ran.x, dresult, ran.result, epilogue.relu, geometry)
        return dx, dweight if needs[1] else None, dbias if needs[2] else None


# Forward, and the input gradient -------------------------------------------------------------------------------


class Operands(NamedTuple):
    """y = relu(correlation of x + start), the ReLU if `relu`.

    x is a gradient dY if there is a gate, and is zero then where that, the result of a ReLU, is not above 0.
    """

    x: np.ndarray
    gate: np.ndarray
    is_gated: bool
    weights: np.ndarray  # (blocks, taps of the kernel, terms, LANES)
    start: np.ndarray  # (blocks * LANES)
    y: np.ndarray
    relu: bool


def _forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, relu: bool, geometry: Geometry) -> np.ndarray:
    y = memory.empty(geometry.output_shape)
    _run(grouped_plan.forward(geometry, threads.kernel_parts()), x, x, False, weight, bias, y, relu)
    return y


def _grad_input(dy: np.ndarray, result: np.ndarray, relu: bool, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """dx; with `relu`, of the gradient dy where result > 0, zero elsewhere."""
    dx = memory.empty(geometry.input_shape)
    _run(grouped_plan.grad_input(geometry, threads.kernel_parts()), dy, result, relu, weight, None, dx, False)
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
    weights, start = weight.reshape(-1).take(plan.source), start_values(bias, 1, nest.blocks * LANES)
    operands = Operands(x, gate, is_gated, weights, start, y, relu)
    _correlate.run(num_threads, nest, operands, _lines(plan, num_threads), _table(plan, num_threads))


def _lines(plan: Grouped, num_threads: int) -> np.ndarray:
    """Room for each thread's packed lines, and one of dY."""
    nest = plan.nest
    return memory.empty((num_threads, nest.ring + nest.chunk * nest.w_out * LANES))


def _table(plan: Grouped, num_threads: int) -> np.ndarray:
    """Room for each thread's taps: where they are read, and the weights."""
    taps = plan.source.shape[1] * plan.nest.terms
    return np.empty((num_threads, 2, taps + TAPS), np.int64)


@kernel
def _correlate(thread, num_threads, nest, operands, lines, table):
    """One share of the bands of rows of chunks of channels of images."""
    ring, taps = pointer(lines, thread * lines.shape[1]), table[thread]
    lines[thread] = 0
    chunks = -(-nest.blocks // nest.chunk)
    units = operands.y.shape[0] * nest.bands * chunks
    for unit in range(thread * units // num_threads, (thread + 1) * units // num_threads):
        image, band, chunk = unit // (nest.bands * chunks), unit // chunks % nest.bands, unit % chunks
        x = Lines(
            pointer(operands.x, image * nest.h * nest.w * nest.c),
            pointer(operands.gate, image * nest.h * nest.w * nest.c),
            operands.is_gated, ring, chunk * nest.chunk, min(nest.blocks, (chunk + 1) * nest.chunk),
        )  # fmt: skip
        y = pointer(operands.y, image * nest.h_out * nest.w_out * nest.k)
        next_line = 0
        for count in range(band * nest.count // nest.bands, (band + 1) * nest.count // nest.bands):
            next_line = pack_lines(nest, x, count, next_line)
            for phase in range(nest.rows.shape[0]):
                if count < nest.rows[phase, 1]:
                    row = nest.rows[phase, 0] + count * nest.row_step
                    _correlate_row(nest, operands, x, count, phase, pointer(y, row * nest.w_out * nest.k), taps)


class Lines(NamedTuple):
    """The lines of an image, and the packed ones of some blocks of channels, as pointers."""

    x: Any
    gate: Any
    is_gated: Any
    ring: Any
    first: Any  # block
    last: Any


@jit
def _correlate_row(nest, operands, x, count, phase, y, taps):
    """A row of outputs of a chunk."""
    for column_phase in range(nest.columns.shape[0]):
        first, columns = nest.columns[column_phase, 0], nest.columns[column_phase, 1]
        tap_count = list_taps(nest, count, phase, column_phase, False, taps)
        for pixel in range(0, columns, PIXELS):
            place = (first + pixel * nest.column_step) * nest.k
            for block in range(x.first, x.last):
                sum_taps(
                    pointer(x.ring, (block - x.first) * nest.line + pixel * LANES),
                    pointer(operands.weights, block * operands.weights.shape[1] * nest.terms * LANES),
                    taps, tap_count, load(operands.start, block * LANES), operands.relu,
                    pointer(y, place + block * LANES), nest.column_step * nest.k, columns - pixel,
                    nest.k - block * LANES,
                )  # fmt: skip


@jit
def pack_lines(nest, x, count, next_line):
    """Pack the lines that rows of outputs number `count` read and that are not packed yet, from `next_line` on.

    Returns what is next then.
    """
    start = count * nest.line_step
    last = min(nest.h, start + nest.last_shift + 1)
    for line in range(max(next_line, start + nest.first_shift), last):
        out = pointer(x.ring, line % nest.slots * nest.chunk * nest.line)
        for w in range(nest.w):
            place = line * nest.w * nest.c + w * nest.c
            part, column = (w + nest.left) % nest.step, (w + nest.left) // nest.step
            pack_pixel(nest, x, place, pointer(out, (part * nest.terms * nest.length + column) * LANES))
    return max(next_line, last)


@jit
def pack_pixel(nest, x, place, out):
    """All copies of a pixel, for some blocks."""
    for block in range(x.first, x.last):
        for term in range(nest.terms):
            value = splat(np.float32(0))
            if nest.whole[block, term]:
                i = place + nest.offsets[block, term, 0]
                value = load(x.x, i)
                if x.is_gated:
                    value = select(load(x.gate, i) > 0, value, 0)
            else:
                for n in range(nest.loads[block, term]):
                    i = place + nest.offsets[block, term, n]
                    lanes = load(nest.lanes, ((block * nest.terms + term) * nest.lanes.shape[2] + n) * LANES) > 0
                    if x.is_gated:
                        lanes = lanes & (load_where(x.gate, i, lanes, splat(np.float32(0))) > 0)
                    value = load_where(x.x, i, lanes, value)
            store(out, ((block - x.first) * nest.step * nest.terms + term) * nest.length * LANES, value)


@jit
def list_taps(nest, count, phase, column_phase, with_padding, taps):
    """taps[0] = where the taps of a row of outputs are read, taps[1] = where their weights begin. Returns their number.

    Taps in lines of padding read zeros if `with_padding`, and are left out otherwise.
    """
    n, copy = 0, nest.length * LANES
    for r in range(nest.rows[phase, 2], nest.rows[phase, 3]):
        line = count * nest.line_step + nest.row_taps[r, 0]
        is_inside = 0 <= line < nest.h
        if is_inside or with_padding:
            start = (line % nest.slots if is_inside else nest.slots) * nest.chunk * nest.line
            for s in range(nest.columns[column_phase, 2], nest.columns[column_phase, 3]):
                tap = nest.row_taps[r, 1] * nest.kernel_width + nest.column_taps[s, 1]
                for term in range(nest.terms):
                    taps[0, n] = start + nest.column_taps[s, 0] + term * copy
                    taps[1, n] = (tap * nest.terms + term) * LANES
                    n += 1
    return n


@jit
def sum_taps(x, weights, taps, tap_count, start, is_relu, y, step, pixels, channels):
    """The micro-kernel: up to PIXELS outputs of a line, `step` apart in y, each a vector of `channels`."""
    a = b = c = d = e = f = g = h = start
    for tap in range(tap_count):
        i, weight = taps[0, tap], load(weights, taps[1, tap])
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
    sums: np.ndarray  # (threads, blocks, taps, LANES): taps of the kernel * terms, filled up to whole TAPS
    bias_sums: np.ndarray  # (threads, blocks * LANES)


def _grad_weight(
    x: np.ndarray, dy: np.ndarray, result: np.ndarray, relu: bool, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray]:
    """(dweight, dbias); with `relu`, of the gradient dy where result > 0, zero elsewhere."""
    num_threads = threads.kernel_parts()
    plan = grouped_plan.forward(geometry, num_threads)
    nest, taps = plan.nest, plan.source.shape[1] * plan.nest.terms
    sums = memory.empty((num_threads, nest.blocks, -(-taps // TAPS) * TAPS, LANES))
    operands = GradientOperands(x, dy, result, relu, sums, np.empty((num_threads, nest.blocks * LANES), np.float32))
    _reduce.run(num_threads, nest, operands, _lines(plan, num_threads), _table(plan, num_threads))
    total = sums.sum(axis=0)[:, :taps]
    return total.take(plan.packed).reshape(geometry.weight_shape), operands.bias_sums.sum(axis=0)[: nest.k]


@kernel
def _reduce(thread, num_threads, nest, operands, lines, table):
    """One share of the bands of rows of chunks of channels of images."""
    ring, taps = pointer(lines, thread * lines.shape[1]), table[thread]
    packed_dy = pointer(ring, nest.ring)
    lines[thread] = 0
    operands.sums[thread] = 0
    operands.bias_sums[thread] = 0
    bias_sums = pointer(operands.bias_sums, thread * operands.bias_sums.shape[1])
    chunks = -(-nest.blocks // nest.chunk)
    units, size = operands.x.shape[0] * nest.bands * chunks, operands.sums.shape[2]
    for unit in range(thread * units // num_threads, (thread + 1) * units // num_threads):
        image, band, chunk = unit // (nest.bands * chunks), unit // chunks % nest.bands, unit % chunks
        start = image * nest.h * nest.w * nest.c
        x = Lines(
            pointer(operands.x, start), pointer(operands.x, start),
            False, ring, chunk * nest.chunk, min(nest.blocks, (chunk + 1) * nest.chunk),
        )  # fmt: skip
        next_line = 0
        for row in range(band * nest.count // nest.bands, (band + 1) * nest.count // nest.bands):
            next_line = pack_lines(nest, x, row, next_line)
            place = (image * nest.h_out + row) * nest.w_out * nest.k
            pack_gradient(nest, operands, place, x.first, x.last, packed_dy, bias_sums)
            count = list_taps(nest, row, 0, 0, True, taps)
            for tap in range(count, size):
                taps[0, tap] = taps[0, 0]  # computed in vain
            for block in range(x.first, x.last):
                own_x = pointer(x.ring, (block - x.first) * nest.line)
                own_dy = pointer(packed_dy, (block - x.first) * nest.w_out * LANES)
                own_sums = pointer(operands.sums, (thread * nest.blocks + block) * size * LANES)
                for tap in range(0, size, TAPS):
                    sum_pixels(own_x, taps, tap, own_dy, nest.w_out, pointer(own_sums, tap * LANES))


@jit
def pack_gradient(nest, operands, place, first, last, out, bias_sums):
    """A line of dY from `place` on to (blocks, pixels, LANES), its blocks `first` to `last`, and their sums.

    Zero where it is gated and the gate is not above 0.
    """
    for pixel in range(nest.w_out):
        for block in range(first, last):
            i, channels = place + pixel * nest.k + block * LANES, nest.k - block * LANES
            value = load_first(operands.dy, i, channels)
            if operands.is_gated:
                value = select(load_first(operands.gate, i, channels) > 0, value, 0)
            store(out, ((block - first) * nest.w_out + pixel) * LANES, value)
            store(bias_sums, block * LANES, load(bias_sums, block * LANES) + value)


@jit
def sum_pixels(x, taps, tap, dy, pixels, sums):
    """The micro-kernel: the sums of TAPS taps += those over the pixels of a line."""
    i0, i1, i2, i3, i4 = taps[0, tap], taps[0, tap + 1], taps[0, tap + 2], taps[0, tap + 3], taps[0, tap + 4]
    i5, i6, i7, i8 = taps[0, tap + 5], taps[0, tap + 6], taps[0, tap + 7], taps[0, tap + 8]
    a, b, c = load(sums, 0), load(sums, LANES), load(sums, 2 * LANES)
    d, e, f = load(sums, 3 * LANES), load(sums, 4 * LANES), load(sums, 5 * LANES)
    g, h, k = load(sums, 6 * LANES), load(sums, 7 * LANES), load(sums, 8 * LANES)
    for i in range(0, pixels * LANES, LANES):
        value = load(dy, i)
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
