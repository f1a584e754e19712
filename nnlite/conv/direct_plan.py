"""Where things lie in memory for a direct convolution: the tables of offsets that its loops follow.

A correlation reads, for every output position and every tap, one pixel of an image that was padded with zeros. Both
lie at `rows[position] + runs[tap]`, so that stride, dilation and padding are tables, not code. The input gradient is
a correlation too: of dY with the weights flipped and the channels swapped, for stride s as s * s phases, one for
each remainder of the position modulo s, with the taps that reach it.

Where few channels would leave most of a vector empty, the input gradient takes neighbouring pixels of a line together:
a block of pixels x channels is what a tile's columns are, and the block reads what any of its pixels reads, with zeros
for weights where a pixel has no such tap. For 3 channels and a 3x3 kernel, 4 pixels fill 12 lanes of 16 and 3 of the 6
taps of each are real: twice as much as 3 lanes of 16. (So a NaN or an infinity in dY reaches the whole block.)
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from nnlite.conv.geometry import Geometry
from nnlite.simd import LANES, REGISTERS
from nnlite.tiles import TileShape, lane_tile_shape, tile_shape

#: the longest piece of a reduction: its panel of weights (a tile wide) and what it reads have to stay in cache
LONGEST_BLOCK = 768
#: bytes of dY, a tile wide, that the weight gradient reduces before it goes on to the next weights
BAND_BYTES = 1 << 18
#: small images are joined to batches of so many positions, so that reading a panel of weights is worth it
JOINED_POSITIONS, JOINED_BYTES = 1024, 1 << 20
#: stands for the number of a tap where there is none
NO_TAP = -1


class Axis(NamedTuple):
    """One axis of a correlation: block i of outputs reads the padded input at i * step + shift of each tap."""

    count: int  # type: ignore[assignment]  # of blocks
    step: int  # from block to block in the padded input
    first_out: int  # where block 0 lies in the result
    step_out: int
    shifts: tuple[int, ...]  # ascending
    taps: tuple[tuple[int, ...], ...]  # (shifts, pixels of a block): which tap of the weights that is, or NO_TAP


class Image(NamedTuple):
    """An image of (h, w, c), copied to (top, left) of a zeroed one of (padded_h, padded_w, c)."""

    h: int
    w: int
    c: int
    top: int
    left: int
    padded_h: int
    padded_w: int

    @property
    def is_padded(self) -> bool:
        return (self.h, self.w) != (self.padded_h, self.padded_w)


class Sizes(NamedTuple):
    """The numbers that the compiled loops of a correlation need."""

    positions: int  # output positions (of blocks) in an image
    tiles: int  # of rows of the register tile that cover them
    groups: int
    panels: int  # of weights a group, each a tile wide
    reduction: int  # taps * input channels of a group
    group_in: int
    group_out: int  # output channels of a group, times the pixels of a block
    image_in: int  # elements of an image of the input
    image_padded: int
    image_out: int


class Correlation(NamedTuple):
    """A pass as a correlation: result[rows_out[p] + k] = sum over runs of padded[rows_in[p] + run] * weights."""

    shape: TileShape
    width: int  # output channels in a tile
    image: Image
    sizes: Sizes
    images: int  # at most so many are joined
    rows_in: np.ndarray  # (images * positions): offset of a position's first tap in the padded images
    rows_out: np.ndarray  # (images * positions)
    runs: np.ndarray  # (runs, 3): offset in the padded image, first row of the weights' panel, length
    blocks: np.ndarray  # (blocks + 1): runs that are reduced before the next weights are read
    taps: np.ndarray  # (shifts, pixels of a block): where a tap's weights begin, in the order of the runs, or NO_TAP


def _tiling(columns: int, lanes: bool) -> tuple[TileShape, int]:
    """The register tile for so many output channels, and how many of them it holds.

    Its vectors are of channels or, with `lanes`, of images, so that each channel has a vector of its own.
    """
    shape = lane_tile_shape(columns) if lanes else tile_shape(columns)
    return shape, shape.vectors if lanes else shape.width


def _fewest_rows(shape: TileShape, positions: int) -> TileShape:
    """The shape, or that with a row more if the registers hold it and fewer rows are computed in vain."""
    taller = TileShape(shape.rows + 1, shape.vectors)
    fits = taller.rows * taller.vectors + taller.vectors + 1 <= REGISTERS
    saves = -(-positions // taller.rows) * taller.rows < -(-positions // shape.rows) * shape.rows
    return taller if fits and saves else shape


def _dividing_rows(shape: TileShape, rows: int) -> TileShape:
    """The shape with at most as many rows, so that fewest are computed in vain; but at least 3, to hide latency."""
    fewest = min(range(min(3, shape.rows), shape.rows + 1), key=lambda tall: (-(-rows // tall) * tall, -tall))
    return TileShape(fewest, shape.vectors)


@lru_cache(maxsize=512)
def forward(geometry: Geometry, lanes: bool = False) -> Correlation:
    """The forward pass. `geometry` is of one image."""
    _, h, w, c = geometry.input_shape
    _, oh, ow, k = geometry.output_shape
    (top, bottom), (left, right) = geometry.pads
    (kh, kw), (sh, sw), (dh, dw) = geometry.weight_shape[:2], geometry.strides, geometry.dilation_rate
    rows = Axis(oh, sh, 0, 1, tuple(r * dh for r in range(kh)), tuple((r,) for r in range(kh)))
    columns = Axis(ow, sw, 0, 1, tuple(s * dw for s in range(kw)), tuple((s,) for s in range(kw)))
    image = Image(h, w, c, top, left, h + top + bottom, w + left + right)
    return _correlation(rows, columns, image, (oh, ow, k), geometry, lanes)


@lru_cache(maxsize=512)
def grad_input(geometry: Geometry, lanes: bool = False) -> tuple[Correlation, ...]:
    """The phases of the input gradient that any tap reaches. `geometry` is of one image."""
    _, h, w, c = geometry.input_shape
    _, oh, ow, k = geometry.output_shape
    phases_h, top, padded_h = _phases(geometry, 0, h, oh, 1)
    phases_w, left, padded_w = _phases(geometry, 1, w, ow, 1 if lanes else _best_block(geometry))
    image = Image(oh, ow, k, top, left, padded_h, padded_w)
    return tuple(
        _correlation(rows, columns, image, (h, w, c), geometry, lanes) for rows in phases_h for columns in phases_w
    )


def _phases(geometry: Geometry, axis: int, size: int, size_out: int, block: int) -> tuple[list[Axis], int, int]:
    """The phases of the input gradient along an axis, dY's padding before it, and its padded size.

    Blocks of several pixels are multiples of the stride, and hold all phases.
    """
    stride = geometry.strides[axis]
    if block == 1:
        pieces = [(phase, 1, stride, -(-(size - phase) // stride)) for phase in range(min(stride, size))]
    else:
        pieces = [(0, block, block, size // block)]
    phases = []
    for first, pixels, step_out, count in pieces:
        reach = [_reach(geometry, axis, i) for i in range(first, first + pixels)]
        shifts = sorted(set().union(*reach))
        if shifts:
            taps = tuple(tuple(taps.get(shift, NO_TAP) for taps in reach) for shift in shifts)
            phases.append(Axis(count, step_out // stride, first, step_out, tuple(shifts), taps))
    if not phases:  # every output reads nothing but padding
        return [], 0, size_out
    before = max(0, -min(phase.shifts[0] for phase in phases))
    after = max(0, max((phase.count - 1) * phase.step + phase.shifts[-1] for phase in phases) + 1 - size_out)
    shifted = [phase._replace(shifts=tuple(shift + before for shift in phase.shifts)) for phase in phases]
    return shifted, before, before + size_out + after


def _reach(geometry: Geometry, axis: int, i: int) -> dict[int, int]:
    """{output: the tap by which it reads input i}.

    y[o] reads x[o * stride + r * dilation - pad], so x[i] gets from y[(i + pad - r * dilation) / stride] where that
    is whole.
    """
    stride, dilation, pad = geometry.strides[axis], geometry.dilation_rate[axis], geometry.pads[axis][0]
    distances = {r: i + pad - r * dilation for r in range(geometry.weight_shape[axis])}
    return {distance // stride: r for r, distance in distances.items() if distance % stride == 0}


def _best_block(geometry: Geometry) -> int:
    """How many neighbouring pixels of the input gradient should share a vector: a divisor of its width that wastes
    least of it.
    """
    w, c = geometry.input_shape[2:]
    stride = geometry.strides[1]
    if geometry.groups > 1:
        return 1

    def useful(pixels: int) -> float:
        """The share of a tile's products that are not with zeros."""
        reach = [_reach(geometry, 1, i) for i in range(pixels)]
        return c * sum(map(len, reach)) / (LANES * len(set().union(*reach)))

    blocks = [pixels for pixels in range(stride, LANES // c + 1, stride) if w % pixels == 0]
    return max((block for block in blocks if useful(block) > c / LANES), key=useful, default=1)


class WeightGradient(NamedTuple):
    """The weight gradient: dweight[row, k] = sum over pixels of padded[rows[row] + pixel] * dy[pixel, k]."""

    shape: TileShape
    image: Image
    sizes: WeightSizes
    rows: np.ndarray  # (kh * kw * c / groups): offset of a weight's first pixel in the padded image
    images: int  # at most so many are joined
    bands: int  # of output rows of an image, reduced one after the other


class WeightSizes(NamedTuple):
    """The numbers that the compiled loops of a weight gradient need."""

    h_out: int
    w_out: int
    line: int  # from an output row to the next, in the padded image
    pixel: int
    groups: int
    panels: int
    group_in: int
    group_out: int
    reduced: int  # weights of an output channel: taps * input channels of a group
    image_in: int
    image_padded: int
    image_out: int


@lru_cache(maxsize=512)
def grad_weight(geometry: Geometry, lanes: bool = False) -> WeightGradient:
    """The weight gradient. `geometry` is of one image."""
    _, h, w, c = geometry.input_shape
    _, oh, ow, k = geometry.output_shape
    (top, bottom), (left, right) = geometry.pads
    kh, kw, group_in, _ = geometry.weight_shape
    (sh, sw), (dh, dw), groups = geometry.strides, geometry.dilation_rate, geometry.groups
    image = Image(h, w, c, top, left, h + top + bottom, w + left + right)
    line = image.padded_w * c
    rows = (  # (kh, kw, c / groups)
        np.arange(kh)[:, None, None] * dh * line + np.arange(kw)[:, None] * dw * c + np.arange(group_in)
    )
    shape, width = _tiling(k // groups, lanes)
    shape = _dividing_rows(shape, rows.size)
    panels = -(-(k // groups) // width)
    sizes = WeightSizes(
        h_out=oh,
        w_out=ow,
        line=sh * line,
        pixel=sw * c,
        groups=groups,
        panels=panels,
        group_in=group_in,
        group_out=k // groups,
        reduced=rows.size,
        image_in=h * w * c,
        image_padded=image.padded_h * line,
        image_out=oh * ow * k,
    )
    band_pixels = BAND_BYTES // (4 * width)
    images = max(1, min(band_pixels // (oh * ow), JOINED_BYTES // (4 * sizes.image_padded)))
    bands = min(oh, -(-oh * ow // band_pixels))
    return WeightGradient(shape, image, sizes, (LANES if lanes else 1) * rows.ravel(), images, bands)


def _correlation(
    rows: Axis, columns: Axis, image: Image, result: tuple[int, int, int], geometry: Geometry, lanes: bool
) -> Correlation:
    h_out, w_out, c_out = result
    groups, (_, kernel_width, tap_in, tap_out) = geometry.groups, geometry.weight_shape
    block = len(columns.taps[0])
    group_in, group_out = image.c // groups, block * c_out // groups
    pixel, line = image.c, image.padded_w * image.c
    rows_in = np.arange(rows.count)[:, None] * rows.step * line + np.arange(columns.count) * columns.step * pixel
    lines_out = rows.first_out + np.arange(rows.count) * rows.step_out
    pixels_out = columns.first_out + np.arange(columns.count) * columns.step_out
    rows_out = (lines_out[:, None] * w_out + pixels_out) * c_out
    runs = _runs([i * line + j * pixel for i in rows.shifts for j in columns.shifts], group_in)
    taps = [
        [NO_TAP if s == NO_TAP else (r * kernel_width + s) * tap_in * tap_out for s in pixels]
        for (r,) in rows.taps
        for pixels in columns.taps
    ]
    positions = rows.count * columns.count
    shape, width = _tiling(group_out, lanes)
    if not lanes:
        shape = _fewest_rows(shape, positions)
    unit = LANES if lanes else 1  # numbers of an element
    sizes = Sizes(
        positions=positions,
        tiles=-(-positions // shape.rows),
        groups=groups,
        panels=-(-group_out // width),
        reduction=len(taps) * group_in,
        group_in=group_in,
        group_out=group_out,
        image_in=image.h * image.w * image.c,
        image_padded=image.padded_h * line,
        image_out=h_out * w_out * c_out,
    )
    images = 1 if lanes else max(1, min(JOINED_POSITIONS // positions, JOINED_BYTES // (4 * sizes.image_padded)))
    first = np.arange(images)[:, None]  # of each image
    return Correlation(
        shape,
        width,
        image,
        sizes,
        images,
        unit * (first * sizes.image_padded + rows_in.ravel()).ravel(),
        unit * (first * sizes.image_out + rows_out.ravel()).ravel(),
        np.array(runs),
        _blocks(runs),
        np.array(taps),
    )


def _runs(offsets: list[int], length: int) -> list[tuple[int, int, int]]:
    """(offset, first row, length) of what lies contiguously: neighbouring taps join, what is too long is cut."""
    joined: list[list[int]] = []
    for offset in offsets:
        if joined and joined[-1][0] + joined[-1][1] == offset:
            joined[-1][1] += length
        else:
            joined.append([offset, length])
    runs, row = [], 0
    for start, total in joined:
        pieces = -(-total // LONGEST_BLOCK)
        cuts = [total * i // pieces for i in range(pieces + 1)]
        for begin, end in pairwise(cuts):
            runs.append((start + begin, row, end - begin))
            row += end - begin
    return runs


def _blocks(runs: list[tuple[int, int, int]]) -> np.ndarray:
    """Where a new block of runs begins, so that no block is longer than LONGEST_BLOCK."""
    blocks, length = [0], 0
    for i, (_, _, run) in enumerate(runs):
        if length + run > LONGEST_BLOCK:
            blocks.append(i)
            length = 0
        length += run
    return np.array([*blocks, len(runs)])
