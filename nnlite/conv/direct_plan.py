"""Where things lie in memory for a direct convolution: the tables of offsets that its loops follow.

A correlation reads, for every output position and every tap, one pixel of an image. It lies at `rows_in[position] +
the tap's offset`, so that stride, dilation and padding are tables, not code. The input gradient is a correlation too:
of dY with the weights flipped and the channels swapped, for stride s as s * s phases, one for each remainder of the
position modulo s, with the taps that reach it.

Near a border some taps fall on padding, and products with its zeros need not be computed. Positions that have the same
taps inside the image form a **region**, a rectangle in each of some joined images, and share tiles: with a 3x3 kernel
the middle, four edges and four corners. Where tiles of such regions would overhang by more than is saved, the image is
padded with zeros along that axis instead, and all positions have all taps.

Where few channels would leave most of a vector empty, the input gradient takes neighbouring pixels of a line together:
a block of pixels x channels is what a tile's columns are, and the block reads what any of its pixels reads, with zeros
for weights where a pixel has no such tap. For 3 channels and a 3x3 kernel, 4 pixels fill 12 lanes of 16 and 3 of the 6
taps of each are real: twice as much as 3 lanes of 16. (So a NaN or an infinity in dY reaches the whole block.)
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from itertools import groupby, pairwise, product
from typing import NamedTuple

import numpy as np

from nnlite.conv.geometry import Geometry
from nnlite.simd import LANES, REGISTERS
from nnlite.tiles import TileShape, lane_tile_shape, tile_shape

#: the longest piece of a reduction: its panel of weights (a tile wide) and what it reads have to stay in cache
LONGEST_BLOCK = 768
#: bytes of dY, a tile wide, that the weight gradient reduces before it goes on to the next weights
BAND_BYTES = 1 << 18
#: images are joined to batches of so many positions, so that reading a panel of weights is worth it, and few tiles
#: overhang
JOINED_POSITIONS, JOINED_BYTES = 4096, 1 << 20
#: what beginning and storing a row of a tile costs, in terms of a reduction; and copying an image into a padded one, as
#: a factor
ROW_TERMS, PADDING_COST = 8, 1.01
#: stands for the number of a tap where there is none
NO_TAP = -1


class Axis(NamedTuple):
    """One axis of a correlation: block i of outputs reads the input at i * step + each shift that is inside."""

    size: int  # of the input
    count: int  # type: ignore[assignment]  # of blocks
    step: int  # from block to block in the input
    first_out: int  # where block 0 lies in the result
    step_out: int
    shifts: tuple[int, ...]  # ascending
    taps: tuple[tuple[int, ...], ...]  # (shifts, pixels of a block): which tap of the weights that is, or NO_TAP


class Segment(NamedTuple):
    """Blocks `first` to `stop` of an axis, that use its shifts number `low` to `high`."""

    first: int
    stop: int
    low: int
    high: int


class Way(NamedTuple):
    """How an axis is dealt with: in segments that read nothing but the input, or in one that reads padding too."""

    segments: list[Segment]
    before: int  # padding
    after: int


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

    images: int  # that are joined
    positions: int  # output positions (of blocks) in an image
    tiles: int  # that cover the positions of all joined images
    groups: int
    panels: int  # of weights a group, each a tile wide
    reduction: int  # taps * input channels of a group
    group_in: int
    group_out: int  # output channels of a group, times the pixels of a block
    image_in: int  # elements of an image of the input
    image_padded: int
    image_out: int


class Correlation(NamedTuple):
    """A pass over some joined images: result[rows_out[p] + k] = sum over runs of image[rows_in[p] + run] * weights."""

    shape: TileShape
    width: int  # output channels in a tile
    image: Image
    sizes: Sizes
    rows_in: np.ndarray  # (tiles * rows): offset of a position in the joined images; a region's last is repeated
    rows_out: np.ndarray  # (tiles * rows)
    regions: np.ndarray  # (tiles): which region that is
    terms: np.ndarray  # (tiles): length of the reduction
    runs: np.ndarray  # (runs, 3): offset from a position's, first row of the weights' panel, length; region by region
    ends: np.ndarray  # (regions, blocks + 1): the runs of each region, block by block
    blocks: np.ndarray  # (blocks + 1): rows of the weights' panel that are reduced before the next ones are read
    taps: np.ndarray  # (shifts, pixels of a block): which of the weight's taps, in the order of the rows, or NO_TAP


@lru_cache(maxsize=512)
def batches(geometry: Geometry) -> tuple[tuple[int, int, Geometry], ...]:
    """Which images are joined: (first, last, geometry of a batch) of equal batches, and of one that is left over."""
    (n, h, w, c), (_, oh, ow, k) = geometry.input_shape, geometry.output_shape
    if n == 0:
        return ()
    most = max(1, min(JOINED_POSITIONS // (oh * ow), JOINED_BYTES // (4 * max(h * w * c, oh * ow * k))))
    even = -(-n // -(-n // most))
    joined = next((count for count in range(most, most // 2, -1) if n % count == 0), even)
    whole = n // joined * joined
    pieces = (0, whole, geometry.with_batch(joined)), (whole, n, geometry.with_batch(n - whole))
    return tuple(piece for piece in pieces if piece[0] < piece[1])


@lru_cache(maxsize=512)
def forward(geometry: Geometry, lanes: bool = False) -> Correlation:
    """The forward pass over the images of `geometry`, joined."""
    _, oh, ow, k = geometry.output_shape
    rows, columns = (
        Axis(size, count, stride, 0, 1, tuple(tap * dilation - pads[0] for tap in taps), tuple((tap,) for tap in taps))
        for size, count, stride, dilation, pads, taps in zip(
            geometry.input_shape[1:3],
            geometry.output_shape[1:3],
            geometry.strides,
            geometry.dilation_rate,
            geometry.pads,
            map(range, geometry.weight_shape[:2]),
            strict=True,
        )
    )
    return _correlation(rows, columns, geometry.input_shape[3], (oh, ow, k), geometry, lanes)


@lru_cache(maxsize=512)
def grad_input(geometry: Geometry, lanes: bool = False) -> tuple[Correlation, ...]:
    """The phases of the input gradient that any tap reaches, over the images of `geometry`, joined."""
    phases_h, phases_w = _phases(geometry, 0, 1), _phases(geometry, 1, 1 if lanes else _best_block(geometry))
    return tuple(
        _correlation(rows, columns, geometry.output_shape[3], geometry.input_shape[1:], geometry, lanes)
        for rows in phases_h
        for columns in phases_w
    )


def _phases(geometry: Geometry, axis: int, block: int) -> list[Axis]:
    """The phases of the input gradient along an axis.

    Blocks of several pixels are multiples of the stride, and hold all phases.
    """
    stride, size, size_out = geometry.strides[axis], geometry.input_shape[1 + axis], geometry.output_shape[1 + axis]
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
            phases.append(Axis(size_out, count, step_out // stride, first, step_out, tuple(shifts), taps))
    return phases


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
    shape = lane_tile_shape(k // groups) if lanes else tile_shape(k // groups)
    width = shape.vectors if lanes else shape.width  # output channels in a tile
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
    rows: Axis, columns: Axis, c: int, result: tuple[int, int, int], geometry: Geometry, lanes: bool
) -> Correlation:
    """`c` is the number of channels that are read, `result` is (h, w, channels) of an image that is written."""
    images, groups, pixels = geometry.input_shape[0], geometry.groups, len(columns.taps[0])
    h_out, w_out, c_out = result
    group_in, group_out = c // groups, pixels * c_out // groups
    shape, width, (way_h, way_w) = _best_ways(rows, columns, group_in, group_out, images, lanes)
    image = Image(
        rows.size, columns.size, c, way_h.before, way_w.before,
        way_h.before + rows.size + way_h.after, way_w.before + columns.size + way_w.after,
    )  # fmt: skip
    line, image_out = image.padded_w * c, h_out * w_out * c_out
    image_padded = image.padded_h * line
    reduction = len(rows.shifts) * len(columns.shifts) * group_in
    pieces = -(-reduction // LONGEST_BLOCK)
    blocks = np.array([reduction * i // pieces for i in range(pieces + 1)])
    lines = [(shift + way_h.before) * line for shift in rows.shifts]
    pixels_in = [(shift + way_w.before) * c for shift in columns.shifts]
    rows_in, rows_out, regions, terms, ends = [], [], [], [], []
    runs: list[tuple[int, int, int]] = []
    for region, (part_h, part_w) in enumerate(product(way_h.segments, way_w.segments)):
        places = [np.arange(images), np.arange(part_h.first, part_h.stop), np.arange(part_w.first, part_w.stop)]
        rows_in.append(_places(places, (image_padded, rows.step * line, columns.step * c), 0, shape))
        first_out = (rows.first_out * w_out + columns.first_out) * c_out
        rows_out.append(
            _places(places, (image_out, rows.step_out * w_out * c_out, columns.step_out * c_out), first_out, shape)
        )
        taps = [
            (lines[i] + pixels_in[j], (i * len(columns.shifts) + j) * group_in)
            for i in range(part_h.low, part_h.high)
            for j in range(part_w.low, part_w.high)
        ]
        tiles = len(rows_in[-1]) // shape.rows
        regions += [region] * tiles
        terms += [len(taps) * group_in] * tiles
        own = _runs(taps, group_in, blocks)
        ends.append(len(runs) + np.searchsorted([row for _, row, _ in own], blocks))
        runs += own
    unit = LANES if lanes else 1  # numbers of an element
    sizes = Sizes(
        images=images,
        positions=rows.count * columns.count,
        tiles=len(regions),
        groups=groups,
        panels=-(-group_out // width),
        reduction=reduction,
        group_in=group_in,
        group_out=group_out,
        image_in=image.h * image.w * c,
        image_padded=image_padded,
        image_out=image_out,
    )
    return Correlation(
        shape,
        width,
        image,
        sizes,
        unit * np.concatenate(rows_in),
        unit * np.concatenate(rows_out),
        np.array(regions),
        np.array(terms),
        np.array(runs).reshape(-1, 3),
        np.array(ends),
        blocks,
        np.array([_taps_of(r, s, geometry) for r in rows.taps for s in columns.taps]),
    )


def _taps_of(row: tuple[int, ...], column: tuple[int, ...], geometry: Geometry) -> list[int]:
    """The numbers of the taps of a kernel's row and of its columns, one for each pixel of a block."""
    return [NO_TAP if s == NO_TAP else row[0] * geometry.weight_shape[1] + s for s in column]


def _places(places: list[np.ndarray], steps: tuple[int, int, int], first: int, shape: TileShape) -> np.ndarray:
    """Offsets of (images, rows, columns); the last is repeated to fill a tile."""
    n, h, w = (place * step for place, step in zip(places, steps, strict=True))
    offsets = (first + n[:, None, None] + h[:, None] + w).ravel()
    return np.pad(offsets, (0, -offsets.size % shape.rows), mode="edge")


def _best_ways(
    rows: Axis, columns: Axis, group_in: int, group_out: int, images: int, lanes: bool
) -> tuple[TileShape, int, tuple[Way, Way]]:
    """(tile, output channels in it, how the two axes are dealt with): what computes the fewest products in vain."""
    if lanes:
        shape = lane_tile_shape(group_out)
        return shape, shape.vectors, (_padded(rows), _padded(columns))
    low = tile_shape(group_out)
    high = TileShape(low.rows + 1, low.vectors)
    shapes = [low, high] if high.rows * high.vectors + high.vectors + 1 <= REGISTERS else [low]
    ways = product(shapes, ([_segmented(rows), _padded(rows)]), ([_segmented(columns), _padded(columns)]))

    def cost(choice: tuple[TileShape, Way, Way]) -> float:
        shape, way_h, way_w = choice
        total = 0.0
        for part_h, part_w in product(way_h.segments, way_w.segments):
            positions = images * (part_h.stop - part_h.first) * (part_w.stop - part_w.first)
            terms = (part_h.high - part_h.low) * (part_w.high - part_w.low) * group_in
            total += -(-positions // shape.rows) * shape.rows * (terms + ROW_TERMS)
        return total * (PADDING_COST if any(way.before or way.after for way in (way_h, way_w)) else 1)

    shape, way_h, way_w = min(ways, key=cost)
    return shape, shape.width, (way_h, way_w)


def _segmented(axis: Axis) -> Way:
    inside = []
    for i in range(axis.count):
        low, high = (bisect_left(axis.shifts, limit - i * axis.step) for limit in (0, axis.size))
        inside.append((low, high) if low < high else (0, 0))
    segments, first = [], 0
    for (low, high), same in groupby(inside):
        stop = first + len(list(same))
        segments.append(Segment(first, stop, low, high))
        first = stop
    return Way(segments, 0, 0)


def _padded(axis: Axis) -> Way:
    before = max(0, -axis.shifts[0])
    after = max(0, (axis.count - 1) * axis.step + axis.shifts[-1] + 1 - axis.size)
    return Way([Segment(0, axis.count, 0, len(axis.shifts))], before, after)


def _runs(taps: list[tuple[int, int]], length: int, blocks: np.ndarray) -> list[tuple[int, int, int]]:
    """(offset, first row, length) of what lies contiguously: neighbouring taps join, and are cut where a block ends."""
    joined: list[list[int]] = []
    for offset, row in taps:
        if joined and (joined[-1][0] + joined[-1][2], joined[-1][1] + joined[-1][2]) == (offset, row):
            joined[-1][2] += length
        else:
            joined.append([offset, row, length])
    runs = []
    for offset, row, total in joined:
        cuts = [row, *(cut for cut in blocks.tolist() if row < cut < row + total), row + total]
        runs += [(offset + begin - row, begin, end - begin) for begin, end in pairwise(cuts)]
    return runs
