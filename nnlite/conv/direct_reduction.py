"""The inner loops of direct convolution's weight gradient: dW's register tiles over the pixels of a band of lines."""

from __future__ import annotations

from typing import Any, NamedTuple

from nnlite.compiler.compilation import jit
from nnlite.compiler.reductions import multiply_add
from nnlite.compiler.simd import pointer
from nnlite.compiler.tiles import adjacent_rows, even_rows, load_tile, store_tile, table_rows, zero_tile
from nnlite.conv.direct_packing import pack_lines


class Band(NamedTuple):
    """What a weight gradient's inner loops reduce: pointers, and the rows of some images."""

    x: Any  # padded, but where lines of it are packed
    lines: Any  # room for those of x that are packed
    dy: Any
    sums: Any  # (reduced, k)
    panel_step: Any  # in dy, from a panel to the next
    pixel_step: Any  # and from a pixel to the next
    images: Any
    top: Any
    bottom: Any
    is_first: Any  # whether the sums begin here


@jit
def reduce_band(shape, nest, band, first, last):
    """Tiles `first` to `last` of the sums += x dY over a band of pixels."""
    if nest.packed:
        _reduce_packed(shape, nest, band, first, last)
    else:
        _reduce_as_it_lies(shape, nest, band, first, last)


@jit
def _reduce_packed(shape, nest, band, first, last):
    """Panel after panel of each row of tiles, which reads packed lines of x.

    Where the lines lie in x, a tile reads few numbers of each cache line, and pixels fall on few sets of the first
    cache. Tiles of other kernel rows read the same packed lines.
    """
    tiles, inside = nest.inside.shape[0], nest.inside
    columns = tiles // nest.kernel_rows
    lines = band.bottom - band.top + (nest.kernel_rows - 1) * nest.dilation
    # loop 3: rows of tiles of MR weights (tap, input channel): the kernel rows of a column of tiles after each other
    for row in range(first // nest.panels, -(-last // nest.panels)):
        group, r, column = row // tiles, row % nest.kernel_rows, row % tiles // nest.kernel_rows
        t = r * columns + column
        if r == 0 or row == first // nest.panels:
            start = band.top * nest.line + nest.rows[column * shape.rows]
            source = pointer(band.x, group * nest.group_in)
            pack_lines(shape, nest, source, start, band.images, lines, band.lines)
        rows_out = even_rows(shape, t * shape.rows, nest.reduced, nest.groups * nest.group_out)
        top, bottom = max(band.top, inside[t, 0]), min(band.bottom, inside[t, 1])  # where not all is padding
        # loop 2: panels of NR output channels: a tile's sums stay in registers
        for panel in range(max(0, first - row * nest.panels), min(nest.panels, last - row * nest.panels)):
            place, left = group * nest.group_out + panel * shape.width, nest.group_out - panel * shape.width
            tile = zero_tile(shape) if band.is_first else load_tile(shape, band.sums, rows_out, place, left)
            # loop 1: images; the micro-kernel's are the pixels of their lines
            for n in range(band.images):
                i = (n * lines + top - band.top + r * nest.dilation) * nest.w_out * shape.rows
                pixel = (n * (band.bottom - band.top) + top - band.top) * nest.w_out
                j = (group * nest.panels + panel) * band.panel_step + pixel * band.pixel_step
                near, count = adjacent_rows(shape), (bottom - top) * nest.w_out
                tile = multiply_add(tile, band.lines, near, i, shape.rows, band.dy, j, band.pixel_step, count)
            store_tile(band.sums, rows_out, place, tile, left)


@jit
def _reduce_as_it_lies(shape, nest, band, first, last):
    """Panel after panel of all tiles, whose rows are no neighbours in x: dY's panel stays in the first cache."""
    tiles, inside = nest.inside.shape[0], nest.inside
    # loop 3: panels of NR output channels
    # loop 2: tiles of MR weights (tap, input channel): their sums stay in registers
    for t in range(first, last):
        index, row = t // tiles, t % tiles
        group, column = index // nest.panels, index % nest.panels * shape.width
        rows = table_rows(shape, row * shape.rows, nest.reduced, nest.rows)
        rows_out = even_rows(shape, row * shape.rows, nest.reduced, nest.groups * nest.group_out)
        place, left = group * nest.group_out + column, nest.group_out - column
        tile = zero_tile(shape) if band.is_first else load_tile(shape, band.sums, rows_out, place, left)
        # loop 1: the lines of the band that read more than padding; the micro-kernel's are their pixels
        for n in range(band.images):
            for h in range(max(band.top, inside[row, 0]), min(band.bottom, inside[row, 1])):
                i = group * nest.group_in + n * nest.image_padded + h * nest.line
                pixel = (n * (band.bottom - band.top) + h - band.top) * nest.w_out
                j = index * band.panel_step + pixel * band.pixel_step
                tile = multiply_add(tile, band.x, rows, i, nest.pixel, band.dy, j, band.pixel_step, nest.w_out)
        store_tile(band.sums, rows_out, place, tile, left)
