"""Blocks of images with an image in each SIMD lane, (pixels, channels, LANES): from images in a row, and back.

A block is LANES images. What is one number in an image is a vector here, so that a layer of few channels fills whole
vectors. Moving a block in or out is a transposition of LANES x LANES numbers at a time, in registers.
"""

from __future__ import annotations

from nnlite.compiler.compilation import jit
from nnlite.compiler.simd import load, load_bytes, load_first, pointer, select, splat, store, store_bytes, store_first
from nnlite.compiler.target import LANES
from nnlite.compiler.transposition import transpose, transpose_positive


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
def positive_to_lanes(source, condition, step, count, length, out, scratch):
    """As `to_lanes`, with zero in place of numbers where `condition`, which lies as `source` does, is not above 0."""
    for i in range(0, length, LANES):
        if count == LANES and i + LANES <= length:
            transpose_positive(source, condition, i, step, out, i * LANES, LANES)
        else:
            for image in range(LANES):
                left, place = length - i if image < count else 0, image * step + i
                flowing = load_first(condition, place, left) > 0
                store(scratch, image * LANES, select(flowing, load_first(source, place, left), 0))
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
def image_to_lanes(nest, source, count, out, scratch):
    """A block of `count` images into lanes, inside a border of zeros that are there already where `nest` has one."""
    if nest.image_in == nest.image_padded:
        to_lanes(source, nest.image_in, count, nest.image_in, out, scratch)
        return
    line = nest.w * nest.c
    for h in range(nest.h):  # top to bottom, so that the zeros after a line are where the next one goes
        to_lanes(pointer(source, h * line), nest.image_in, count, line, pointer(out, _line(nest, h)), scratch)


@jit
def gradient_to_lanes(nest, source, result, relu, count, out, scratch):
    """As `image_to_lanes`; with `relu`, zero where ReLU's result is not above 0."""
    if not relu:
        image_to_lanes(nest, source, count, out, scratch)
        return
    is_padded = nest.image_in != nest.image_padded
    lines, line = (nest.h, nest.w * nest.c) if is_padded else (1, nest.image_in)
    for h in range(lines):
        d, r = pointer(source, h * line), pointer(result, h * line)
        positive_to_lanes(d, r, nest.image_in, count, line, pointer(out, _line(nest, h)), scratch)


@jit
def _line(nest, h):
    """Where line `h` of an image lies inside its border."""
    return ((h + nest.top) * nest.padded_w + nest.left) * nest.c * LANES


@jit
def max_pool(y, h, w, k, relu, result, argmax):
    """result (h // 2, w // 2, k, LANES) = the maxima of y's 2x2 windows, with a ReLU if asked for.

    `argmax`: which of a window's four numbers each one is. The first of equals wins, a NaN wins.
    """
    line, o = w * k, 0
    for i in range(0, h - 1, 2):
        for j in range(0, w - 1, 2):
            for channel in range(k):
                place = (i * line + j * k + channel) * LANES
                best, where = load(y, place), splat(0)
                for number in range(1, 4):
                    value = load(y, place + (number // 2 * line + number % 2 * k) * LANES)
                    wins = (value > best) | ((value != value) & (best == best))
                    best, where = select(wins, value, best), select(wins, number, where)
                if relu:
                    best = select(best < 0, 0, best)
                store(result, o, best)
                store_bytes(argmax, o, where, LANES)
                o += LANES


@jit
def unpool(dresult, argmax, h, w, k, out, line_out):
    """The gradient before the pooling, in `out` (lines of `line_out` vectors): each window's goes to its maximum."""
    o = 0
    for i in range(h):
        for j in range(w):
            for channel in range(k):
                value, where = load(dresult, o), load_bytes(argmax, o, LANES)
                place = (2 * i * line_out + 2 * j * k + channel) * LANES
                for number in range(4):
                    to = place + (number // 2 * line_out + number % 2 * k) * LANES
                    store(out, to, select(where == number, value, 0))
                o += LANES


@jit
def add_pixels(dy, h, w, k, line, sums):
    """sums (k, LANES) += the pixels of dy, whose lines are `line` vectors apart."""
    for i in range(h):
        for channel in range(k):
            total = load(sums, channel * LANES)
            for j in range(w):
                total = total + load(dy, (i * line + j * k + channel) * LANES)
            store(sums, channel * LANES, total)
