"""What Winograd's transforms read and write next is fetched while products are computed, which leave memory idle.

A transform waits for memory: the lines of an image that its tiles touch are too far apart for the processor to foresee.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from nnlite.compiler.blocking import LINE
from nnlite.compiler.compilation import jit
from nnlite.compiler.simd import pointer, prefetch


class Ahead(NamedTuple):
    """Numbers that will be used soon, to be fetched into the second cache while products are computed."""

    place: Any
    begin: Any
    end: Any
    step: Any  # so many at a time


@jit
def fetch(ahead, turn):
    """Ask for the next of them, which need not exist."""
    begin = ahead.begin + turn * ahead.step
    for i in range(begin, min(begin + ahead.step, ahead.end), LINE // 4):
        prefetch(ahead.place, i)


@jit
def ahead_x(sizes, x, begin, end, turns):
    """What the input transform of some tiles reads, in so many turns; or what its transpose adds to."""
    return _ahead(sizes, x, (sizes.h, 4, sizes.top), sizes.w * sizes.c, begin, end, turns)


@jit
def ahead_y(sizes, y, pool, begin, end, turns):
    """What the output transform of some tiles writes, or its transpose reads."""
    lines = (sizes.oh // 2, 2, 0) if pool else (sizes.oh, 4, 0)
    return _ahead(sizes, y, lines, (sizes.ow // 2 if pool else sizes.ow) * sizes.k, begin, end, turns)


@jit
def _ahead(sizes, array, lines, line, begin, end, turns):
    begin = first_line(sizes, lines, begin // sizes.tiles_w) * line
    end = first_line(sizes, lines, end // sizes.tiles_w) * line
    in_line = LINE // 4
    return Ahead(pointer(array, 0), begin, end, ((end - begin) // (turns * in_line) + 1) * in_line)


@jit
def first_line(sizes, lines, row):
    """The first line of all images that no row of tiles above `row` uses alone; rows of all images count.

    `lines`: of an image, of a row of tiles, and how many of its first row are above the image.
    """
    n, row = row // (sizes.tiles // sizes.tiles_w), row % (sizes.tiles // sizes.tiles_w)
    height, step, above = lines
    return n * height + (min(height, max(0, step * row - above)) if row else 0)
