"""What direct convolution's loops read, packed in the order in which they read it: weights, padded images, dY."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nnlite.compiler.compilation import jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.simd import load, load_first, pointer, select, store, store_first
from nnlite.compiler.target import LANES
from nnlite.compiler.tiles import copy_column
from nnlite.compiler.transposition import transpose
from nnlite.conv.direct_plan import NO_TAP, Correlation, LoopNest
from nnlite.kernels.start_values import start_values
from nnlite.runtime import memory
from nnlite.runtime.replay import noted


class Weights(NamedTuple):
    """The weights of a convolution, unpacked, and where in them those of a correlation lie, as offsets."""

    elements: np.ndarray
    taps: np.ndarray  # (taps, pixels of a block): of each tap, or NO_TAP
    group_in: int
    group_out: int
    step_group: int  # to the next group
    step_in: int  # to the next input channel of the correlation
    step_out: int  # to its next output channel; one of the two is 1

    @classmethod
    def of(cls, plan: Correlation, weight: np.ndarray, back: bool) -> Weights:
        """Those of `plan` in weight (kh, kw, c / groups, k); `back`: of what the correlation reads, k are channels."""
        nest, k = plan.nest, weight.shape[3]
        steps = (1, k) if back else (k, 1)
        return cls(weight.reshape(-1), plan.taps, nest.group_in, nest.group_out, k // nest.groups, *steps)


def prepared(plan: Correlation, weight: np.ndarray, bias: np.ndarray | None, back: bool = False) -> LoopNest:
    """The plan's loop nest with all its panels of `weight`, zero beyond K, and what its sums begin with."""
    nest = plan.nest
    if plan.is_packed and not back:
        weights = weight.reshape(-1)
    else:
        weights = memory.empty((nest.groups * nest.panels * nest.reduction * plan.width,))
        noted(_pack_all, Weights.of(plan, weight, back), nest.groups, nest.panels, nest.reduction, plan.width, weights)
    return LoopNest(*nest[:-2], weights, start_values(bias, nest.groups, nest.panels * plan.width))


@jit
def _pack_all(b, groups, panels, reduction, nr, out):
    for group in range(groups):
        for panel in range(panels):
            place = (group * panels + panel) * reduction * nr
            pack_b(b, group, panel * nr, nr, 0, reduction, pointer(out, place))


@jit
def pack_b(b, group, column, nr, first, last, out):
    """out (last - first, NR) = terms `first` to `last` of the reductions of a group's columns from `column` on.

    What is beyond the last column is zero.
    """
    columns = b.group_out - column
    for tap in range(first // b.group_in, -(-last // b.group_in)):
        begin, end = max(first - tap * b.group_in, 0), min(last - tap * b.group_in, b.group_in)
        rows = pointer(out, (tap * b.group_in + begin - first) * nr)
        start = b.taps[tap, 0] + group * b.step_group + begin * b.step_in + column * b.step_out
        if b.taps.shape[1] > 1 or nr % LANES:
            _pack_elements(b, group, tap, column, nr, begin, end, rows)
        elif b.step_out == 1:
            _pack_rows(pointer(b.elements, start), b.step_in, end - begin, columns, nr, rows)
        else:
            _pack_columns(pointer(b.elements, start), b.step_out, end - begin, columns, nr, rows)


@jit
def _pack_elements(b, group, tap, column, nr, begin, end, rows):
    """One tap of a panel, whose columns may be pixels x channels."""
    pixels = b.taps.shape[1]
    channels = b.group_out // pixels
    for i in range(nr):
        pixel, k = (column + i) // channels, (column + i) % channels
        present = pixel < pixels and b.taps[tap, pixel] != NO_TAP
        for c in range(begin, end):
            value = np.float32(0)
            if present:
                value = b.elements[b.taps[tap, pixel] + group * b.step_group + c * b.step_in + k * b.step_out]
            rows[(c - begin) * nr + i] = value


@jit
def _pack_rows(b, step, count, columns, nr, rows):
    """rows (count, NR) from rows that are `step` apart."""
    for c in range(count):
        for i in range(0, nr, LANES):
            store(rows, c * nr + i, load_first(b, c * step + i, columns - i))


@jit
def _pack_columns(b, step, count, columns, nr, rows):
    """rows (count, NR) from columns that are `step` apart."""
    for c in range(0, count, LANES):
        for i in range(0, nr, LANES):
            if c + LANES <= count and i + LANES <= columns:
                transpose(b, i * step + c, step, rows, c * nr + i, nr)
                continue
            for j in range(c, min(c + LANES, count)):
                for k in range(i, i + LANES):
                    rows[j * nr + k] = b[k * step + j] if k < columns else np.float32(0)


@jit
def pad_images(nest, x, gate, is_gated, first, last, out):
    """Copy images `first` to `last` into ones with a border of zeros that are there already.

    If `is_gated`, with zeros where `gate`, which lies as x does, is not above 0.
    """
    line = nest.w * nest.c
    for n in range(first, last):
        source, condition = pointer(x, n * nest.h * line), pointer(gate, n * nest.h * line)
        for h in range(nest.h):
            start = (((n - first) * nest.padded_h + h + nest.top) * nest.padded_w + nest.left) * nest.c
            for j in range(0, line, LANES):
                values = load_first(source, h * line + j, line - j)
                if is_gated:
                    values = select(load_first(condition, h * line + j, line - j) > 0, values, 0)
                store_first(out, start + j, values, line - j)


@jit
def pack_lines(shape, nest, x, start, images, lines, out):
    """out (images, lines, w_out, MR) = of each pixel that a line of the output reads, the numbers of a tile's rows.

    The first pixel's are at `start` of a padded image; x has no padding. Lines of padding alone are left out.
    """
    line, padded_line = nest.w * nest.c, nest.padded_w * nest.c
    first = start % padded_line - nest.left * nest.c  # in a line of x
    # these pixels read no padding
    begin = min(max(0, -(first // nest.pixel)), nest.w_out)
    end = max(begin, min((line - first - shape.rows) // nest.pixel + 1, nest.w_out))
    for n in range(images):
        for i in range(lines):
            h = (start + i * nest.line) // padded_line - nest.top
            if h < 0 or h >= nest.h:
                continue
            source = pointer(x, n * nest.image_in + h * line + first)
            own = pointer(out, (n * lines + i) * nest.w_out * shape.rows)
            for w in range(begin, end):
                copy_column(shape, source, w * nest.pixel, own, w * shape.rows)
            for edge in range(nest.w_out - (end - begin)):
                w = edge if edge < begin else edge + end - begin
                for j in range(w * nest.pixel, w * nest.pixel + shape.rows):
                    number = source[j] if 0 <= first + j < line else np.float32(0)
                    own[w * shape.rows + j - w * nest.pixel] = number


@jit
def pack_dy(nest, dy, gate, is_gated, pixels, nr, index, out):
    """out (pixels, NR) = the columns of dY that are panel `index`, filled up to whole vectors.

    If `is_gated`, zero where `gate` is not above 0.
    """
    group, first = index // nest.panels, index % nest.panels * nr
    for p in range(pixels):
        i = (p * nest.groups + group) * nest.group_out + first
        for column in range(0, nr, LANES):
            left = nest.group_out - first - column
            if left >= LANES:  # a mask takes longer than the load
                values = load(dy, i + column)
            else:
                values = load_first(dy, i + column, left)
            if is_gated:
                values = select(load_first(gate, i + column, left) > 0, values, 0)
            store(out, p * nr + column, values)


@jit
def add_panel(panel, pixels, nr, sums):
    """sums (NR) += the pixels of a panel."""
    for p in range(pixels):
        for column in range(0, nr, LANES):
            store(sums, column, load(sums, column) + load(panel, p * nr + column))


@kernel
def add_copies(thread, num_threads, sums, dweight):
    """dweight = the sum of `sums`, added in their order: one share of its elements."""
    size = sums.shape[1]
    for i in range(thread * size // num_threads, (thread + 1) * size // num_threads, LANES):
        left = (thread + 1) * size // num_threads - i
        total = load_first(sums, i, left)
        for other in range(1, sums.shape[0]):
            total = total + load_first(sums, other * size + i, left)
        store_first(dweight, i, total, left)
