"""Kernels that measure the work items of compiled algorithms: the same inner loops, on arrays of no layer.

Each array is (blocks, numbers). What a step loads from or stores to the whole batch lies in several blocks per thread,
used in turn; a workspace has one block per thread, used each time.
"""

from __future__ import annotations

from nnlite.compiler.compilation import jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.reductions import multiply_add, multiply_add_lanes, multiply_add_vectors
from nnlite.compiler.simd import pointer
from nnlite.compiler.target import LANES
from nnlite.compiler.tiles import adjacent_rows, even_rows, load_tile, store_tile, zero_tile
from nnlite.conv.direct_packing import add_panel, pack_dy, pack_lines, pad_images
from nnlite.conv.lanes_layout import to_lanes
from nnlite.conv.winograd import multiply_v_dm, multiply_v_u
from nnlite.conv.winograd_tiles import add_dx, transform_dy, transform_input, transform_output, workspace_at

_MANY = 1 << 40  # rows: none overhangs


@jit
def _block(array, turn):
    """The number of the block that a thread uses in a round; `turn` is (round, thread, num_threads)."""
    round, thread, num_threads = turn
    blocks = array.shape[0] // num_threads
    return thread * blocks + round % blocks


@jit
def own_block(array, turn):
    """The block that a thread uses in a round."""
    return pointer(array, _block(array, turn) * array.shape[1])


# Products on register tiles -----------------------------------------------------------------------------------------


@jit(inline=True)
def _sums(multiply, thread, num_threads, rounds, shape, loops, x, b, y):
    """tile[m, :] += x[row m + i] * b[i, :] by `multiply`; the sums are loaded first if `loops.load`."""
    for round in range(rounds):
        own_x, own_y = own_block(x, (round, thread, num_threads)), own_block(y, (round, thread, num_threads))
        for batch in range(loops.batches):
            xs, bs = pointer(own_x, batch * loops.x_batch), pointer(b, batch * loops.b_batch)
            ys = pointer(own_y, batch * loops.y_batch)
            for t in range(loops.tiles):
                rows = even_rows(shape, t * shape.rows, _MANY, loops.row_step)
                rows_out = even_rows(shape, t * shape.rows, _MANY, loops.pitch)
                tile = load_tile(shape, ys, rows_out, 0, loops.width) if loops.load else zero_tile(shape)
                for run in range(loops.runs):
                    j = run * loops.length * loops.b_step
                    place = run * loops.run_step
                    if loops.row_step == 1:
                        place, near = place + t * shape.rows, adjacent_rows(shape)
                        tile = multiply(tile, xs, near, place, loops.step, bs, j, loops.b_step, loops.length)
                    else:
                        tile = multiply(tile, xs, rows, place, loops.step, bs, j, loops.b_step, loops.length)
                store_tile(ys, rows_out, 0, tile, loops.width)


@kernel
def tiles(thread, num_threads, rounds, shape, loops, x, b, y):
    """A number times a vector of channels."""
    _sums(multiply_add, thread, num_threads, rounds, shape, loops, x, b, y)


@kernel
def lane_tiles(thread, num_threads, rounds, shape, loops, x, b, y):
    """A vector of images times a number."""
    _sums(multiply_add_lanes, thread, num_threads, rounds, shape, loops, x, b, y)


@kernel
def vector_tiles(thread, num_threads, rounds, shape, loops, x, b, y):
    """A vector of images times another."""
    _sums(multiply_add_vectors, thread, num_threads, rounds, shape, loops, x, b, y)


# Winograd's products and transforms of an image -----------------------------------------------------------------------


@kernel
def winograd_products(thread, num_threads, rounds, shape, sizes, work):
    """M = V U of a block of tiles."""
    for round in range(rounds):
        multiply_v_u(shape, sizes, sizes.block, workspace_at(own_block(work, (round, thread, num_threads)), sizes))


@kernel
def winograd_weight_products(thread, num_threads, rounds, shape, sizes, du, work):
    """dU += V' dM."""
    for round in range(rounds):
        turn = (round, thread, num_threads)
        own = workspace_at(own_block(work, turn), sizes)
        multiply_v_dm(shape, sizes, sizes.block, own, own_block(du, turn), True)


@kernel
def winograd_input(thread, num_threads, rounds, sizes, x, work):
    for round in range(rounds):
        turn = (round, thread, num_threads)
        transform_input(sizes, own_block(x, turn), 0, sizes.tiles, workspace_at(own_block(work, turn), sizes))


@kernel
def winograd_output(thread, num_threads, rounds, sizes, bias, out, work):
    for round in range(rounds):
        turn = (round, thread, num_threads)
        first = _block(out.y, turn) * sizes.tiles
        transform_output(sizes, first, sizes.tiles, bias, workspace_at(own_block(work, turn), sizes), out)


@kernel
def winograd_dy(thread, num_threads, rounds, sizes, dy, out, is_fused, dbias, work):
    for round in range(rounds):
        turn = (round, thread, num_threads)
        first, own = _block(out.y, turn) * sizes.tiles, workspace_at(own_block(work, turn), sizes)
        transform_dy(sizes, pointer(dy, 0), out, first, sizes.tiles, own, own_block(dbias, turn), is_fused)


@kernel
def winograd_dx(thread, num_threads, rounds, sizes, dx, work):
    for round in range(rounds):
        turn = (round, thread, num_threads)
        own, lines = workspace_at(own_block(work, turn), sizes), (0, sizes.h)
        add_dx(sizes, 0, sizes.tiles, own, own_block(dx, turn), lines)


# Copies into a workspace ---------------------------------------------------------------------------------------------


@kernel
def pad(thread, num_threads, rounds, nest, x, out):
    """An image into its border of zeros."""
    for round in range(rounds):
        own = own_block(x, (round, thread, num_threads))
        pad_images(nest, own, own, False, 0, 1, own_block(out, (round, thread, num_threads)))


@kernel
def pack(thread, num_threads, rounds, shape, nest, dy, gate, is_gated, out, bias):
    """Pixels of dY to whole vectors of channels."""
    pixels = nest.h_out * nest.w_out
    for round in range(rounds):
        turn = (round, thread, num_threads)
        own_out, own_bias = own_block(out, turn), own_block(bias, turn)
        for index in range(nest.groups * nest.panels):
            panel = pointer(own_out, index * pixels * shape.width)
            pack_dy(nest, own_block(dy, turn), own_block(gate, turn), is_gated, pixels, shape.width, index, panel)
            add_panel(panel, pixels, shape.width, pointer(own_bias, index * shape.width))


@kernel
def pack_tiles(thread, num_threads, rounds, shape, nest, x, out):
    """Lines of an image for each column of tiles of a weight gradient."""
    for round in range(rounds):
        own_x, own_out = own_block(x, (round, thread, num_threads)), own_block(out, (round, thread, num_threads))
        for column in range(nest.inside.shape[0] // nest.kernel_rows):
            lines = nest.h_out + nest.kernel_rows - 1
            pack_lines(shape, nest, own_x, nest.rows[column * shape.rows], 1, lines, own_out)


@kernel
def into_lanes(thread, num_threads, rounds, length, x, out, scratch):
    """Images to lanes."""
    for round in range(rounds):
        turn = (round, thread, num_threads)
        to_lanes(own_block(x, turn), length, LANES, length, own_block(out, turn), own_block(scratch, turn))
