"""Kernels that measure what the work items of compiled algorithms cost: the same inner loops, on arrays of no layer.

`tile_sums`, `lane_sums` and `vector_sums` run a register tile's reduction with any strides, so that a product is
measured at exactly its shape. The others repeat an algorithm's passes over cached data (transforms, copies into lanes)
on a small standard problem. Data that a step loads from or stores to the whole batch are in several `blocks` per
thread, used in turn; a workspace is the same each time.
"""

from __future__ import annotations

from nnlite.compiler.jit import jit, kernel
from nnlite.compiler.simd import LANES, pointer
from nnlite.compiler.tiles import (
    adjacent_rows,
    even_rows,
    load_tile,
    multiply_add,
    multiply_add_lanes,
    multiply_add_vectors,
    store_tile,
    zeros,
)
from nnlite.conv.direct_packing import add_panel, pack_dy, pad_images
from nnlite.conv.lanes_layout import add_pixels, from_lanes, max_pool, positive_to_lanes, to_lanes, unpool
from nnlite.conv.winograd_tiles import add_dx, transform_dy, transform_input, transform_output, workspace_at
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
                    if loops.row_step == 1:
                        place, near = place + t * shape.rows, adjacent_rows(shape)
                        tile = multiply_add(tile, xs, near, place, loops.step, bs, j, loops.b_step, loops.length)
                    else:
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
def winograd_input(part, parts, rounds, blocks, count, sizes, x, work):
    own = workspace_at(pointer(work, part * work.shape[1]), sizes)
    for round in range(rounds):
        transform_input(sizes, x, _turn(round, part, blocks) * count, count, own)


@kernel
def winograd_output(part, parts, rounds, blocks, count, sizes, bias, out, work):
    own = workspace_at(pointer(work, part * work.shape[1]), sizes)
    for round in range(rounds):
        transform_output(sizes, _turn(round, part, blocks) * count, count, bias, own, out)


@kernel
def winograd_dy(part, parts, rounds, blocks, count, sizes, dy, out, is_fused, dbias, work):
    own = workspace_at(pointer(work, part * work.shape[1]), sizes)
    own_dbias = pointer(dbias, part * dbias.shape[1])
    for round in range(rounds):
        transform_dy(sizes, dy, out, _turn(round, part, blocks) * count, count, own, own_dbias, is_fused)


@kernel
def winograd_dx(part, parts, rounds, blocks, count, sizes, dx, work):
    own = workspace_at(pointer(work, part * work.shape[1]), sizes)
    for round in range(rounds):
        add_dx(sizes, _turn(round, part, blocks) * count, count, own, dx)


# Copies into and out of an image's workspace -----------------------------------------------------------------------


@kernel
def pad(part, parts, rounds, blocks, nest, x, gate, is_gated, out):
    """An image into its border of zeros."""
    own_out = pointer(out, part * out.shape[1])
    for round in range(rounds):
        place = _turn(round, part, blocks) * x.shape[1]
        pad_images(nest, pointer(x, place), pointer(gate, place), is_gated, 0, 1, own_out)


@kernel
def pack_channels(part, parts, rounds, blocks, shape, nest, dy, gate, is_gated, out, bias):
    """Pixels of dY to whole vectors of channels."""
    own_out, own_bias = pointer(out, part * out.shape[1]), pointer(bias, part * bias.shape[1])
    pixels = nest.h_out * nest.w_out
    for round in range(rounds):
        place = _turn(round, part, blocks) * dy.shape[1]
        for index in range(nest.groups * nest.panels):
            panel = pointer(own_out, index * pixels * shape.width)
            pack_dy(nest, pointer(dy, place), pointer(gate, place), is_gated, pixels, shape.width, index, panel)
            add_panel(panel, pixels, shape.width, pointer(own_bias, index * shape.width))


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
def lanes_max_pool(part, parts, rounds, side, k, relu, y, result, argmax):
    own_y, own_result = pointer(y, part * y.shape[1]), pointer(result, part * result.shape[1])
    for _ in range(rounds):
        max_pool(own_y, side, side, k, relu, own_result, pointer(argmax, part * argmax.shape[1]))


@kernel
def lanes_unpool(part, parts, rounds, side, k, dresult, argmax, out):
    own_dresult, own_argmax = pointer(dresult, part * dresult.shape[1]), pointer(argmax, part * argmax.shape[1])
    for _ in range(rounds):
        unpool(own_dresult, own_argmax, side, side, k, pointer(out, part * out.shape[1]), 2 * side * k)


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
