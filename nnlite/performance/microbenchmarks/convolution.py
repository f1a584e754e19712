"""The rates of compiled convolution algorithms: register tiles, transforms, copies into a workspace.

Each works on a small standard problem, on all of the kernels' threads. What it fetches from the whole batch or stores
to it (images, results) lies in as many blocks as fill the work item's working set, so that it comes from the level of
cache, or the memory, that it comes from in a step; what stays in a thread's workspace stays in its cache.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from nnlite.compiler.launch import kernel
from nnlite.compiler.target import LANES
from nnlite.compiler.tile_shapes import TileShape
from nnlite.conv.direct_plan import grad_weight
from nnlite.conv.epilogue import Output
from nnlite.conv.geometry import Geometry
from nnlite.conv.loops import Loops
from nnlite.conv.winograd_tiles import Workspace, product_shape, sizes_of, transform_weight, workspace
from nnlite.conv.work import ITEMSIZE
from nnlite.performance.microbenchmarks import conv_kernels
from nnlite.performance.microbenchmarks.base import KINDS, Kind, Work, kind
from nnlite.runtime import memory, threads

#: FLOPs, and elements transferred, per thread and sample: about a millisecond
FLOPS, NUMBERS = 1e8, 2_000_000
_SIDE = 28  # of a standard image


class Blocks:
    """The arrays of a standard problem, with `numbers` small numbers per block or thread.

    Small, so that sums over many rounds do not overflow.
    """

    def __init__(self, moved: int, working_set: int):
        """As many blocks as fill the working set, for each of which a step moves `moved` elements."""
        self.threads = threads.kernel_parts()
        self.count = max(1, working_set // (ITEMSIZE * self.threads * moved))

    def moved(self, numbers: int) -> np.ndarray:
        """An array of the whole batch."""
        return filled((self.threads * self.count, numbers))

    def own(self, numbers: int) -> np.ndarray:
        """The threads' workspaces."""
        return filled((self.threads, numbers))

    def work(
        self, function: kernel, once: float, usual: float, *rest: Any, written: tuple[np.ndarray, ...] = ()
    ) -> Work:
        """Run all blocks once, as in a step, or a single one until it has done `usual`; `once` is a block's amount.

        `written` are arrays that another kernel has just written.
        """
        rounds = self.count if self.count > 1 else max(1, round(usual / once))
        return Work(lambda: function(rounds, *rest), rounds * self.threads * float(once), own=written)


def filled(shape: tuple[int, int]) -> np.ndarray:
    array = memory.empty(shape)
    array.fill(1e-3)
    return array


# Products on register tiles -----------------------------------------------------------------------------------------


def _sums(function: kernel, size: tuple[int, ...], working_set: int) -> Work:
    loops = Loops(*size)
    shape, rows = loops.shape, loops.tiles * loops.rows
    reach = rows * loops.row_step + loops.runs * loops.run_step + loops.length * loops.step
    x_size = reach + loops.batches * loops.x_batch + LANES
    y_size = rows * loops.pitch + loops.batches * loops.y_batch + shape.width
    blocks = Blocks(x_size + y_size, working_set)
    x, y = blocks.moved(x_size), blocks.own(y_size) if loops.load else blocks.moved(y_size)
    b = filled((1, loops.terms * loops.b_step + loops.batches * loops.b_batch + shape.width))
    return blocks.work(function, 2.0 * loops.batches * rows * shape.width * loops.terms, FLOPS, shape, loops, x, b, y)


_TILES = (conv_kernels.tiles, conv_kernels.lane_tiles, conv_kernels.vector_tiles)
KINDS.update({function.__name__: Kind(partial(_sums, function), "product") for function in _TILES})


# Winograd's transforms -----------------------------------------------------------------------------------------------


class _Winograd(Blocks):
    """A block is an image, of which a step moves `pixels` pixels."""

    def __init__(self, channels: int, pixels: int, working_set: int):
        super().__init__(pixels * channels, working_set)
        sizes = sizes_of(Geometry.of((1, _SIDE + 2, _SIDE + 2, channels), (3, 3, channels, channels)))
        step = sizes.tiles * sizes.c_row + LANES
        self.sizes = sizes._replace(block=sizes.tiles, v_step=step, m_step=step)

    def transform(self, function: kernel, *rest: Any, written: tuple[np.ndarray, ...] = ()) -> Work:
        own = workspace(self.sizes, self.threads)
        own.fill(1e-3)
        once = ITEMSIZE * 36 * self.sizes.tiles * self.sizes.c_wide
        return self.work(function, once, ITEMSIZE * NUMBERS, self.sizes, *rest, own, written=written)

    def output(self, relu: int, pool: int) -> Output:
        side = _SIDE // 2 if pool else _SIDE
        y = self.moved(side * side * self.sizes.k).reshape(-1, side, side, self.sizes.k)
        return Output(y, np.zeros(y.shape, np.uint8), bool(relu), bool(pool))


@kind("product")
def winograd_products(size: tuple[int, ...], working_set: int) -> Work:
    """The 36 products of a block of tiles: V U, or V' dM, which is added to dU."""
    loops = Loops(*size)
    shape, rows, k = loops.shape, loops.tiles * loops.rows, loops.panels * loops.shape.width
    c, block = (rows, loops.length) if loops.load else (loops.length, rows)
    sizes = sizes_of(Geometry.of((1, _SIDE, _SIDE, c), (3, 3, c, k)))
    v_step, m_step = block * sizes.c_row + LANES, block * sizes.k_row + LANES
    sizes = sizes._replace(block=block, v_step=v_step, m_step=m_step, du_rows=rows)
    blocks = Blocks(1, 0)
    work = workspace(sizes, blocks.threads)
    work.fill(1e-3)
    once = 2.0 * 36 * rows * k * loops.length
    if loops.load:
        du = blocks.own(36 * sizes.k_wide * rows)
        return blocks.work(conv_kernels.winograd_weight_products, once, FLOPS, shape, sizes, du, work)
    return blocks.work(conv_kernels.winograd_products, once, FLOPS, shape, sizes, work)


@kind("cache")
def winograd_input(size: tuple[int, ...], working_set: int) -> Work:
    pixels = (_SIDE + 2) ** 2
    blocks = _Winograd(size[0], pixels, working_set)
    x = blocks.moved(pixels * size[0])
    return blocks.transform(conv_kernels.winograd_input, x, written=(x,))


@kind("cache")
def winograd_output(size: tuple[int, ...], working_set: int) -> Work:
    k, relu, pool = size
    blocks = _Winograd(k, _SIDE**2 // (4 if pool else 1), working_set)
    bias = np.zeros(blocks.sizes.k_wide, np.float32)
    return blocks.transform(conv_kernels.winograd_output, bias, blocks.output(relu, pool))


@kind("cache")
def winograd_dy(size: tuple[int, ...], working_set: int) -> Work:
    k, fused, relu, pool = size
    blocks = _Winograd(k, _SIDE**2 // (4 if pool else 1) * (1 + relu), working_set)
    out = blocks.output(relu, pool)
    dy, dbias = blocks.moved(out.y[0].size), blocks.own(blocks.sizes.k_wide)
    return blocks.transform(conv_kernels.winograd_dy, dy, out, bool(fused), dbias, written=(dy,))


@kind("cache")
def winograd_dx(size: tuple[int, ...], working_set: int) -> Work:
    pixels = (_SIDE + 2) ** 2
    blocks = _Winograd(size[0], pixels, working_set)
    return blocks.transform(conv_kernels.winograd_dx, blocks.moved(pixels * size[0]))


@kind("cache")
def winograd_weight(size: tuple[int, ...], working_set: int) -> Work:
    """Every thread transforms all weights: the time of one is that of all."""
    k, c = size[0], 16
    sizes = sizes_of(Geometry.of((1, _SIDE, _SIDE, c), (3, 3, c, k)))
    weight, u = np.ones((3, 3, c, k), np.float32), np.zeros((36, sizes.u_step), np.float32)
    work = Workspace(u, u, u, np.zeros(36 * LANES, np.float32))
    return Work(
        lambda: transform_weight(product_shape(k), sizes, weight, work), float(36 * ITEMSIZE * c * sizes.k_wide)
    )


# Copies into a workspace ---------------------------------------------------------------------------------------------


@kind("cache")
def pad(size: tuple[int, ...], working_set: int) -> Work:
    nest = grad_weight(Geometry.of((1, _SIDE, _SIDE, 16), (3, 3, 16, 1), padding="same")).nest
    blocks, numbers = Blocks(nest.image_in, working_set), nest.image_in
    x, out = blocks.moved(numbers), blocks.own(nest.image_padded)
    return blocks.work(conv_kernels.pad, ITEMSIZE * numbers, ITEMSIZE * NUMBERS, nest, x, out, written=(x,))


@kind("cache")
def pack_dy(size: tuple[int, ...], working_set: int) -> Work:
    k, gated = size
    plan = grad_weight(Geometry.of((1, _SIDE + 2, _SIDE + 2, 1), (3, 3, 1, k)))
    columns, pixels = plan.nest.panels * plan.shape.width, _SIDE * _SIDE
    blocks = Blocks(pixels * k * (1 + gated), working_set)
    dy, gate = blocks.moved(pixels * k), blocks.moved(pixels * k)
    rest = plan.shape, plan.nest, dy, gate, bool(gated), blocks.own(pixels * columns), blocks.own(columns)
    return blocks.work(conv_kernels.pack, ITEMSIZE * pixels * columns, ITEMSIZE * NUMBERS, *rest, written=(dy,))


@kind("cache")
def pack_lines(size: tuple[int, ...], working_set: int) -> Work:
    """An image's lines, for all tiles of a weight gradient."""
    channels, rows = size
    nest = grad_weight(Geometry.of((1, _SIDE + 2, _SIDE + 2, channels), (3, 3, channels, 1))).nest
    columns, packed = max(1, 3 * channels // rows), (_SIDE + 2) * _SIDE * rows  # of 3 kernel rows
    nest = nest._replace(kernel_rows=3, inside=np.zeros((3 * columns, 2), np.int64), rows=np.arange(columns * rows))
    blocks = Blocks(nest.image_in, working_set)
    x, out, shape = blocks.moved(nest.image_in), blocks.own(packed), TileShape(rows, 1)
    once = ITEMSIZE * packed * columns
    return blocks.work(conv_kernels.pack_tiles, once, ITEMSIZE * NUMBERS, shape, nest, x, out, written=(x,))


@kind("cache")
def transpose(size: tuple[int, ...], working_set: int) -> Work:
    """Images into lanes; out of them is as fast."""
    length = size[0]
    blocks, numbers = Blocks(LANES * length, working_set), LANES * length
    x, out, scratch = blocks.moved(numbers), blocks.own(LANES * (length + LANES)), blocks.own(LANES * LANES)
    function, usual = conv_kernels.into_lanes, ITEMSIZE * NUMBERS
    return blocks.work(function, ITEMSIZE * numbers, usual, length, x, out, scratch, written=(x,))
