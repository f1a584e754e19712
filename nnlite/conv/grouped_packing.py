"""What the loops over grouped channels read, packed: copies of lines of the input, and lines of dY.

In its packed form a line has its padding, and what a kernel reads one after the other lies so: blocks of LANES
channels, and for each input channel of a group a copy of these (nnlite.conv.grouped_plan).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nnlite.compiler.compilation import jit
from nnlite.compiler.simd import load, load_first, load_where, opaque, pointer, select, splat, store
from nnlite.compiler.target import LANES
from nnlite.conv.grouped_plan import PIXELS


class Lines(NamedTuple):
    """The lines of an image, and the packed ones of some blocks of channels, as pointers."""

    x: Any
    gate: Any
    is_gated: Any
    ring: Any
    first: Any  # block
    last: Any


@jit
def pack_lines(nest, x, count, next_line):
    """Pack the lines that rows of outputs number `count` read and that are not packed yet, from `next_line` on.

    Returns what is next then.
    """
    last = count * nest.line_step + nest.slots
    for number in range(max(next_line, count * nest.line_step), last):
        out, line = pointer(x.ring, number % nest.slots * nest.step * nest.part), number - nest.top
        if 0 <= line < nest.h:
            pack_line(nest, x, line, out)
        else:
            for i in range(0, nest.step * nest.part, LANES):
                store(out, i, splat(np.float32(0)))
    return max(next_line, last)


@jit
def pack_line(nest, x, line, out):
    """All copies of a line of the image, for some blocks."""
    step, size = nest.step * nest.c, nest.offsets.shape[1]
    first_copy, copies = x.first * nest.terms, (x.last - x.first) * nest.terms
    for part in range(nest.step):
        first = (part - nest.left) % nest.step
        columns = (nest.w - first + nest.step - 1) // nest.step
        start, place = (line * nest.w + first) * nest.c, part * nest.part + (first + nest.left) // nest.step * LANES
        if nest.is_plain and not x.is_gated:
            for column in range(columns):
                i = start + column * step + x.first * LANES
                _copy_pixel(pointer(x.x, i), copies, pointer(out, place + column * LANES), nest.copy)
        else:
            for column in range(0, columns, PIXELS):
                i, pixels = start + column * step, min(PIXELS, columns - column)
                own_out = pointer(out, place + column * LANES)
                for n in range(copies):
                    loads, offsets = nest.loads[first_copy + n], pointer(nest.offsets, (first_copy + n) * size)
                    lanes = pointer(nest.lanes, (first_copy + n) * size * LANES)
                    if loads:
                        _gather(x, i, step, pixels, offsets, lanes, loads, pointer(own_out, n * nest.copy))
                    else:
                        _copy(x, i + offsets[0], step, pixels, pointer(own_out, n * nest.copy))


@jit
def _copy_pixel(x, vectors, out, step):
    """A pixel's vectors, to places that are `step` apart."""
    for n in range(vectors):
        store(out, n * step, load(x, n * LANES))


@jit
def _copy(x, i, step, pixels, out):
    """out (pixels, LANES) = neighbouring channels of pixels that are `step` apart."""
    i, step = opaque(i), opaque(step)
    if pixels == PIXELS and not x.is_gated:
        for pixel in range(PIXELS):  # unrolled
            store(out, pixel * LANES, load(x.x, i + pixel * step))
        return
    for pixel in range(pixels):
        value = load(x.x, i + pixel * step)
        if x.is_gated:
            value = select(load(x.gate, i + pixel * step) > 0, value, 0)
        store(out, pixel * LANES, value)


@jit
def _gather(x, i, step, pixels, offsets, lanes, loads, out):
    """out (pixels, LANES) = channels that lie anyhow, from two loads at a time."""
    i, step = opaque(i), opaque(step)
    zero = splat(np.float32(0))
    for n in range(0, loads, 2):
        first, second = offsets[n], offsets[n + 1]
        of_first, of_second = load(lanes, n * LANES) > 0, load(lanes, (n + 1) * LANES) > 0
        if pixels == PIXELS and n == 0 and not x.is_gated:
            for pixel in range(PIXELS):  # unrolled
                j = i + pixel * step
                value = load_where(x.x, j + first, of_first, zero)
                store(out, pixel * LANES, load_where(x.x, j + second, of_second, value))
            continue
        for pixel in range(pixels):
            j = i + pixel * step
            value = zero if n == 0 else load(out, pixel * LANES)
            first_lanes, second_lanes = of_first, of_second
            if x.is_gated:
                first_lanes = of_first & (load_where(x.gate, j + first, of_first, zero) > 0)
                second_lanes = of_second & (load_where(x.gate, j + second, of_second, zero) > 0)
            value = load_where(x.x, j + first, first_lanes, value)
            value = load_where(x.x, j + second, second_lanes, value)
            store(out, pixel * LANES, value)


@jit
def pack_gradient(nest, operands, start, first, last, out, bias_sums):
    """A line of dY from `start` on to (blocks, pixels, LANES), its blocks `first` to `last`, and their sums.

    Zero where it is gated and the gate is not above 0.
    """
    for column in range(0, nest.w_out, PIXELS):
        for block in range(first, last):
            i, step, channels = start + column * nest.k + block * LANES, opaque(nest.k), nest.k - block * LANES
            copy, total = pointer(out, ((block - first) * nest.w_out + column) * LANES), load(bias_sums, block * LANES)
            if column + PIXELS <= nest.w_out and channels >= LANES and not operands.is_gated:
                for pixel in range(PIXELS):  # unrolled
                    value = load(operands.dy, i + pixel * step)
                    store(copy, pixel * LANES, value)
                    total = total + value
            else:
                for pixel in range(min(PIXELS, nest.w_out - column)):
                    value = load_first(operands.dy, i + pixel * step, channels)
                    if operands.is_gated:
                        value = select(load_first(operands.gate, i + pixel * step, channels) > 0, value, 0)
                    store(copy, pixel * LANES, value)
                    total = total + value
            store(bias_sums, block * LANES, total)
