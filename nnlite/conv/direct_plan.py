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

from nnlite.compiler.blocking import PANEL_BYTES
from nnlite.compiler.target import LANES
from nnlite.compiler.tile_shapes import TileShape, lane_tile_shape
from nnlite.conv.direct_regions import ROW_TERMS, Axis, best_ways, padded, tables
from nnlite.conv.geometry import Geometry

#: images are joined to batches of this many positions, so that reading a panel of weights is worth it, and few tiles
#: overhang; fewer where they would take more bytes, so that they stay near while panels pass
JOINED_POSITIONS, JOINED_BYTES = 4096, 1 << 20
#: stands for the number of a tap where there is none
NO_TAP = -1
_NOTHING = np.empty(0, np.float32)


class LoopNest(NamedTuple):
    """What the compiled loops of a correlation follow: in one record, because Numba takes a microsecond for each.

    It reads images of (h, w, c), which are copied to (top, left) of zeroed ones of (padded_h, padded_w, c) where those
    are larger.
    """

    h: int
    w: int
    c: int
    top: int
    left: int
    padded_h: int
    padded_w: int
    image_in: int  # elements of an image of the input
    image_padded: int
    image_out: int
    images: int  # that are joined
    tiles: int  # that cover the positions of all joined images
    groups: int
    panels: int  # of weights a group, each a tile wide (NR)
    reduction: int  # taps * input channels of a group
    kc: int  # terms of the reduction in a block of it, at most
    group_in: int
    group_out: int  # output channels of a group, times the pixels of a block
    rows_in: np.ndarray  # these and what follows: nnlite.conv.direct_regions.Tables
    rows_out: np.ndarray
    regions: np.ndarray
    runs: np.ndarray
    ends: np.ndarray
    blocks: np.ndarray
    weights: np.ndarray  # (groups * panels * reduction * NR), packed, where that is done for all tiles beforehand
    start: np.ndarray  # (groups * panels * NR): what sums begin with, the bias or zeros; given with the weights


class Correlation(NamedTuple):
    """A pass over some joined images: result[rows_out[p] + k] = sum over runs of image[rows_in[p] + run] * weights.

    `rows_in`, `rows_out` and `runs` are tables in its loop nest.
    """

    shape: TileShape
    width: int  # output channels in a tile
    nest: LoopNest
    terms: np.ndarray  # (tiles): length of the reduction
    taps: np.ndarray  # (shifts, pixels of a block): where a tap's weights begin, in the order of the rows, or NO_TAP
    shares: dict[tuple[int, int], np.ndarray]  # by (images, threads), those that were asked for

    @property
    def is_padded(self) -> bool:
        """Whether images are copied into a border of zeros."""
        return self.nest.image_in != self.nest.image_padded

    @property
    def is_packed(self) -> bool:
        """Whether the weights of a convolution, for its forward pass, lie as the tiles read them."""
        return self.nest.groups * self.nest.panels == 1 and self.nest.group_out == self.width


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


def shares_of(plan: Correlation, images: int, num_threads: int) -> np.ndarray:
    """(num_threads + 1, 2): where each thread's equal share of the products begins, as (panel of a batch, tile)."""
    found = plan.shares.get((images, num_threads))
    if found is None:
        ends = np.cumsum(plan.terms + ROW_TERMS)
        total = images // plan.nest.images * plan.nest.groups * plan.nest.panels * int(ends[-1])
        begins = [divmod(thread * total // num_threads, int(ends[-1])) for thread in range(num_threads + 1)]
        found = np.array([(unit, np.searchsorted(ends, rest, side="right")) for unit, rest in begins])
        plan.shares[images, num_threads] = found
    return found


@lru_cache(maxsize=512)
def forward(geometry: Geometry, lanes: bool = False, panel_bytes: int = PANEL_BYTES) -> Correlation:
    """The forward pass over the images of `geometry`, joined."""
    _, oh, ow, k = geometry.output_shape
    rows, columns = (outputs(geometry, axis) for axis in (0, 1))
    return _correlation(rows, columns, geometry.input_shape[3], (oh, ow, k), geometry, lanes, panel_bytes)


def outputs(geometry: Geometry, axis: int) -> Axis:
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
def grad_input(geometry: Geometry, lanes: bool = False, panel_bytes: int = PANEL_BYTES) -> tuple[Correlation, ...]:
    """The phases of the input gradient over the images of `geometry`, joined. Zeros where no tap reaches a phase."""
    phases_h, phases_w = phases(geometry, 0, 1), phases(geometry, 1, 1 if lanes else _best_block(geometry))
    return tuple(
        _correlation(rows, columns, geometry.output_shape[3], geometry.input_shape[1:], geometry, lanes, panel_bytes)
        for rows in phases_h
        for columns in phases_w
    )


def phases(geometry: Geometry, axis: int, block: int) -> list[Axis]:
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


def _correlation(
    rows: Axis,
    columns: Axis,
    c: int,
    result: tuple[int, int, int],
    geometry: Geometry,
    lanes: bool,
    panel_bytes: int,
) -> Correlation:
    """`c` is the number of channels that are read, `result` is (h, w, channels) of an image that is written."""
    images, groups, pixels = geometry.input_shape[0], geometry.groups, columns.pixels
    group_in, group_out = c // groups, pixels * result[2] // groups
    if lanes:
        shape, way_h, way_w = lane_tile_shape(group_out), padded(rows), padded(columns)
    else:
        shape, way_h, way_w = best_ways(rows, columns, group_in, group_out, images)
    width = shape.vectors if lanes else shape.width
    padded_h, padded_w = (way.before + axis.size + way.after for way, axis in ((way_h, rows), (way_w, columns)))
    steps_in = (padded_h * padded_w * c, padded_w * c, c)
    steps_out = (prod(result), prod(result[1:]), result[2])
    reduction = len(rows.shifts) * len(columns.shifts) * group_in
    pieces = max(1, -(-reduction * 4 * shape.width // panel_bytes))
    blocks = [reduction * i // pieces for i in range(pieces + 1)]
    found = tables(rows, columns, (way_h, way_w), images, steps_in, steps_out, shape.rows, group_in, blocks)
    scale = LANES if lanes else 1  # in lanes, an element is a vector
    nest = LoopNest(
        h=rows.size,
        w=columns.size,
        c=c,
        top=way_h.before,
        left=way_w.before,
        padded_h=padded_h,
        padded_w=padded_w,
        image_in=rows.size * columns.size * c,
        image_padded=steps_in[0],
        image_out=steps_out[0],
        images=images,
        tiles=found.regions.size,
        groups=groups,
        panels=-(-group_out // width),
        reduction=reduction,
        kc=int(np.diff(blocks).max()),
        group_in=group_in,
        group_out=group_out,
        rows_in=scale * found.rows_in,
        rows_out=scale * found.rows_out,
        regions=found.regions,
        runs=found.runs,
        ends=found.ends,
        blocks=found.blocks,
        weights=_NOTHING,
        start=_NOTHING,
    )
    taps = np.array([_taps(r, s, geometry) for (r,) in rows.taps for s in columns.taps], np.int64).reshape(-1, pixels)
    return Correlation(shape, width, nest, found.terms, taps, {})


def _taps(r: int, pixels: tuple[int, ...], geometry: Geometry) -> list[int]:
    """Where the weights of the taps of a kernel's row `r` begin, one for each pixel of a block."""
    _, kw, c, k = geometry.weight_shape
    return [NO_TAP if s == NO_TAP else (r * kw + s) * c * k for s in pixels]
