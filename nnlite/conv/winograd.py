"""Winograd's F(4x4, 3x3): a 3x3 convolution with 36 multiplications where the definition has 144.

A 4x4 tile of the output comes from a 6x6 tile of the input (Lavin and Gray 2015, arXiv:1509.09308, equation 12). With
d a tile of the input, g the weights between an input and an output channel, and * element by element,

    V = B' d B,   U = G g G',   M = sum over input channels of V * U,   y = A' M A

For each of the 36 elements of a tile the sum over channels, for all tiles, is a matrix product (tiles x channels)
@ (channels x output channels), done on register tiles. Tiles are taken a block at a time, so that V and M stay in
cache.

Each step is linear, so the gradients are the same steps transposed, in reverse, and share the transformed dY:

    dM = A dy A',   dV = sum over output channels of dM * U,   dx += B dV B'    (tiles overlap and add up)
                    dU = sum over tiles of V * dM,             dweight = G' dU G

What follows the convolution (bias, ReLU, 2x2 max pooling) happens between A' M A and the store: a tile holds exactly
four pooling windows. Only the place of each window's maximum is remembered (0 to 3, first of equals, a NaN wins), so
the tensor before the pooling never exists, forward or backward.

The transforms cost accuracy: the interpolation points 2 and -2 make numbers up to 100 times larger than the result.
Measured over random geometries, the largest error of an element, relative to the result's root mean square, was 2e-5
with 32 input channels, 3.4e-5 with up to 70 and 6e-5 with 512, against some 3e-6 for the direct sum; it grows as the
root of the number of terms, and `error_bound` declares about four times that.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, ClassVar, NamedTuple

import numpy as np

from nnlite.compiler.compilation import ENABLED, jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.reductions import multiply_add
from nnlite.compiler.simd import opaque, pointer
from nnlite.compiler.target import LANES
from nnlite.compiler.tiles import adjacent_rows, even_rows, load_tile, store_tile, zero_tile
from nnlite.conv import checks, work_compiled, work_pair
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.epilogue import Epilogue, Fused, Gradients, Output
from nnlite.conv.geometry import Geometry
from nnlite.conv.pair import FusedPair
from nnlite.conv.parameters import Parameters
from nnlite.conv.winograd_fetch import ahead_x, ahead_y, fetch, first_line
from nnlite.conv.winograd_tiles import (
    BLOCK_BYTES,
    LEAST_TILES,
    WinogradSizes,
    add_dx,
    gradient_shapes,
    product_shape,
    sizes_of,
    transform_dy,
    transform_input,
    transform_output,
    workspace,
    workspace_at,
    zero_lines,
)
from nnlite.conv.winograd_weights import transformed, weight_gradient
from nnlite.conv.work import WorkItem
from nnlite.kernels.start_values import start_values
from nnlite.runtime import memory, threads
from nnlite.runtime.replay import filled, summed

_NOTHING, _NO_BYTES = np.empty((0, 0, 0, 0), np.float32), np.empty((0, 0, 0, 0), np.uint8)
_NO_U = np.empty((0, 0), np.float32)


class Winograd(Algorithm):
    """3x3 kernels with stride 1, with bias, ReLU and 2x2 max pooling in the output transform. float32."""

    name = "winograd"
    dtypes = (np.float32,)
    pair_module, pair_first = "nnlite.conv.winograd_pair", "direct"
    fewer_multiplications = True
    parameters: ClassVar[Parameters] = {
        "block_bytes": (BLOCK_BYTES // 4, BLOCK_BYTES // 2, BLOCK_BYTES, 2 * BLOCK_BYTES),
        "least_tiles": (LEAST_TILES // 2, LEAST_TILES, 2 * LEAST_TILES),
    }
    block_bytes, least_tiles = BLOCK_BYTES, LEAST_TILES

    def supports(self, geometry: Geometry) -> str | None:
        if not ENABLED:
            return "its kernels need Numba's compiler, which NUMBA_DISABLE_JIT=1 switches off"
        if geometry.weight_shape[:2] != (3, 3):
            return "F(4x4, 3x3) is for 3x3 kernels"
        if (geometry.strides, geometry.dilation_rate, geometry.groups) != ((1, 1), (1, 1), 1):
            return "F(4x4, 3x3) is for stride 1 without dilation or groups"
        return None

    def error_bound(self, geometry: Geometry, pass_name: str, dtype: Any = np.float32) -> float:
        n, oh, ow, k = geometry.output_shape
        terms = {"forward": geometry.input_shape[3], "grad_input": k, "grad_weight": n * -(-oh // 4) * -(-ow // 4)}
        return 6e-5 + 6e-6 * sqrt(terms[pass_name])

    def work(self, geometry: Geometry, pass_name: str, epilogue: Epilogue | None = None) -> list[WorkItem] | None:
        if self.supports(geometry):
            return None
        return work_compiled.winograd(geometry, pass_name, epilogue, self.sizes(geometry))

    def sizes(self, geometry: Geometry) -> WinogradSizes:
        return sizes_of(geometry, self.block_bytes, self.least_tiles)

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _run_forward(x, weight, None, geometry, Epilogue(), self.sizes(geometry)).result

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        dx, _, _ = _gradients(None, weight, dy, _alone(dy), geometry, self.sizes(geometry), False)
        assert dx is not None
        return dx

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        _, dweight, _ = _gradients(x, None, dy, _alone(dy), geometry, self.sizes(geometry), False)
        assert dweight is not None
        return dweight

    def backward(
        self, x: np.ndarray, weight: np.ndarray, dy: np.ndarray, geometry: Geometry, needs: tuple[bool, bool]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        asked = x if needs[1] else None, weight if needs[0] else None
        return _gradients(*asked, dy, _alone(dy), geometry, self.sizes(geometry), False)[:2]

    def fuses(self, geometry: Geometry, epilogue: Epilogue) -> bool:
        return self.supports(geometry) is None

    def forward_fused(
        self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, epilogue: Epilogue
    ) -> Fused:
        return _run_forward(x, weight, bias, geometry, epilogue, self.sizes(geometry))

    def backward_fused(
        self, ran: Fused, dresult: np.ndarray, geometry: Geometry, epilogue: Epilogue, needs: tuple[bool, bool, bool]
    ) -> Gradients:
        asked = ran.x if needs[1] else None, ran.weight if needs[0] else None
        argmax = checks.argmax(ran.residuals, ran.result.shape) if epilogue.pool else _NO_BYTES
        out = Output(ran.result, argmax, epilogue.relu, epilogue.pool)
        is_fused = bool(needs[2]) or epilogue.relu or epilogue.pool
        dx, dweight, dbias = _gradients(*asked, dresult, out, geometry, self.sizes(geometry), is_fused)
        return dx, dweight, dbias if needs[2] else None

    def work_pair(self, pair: FusedPair, pass_name: str) -> list[WorkItem] | None:
        return work_pair.winograd(pair, pass_name)


def output(geometry: Geometry, epilogue: Epilogue) -> Output:
    """Not yet written."""
    shape = epilogue.result_shape(geometry.output_shape)
    argmax = memory.empty(shape, np.uint8) if epilogue.pool else _NO_BYTES
    return Output(memory.empty(shape), argmax, epilogue.relu, epilogue.pool)


def _alone(dy: np.ndarray) -> Output:
    """The output of a convolution that nothing follows, for its backward pass."""
    return Output(dy, _NO_BYTES, False, False)


# The 36 products -----------------------------------------------------------------------------------------------


class Product(NamedTuple):
    """c (m, n) = a (m, k) @ U (k, n), for each of the 36 elements of a tile."""

    m: Any
    n: Any
    k: Any
    row: Any  # in a, from a row to the next
    row_out: Any  # and in c
    a_step: Any  # from an element to the next
    c_step: Any


@jit
def multiply(shape, product, a, u, c, one, other):
    """A block's products, in BLIS's loops: none around these, as V and M of a block stay in cache.

    What the transforms need next, the `one` and the `other`, is fetched meanwhile.
    """
    m, n, nr, turn = product.m, product.n, shape.width, 0
    for f in range(36):
        own_a, own_c = pointer(a, f * product.a_step), pointer(c, f * product.c_step)
        for column in range(0, n, nr):  # loop 2: a panel of NR columns of U, which stays in the first cache
            panel = f * u.shape[1] + column * product.k
            fetch(one, turn)
            fetch(other, turn)
            turn += 1
            for first in range(0, m, shape.rows):  # loop 1: MR rows of a
                rows_a = even_rows(shape, first, m, product.row)
                rows_c = even_rows(shape, first, m, product.row_out)
                tile = multiply_add(zero_tile(shape), own_a, rows_a, 0, 1, u, panel, nr, product.k)
                store_tile(own_c, rows_c, column, tile, nr)


@jit
def multiply_v_u(shape, sizes, count, u, work, one, other):
    """M = sum over input channels of V * U, for a block of tiles."""
    product = Product(count, sizes.k_wide, sizes.c, sizes.c_row, sizes.k_row, sizes.v_step, sizes.m_step)
    multiply(shape, product, work.v, u, work.m, one, other)


@jit
def multiply_dm_u(shape, sizes, count, u, work, one, other):
    """dV = sum over output channels of dM * U, for a block of tiles."""
    product = Product(count, sizes.c_wide, sizes.k, sizes.k_row, sizes.c_row, sizes.m_step, sizes.v_step)
    multiply(shape, product, work.m, u, work.v, one, other)


@jit
def multiply_v_dm(taller, lower, sizes, count, work, du, step, adds, one, other):
    """dU = sum over a block of tiles of V * dM, or +=. A tile's rows are channels."""
    nr, turn = taller.width, 0
    for f in range(36):
        v, m = pointer(work.v, f * sizes.v_step), pointer(work.m, f * sizes.m_step)
        for column in range(0, sizes.k_wide, nr):
            fetch(one, turn)
            fetch(other, turn)
            turn += 1
            own_m, panel = pointer(m, column), pointer(du, f * step + column * sizes.c)
            for first in range(0, sizes.tall, taller.rows):
                _add_v_dm(taller, sizes, count, v, first, own_m, panel, adds)
            for first in range(sizes.tall, sizes.c, lower.rows):
                _add_v_dm(lower, sizes, count, v, first, own_m, panel, adds)


@jit
def _add_v_dm(shape, sizes, count, v, first, m, panel, adds):
    """A tile of dU."""
    nr = shape.width
    rows = even_rows(shape, first, sizes.c, nr)
    tile = load_tile(shape, panel, rows, 0, nr) if adds else zero_tile(shape)
    tile = multiply_add(tile, v, adjacent_rows(shape), first, opaque(sizes.c_row), m, 0, opaque(sizes.k_row), count)
    store_tile(panel, rows, 0, tile, nr)


# Forward -------------------------------------------------------------------------------------------------------


def _run_forward(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    geometry: Geometry,
    epilogue: Epilogue,
    sizes: WinogradSizes,
) -> Fused:
    num_threads = threads.kernel_parts()
    start, out, work = start_values(bias, 1, sizes.k_wide), output(geometry, epilogue), workspace(sizes, num_threads)
    u = transformed(weight, False, num_threads)
    _forward.run(num_threads, product_shape(sizes.k), sizes, x, u, start, out, work)
    return Fused(x, weight, out.y, out.argmax)


@kernel
def _forward(thread, num_threads, shape, sizes, x, u, bias, out, work):
    """One share of the tiles of all images."""
    total = x.shape[0] * sizes.tiles
    begin, end = thread * total // num_threads, (thread + 1) * total // num_threads
    own = workspace_at(pointer(work, thread * work.shape[1]), sizes)
    for first in range(begin, end, sizes.block):
        count = min(sizes.block, end - first)
        transform_input(sizes, x, first, count, own)
        after, turns = first + count, 36 * (sizes.k_wide // shape.width)
        y = ahead_y(sizes, out.y, out.pool, first, after, turns)
        next_x = ahead_x(sizes, x, after, min(after + sizes.block, end), turns)
        multiply_v_u(shape, sizes, count, u, own, next_x, y)
        transform_output(sizes, first, count, bias, own, out)


# Both gradients ------------------------------------------------------------------------------------------------


class Operands(NamedTuple):
    """Of a backward pass; what no gradient is asked for of is empty."""

    x: np.ndarray
    u: np.ndarray  # of the weights with channels swapped
    dy: np.ndarray  # the gradient of the result after the epilogue
    dx: np.ndarray
    du: np.ndarray  # (threads, 36, k_wide * c), in panels as U: sums over a thread's tiles
    dbias: np.ndarray  # (threads, k_wide), or twice as many, the second half to be ignored


def _gradients(
    x: np.ndarray | None,
    weight: np.ndarray | None,
    dy: np.ndarray,
    out: Output,
    geometry: Geometry,
    sizes: WinogradSizes,
    is_fused: bool,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """(dx, dweight, dbias): dx if given the weight, dweight if given x, dbias if `is_fused`, as what follows needs."""
    num_threads = threads.kernel_parts()
    dx, u = _NOTHING, _NO_U
    if weight is not None:
        dx, u = memory.empty(geometry.input_shape), transformed(weight, True, num_threads)
    du = memory.empty((num_threads if x is not None else 0, 36, sizes.k_wide * sizes.c + LANES))
    dbias = filled((2 * num_threads, sizes.k_wide), np.float32, 0)
    operands = Operands(_NOTHING if x is None else x, u, dy, dx, du, dbias)
    shapes = product_shape(sizes.c), *gradient_shapes(sizes.c, sizes.k)[:2]
    _backward.run(num_threads, *shapes, sizes, operands, out, is_fused, workspace(sizes, num_threads))
    dweight = None if x is None else weight_gradient(du, sizes, geometry)
    return None if weight is None else dx, dweight, summed(dbias[:num_threads])[: sizes.k] if is_fused else None


@kernel
def _backward(thread, num_threads, shape, taller, lower, sizes, operands, out, is_fused, work):
    """Both gradients over one share of the rows of tiles of all images; of dx, its lines from `lines[0]` to `lines[1]`.

    If the share begins within an image, the row of tiles above it reaches into its lines, and is computed here too.
    """
    x, u, dy, dx, du, dbias = operands
    rows = dy.shape[0] * sizes.tiles // sizes.tiles_w
    first_row, last_row = thread * rows // num_threads, (thread + 1) * rows // num_threads
    begin, end = first_row * sizes.tiles_w, last_row * sizes.tiles_w
    lines = first_line(sizes, (sizes.h, 4, sizes.top), first_row), first_line(sizes, (sizes.h, 4, sizes.top), last_row)
    own = workspace_at(pointer(work, thread * work.shape[1]), sizes)
    own_du, own_dbias = pointer(du, thread * 36 * du.shape[2]), pointer(dbias, thread * sizes.k_wide)
    turns = 36 * (sizes.c_wide // shape.width)
    if du.size and begin == end:
        du[thread] = 0
    if dx.size and begin % sizes.tiles and begin < end:
        zero_lines(sizes, dx, lines[0], min(lines[1], (begin // sizes.tiles + 1) * sizes.h))
        ignored = pointer(dbias, (num_threads + thread) * sizes.k_wide)
        for first in range(begin - sizes.tiles_w, begin, sizes.block):
            count = min(sizes.block, begin - first)
            transform_dy(sizes, dy, out, first, count, own, ignored, is_fused)
            own_dx = ahead_x(sizes, dx, first, first + count, turns)
            multiply_dm_u(shape, sizes, count, u, own, own_dx, own_dx)
            add_dx(sizes, first, count, own, dx, lines)
    for first in range(begin, end, sizes.block):
        count = min(sizes.block, end - first)
        transform_dy(sizes, dy, out, first, count, own, own_dbias, is_fused)
        after = first + count
        then = min(after + sizes.block, end)
        if du.size:
            transform_input(sizes, x, first, count, own)
            next_x = ahead_x(sizes, x, after, then, turns)
            next_dy = ahead_y(sizes, dy, out.pool, after, after if dx.size else then, turns)
            multiply_v_dm(taller, lower, sizes, count, own, own_du, du.shape[2], first > begin, next_x, next_dy)
        if dx.size:
            own_dx = ahead_x(sizes, dx, first, after, turns)
            next_dy = ahead_y(sizes, dy, out.pool, after, then, turns)
            multiply_dm_u(shape, sizes, count, u, own, next_dy, own_dx)
            add_dx(sizes, first, count, own, dx, lines)
