"""Which products of a correlation are with padding, and how not to compute them.

Positions that have the same taps inside the image form a **region**, a rectangle in each of some joined images, and
share tiles: with a 3x3 kernel and a border of zeros the middle, four edges and four corners. Where tiles of such
regions would overhang by more than is saved, the image is padded with zeros along that axis instead, and all positions
have all taps.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import groupby, pairwise, product
from typing import NamedTuple

import numpy as np

from nnlite.compiler.target import REGISTERS
from nnlite.compiler.tile_shapes import TileShape, tile_shape

#: what beginning and storing a row of a tile costs, in terms of a reduction
ROW_TERMS = 8
#: reading and writing an image to give it a border makes a pass about so much longer
PADDING_COST = 1.01


class Axis(NamedTuple):
    """One axis of a correlation: block i of outputs reads the input at i * step + each shift that is inside."""

    size: int  # of the input
    pixels: int  # of a block
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
    """How an axis is dealt with: in segments that read the input alone, or in one that reads padding too."""

    segments: tuple[Segment, ...]
    before: int = 0  # padding
    after: int = 0


class Tables(NamedTuple):
    """What the loops of a correlation follow, region by region."""

    rows_in: np.ndarray  # (tiles * rows): offset of a position in the joined images; a region's last is repeated
    rows_out: np.ndarray  # (tiles * rows)
    regions: np.ndarray  # (tiles): which region that is
    terms: np.ndarray  # (tiles): length of the reduction
    runs: np.ndarray  # (runs, 3): offset from a position's, first row of the weights' panel, length; region by region
    ends: np.ndarray  # (regions, blocks + 1): the runs of each region, block by block
    blocks: np.ndarray  # (blocks + 1): rows of the weights' panel that are reduced before the next ones are read


def segmented(axis: Axis) -> Way:
    """Neighbours with the same shifts inside the input together."""
    inside = []
    for i in range(axis.count):
        low, high = (bisect_left(axis.shifts, limit - i * axis.step) for limit in (0, axis.size))
        inside.append((low, high) if low < high else (0, 0))
    segments, first = [], 0
    for (low, high), same in groupby(inside):
        stop = first + len(list(same))
        segments.append(Segment(first, stop, low, high))
        first = stop
    return Way(tuple(segments))


def padded(axis: Axis) -> Way:
    """All blocks together, with padding where their shifts reach it."""
    before = max(0, -min(axis.shifts, default=0))
    after = max(0, (axis.count - 1) * axis.step + max(axis.shifts, default=0) + 1 - axis.size)
    return Way((Segment(0, axis.count, 0, len(axis.shifts)),), before, after)


def best_ways(rows: Axis, columns: Axis, group_in: int, group_out: int, images: int) -> tuple[TileShape, Way, Way]:
    """The tile and the ways for the two axes by which the fewest products are computed in vain."""
    low = tile_shape(group_out)
    high = TileShape(low.rows + 1, low.vectors)
    shapes = [low, high] if high.registers <= REGISTERS else [low]

    def cost(choice: tuple[TileShape, Way, Way]) -> float:
        shape, *ways = choice
        total = 0
        for h, w in product(*(way.segments for way in ways)):
            positions = images * (h.stop - h.first) * (w.stop - w.first)
            terms = (h.high - h.low) * (w.high - w.low) * group_in
            total += -(-positions // shape.rows) * shape.rows * (terms + ROW_TERMS)
        return total * (PADDING_COST if any(way.before or way.after for way in ways) else 1)

    return min(product(shapes, (segmented(rows), padded(rows)), (segmented(columns), padded(columns))), key=cost)


def tables(
    rows: Axis,
    columns: Axis,
    ways: tuple[Way, Way],
    images: int,
    steps_in: tuple[int, int, int],
    steps_out: tuple[int, int, int],
    tile_rows: int,
    group_in: int,
    blocks: list[int],
) -> Tables:
    """`steps_in` and `steps_out` lead from an image, a line and a pixel to the next, in what is read and written.

    `blocks` are the rows of the weights' panel where a block of the reduction begins, and the end of the last.
    """
    (image_in, line_in, pixel_in), (image_out, line_out, pixel_out) = steps_in, steps_out
    lines = [(shift + ways[0].before) * line_in for shift in rows.shifts]
    pixels = [(shift + ways[1].before) * pixel_in for shift in columns.shifts]
    first_out = rows.first_out * line_out + columns.first_out * pixel_out
    rows_in, rows_out, regions, terms, ends = [], [], [], [], []
    runs: list[tuple[int, int, int]] = []
    for region, (h, w) in enumerate(product(ways[0].segments, ways[1].segments)):
        n, i, j = np.arange(images)[:, None, None], np.arange(h.first, h.stop)[:, None], np.arange(w.first, w.stop)
        read = n * image_in + i * (rows.step * line_in) + j * (columns.step * pixel_in)
        written = first_out + n * image_out + i * (rows.step_out * line_out) + j * (columns.step_out * pixel_out)
        rows_in.append(_whole_tiles(read, tile_rows))
        rows_out.append(_whole_tiles(written, tile_rows))
        taps = [
            (lines[r] + pixels[s], (r * len(columns.shifts) + s) * group_in)
            for r, s in product(range(h.low, h.high), range(w.low, w.high))
        ]
        tiles = rows_in[-1].size // tile_rows
        regions += [region] * tiles
        terms += [len(taps) * group_in] * tiles
        own = _runs(taps, group_in, blocks)
        ends.append([len(runs) + bisect_left([row for _, row, _ in own], block) for block in blocks])
        runs += own
    return Tables(
        np.concatenate(rows_in),
        np.concatenate(rows_out),
        np.array(regions),
        np.array(terms),
        np.array(runs, np.int64).reshape(-1, 3),
        np.array(ends),
        np.array(blocks),
    )


def _whole_tiles(offsets: np.ndarray, tile_rows: int) -> np.ndarray:
    """The offsets one after the other, the last repeated to fill a tile."""
    return np.pad(offsets.ravel(), (0, -offsets.size % tile_rows), mode="edge")


def _runs(taps: list[tuple[int, int]], length: int, blocks: list[int]) -> list[tuple[int, int, int]]:
    """(offset, first row, length) of what lies contiguously: neighbouring taps join, and are cut where a block ends."""
    joined: list[list[int]] = []
    for offset, row in taps:
        if joined and (joined[-1][0] + joined[-1][2], joined[-1][1] + joined[-1][2]) == (offset, row):
            joined[-1][2] += length
        else:
            joined.append([offset, row, length])
    runs = []
    for offset, row, total in joined:
        cuts = [row, *(block for block in blocks if row < block < row + total), row + total]
        runs += [(offset + begin - row, begin, end - begin) for begin, end in pairwise(cuts)]
    return runs
