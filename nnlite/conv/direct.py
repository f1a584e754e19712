"""Direct convolution on register tiles: the sums of the definition, at the processor's rate.

Forward: a tile of some output positions x some output channels stays in registers while the loops run over taps and
input channels,

    tile[p, k] += x[p + tap, c] * weight[tap, c, k]

The input gradient is the same kernel over dY. The weight gradient is the same tile with other loops: its rows are
weights (tap, c), its columns output channels, and the reduction runs over the pixels of an image,

    tile[(tap, c), k] += x[p + tap, c] * dy[p, k]

Four things make it fast. The tile fills the registers (nnlite.simd), so that a multiply-add is all that most
instructions are. The weights of a tile's columns lie together (`_packed`), and as many of them are reduced at a time
as stay in cache. An image with padding is first copied into one with a border of zeros, and dY into one whose
channels fill whole vectors: in cache, and so almost free. Where that copy happens, the gradient through ReLU is
applied to dY on the way.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from nnlite import memory, threads
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.direct_plan import Correlation, Image, forward, grad_input
from nnlite.conv.epilogue import Epilogue
from nnlite.conv.geometry import Geometry
from nnlite.jit import ENABLED, jit, kernel
from nnlite.simd import (
    LANES,
    load_tile,
    multiply_add,
    relu,
    repeat_row,
    store_tile,
    table_rows,
    tile_shape,
)

#: bytes of dY, a tile wide, that the weight gradient reduces before it goes on to the next weights
BAND_BYTES = 1 << 18


@jit
def _pad(source, start, image, out, out_start):  # type: ignore[no-untyped-def]
    """Copy an image (h, w, c) into the middle of a zeroed one."""
    line = image.w * image.c
    for h in range(image.h):
        o = out_start + ((h + image.top) * image.padded_w + image.left) * image.c
        i = start + h * line
        for j in range(line):
            out[o + j] = source[i + j]


@jit
def _correlate_image(shape, x, x_start, weights, bias, y, y_start, plan, first_tile, last_tile, clamp):  # type: ignore[no-untyped-def]
    """The tiles `first_tile` to `last_tile` of one image: y = x correlated with the weights, + bias."""
    sizes, blocks, runs = plan.sizes, plan.blocks, plan.runs
    width = weights.shape[3]
    for group in range(sizes.groups):
        for panel in range(sizes.panels):
            column = group * sizes.group_out + panel * width  # of y
            columns = sizes.group_out - panel * width
            panel_start = (group * sizes.panels + panel) * sizes.reduction
            for block in range(blocks.size - 1):
                for t in range(first_tile, last_tile):
                    rows = table_rows(shape, t * shape.rows, sizes.positions, plan.rows_in)
                    rows_out = table_rows(shape, t * shape.rows, sizes.positions, plan.rows_out)
                    if block == 0:
                        tile = repeat_row(shape, bias, (group * sizes.panels + panel) * width)
                    else:
                        tile = load_tile(shape, y, rows_out, y_start + column, columns)
                    for run in range(blocks[block], blocks[block + 1]):
                        i = x_start + group * sizes.group_in + runs[run, 0]
                        j = (panel_start + runs[run, 1]) * width
                        for c in range(runs[run, 2]):
                            tile = multiply_add(tile, x, rows, i + c, weights, j + c * width)
                    if clamp and block == blocks.size - 2:
                        tile = relu(tile)
                    store_tile(y, rows_out, y_start + column, tile, columns)
