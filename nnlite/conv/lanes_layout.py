"""Blocks of images with an image in each SIMD lane, (pixels, channels, LANES): from images in a row, and back.

A block is LANES images. What is one number in an image is a vector here, so that a layer of few channels fills whole
vectors. Moving a block in or out is a transposition of LANES x LANES numbers at a time, in registers.
"""

from __future__ import annotations

from nnlite.jit import jit
from nnlite.simd import (
    LANES,
    load,
    load_bytes,
    load_first,
    pointer,
    select,
    splat,
    store,
    store_bytes,
    store_first,
    transpose,
)


@jit
def to_lanes(source, step, count, length, out, scratch):
    """out (length, LANES) = `length` numbers of each of `count` images, `step` apart; absent images are zeros.

    Up to LANES - 1 vectors of zeros follow.
    """
    for i in range(0, length, LANES):
        if count == LANES and i + LANES <= length:
            transpose(source, i, step, out, i * LANES, LANES)
        else:
            for image in range(LANES):
                left = length - i if image < count else 0
                store(scratch, image * LANES, load_first(source, image * step + i, left))
            transpose(scratch, 0, LANES, out, i * LANES, LANES)


@jit
def from_lanes(source, count, length, out, step, scratch):
    """Undo `to_lanes`: `length` numbers of each of the first `count` images."""
    for i in range(0, length, LANES):
        if count == LANES and i + LANES <= length:
            transpose(source, i * LANES, LANES, out, i, step)
        else:
            transpose(source, i * LANES, LANES, scratch, 0, LANES)
            for image in range(count):
                store_first(out, image * step + i, load(scratch, image * LANES), length - i)


@jit
def image_to_lanes(source, step, count, image, padded, out, scratch):
    """A block of images into lanes; if `padded`, inside a border of zeros that are there already."""
    if not padded:
        to_lanes(source, step, count, image.h * image.w * image.c, out, scratch)
        return
    line = image.w * image.c
    for h in range(image.h):  # top to bottom, so that the zeros after a line are where the next one goes
        start = ((h + image.top) * image.padded_w + image.left) * image.c
        to_lanes(pointer(source, h * line), step, count, line, pointer(out, start * LANES), scratch)


@jit
def max_pool(y, h, w, k, clamp, result, winners):
    """result (h // 2, w // 2, k, LANES) = the maxima of y's 2x2 windows, clamped at 0 if asked for.

    `winners`: which of a window's four numbers each one is. The first of equals wins, a NaN wins.
    """
    line, o = w * k, 0
    for i in range(0, h - 1, 2):
        for j in range(0, w - 1, 2):
            for channel in range(k):
                place = (i * line + j * k + channel) * LANES
                best, winner = load(y, place), splat(0)
                for number in range(1, 4):
                    value = load(y, place + (number // 2 * line + number % 2 * k) * LANES)
                    wins = (value > best) | ((value != value) & (best == best))
                    best, winner = select(wins, value, best), select(wins, number, winner)
                if clamp:
                    best = select(best < 0, 0, best)
                store(result, o, best)
                store_bytes(winners, o, winner, LANES)
                o += LANES


@jit
def spread(dresult, result, winners, h, w, k, clamp, pool, out, line_out, dbias):
    """The gradient before ReLU and pooling, in `out` (lines of `line_out` vectors), and added to the bias gradient.

    dresult and result (h, w, k, LANES). Where ReLU clamped, nothing flows; with `pool`, all flows to the winner.
    """
    o = 0
    for i in range(h):
        for j in range(w):
            for channel in range(k):
                value = load(dresult, o)
                if clamp:
                    value = select(load(result, o) > 0, value, 0)
                store(dbias, channel * LANES, load(dbias, channel * LANES) + value)
                if pool:
                    winner = load_bytes(winners, o, LANES)
                    place = (2 * i * line_out + 2 * j * k + channel) * LANES
                    for number in range(4):
                        to = place + (number // 2 * line_out + number % 2 * k) * LANES
                        store(out, to, select(winner == number, value, 0))
                else:
                    store(out, (i * line_out + j * k + channel) * LANES, value)
                o += LANES
