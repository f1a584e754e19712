"""The sizes of Winograd's algorithm and its passes over memory: tiles of images to V and M, and back.

Every pass works on one vector of channels of one tile at a time. A tile that reaches beyond the image, or
channels that do not fill a vector, go through a small scratch array of whole vectors with zeros in place of what is
not there, so that the transforms need no bounds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from nnlite.compiler.blocking import LINE
from nnlite.compiler.compilation import jit
from nnlite.compiler.simd import (
    load,
    load_bytes,
    load_first,
    pointer,
    relu,
    select,
    splat,
    store,
    store_bytes,
    store_first,
)
from nnlite.compiler.target import LANES
from nnlite.compiler.tile_shapes import TileShape, tile_shape
from nnlite.conv.geometry import Geometry
from nnlite.conv.winograd_transforms import AT, BT, sandwich
from nnlite.runtime import memory

#: bytes of V and M of a block of tiles, and the least number of tiles that a read of U is worth
BLOCK_BYTES, LEAST_TILES = 768 << 10, 48

_bt_d_b, _add_b_dv_bt = sandwich(BT), sandwich(BT.T, adds=True)
_at_m_a, _a_dy_at = sandwich(AT), sandwich(AT.T)


class WinogradSizes(NamedTuple):
    """The numbers that the compiled loops need."""

    h: int
    w: int
    c: int
    oh: int
    ow: int
    k: int
    top: int
    left: int
    tiles_w: int
    tiles: int  # in an image
    block: int  # tiles that are transformed at a time
    c_wide: int  # channels filled up to whole panels of U
    k_wide: int
    c_row: int  # from a tile to the next, in V
    k_row: int  # and in M
    v_step: int  # from one of the 36 elements to the next, in V
    m_step: int
    tall: int  # rows of dU in tiles of the taller of its two shapes


@lru_cache(maxsize=512)
def sizes_of(geometry: Geometry, block_bytes: int = BLOCK_BYTES, least_tiles: int = LEAST_TILES) -> WinogradSizes:
    """The sizes of a problem, and of blocks of its tiles that stay in cache."""
    _, h, w, c = geometry.input_shape
    n, oh, ow, k = geometry.output_shape
    tiles_w, tiles = -(-ow // 4), -(-ow // 4) * -(-oh // 4)
    c_nr, k_nr = tile_shape(c).width, tile_shape(k).width
    c_wide, k_wide = -(-c // c_nr) * c_nr, -(-k // k_nr) * k_nr
    block = max(least_tiles, block_bytes // (36 * 4 * (c_wide + k_wide)))
    block = min(block, tiles * max(1, block // tiles), max(1, n * tiles))
    c_row, k_row = _odd_lines(c_wide), _odd_lines(k_wide)
    # a vector more than needed: otherwise the 36 elements of a tile fall on the same lines of the cache
    v_step, m_step = block * c_row + LANES, block * k_row + LANES
    (top, _), (left, _) = geometry.pads
    return WinogradSizes(
        h, w, c, oh, ow, k, top, left, tiles_w, tiles, block, c_wide, k_wide, c_row, k_row, v_step, m_step,
        gradient_shapes(c, k)[2],
    )  # fmt: skip


def _odd_lines(numbers: int) -> int:
    """So many numbers, and where they are an even number of cache lines, eight at least, one more.

    A product that sums over tiles reads a column of V and of M: with an even number of lines in a row, few sets of the
    first cache would hold it.
    """
    in_line = LINE // 4
    return numbers + in_line if numbers % (2 * in_line) == 0 and numbers >= 8 * in_line else numbers


class Workspace(NamedTuple):
    """A thread's, as pointers: V and M of a block of tiles, and 6x6 vectors.

    Of each of the 36 elements, V is (tiles, c_row) and M (tiles, k_row).
    """

    v: Any
    m: Any
    scratch: Any


def workspace(sizes: WinogradSizes, num_threads: int, more: int = 0) -> np.ndarray:
    """Memory for a workspace for each thread, with `more` numbers in front."""
    return memory.empty((num_threads, more + 36 * (sizes.v_step + sizes.m_step + LANES)))


@jit
def workspace_at(place, sizes):
    """The workspace that begins at a pointer."""
    m = pointer(place, 36 * sizes.v_step)
    return Workspace(place, m, pointer(m, 36 * sizes.m_step))


def product_shape(columns: int) -> TileShape:
    """The register tile of one of the 36 products.

    Its operands come from the second cache: a taller tile is no faster with 64 columns, and slower with 512.
    """
    shape = tile_shape(columns)
    return TileShape({4: 4, 2: 6}.get(shape.vectors, shape.rows), shape.vectors)


def gradient_shapes(rows: int, columns: int) -> tuple[TileShape, TileShape, int]:
    """The same for the product that gives dU, whose rows are channels: two shapes, and how many rows are the taller's.

    Tiles of the one and the other fill all rows: theirs differ by one, so that none is computed in vain.
    """
    shape = tile_shape(columns)
    tiles = -(-rows // shape.rows)
    lower, taller = rows // tiles, -(-rows // tiles)
    return TileShape(taller, shape.vectors), TileShape(lower, shape.vectors), rows % tiles * taller


@jit
def transform_input(sizes, x, first, count, work):
    """V = B' d B for some tiles: element (i, j) of tile t at v[(6 * i + j) * v_step + t * c_row]."""
    for t in range(count):
        n, h, w = _place(first + t, sizes)
        h, w = h - sizes.top, w - sizes.left
        image = pointer(x, n * sizes.h * sizes.w * sizes.c)
        inside = h >= 0 and w >= 0 and h + 6 <= sizes.h and w + 6 <= sizes.w
        for c in range(0, sizes.c, LANES):
            place = t * sizes.c_row + c
            if inside and c + LANES <= sizes.c:
                source = (h * sizes.w + w) * sizes.c + c
                _bt_d_b(image, source, sizes.w * sizes.c, sizes.c, work.v, place, 6 * sizes.v_step, sizes.v_step)
            else:
                _gather(pointer(image, c), h, w, 6, (sizes.h, sizes.w, sizes.c), sizes.c - c, work.scratch)
                _bt_d_b(work.scratch, 0, 6 * LANES, LANES, work.v, place, 6 * sizes.v_step, sizes.v_step)


@jit
def _place(t, sizes):
    """(image, output row, output column) where tile t begins."""
    within = t % sizes.tiles
    return t // sizes.tiles, within // sizes.tiles_w * 4, within % sizes.tiles_w * 4


@jit
def _gather(image, h, w, size, shape, left, scratch):
    """Copy size x size vectors, of `left` channels at most, of an image from (h, w) on, zero where there is none."""
    height, width, channels = shape
    for i in range(size):
        for j in range(size):
            inside = 0 <= h + i < height and 0 <= w + j < width
            values = load_first(image, ((h + i) * width + w + j) * channels, left if inside else 0)
            store(scratch, (i * size + j) * LANES, values)


@jit
def transform_output(sizes, first, count, bias, work, out):
    """y = A' M A + bias for some tiles, with ReLU and max pooling if asked for."""
    for t in range(count):
        n, h, w = _place(first + t, sizes)
        for k in range(0, sizes.k, LANES):
            place = t * sizes.k_row + k
            _at_m_a(work.m, place, 6 * sizes.m_step, sizes.m_step, work.scratch, 0, 4 * LANES, LANES)
            start, left = load(bias, k), sizes.k - k
            if out.pool:
                _pool(sizes, work.scratch, start, (n, h // 2, w // 2, k), out)
                continue
            for i in range(min(4, sizes.oh - h)):
                for j in range(min(4, sizes.ow - w)):
                    value = load(work.scratch, (4 * i + j) * LANES) + start
                    if out.relu:
                        value = relu(value)
                    store_first(out.y, (((n * sizes.oh) + h + i) * sizes.ow + w + j) * sizes.k + k, value, left)


@jit
def _pool(sizes, scratch, start, place, out):
    """The maxima of the four windows of a tile at a place (n, h, w, k), and which of a window's four each one is."""
    (n, h, w, k), height, width = place, sizes.oh // 2, sizes.ow // 2
    for i in range(min(2, height - h)):
        for j in range(min(2, width - w)):
            best, where = load(scratch, (8 * i + 2 * j) * LANES) + start, splat(0)
            for number in range(1, 4):
                value = load(scratch, (8 * i + 2 * j + number // 2 * 4 + number % 2) * LANES) + start
                wins = (value > best) | ((value != value) & (best == best))
                best, where = select(wins, value, best), select(wins, number, where)
            if out.relu:
                best = relu(best)
            o = ((n * height + h + i) * width + w + j) * sizes.k + k
            store_first(out.y, o, best, sizes.k - k)
            store_bytes(out.argmax, o, where, sizes.k - k)


@jit
def transform_dy(sizes, dy, out, first, count, work, dbias, is_fused):
    """dM = A dy A' for some tiles, dy being that before the epilogue; if there is one, its sum is added to dbias."""
    for t in range(count):
        n, h, w = _place(first + t, sizes)
        image = n * sizes.oh * sizes.ow * sizes.k
        inside = h + 4 <= sizes.oh and w + 4 <= sizes.ow
        for k in range(0, sizes.k, LANES):
            place = t * sizes.k_row + k
            if inside and k + LANES <= sizes.k and not is_fused:
                source = image + (h * sizes.ow + w) * sizes.k + k
                _a_dy_at(dy, source, sizes.ow * sizes.k, sizes.k, work.m, place, 6 * sizes.m_step, sizes.m_step)
                continue
            if out.pool:
                total = _unpool(sizes, dy, (n, h // 2, w // 2, k), out, work.scratch)
            else:
                own, left = (sizes.oh, sizes.ow, sizes.k), sizes.k - k
                _gather(pointer(dy, image + k), h, w, 4, own, left, work.scratch)
                if out.relu:
                    _mask(pointer(out.y, image + k), h, w, own, left, work.scratch)
                total = splat(0)
                for i in range(16):
                    total = total + load(work.scratch, i * LANES)
            if is_fused:
                store(dbias, k, load(dbias, k) + total)
            _a_dy_at(work.scratch, 0, 4 * LANES, LANES, work.m, place, 6 * sizes.m_step, sizes.m_step)


@jit
def _mask(y, h, w, shape, left, scratch):
    """Zero the elements of a 4x4 tile where the result of ReLU is not positive."""
    height, width, channels = shape
    for i in range(min(4, height - h)):
        for j in range(min(4, width - w)):
            o, place = ((h + i) * width + w + j) * channels, (4 * i + j) * LANES
            store(scratch, place, select(load_first(y, o, left) > 0, load(scratch, place), 0))


@jit
def _unpool(sizes, dy, place, out, scratch):
    """The 4x4 tile of the gradient before the pooling at a place (n, h, w, k): each window's goes to its maximum.

    Returns the tile's sum.
    """
    (n, h, w, k), height, width, left = place, sizes.oh // 2, sizes.ow // 2, sizes.k - place[3]
    total = splat(0)
    for i in range(2):
        for j in range(2):
            value, where = splat(0), splat(0)
            if h + i < height and w + j < width:
                o = ((n * height + h + i) * width + w + j) * sizes.k + k
                value, where = load_first(dy, o, left), load_bytes(out.argmax, o, left)
                if out.relu:
                    value = select(load_first(out.y, o, left) > 0, value, 0)
            for number in range(4):
                o = (8 * i + 2 * j + number // 2 * 4 + number % 2) * LANES
                store(scratch, o, select(where == number, value, 0))
            total = total + value
    return total


@jit
def add_dx(sizes, first, count, work, dx, lines):
    """dx += B dV B' for some tiles, which overlap, in the lines (from, to) of all images.

    The lines of an image are zeroed before its first tile.
    """
    begin, end = lines
    for t in range(count):
        n, h, w = _place(first + t, sizes)
        if h == 0 and w == 0:
            zero_lines(sizes, dx, max(begin, n * sizes.h), min(end, (n + 1) * sizes.h))
        h, w = h - sizes.top, w - sizes.left
        top = n * sizes.h + h  # the tile's first line
        i_begin, i_end = max(max(0, -h), begin - top), min(min(6, sizes.h - h), end - top)
        inside = i_begin == 0 and i_end == 6 and w >= 0 and w + 6 <= sizes.w
        for c in range(0, sizes.c, LANES):
            place, left = t * sizes.c_row + c, sizes.c - c
            start, row, column = (top * sizes.w + w) * sizes.c + c, sizes.w * sizes.c, sizes.c
            if inside and left >= LANES:
                _add_b_dv_bt(work.v, place, 6 * sizes.v_step, sizes.v_step, dx, start, row, column)
                continue
            image = pointer(dx, n * sizes.h * sizes.w * sizes.c + c)
            _gather(image, h, w, 6, (sizes.h, sizes.w, sizes.c), left, work.scratch)
            _add_b_dv_bt(work.v, place, 6 * sizes.v_step, sizes.v_step, work.scratch, 0, 6 * LANES, LANES)
            for i in range(i_begin, i_end):
                for j in range(max(0, -w), min(6, sizes.w - w)):
                    store_first(dx, start + i * row + j * column, load(work.scratch, (6 * i + j) * LANES), left)


@jit
def zero_lines(sizes, dx, begin, end):
    """Zero some lines of all images."""
    line = sizes.w * sizes.c
    for i in range(begin * line, end * line, LANES):
        store_first(dx, i, splat(0), end * line - i)
