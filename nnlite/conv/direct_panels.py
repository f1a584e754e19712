"""What direct convolution's loops read, in the order in which they read it: weights, images with a border, dY."""

from __future__ import annotations

import numpy as np

from nnlite import memory
from nnlite.conv.direct_plan import NO_TAP, Correlation
from nnlite.jit import jit, kernel
from nnlite.simd import LANES, load, load_first, pointer, select, store, store_first, transpose

#: elements from which on all threads fill the panels
PARALLEL_SIZE = 1 << 15


def panels(plan: Correlation, weight: np.ndarray, step_in: int, step_out: int) -> np.ndarray:
    """The weights in the order in which the loops read them: (groups, panels, reduction, width), zero beyond K.

    `step_in` and `step_out` lead to the next input and output channel of the correlation; one of them is 1.
    """
    sizes, width = plan.sizes, plan.width
    shape = (sizes.groups, sizes.panels, sizes.reduction, width)
    in_order = step_out == 1 and plan.taps[0, 0] == 0
    if in_order and shape[:2] == (1, 1) and width == sizes.group_out:
        return weight.reshape(shape)
    result = memory.empty(shape)
    offsets = np.where(plan.taps == NO_TAP, NO_TAP, plan.taps * (weight.shape[2] * weight.shape[3]))
    group_step = weight.shape[3] // sizes.groups
    arguments = weight.reshape(-1), offsets, sizes.group_in, sizes.group_out, group_step, step_in, step_out, result
    if result.size >= PARALLEL_SIZE:
        _fill_panels(*arguments)
    else:
        _fill_panels.serial(0, 1, *arguments)
    return result


@kernel
def _fill_panels(part, parts, weight, taps, group_in, group_out, group_step, step_in, step_out, panels):
    """One share of the taps of all panels. `taps` (taps, pixels) are offsets of the weight's taps, or NO_TAP."""
    width = panels.shape[3]
    total = panels.shape[0] * panels.shape[1] * taps.shape[0]
    for unit in range(part * total // parts, (part + 1) * total // parts):
        index, tap = unit // taps.shape[0], unit % taps.shape[0]
        group, first = index // panels.shape[1], index % panels.shape[1] * width
        rows = panels[group, index % panels.shape[1], tap * group_in : (tap + 1) * group_in]  # (group_in, width)
        start, columns = taps[tap, 0] + group * group_step + first * step_out, group_out - first
        if taps.shape[1] > 1 or width % LANES:
            channels = group_out // taps.shape[1]
            for column in range(width):
                pixel, k = (first + column) // channels, (first + column) % channels
                absent = column >= columns or taps[tap, min(pixel, taps.shape[1] - 1)] == NO_TAP
                for c in range(group_in):
                    if absent:
                        rows[c, column] = 0
                    else:
                        rows[c, column] = weight[taps[tap, pixel] + group * group_step + c * step_in + k * step_out]
        elif step_out == 1:
            for c in range(group_in):
                for column in range(0, width, LANES):
                    value = load_first(weight, start + c * step_in + column, columns - column)
                    store(rows, c * width + column, value)
        else:
            _fill_transposed(weight, start, step_out, columns, rows)


@jit
def _fill_transposed(weight, start, step_out, columns, rows):
    """rows (group_in, width): of column k what lies `step_out` after column k - 1, zero from `columns` on."""
    group_in, width = rows.shape
    for c in range(0, group_in, LANES):
        for column in range(0, width, LANES):
            if c + LANES <= group_in and column + LANES <= columns:
                transpose(weight, start + column * step_out + c, step_out, rows, c * width + column, width)
                continue
            for k in range(column, column + LANES):
                for i in range(c, min(c + LANES, group_in)):
                    rows[i, k] = weight[start + k * step_out + i] if k < columns else np.float32(0)


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
def spread_panels(dy, result, masked, pixels, sizes, width, panel_size, out, bias):
    """Copy pixels of dY panel by panel, each filled up to whole vectors, and add them to the bias gradient.

    If `masked`, zero where result <= 0.
    """
    for index in range(sizes.groups * sizes.panels):
        group, first = index // sizes.panels, index % sizes.panels * width
        for column in range(0, width, LANES):
            left = sizes.group_out - first - column
            total = load(bias, index * width + column)
            for p in range(pixels):
                i = (p * sizes.groups + group) * sizes.group_out + first + column
                values = load_first(dy, i, left)
                if masked:
                    values = select(load_first(result, i, left) > 0, values, 0)
                store(out, index * panel_size + p * width + column, values)
                total = total + values
            store(bias, index * width + column, total)


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
