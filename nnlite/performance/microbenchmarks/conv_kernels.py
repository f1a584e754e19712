"""Kernels that measure the work items of compiled algorithms: the same inner loops, on arrays of no layer.

`tile_sums`, `lane_sums` and `vector_sums` run a register tile's reduction with any strides, so that a product is
measured at exactly its shape. The others repeat an algorithm's passes over cached data (transforms, copies into lanes)
on a small standard problem. Data that a step loads from or stores to the whole batch are in several `blocks` per
thread, used in turn; a workspace is the same each time.
"""

from __future__ import annotations

from nnlite.compiler.jit import jit, kernel
from nnlite.compiler.simd import LANES, pointer
from nnlite.compiler.tiles import (
    even_rows,
    load_tile,
    multiply_add,
    multiply_add_lanes,
    multiply_add_vectors,
    store_tile,
    zeros,
)
from nnlite.conv.direct_panels import add_panel, pad_images, spread_panel
from nnlite.conv.lanes_layout import add_pixels, from_lanes, max_pool, positive_to_lanes, to_lanes, unpool
from nnlite.conv.winograd_tiles import add_dx, transform_dy, transform_input, transform_output
from nnlite.kernels.dropout import drop

_MANY = 1 << 40  # rows: none overhangs


@jit
def _turn(round, part, blocks):
    """Which of all blocks a part works on: its own, one after the other."""
    return part * blocks + round % blocks


@kernel
def tile_sums(part, parts, rounds, blocks, shape, loops, x, b, y):
    """tile[m, :] += x[row m + i] * b[i, :]; the sums stay where they are if they are loaded."""
    for round in range(rounds):
        block = _turn(round, part, blocks)
        own_x, own_y = pointer(x, block * x.shape[1]), pointer(y, (part if loops.load else block) * y.shape[1])
        for batch in range(loops.batches):
            xs, bs = pointer(own_x, batch * loops.x_batch), pointer(b, batch * loops.b_batch)
            ys = pointer(own_y, batch * loops.y_batch)
            for t in range(loops.tiles):
                rows = even_rows(shape, t * shape.rows, _MANY, loops.row_step)
                rows_out = even_rows(shape, t * shape.rows, _MANY, loops.pitch)
                tile = load_tile(shape, ys, rows_out, 0, loops.width) if loops.load else zeros(shape)
                for run in range(loops.runs):
                    j = run * loops.length * loops.b_step
                    place = run * loops.run_step
                    tile = multiply_add(tile, xs, rows, place, loops.step, bs, j, loops.b_step, loops.length)
                store_tile(ys, rows_out, 0, tile, loops.width)


@kernel
def lane_sums(part, parts, rounds, blocks, shape, loops, x, b, y):
    """tile[m, v] += x[row m + i, :] * b[i, v]: a vector of images times a number."""
    for round in range(rounds):
        block = _turn(round, part, blocks)
        own_x, own_y = pointer(x, block * x.shape[1]), pointer(y, block * y.shape[1])
        for t in range(loops.tiles):
            rows = even_rows(shape, t * shape.rows, _MANY, loops.row_step)
            rows_out = even_rows(shape, t * shape.rows, _MANY, loops.pitch)
            tile = zeros(shape)
            for run in range(loops.runs):
                j = run * loops.length * loops.b_step
                place = run * loops.run_step
                tile = multiply_add_lanes(tile, own_x, rows, place, loops.step, b, j, loops.b_step, loops.length)
            store_tile(own_y, rows_out, 0, tile, loops.width)


@kernel
def vector_sums(part, parts, rounds, blocks, shape, loops, x, b, y):
    """tile[m, v] += x[row m + i, :] * b[i, v, :]: a vector of images times another."""
    own_y = pointer(y, part * y.shape[1])
    for round in range(rounds):
        own_x = pointer(x, _turn(round, part, blocks) * x.shape[1])
        for run in range(loops.runs):
            for t in range(loops.tiles):
                rows = even_rows(shape, t * shape.rows, _MANY, loops.row_step)
                rows_out = even_rows(shape, t * shape.rows, _MANY, loops.pitch)
                tile = load_tile(shape, own_y, rows_out, 0, loops.width)
                place, j = run * loops.run_step, run * loops.length * loops.b_step
                tile = multiply_add_vectors(tile, own_x, rows, place, loops.step, b, j, loops.b_step, loops.length)
                store_tile(own_y, rows_out, 0, tile, loops.width)


# Winograd's transforms: `count` tiles of images that follow one another ------------------------------------------


@kernel
def winograd_input(part, parts, rounds, blocks, count, sizes, x, v, scratch):
    own_v, own_scratch = pointer(v, part * v.shape[1]), pointer(scratch, part * scratch.shape[1])
    for round in range(rounds):
        transform_input(x, _turn(round, part, blocks) * count, count, sizes, own_v, own_scratch)


@kernel
def winograd_output(part, parts, rounds, blocks, count, sizes, m, bias, scratch, y, winners, clamp, pool):
    own_m, own_scratch = pointer(m, part * m.shape[1]), pointer(scratch, part * scratch.shape[1])
    for round in range(rounds):
        first = _turn(round, part, blocks) * count
        transform_output(own_m, first, count, sizes, bias, own_scratch, y, winners, clamp, pool)


@kernel
def winograd_dy(part, parts, rounds, blocks, count, sizes, dy, result, winners, fused, clamp, pool, scratch, dm, dbias):
    own_dm, own_scratch = pointer(dm, part * dm.shape[1]), pointer(scratch, part * scratch.shape[1])
    own_dbias = pointer(dbias, part * dbias.shape[1])
    for round in range(rounds):
        first = _turn(round, part, blocks) * count
        transform_dy(dy, result, winners, first, count, sizes, fused, clamp, pool, own_scratch, own_dm, own_dbias)


@kernel
def winograd_dx(part, parts, rounds, blocks, count, sizes, dv, scratch, dx):
    own_dv, own_scratch = pointer(dv, part * dv.shape[1]), pointer(scratch, part * scratch.shape[1])
    for round in range(rounds):
        add_dx(own_dv, _turn(round, part, blocks) * count, count, sizes, own_scratch, dx)


# Copies into and out of an image's workspace -----------------------------------------------------------------------


@kernel
def pad(part, parts, rounds, blocks, image, x, result, masked, out):
    """An image into its border of zeros."""
    own_out = pointer(out, part * out.shape[1])
    for round in range(rounds):
        block = _turn(round, part, blocks)
        pad_images(
            pointer(x, block * x.shape[1]), pointer(result, block * result.shape[1]), masked, image, 0, 1, own_out
        )


@kernel
def spread_channels(part, parts, rounds, blocks, pixels, sizes, width, dy, result, masked, out, bias):
    """Pixels of dY to whole vectors of channels."""
    own_out, own_bias = pointer(out, part * out.shape[1]), pointer(bias, part * bias.shape[1])
    for round in range(rounds):
        block = _turn(round, part, blocks)
        own, own_result = pointer(dy, block * dy.shape[1]), pointer(result, block * result.shape[1])
        for index in range(sizes.groups * sizes.panels):
            panel = pointer(own_out, index * pixels * width)
            spread_panel(own, own_result, masked, pixels, sizes, width, index, panel)
            add_panel(panel, pixels, width, pointer(own_bias, index * width))


@kernel
def block_to_lanes(part, parts, rounds, blocks, length, x, result, masked, out, scratch):
    own_out, own_scratch = pointer(out, part * out.shape[1]), pointer(scratch, part * scratch.shape[1])
    for round in range(rounds):
        place = _turn(round, part, blocks) * x.shape[1]
        if masked:
            own, own_result = pointer(x, place), pointer(result, place)
            positive_to_lanes(own, own_result, length, LANES, length, own_out, own_scratch)
        else:
            to_lanes(pointer(x, place), length, LANES, length, own_out, own_scratch)


@kernel
def block_from_lanes(part, parts, rounds, blocks, length, x, out, scratch):
    own, own_scratch = pointer(x, part * x.shape[1]), pointer(scratch, part * scratch.shape[1])
    for round in range(rounds):
        own_out = pointer(out, _turn(round, part, blocks) * out.shape[1])
        from_lanes(own, LANES, length, own_out, length, own_scratch)


# What lanes do with a block in cache -----------------------------------------------------------------------------


@kernel
def lanes_max_pool(part, parts, rounds, side, k, clamp, y, result, winners):
    own_y, own_result = pointer(y, part * y.shape[1]), pointer(result, part * result.shape[1])
    for _ in range(rounds):
        max_pool(own_y, side, side, k, clamp, own_result, pointer(winners, part * winners.shape[1]))


@kernel
def lanes_unpool(part, parts, rounds, side, k, dresult, winners, out):
    own_dresult, own_winners = pointer(dresult, part * dresult.shape[1]), pointer(winners, part * winners.shape[1])
    for _ in range(rounds):
        unpool(own_dresult, own_winners, side, side, k, pointer(out, part * out.shape[1]), 2 * side * k)


@kernel
def lanes_bias(part, parts, rounds, side, k, dy, sums):
    own_dy, own_sums = pointer(dy, part * dy.shape[1]), pointer(sums, part * sums.shape[1])
    for _ in range(rounds):
        add_pixels(own_dy, side, side, k, side * k, own_sums)


@kernel
def drop_block(part, parts, rounds, numbers, x, y, mask):
    """Dropout of numbers in cache, into a workspace."""
    own_x, own_y = pointer(x, part * x.shape[1]), pointer(y, part * y.shape[1])
    for _ in range(rounds):
        drop(own_x, own_y, 0, numbers, mask)
