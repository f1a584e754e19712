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
from typing import Any

import numpy as np

from nnlite.compiler.jit import ENABLED, jit, kernel
from nnlite.compiler.simd import LANES, pointer
from nnlite.compiler.tiles import even_rows, load_tile, multiply_add, store_tile, zeros
from nnlite.conv import checks, work_compiled, work_pair
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.direct_panels import start_values
from nnlite.conv.epilogue import Epilogue, Fused, Gradients
from nnlite.conv.geometry import Geometry
from nnlite.conv.pair import FusedPair
from nnlite.conv.winograd_tiles import (
    add_dx,
    gradient_shape,
    product_shape,
    sizes_of,
    transform_du,
    transform_dy,
    transform_input,
    transform_output,
    transform_weight,
)
from nnlite.conv.work import WorkItem
from nnlite.runtime import memory, threads


class Winograd(Algorithm):
    """3x3 kernels with stride 1, with bias, ReLU and 2x2 max pooling in the output transform. float32."""

    name = "winograd"
    dtypes = (np.float32,)
    pair_module, pair_first = "nnlite.conv.winograd_pair", "direct"
    fewer_multiplications = True

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
        return None if self.supports(geometry) else work_compiled.winograd(geometry, pass_name, epilogue)

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return _run_forward(x, weight, None, geometry, Epilogue()).result

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        dx, _, _ = _gradients(None, weight, dy, None, None, geometry, Epilogue())
        assert dx is not None
        return dx

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        _, dweight, _ = _gradients(x, None, dy, None, None, geometry, Epilogue())
        assert dweight is not None
        return dweight

    def backward(
        self, x: np.ndarray, weight: np.ndarray, dy: np.ndarray, geometry: Geometry, needs: tuple[bool, bool]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        asked = x if needs[1] else None, weight if needs[0] else None
        return _gradients(*asked, dy, None, None, geometry, Epilogue())[:2]

    def fuses(self, geometry: Geometry, epilogue: Epilogue) -> bool:
        return self.supports(geometry) is None

    def forward_fused(
        self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, epilogue: Epilogue
    ) -> Fused:
        return _run_forward(x, weight, bias, geometry, epilogue)

    def backward_fused(
        self, ran: Fused, dresult: np.ndarray, geometry: Geometry, epilogue: Epilogue, needs: tuple[bool, bool, bool]
    ) -> Gradients:
        asked = ran.x if needs[1] else None, ran.weight if needs[0] else None
        residuals = checks.argmax(ran.residuals, ran.result.shape) if epilogue.pool else None
        dx, dweight, dbias = _gradients(*asked, dresult, ran.result, residuals, geometry, epilogue)
        return dx, dweight, dbias if needs[2] else None

    def work_pair(self, pair: FusedPair, pass_name: str) -> list[WorkItem] | None:
        return work_pair.winograd(pair, pass_name)


def scratch(parts: int) -> np.ndarray:
    """Room for 6x6 vectors, for each part."""
    return memory.empty((parts, 36 * LANES))


def swap_channels(weight: np.ndarray) -> np.ndarray:
    """(3, 3, c, k) -> (3, 3, k, c), C-contiguous."""
    return np.ascontiguousarray(weight.transpose(0, 1, 3, 2))


# Forward -------------------------------------------------------------------------------------------------------


def _run_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, epilogue: Epilogue
) -> Fused:
    sizes, parts = sizes_of(geometry), threads.kernel_parts()
    result = memory.empty(epilogue.result_shape(geometry.output_shape))
    winners = memory.empty(result.shape if epilogue.pool else (0, 0, 0, 0), np.uint8)  # one type: compiled once
    start = start_values(bias, 1, sizes.k_wide)
    u = memory.empty((parts, 36 * sizes.c * sizes.k_wide))
    v, m = memory.empty((parts, 36 * sizes.v_step)), memory.empty((parts, 36 * sizes.m_step))
    _forward.run(
        parts, product_shape(sizes.k), sizes, x, weight, start, u, v, m, scratch(parts), result, winners,
        epilogue.relu, epilogue.pool,
    )  # fmt: skip
    return Fused(x, weight, result, winners)


@kernel
def _forward(part, parts, shape, sizes, x, weight, bias, u, v, m, scratch, y, winners, clamp, pool):
    """One share of the tiles of all images."""
    total = x.shape[0] * sizes.tiles
    begin, end = part * total // parts, (part + 1) * total // parts
    own_v, own_m = pointer(v, part * v.shape[1]), pointer(m, part * m.shape[1])
    own_u, own_scratch = pointer(u, part * u.shape[1]), pointer(scratch, part * scratch.shape[1])
    transform_weight(weight, sizes.k_wide, own_u, own_scratch)
    for first in range(begin, end, sizes.block):
        count = min(sizes.block, end - first)
        transform_input(x, first, count, sizes, own_v, own_scratch)
        multiply_v_u(shape, sizes, count, own_v, own_u, own_m)
        transform_output(own_m, first, count, sizes, bias, own_scratch, y, winners, clamp, pool)


@jit
def multiply_v_u(shape, sizes, count, v, u, m):
    """M = sum over input channels of V * U, for a block of tiles."""
    for f in range(36):
        element_v, element_m = pointer(v, f * sizes.v_step), pointer(m, f * sizes.m_step)
        element_u = pointer(u, f * sizes.c * sizes.k_wide)
        _multiply(shape, element_v, count, sizes.c_wide, 1, sizes.c, element_u, sizes.k_wide, element_m, False)


@jit
def _multiply(shape, a, rows, row, step, depth, b, columns, out, add):
    """out (rows, columns) = a (rows, depth) @ b (depth, columns), or += if `add`; `row` and `step` are a's steps."""
    for column in range(0, columns, shape.width):
        for first in range(0, rows, shape.rows):
            rows_a, rows_out = even_rows(shape, first, rows, row), even_rows(shape, first, rows, columns)
            tile = load_tile(shape, out, rows_out, column, shape.width) if add else zeros(shape)
            tile = multiply_add(tile, a, rows_a, 0, step, b, column, columns, depth)
            store_tile(out, rows_out, column, tile, shape.width)


# Both gradients ------------------------------------------------------------------------------------------------


def _gradients(
    x: np.ndarray | None,
    weight: np.ndarray | None,
    dy: np.ndarray,
    result: np.ndarray | None,
    winners: np.ndarray | None,
    geometry: Geometry,
    epilogue: Epilogue,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """(dx, dweight, dbias): dx if given the weight, dweight if given x, dbias if there is an epilogue."""
    sizes, parts = sizes_of(geometry), threads.kernel_parts()
    nothing = np.empty((0, 0, 0, 0), np.float32)
    dx, swapped, u = nothing, nothing, np.empty((0, 0), np.float32)
    if weight is not None:
        dx, swapped = memory.empty(geometry.input_shape), swap_channels(weight)
        u = memory.empty((parts, 36 * sizes.k * sizes.c_wide))
    v = memory.empty((parts, 36 * sizes.v_step))
    dm = memory.empty((parts, 36 * sizes.m_step))
    du = memory.empty((parts if x is not None else 0, 36, sizes.c, sizes.k_wide))
    dbias = np.zeros((parts, sizes.k_wide), np.float32)
    fused = epilogue != Epilogue()
    _backward.run(
        parts, product_shape(sizes.c), gradient_shape(sizes.k), sizes, geometry.input_shape[0],
        nothing if x is None else x, swapped, dy, dy if result is None else result,
        np.empty((0, 0, 0, 0), np.uint8) if winners is None else winners, fused, epilogue.relu, epilogue.pool,
        u, v, dm, scratch(parts), dx, du, dbias,
    )  # fmt: skip
    dweight = None
    if x is not None:
        dweight = memory.empty(geometry.weight_shape)
        transform_du.run(parts, du, scratch(parts), dweight)
    return None if weight is None else dx, dweight, np.add.reduce(dbias)[: sizes.k] if fused else None


@kernel
def _backward(
    part, parts, shape_c, shape_k, sizes, images, x, weight, dy, result, winners, fused, clamp, pool,
    u, v, dm, scratch, dx, du, dbias,
):  # fmt: skip
    """Both gradients over one share of the images."""
    begin, end = part * images // parts * sizes.tiles, (part + 1) * images // parts * sizes.tiles
    own_v, own_dm = pointer(v, part * v.shape[1]), pointer(dm, part * dm.shape[1])
    own_scratch, own_dbias = pointer(scratch, part * scratch.shape[1]), pointer(dbias, part * sizes.k_wide)
    own_u, own_du = pointer(u, part * u.shape[1]), pointer(du, part * 36 * sizes.c * sizes.k_wide)
    if dx.size:
        transform_weight(weight, sizes.c_wide, own_u, own_scratch)
    if du.size:
        du[part] = 0
    for first in range(begin, end, sizes.block):
        count = min(sizes.block, end - first)
        transform_dy(dy, result, winners, first, count, sizes, fused, clamp, pool, own_scratch, own_dm, own_dbias)
        if du.size:
            transform_input(x, first, count, sizes, own_v, own_scratch)
            multiply_v_dm(shape_k, sizes, count, own_v, own_dm, own_du)
        if dx.size:
            multiply_dm_u(shape_c, sizes, count, own_dm, own_u, own_v)
            add_dx(own_v, first, count, sizes, own_scratch, dx)


@jit
def multiply_v_dm(shape, sizes, count, v, dm, du):
    """dU += sum over a block of tiles of V * dM."""
    for f in range(36):
        element_v, element_dm = pointer(v, f * sizes.v_step), pointer(dm, f * sizes.m_step)
        element_du = pointer(du, f * sizes.c * sizes.k_wide)
        _multiply(shape, element_v, sizes.c, 1, sizes.c_wide, count, element_dm, sizes.k_wide, element_du, True)


@jit
def multiply_dm_u(shape, sizes, count, dm, u, dv):
    """dV = sum over output channels of dM * U, for a block of tiles."""
    for f in range(36):
        element_dv, element_dm = pointer(dv, f * sizes.v_step), pointer(dm, f * sizes.m_step)
        element_u = pointer(u, f * sizes.k * sizes.c_wide)
        _multiply(shape, element_dm, count, sizes.k_wide, 1, sizes.k, element_u, sizes.c_wide, element_dv, False)
