"""How direct convolution's weight gradient is computed: its register tiles, bands of output rows, copies, shares.

dweight[row, k] = sum over pixels of padded[rows[row] + pixel] * dy[pixel, k], a row being a tap and an input channel.
nnlite.conv.direct_plan is the same for the forward pass and the input gradient.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nnlite.compiler.blocking import BAND_BYTES, LINE, LINE_BYTES
from nnlite.compiler.target import LANES, MULTIPLY_ADD_CYCLES, MULTIPLY_ADD_PORTS
from nnlite.compiler.tile_shapes import TileShape, lane_tile_shape, tile_shape
from nnlite.conv.geometry import Geometry

#: multiply-adds that the processor has under way at a time. Fewer sums take as long
SUMS_IN_FLIGHT = MULTIPLY_ADD_PORTS * MULTIPLY_ADD_CYCLES
#: panels of dY that a thread has to multiply with each number of x which it packs for a matrix product, so that the
#: packing takes at most a fourth as long: a number takes about as long to pack as to multiply with one panel
PRODUCT_PANELS = 4


class WeightLoopNest(NamedTuple):
    """What the compiled loops of a weight gradient follow; the first numbers are a LoopNest's."""

    h: int
    w: int
    c: int
    top: int
    left: int
    padded_h: int
    padded_w: int
    image_in: int
    image_padded: int
    image_out: int
    groups: int
    panels: int
    group_in: int
    group_out: int
    h_out: int
    w_out: int
    line: int  # from an output row to the next, in the padded image
    pixel: int
    packed: int  # numbers of the lines of x that are packed for a tile: where its rows are neighbours, otherwise 0
    kernel_rows: int  # of which tiles read the same packed lines; 1 where each tile has its own
    dilation: int  # lines from one of these to the next
    reduced: int  # weights of an output channel: taps * input channels of a group
    batches: int  # of images that are joined
    bands: int  # of output rows of an image, reduced one after the other
    band: int  # numbers of a panel of dY for a band of a batch
    padded: int  # numbers of a batch with its borders; 0 where there are none, or lines are packed
    rows: np.ndarray  # (reduced): offset of a weight's first pixel in the padded image
    inside: np.ndarray  # (tiles, 2): output rows [from, to) that read more than padding


class WeightGradient(NamedTuple):
    """The weight gradient: dweight[row, k] = sum over pixels of padded[rows[row] + pixel] * dy[pixel, k]."""

    shape: TileShape
    nest: WeightLoopNest
    copies: int  # of the weights, each the sum over some of the pixels

    @property
    def is_packed(self) -> bool:
        """Whether dY lies as the tiles read it."""
        return self.nest.groups * self.nest.panels == 1 and self.nest.group_out == self.shape.width


def is_product(geometry: Geometry, num_threads: int) -> bool:
    """Whether the weight gradient is a matrix product of the pixels that the only tap reads, and computed as one."""
    kh, kw, _, k = geometry.weight_shape
    is_one_tap = (kh, kw, geometry.groups, geometry.pads) == (1, 1, 1, ((0, 0), (0, 0)))
    return is_one_tap and k >= PRODUCT_PANELS * num_threads * tile_shape(k).width


@lru_cache(maxsize=512)
def grad_weight(
    geometry: Geometry, num_threads: int = 1, lanes: bool = False, line_bytes: int = LINE_BYTES
) -> WeightGradient:
    """The weight gradient, on `num_threads` threads."""
    n, h, w, c = geometry.input_shape
    _, oh, ow, k = geometry.output_shape
    (top, bottom), (left, right) = geometry.pads
    kh, kw, group_in, _ = geometry.weight_shape
    (sh, sw), (dh, dw), groups = geometry.strides, geometry.dilation_rate, geometry.groups
    padded_h, padded_w = h + top + bottom, w + left + right
    image_padded, line = padded_h * padded_w * c, padded_w * c
    r, s = np.arange(kh)[:, None, None] * dh, np.arange(kw)[:, None] * dw
    rows = r * line + s * c + np.arange(group_in)  # (kh, kw, c / groups)
    run = group_in * (kw if dw == 1 and groups == 1 else 1)  # weights whose pixels are neighbours
    shape = fastest(lane_tile_shape(k // groups) if lanes else tile_shape(k // groups), rows.size, run)
    width = shape.vectors if lanes else shape.width  # output channels in a tile

    copies = num_threads
    if num_threads * rows.size * k > n * (h * w * c + oh * ow * k):
        copies = 1  # it is cheaper for each thread to see all pixels, and have some of the weights
    band_pixels = max(1, min(line_bytes // min(LINE, 4 * sw * c), BAND_BYTES // (4 * width)))
    images = max(1, band_pixels // (oh * ow))
    batches = max(1, min(n, -(-n // (images * copies)) * copies))
    bands = min(oh, max(-(-oh * ow // band_pixels), -(-copies // max(n, 1))))
    joined = -(-n // batches)

    lines = -(-oh // bands)  # of a band
    adjacent = run % shape.rows == 0  # a tile's rows are channels of a tap, or of a line of taps
    kernel_rows = kh if adjacent and sh == 1 else 1
    each = [np.broadcast_to(limit, rows.shape).ravel() for limit in _inside(r - top, h, oh, sh)]
    firsts = np.arange(0, rows.size, shape.rows)  # of a tile
    nest = WeightLoopNest(
        h=h,
        w=w,
        c=c,
        top=top,
        left=left,
        padded_h=padded_h,
        padded_w=padded_w,
        image_in=h * w * c,
        image_padded=image_padded,
        image_out=oh * ow * k,
        groups=groups,
        panels=-(-(k // groups) // width),
        group_in=group_in,
        group_out=k // groups,
        h_out=oh,
        w_out=ow,
        line=sh * line,
        pixel=sw * c,
        packed=joined * (lines + (kernel_rows - 1) * dh) * ow * shape.rows if adjacent else 0,
        kernel_rows=kernel_rows,
        dilation=dh,
        reduced=rows.size,
        batches=batches,
        bands=bands,
        band=joined * lines * ow * width,
        padded=0 if adjacent or image_padded == h * w * c else joined * image_padded,
        rows=(LANES if lanes else 1) * rows.ravel(),
        inside=np.stack([np.minimum.reduceat(each[0], firsts), np.maximum.reduceat(each[1], firsts)], axis=1),
    )
    return WeightGradient(shape, nest, copies)


def fastest(shape: TileShape, rows: int, run: int) -> TileShape:
    """The shape with at most as many rows that takes least time for all `rows`.

    Of the rows, `run` at a time are neighbours. Among equal shapes it is one of which each tile's rows are neighbours.
    """

    def cost(tall: int) -> tuple[int, bool, int]:
        return -(-rows // tall) * max(tall * shape.vectors, SUMS_IN_FLIGHT), run % tall > 0, -tall

    return TileShape(min(range(1, shape.rows + 1), key=cost), shape.vectors)


def _inside(start: np.ndarray, size: int, count: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """The first and last of `count` outputs for which output * stride + start is in an input of that size."""
    return np.clip(-(start // stride), 0, count), np.clip(-((start - size) // stride), 0, count)
