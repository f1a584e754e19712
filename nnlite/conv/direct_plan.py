"""Where things lie in memory for a direct convolution: the tables of offsets that its loops follow.

A correlation reads, for every output position and every tap, one pixel of an image. It lies at `rows_in[position] +
the tap's offset`, so that stride, dilation and padding are tables, not code. The input gradient is a correlation too:
of dY with the weights flipped and the channels swapped, for stride s as s * s phases, one for each remainder of the
position modulo s, with the taps that reach it.

Products with padding are left out where that is worth it (nnlite.conv.direct_regions).

Where few channels would leave most of a vector empty, the input gradient takes neighbouring pixels of a line together:
a block of pixels x channels is what a tile's columns are, and the block reads what any of its pixels reads, with zeros
for weights where a pixel has no such tap. For 3 channels and a 3x3 kernel, 4 pixels fill 12 lanes of 16 and 3 of the 6
taps of each are real: twice as much as 3 lanes of 16. (So a NaN or an infinity in dY reaches the whole block.)
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from nnlite.compiler.simd import LANES
from nnlite.compiler.tile_shapes import TileShape, lane_tile_shape, tile_shape
from nnlite.conv.direct_regions import ROW_TERMS, Axis, Tables, best_ways, padded, tables
from nnlite.conv.geometry import Geometry

#: the longest piece of a reduction: its panel of weights (a tile wide) and what it reads have to stay in cache
LONGEST_BLOCK = 768
#: bytes of dY, a tile wide, that the weight gradient reduces before it goes on to the next weights
BAND_BYTES = 1 << 18
#: images are joined to batches of so many positions, so that reading a panel of weights is worth it, and few tiles
#: overhang
JOINED_POSITIONS, JOINED_BYTES = 4096, 1 << 20
#: stands for the number of a tap where there is none
NO_TAP = -1


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
    """A pass over some joined images: result[rows_out[p] + k] = sum over runs of image[rows_in[p] + run] * weights.

    `rows_in`, `rows_out` and `runs` are in its tables.
    """

    shape: TileShape
    width: int  # output channels in a tile
    image: Image
    sizes: Sizes
    tables: Tables
    taps: np.ndarray  # (shifts, pixels of a block): where a tap's weights begin, in the order of the rows, or NO_TAP

    @property
    def is_panel(self) -> bool:
        """Whether the weights of a convolution, for its forward pass, lie as the tiles read them."""
        return self.sizes.groups * self.sizes.panels == 1 and self.sizes.group_out == self.width


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


def shares_of(plan: Correlation, images: int, parts: int) -> np.ndarray:
    """(parts + 1, 2): where each part's equal share of the products begins, as (panel of a batch, tile)."""
    ends = np.cumsum(plan.tables.terms + ROW_TERMS)
    units = images // plan.sizes.images * plan.sizes.groups * plan.sizes.panels
    begins = [divmod(part * units * int(ends[-1]) // parts, int(ends[-1])) for part in range(parts + 1)]
    return np.array([(unit, np.searchsorted(ends, rest, side="right")) for unit, rest in begins])


@lru_cache(maxsize=512)
def forward(geometry: Geometry, lanes: bool = False) -> Correlation:
    """The forward pass over the images of `geometry`, joined."""
    _, oh, ow, k = geometry.output_shape
    rows, columns = (_outputs(geometry, axis) for axis in (0, 1))
    return _correlation(rows, columns, geometry.input_shape[3], (oh, ow, k), geometry, lanes)


def _outputs(geometry: Geometry, axis: int) -> Axis:
    taps, dilation, (before, _) = range(geometry.weight_shape[axis]), geometry.dilation_rate[axis], geometry.pads[axis]
    return Axis(
        size=geometry.input_shape[1 + axis],
        pixels=1,
        count=geometry.output_shape[1 + axis],
        step=geometry.strides[axis],
        first_out=0,
        step_out=1,
        shifts=tuple(tap * dilation - before for tap in taps),
        taps=tuple((tap,) for tap in taps),
    )


@lru_cache(maxsize=512)
def grad_input(geometry: Geometry, lanes: bool = False) -> tuple[Correlation, ...]:
    """The phases of the input gradient over the images of `geometry`, joined. Zeros where no tap reaches a phase."""
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
        taps = tuple(tuple(taps.get(shift, NO_TAP) for taps in reach) for shift in shifts)
        phases.append(Axis(size_out, pixels, count, step_out // stride, first, step_out, tuple(shifts), taps))
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
    inside: np.ndarray  # (tiles, 4): first and last output row, and column, at which a tile reads more than padding
    images: int  # at most so many are joined
    bands: int  # of output rows of an image, reduced one after the other

    @property
    def is_panel(self) -> bool:
        """Whether dY lies as the tiles read it."""
        return self.sizes.groups * self.sizes.panels == 1 and self.sizes.group_out == self.shape.width


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
    r, s = np.arange(kh)[:, None, None] * dh, np.arange(kw)[:, None] * dw
    rows = r * line + s * c + np.arange(group_in)  # (kh, kw, c / groups)
    shape = _dividing_rows(lane_tile_shape(k // groups) if lanes else tile_shape(k // groups), rows.size, lanes)
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
    limits = [*_inside(r - top, h, oh, sh), *_inside(s - left, w, ow, sw)]
    each = [np.broadcast_to(limit, rows.shape).ravel() for limit in limits]
    firsts = np.arange(0, rows.size, shape.rows)  # of a tile
    extremes = (np.minimum, np.maximum, np.minimum, np.maximum)
    inside = np.stack([f.reduceat(limit, firsts) for f, limit in zip(extremes, each, strict=True)], axis=1)
    return WeightGradient(shape, image, sizes, (LANES if lanes else 1) * rows.ravel(), inside, images, bands)


def _dividing_rows(shape: TileShape, rows: int, lanes: bool) -> TileShape:
    """The shape with at most as many rows, so that fewest are computed in vain; but at least 3, to hide latency.

    Of those the tallest; in `lanes`, where it is no faster, the lowest, which serves more layers and is compiled once.
    """
    heights = range(min(3, shape.rows), shape.rows + 1)
    fewest = min(heights, key=lambda tall: (-(-rows // tall) * tall, tall if lanes else -tall))
    return TileShape(fewest, shape.vectors)


def _inside(start: np.ndarray, size: int, count: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """The first and last of `count` outputs for which output * stride + start is in an input of that size."""
    return np.clip(-(start // stride), 0, count), np.clip(-((start - size) // stride), 0, count)


def _correlation(
    rows: Axis, columns: Axis, c: int, result: tuple[int, int, int], geometry: Geometry, lanes: bool
) -> Correlation:
    """`c` is the number of channels that are read, `result` is (h, w, channels) of an image that is written."""
    images, groups, pixels = geometry.input_shape[0], geometry.groups, columns.pixels
    group_in, group_out = c // groups, pixels * result[2] // groups
    if lanes:
        shape, way_h, way_w = lane_tile_shape(group_out), padded(rows), padded(columns)
    else:
        shape, way_h, way_w = best_ways(rows, columns, group_in, group_out, images)
    width = shape.vectors if lanes else shape.width
    image = Image(
        rows.size, columns.size, c, way_h.before, way_w.before,
        way_h.before + rows.size + way_h.after, way_w.before + columns.size + way_w.after,
    )  # fmt: skip
    steps_in = (image.padded_h * image.padded_w * c, image.padded_w * c, c)
    steps_out = (prod(result), prod(result[1:]), result[2])
    reduction = len(rows.shifts) * len(columns.shifts) * group_in
    pieces = max(1, -(-reduction // LONGEST_BLOCK))
    blocks = [reduction * i // pieces for i in range(pieces + 1)]
    found = tables(rows, columns, (way_h, way_w), images, steps_in, steps_out, shape.rows, group_in, blocks)
    sizes = Sizes(
        images=images,
        positions=rows.count * columns.count,
        tiles=found.regions.size,
        groups=groups,
        panels=-(-group_out // width),
        reduction=reduction,
        group_in=group_in,
        group_out=group_out,
        image_in=image.h * image.w * c,
        image_padded=steps_in[0],
        image_out=steps_out[0],
    )
    if lanes:  # an element is a vector
        found = found._replace(rows_in=LANES * found.rows_in, rows_out=LANES * found.rows_out)
    taps = np.array([_taps(r, s, geometry) for (r,) in rows.taps for s in columns.taps], np.int64).reshape(-1, pixels)
    return Correlation(shape, width, image, sizes, found, taps)


def _taps(r: int, pixels: tuple[int, ...], geometry: Geometry) -> list[int]:
    """Where the weights of the taps of a kernel's row `r` begin, one for each pixel of a block."""
    _, kw, c, k = geometry.weight_shape
    return [NO_TAP if s == NO_TAP else (r * kw + s) * c * k for s in pixels]
