"""What direct convolution's loops read, in the order in which they read it: weights, images with a border, dY."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nnlite.compiler.jit import jit, kernel
from nnlite.compiler.simd import LANES, load, load_first, pointer, select, store, store_first
from nnlite.compiler.transposition import transpose
from nnlite.conv.direct_plan import NO_TAP, Correlation, Image, Sizes
from nnlite.conv.direct_regions import Tables
from nnlite.runtime import memory


class Layout(NamedTuple):
    """Where the weights of a correlation lie, as offsets into the weights of the convolution."""

    taps: np.ndarray  # (taps, pixels of a block): of each tap, or NO_TAP
    group_in: int
    group_out: int
    step_group: int  # to the next group
    step_in: int  # to the next input channel of the correlation
    step_out: int  # to its next output channel; one of the two is 1


def layout(plan: Correlation, weight: np.ndarray, step_in: int, step_out: int) -> Layout:
    """The layout of what `plan` calls its taps and channels in an array (kh, kw, c / groups, k)."""
    sizes = plan.sizes
    return Layout(plan.taps, sizes.group_in, sizes.group_out, weight.shape[3] // sizes.groups, step_in, step_out)


def panels(plan: Correlation, weight: np.ndarray, step_in: int, step_out: int) -> np.ndarray:
    """All panels: (groups, panels, reduction, width), zero beyond K."""
    result = memory.empty((plan.sizes.groups, plan.sizes.panels, plan.sizes.reduction, plan.width))
    _fill_panels(weight.reshape(-1), layout(plan, weight, step_in, step_out), result)
    return result


class Prepared(NamedTuple):
    """A correlation with its weights: what kernels need to compute it, besides the shape of its tiles."""

    image: Image
    sizes: Sizes
    tables: Tables
    weights: np.ndarray  # (groups, panels, reduction, width)
    start: np.ndarray  # (groups, panels * width): the bias, or zeros


def prepared(plan: Correlation, weight: np.ndarray, bias: np.ndarray | None, back: bool = False) -> Prepared:
    """`plan` with all its panels of `weight` (kh, kw, c / groups, k); `back`: of what it reads, k are the channels."""
    sizes = plan.sizes
    if plan.is_panel and not back:
        weights = weight.reshape(1, 1, sizes.reduction, plan.width)
    else:
        weights = panels(plan, weight, *((1, weight.shape[3]) if back else (weight.shape[3], 1)))
    start = start_values(bias, sizes.groups, sizes.panels * plan.width)
    return Prepared(plan.image, sizes, plan.tables, weights, start)


def start_values(bias: np.ndarray | None, groups: int, columns: int) -> np.ndarray:
    """What sums begin with: the bias (k), or zeros, filled up to (groups, columns)."""
    if bias is not None and bias.size == groups * columns:
        return bias.reshape(groups, columns)
    result = np.zeros((groups, columns), np.float32)
    if bias is not None:
        result[:, : bias.size // groups] = bias.reshape(groups, -1)
    return result


@jit
def _fill_panels(weight, layout, panels):
    for group in range(panels.shape[0]):
        for panel in range(panels.shape[1]):
            width = panels.shape[3]
            out = pointer(panels[group, panel], 0)
            fill_panel(weight, layout, group, panel * width, width, 0, panels.shape[2], out)


@jit
def fill_panel(weight, layout, group, column, width, first, last, out):
    """out (last - first, width) = terms `first` to `last` of the reductions of a group's columns from `column` on.

    What is beyond the last column is zero.
    """
    columns = layout.group_out - column
    for tap in range(first // layout.group_in, -(-last // layout.group_in)):
        begin, end = max(first - tap * layout.group_in, 0), min(last - tap * layout.group_in, layout.group_in)
        rows = pointer(out, (tap * layout.group_in + begin - first) * width)
        start = layout.taps[tap, 0] + group * layout.step_group + begin * layout.step_in + column * layout.step_out
        if layout.taps.shape[1] > 1 or width % LANES:
            _fill_elements(weight, layout, group, tap, column, width, begin, end, rows)
        elif layout.step_out == 1:
            _fill_rows(weight, start, layout.step_in, end - begin, columns, width, rows)
        else:
            _fill_transposed(weight, start, layout.step_out, end - begin, columns, width, rows)


@jit
def _fill_elements(weight, layout, group, tap, column, width, begin, end, rows):
    """One tap of a panel, whose columns may be pixels x channels."""
    pixels = layout.taps.shape[1]
    channels = layout.group_out // pixels
    for i in range(width):
        pixel, k = (column + i) // channels, (column + i) % channels
        present = pixel < pixels and layout.taps[tap, pixel] != NO_TAP
        for c in range(begin, end):
            value = np.float32(0)
            if present:
                start = layout.taps[tap, pixel] + group * layout.step_group
                value = weight[start + c * layout.step_in + k * layout.step_out]
            rows[(c - begin) * width + i] = value


@jit
def _fill_rows(weight, start, step, count, columns, width, rows):
    """rows (count, width) from rows that are `step` apart."""
    for c in range(count):
        for i in range(0, width, LANES):
            store(rows, c * width + i, load_first(weight, start + c * step + i, columns - i))


@jit
def _fill_transposed(weight, start, step, count, columns, width, rows):
    """rows (count, width) from columns that are `step` apart."""
    for c in range(0, count, LANES):
        for i in range(0, width, LANES):
            if c + LANES <= count and i + LANES <= columns:
                transpose(weight, start + i * step + c, step, rows, c * width + i, width)
                continue
            for j in range(c, min(c + LANES, count)):
                for k in range(i, i + LANES):
                    rows[j * width + k] = weight[start + k * step + j] if k < columns else np.float32(0)


@jit
def pad_images(x, result, masked, image, first, last, out):
    """Copy images `first` to `last` into ones with a border of zeros that are there already.

    If `masked`, with zeros where result <= 0.
    """
    line = image.w * image.c
    for n in range(first, last):
        source, condition = pointer(x, n * image.h * line), pointer(result, n * image.h * line)
        for h in range(image.h):
            start = (((n - first) * image.padded_h + h + image.top) * image.padded_w + image.left) * image.c
            for j in range(0, line, LANES):
                values = load_first(source, h * line + j, line - j)
                if masked:
                    values = select(load_first(condition, h * line + j, line - j) > 0, values, 0)
                store_first(out, start + j, values, line - j)


@jit
def spread_panel(dy, result, masked, pixels, sizes, width, index, out):
    """out (pixels, width) = the columns of dY that are panel `index`, filled up to whole vectors.

    If `masked`, zero where result <= 0.
    """
    group, first = index // sizes.panels, index % sizes.panels * width
    for p in range(pixels):
        i = (p * sizes.groups + group) * sizes.group_out + first
        for column in range(0, width, LANES):
            left = sizes.group_out - first - column
            values = load_first(dy, i + column, left)
            if masked:
                values = select(load_first(result, i + column, left) > 0, values, 0)
            store(out, p * width + column, values)


@jit
def add_panel(panel, pixels, width, sums):
    """sums (width) += the pixels of a panel."""
    for p in range(pixels):
        for column in range(0, width, LANES):
            store(sums, column, load(sums, column) + load(panel, p * width + column))


@kernel
def add_parts(part, parts, sums, dweight):
    """dweight = the sum of `sums`, added in their order: one share of its elements."""
    size = sums.shape[1]
    for i in range(part * size // parts, (part + 1) * size // parts, LANES):
        left = (part + 1) * size // parts - i
        total = load_first(sums, i, left)
        for other in range(1, sums.shape[0]):
            total = total + load_first(sums, other * size + i, left)
        store_first(dweight, i, total, left)
