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
The error of an element was at most 2e-5 of the result's root mean square over random geometries, against 2e-6 for
the direct sum; `error_bound` declares 1e-4. Lavin and Gray found the same loss to be harmless in training.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nnlite import memory, threads
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.epilogue import Epilogue
from nnlite.conv.geometry import Geometry
from nnlite.conv.winograd_transforms import AT, BT, G, sandwich
from nnlite.jit import ENABLED, jit, kernel
from nnlite.simd import (
    LANES,
    even_rows,
    load,
    load_bytes,
    load_first,
    load_tile,
    multiply_add,
    pointer,
    relu,
    select,
    splat,
    store,
    store_bytes,
    store_first,
    store_tile,
    tile_shape,
    zeros,
)

#: bytes of V and M of a block of tiles, and the least number of tiles that a read of U is worth
BLOCK_BYTES, LEAST_TILES = 768 << 10, 48

_bt_d_b, _b_dv_bt = sandwich(BT), sandwich(BT.T)
_g_w_gt, _gt_du_g = sandwich(G), sandwich(G.T)
_at_m_a, _a_dy_at = sandwich(AT), sandwich(AT.T)


class Sizes(NamedTuple):
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
    c_wide: int  # channels filled up to whole register tiles
    k_wide: int
    v_step: int  # from an element of the tiles to the next, in V
    m_step: int


class Winograd(Algorithm):
    """3x3 kernels with stride 1, with bias, ReLU and 2x2 max pooling in the output transform. float32."""

    name = "winograd"
    dtypes = (np.float32,)

    def supports(self, geometry: Geometry) -> str | None:
        if not ENABLED:
            return "its kernels need Numba's compiler, which NUMBA_DISABLE_JIT=1 switches off"
        if geometry.weight_shape[:2] != (3, 3):
            return "F(4x4, 3x3) is for 3x3 kernels"
        if (geometry.strides, geometry.dilation_rate, geometry.groups) != ((1, 1), (1, 1), 1):
            return "F(4x4, 3x3) is for stride 1 without dilation or groups"
        return None

    def error_bound(self, geometry: Geometry, pass_name: str, dtype: Any = np.float32) -> float:
        return 1e-4

    def moved_bytes(self, geometry: Geometry, pass_name: str) -> int:
        """The least, and the transformed weights. V and M are written and read too, but stay in cache."""
        return geometry.least_bytes(pass_name) + 4 * 36 * geometry.weight_shape[2] * geometry.weight_shape[3]

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        return self.forward_fused(x, weight, None, geometry, Epilogue())[0]

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
    ) -> tuple[np.ndarray, Any]:
        sizes, parts = _sizes(geometry), threads.get_num_threads()
        result = memory.empty(epilogue.result_shape(geometry.output_shape))
        winners = memory.empty(result.shape if epilogue.pool else (0,), np.uint8)
        start = np.zeros(sizes.k_wide, np.float32)
        if bias is not None:
            start[: sizes.k] = bias
        u = _transformed_weight(weight, sizes.k_wide)
        v, m = memory.empty((parts, 36 * sizes.v_step)), memory.empty((parts, 36 * sizes.m_step))
        shape = tile_shape(sizes.k)
        _forward(shape, sizes, x, u, start, v, m, _scratch(parts), result, winners, epilogue.relu, epilogue.pool)
        return result, winners

    def backward_fused(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        result: np.ndarray,
        saved: Any,
        dresult: np.ndarray,
        geometry: Geometry,
        epilogue: Epilogue,
        needs: tuple[bool, bool, bool],
    ) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        asked = x if needs[1] else None, weight if needs[0] else None
        return _gradients(*asked, dresult, result, saved, geometry, epilogue)


def _sizes(geometry: Geometry) -> Sizes:
    _, h, w, c = geometry.input_shape
    n, oh, ow, k = geometry.output_shape
    tiles_w, tiles = -(-ow // 4), -(-ow // 4) * -(-oh // 4)
    c_wide, k_wide = (-(-channels // tile_shape(channels).width) * tile_shape(channels).width for channels in (c, k))
    block = max(LEAST_TILES, BLOCK_BYTES // (36 * 4 * (c_wide + k_wide)))
    block = min(block, tiles * max(1, block // tiles), max(1, n * tiles))
    # a vector more than needed, lest the 36 elements of a tile fall on the same lines of the cache
    v_step, m_step = block * c_wide + LANES, block * k_wide + LANES
    (top, _), (left, _) = geometry.pads
    return Sizes(h, w, c, oh, ow, k, top, left, tiles_w, tiles, block, c_wide, k_wide, v_step, m_step)


def _scratch(parts: int) -> np.ndarray:
    return memory.empty((parts, 36 * LANES))


# Forward -------------------------------------------------------------------------------------------------------


@kernel
def _forward(part, parts, shape, sizes, x, u, bias, v, m, scratch, y, winners, clamp, pool):
    """One share of the tiles of all images."""
    total = x.shape[0] * sizes.tiles
    begin, end = part * total // parts, (part + 1) * total // parts
    own_v, own_m = pointer(v, part * v.shape[1]), pointer(m, part * m.shape[1])
    own_scratch = pointer(scratch, part * scratch.shape[1])
    for first in range(begin, end, sizes.block):
        count = min(sizes.block, end - first)
        _transform_input(x, first, count, sizes, own_v, own_scratch)
        for f in range(36):
            element_v, element_m = pointer(own_v, f * sizes.v_step), pointer(own_m, f * sizes.m_step)
            element_u = pointer(u, f * sizes.c * sizes.k_wide)
            _multiply(shape, element_v, count, sizes.c_wide, 1, sizes.c, element_u, sizes.k_wide, element_m, False)
        _transform_output(own_m, first, count, sizes, bias, own_scratch, y, winners, clamp, pool)


@jit
def _transform_input(x, first, count, sizes, v, scratch):
    """V = B' d B for some tiles: element (i, j) of tile t at v[(6 * i + j) * v_step + t * c_wide]."""
    for t in range(count):
        n, h, w = _place(first + t, sizes)
        h, w = h - sizes.top, w - sizes.left
        inside = h >= 0 and w >= 0 and h + 6 <= sizes.h and w + 6 <= sizes.w
        for c in range(0, sizes.c, LANES):
            source, row, column = (
                pointer(x, ((n * sizes.h + h) * sizes.w + w) * sizes.c + c),
                sizes.w * sizes.c,
                sizes.c,
            )
            if not inside or c + LANES > sizes.c:
                _gather(pointer(x, n * sizes.h * sizes.w * sizes.c), h, w, c, 6, sizes.h, sizes.w, sizes.c, scratch)
                source, row, column = scratch, 6 * LANES, LANES
            _bt_d_b(source, 0, row, column, v, t * sizes.c_wide + c, 6 * sizes.v_step, sizes.v_step)


@jit
def _place(t, sizes):
    """(image, output row, output column) where tile t begins."""
    within = t % sizes.tiles
    return t // sizes.tiles, within // sizes.tiles_w * 4, within % sizes.tiles_w * 4


@jit
def _gather(image, h, w, c, size, height, width, channels, scratch):
    """Copy size x size vectors of an image that begin at (h, w, c), zero where there is no image."""
    for i in range(size):
        for j in range(size):
            inside = 0 <= h + i < height and 0 <= w + j < width
            left = channels - c if inside else 0
            store(scratch, (i * size + j) * LANES, load_first(image, ((h + i) * width + w + j) * channels + c, left))


@jit
def _multiply(shape, a, rows, row, step, depth, b, columns, out, add):
    """out (rows, columns) = a (rows, depth) @ b (depth, columns), or += if `add`; `row` and `step` are a's steps."""
    for column in range(0, columns, shape.width):
        for first in range(0, rows, shape.rows):
            rows_a, rows_out = even_rows(shape, first, rows, row), even_rows(shape, first, rows, columns)
            tile = load_tile(shape, out, rows_out, column, shape.width) if add else zeros(shape)
            for i in range(depth):
                tile = multiply_add(tile, a, rows_a, i * step, b, i * columns + column)
            store_tile(out, rows_out, column, tile, shape.width)


@jit
def _transform_output(m, first, count, sizes, bias, scratch, y, winners, clamp, pool):
    """y = A' M A + bias for some tiles, clamped and pooled if asked for."""
    for t in range(count):
        n, h, w = _place(first + t, sizes)
        for k in range(0, sizes.k, LANES):
            _at_m_a(m, t * sizes.k_wide + k, 6 * sizes.m_step, sizes.m_step, scratch, 0, 4 * LANES, LANES)
            start, left = load(bias, k), sizes.k - k
            if pool:
                _pool(scratch, start, n, h // 2, w // 2, k, sizes, y, winners, clamp)
                continue
            for i in range(min(4, sizes.oh - h)):
                for j in range(min(4, sizes.ow - w)):
                    value = load(scratch, (4 * i + j) * LANES) + start
                    if clamp:
                        value = relu(value)
                    store_first(y, (((n * sizes.oh) + h + i) * sizes.ow + w + j) * sizes.k + k, value, left)


@jit
def _pool(scratch, start, n, h, w, k, sizes, y, winners, clamp):
    """The maxima of a tile's four windows, and which of a window's four numbers each one is."""
    height, width = sizes.oh // 2, sizes.ow // 2
    for i in range(min(2, height - h)):
        for j in range(min(2, width - w)):
            best, winner = load(scratch, (8 * i + 2 * j) * LANES) + start, splat(0)
            for number in range(1, 4):
                value = load(scratch, (8 * i + 2 * j + number // 2 * 4 + number % 2) * LANES) + start
                wins = (value > best) | ((value != value) & (best == best))
                best, winner = select(wins, value, best), select(wins, number, winner)
            if clamp:
                best = relu(best)
            o = ((n * height + h + i) * width + w + j) * sizes.k + k
            store_first(y, o, best, sizes.k - k)
            store_bytes(winners, o, winner, sizes.k - k)


def _transformed_weight(weight: np.ndarray, columns: int) -> np.ndarray:
    """U = G g G': (36, c, columns), zero beyond the last output channel."""
    u = memory.empty((36, weight.shape[2], columns))
    _transform_weight(weight, u, _scratch(1))
    return u


@jit
def _transform_weight(weight, u, scratch):
    _, _, channels, k = weight.shape
    columns = u.shape[2]
    for c in range(channels):
        for column in range(0, columns, LANES):
            for tap in range(9):
                store(scratch, tap * LANES, load_first(weight, (tap * channels + c) * k + column, k - column))
            step = channels * columns
            _g_w_gt(scratch, 0, 3 * LANES, LANES, u, c * columns + column, 6 * step, step)


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
    sizes, parts = _sizes(geometry), threads.get_num_threads()
    nothing = np.empty((0, 0, 0, 0), np.float32)
    dx, u = nothing, np.empty((0, 0, 0), np.float32)
    if weight is not None:
        dx = memory.empty(geometry.input_shape)
        u = _transformed_weight(np.ascontiguousarray(weight.transpose(0, 1, 3, 2)), sizes.c_wide)  # (36, k, c_wide)
    v = memory.empty((parts, 36 * sizes.v_step))
    dm = memory.empty((parts, 36 * sizes.m_step))
    du = memory.empty((parts if x is not None else 0, 36, sizes.c, sizes.k_wide))
    dbias = np.zeros((parts, sizes.k_wide), np.float32)
    fused = epilogue != Epilogue()
    _backward(
        tile_shape(sizes.c), tile_shape(sizes.k), sizes, geometry.input_shape[0],
        nothing if x is None else x, u, dy, dy if result is None else result,
        np.empty(0, np.uint8) if winners is None else winners, fused, epilogue.relu, epilogue.pool,
        v, dm, _scratch(parts), dx, du, dbias,
    )  # fmt: skip
    dweight = None
    if x is not None:
        dweight = memory.empty(geometry.weight_shape)
        _transform_du(du, _scratch(2), dweight)
    return None if weight is None else dx, dweight, np.add.reduce(dbias)[: sizes.k] if fused else None


@kernel
def _backward(
    part, parts, shape_c, shape_k, sizes, images, x, u, dy, result, winners, fused, clamp, pool,
    v, dm, scratch, dx, du, dbias,
):  # fmt: skip
    """Both gradients over one share of the images."""
    begin, end = part * images // parts * sizes.tiles, (part + 1) * images // parts * sizes.tiles
    own_v, own_dm = pointer(v, part * v.shape[1]), pointer(dm, part * dm.shape[1])
    own_scratch, own_dbias = pointer(scratch, part * scratch.shape[1]), pointer(dbias, part * sizes.k_wide)
    if du.size:
        du[part] = 0
    for first in range(begin, end, sizes.block):
        count = min(sizes.block, end - first)
        _transform_dy(dy, result, winners, first, count, sizes, fused, clamp, pool, own_scratch, own_dm, own_dbias)
        if du.size:
            _transform_input(x, first, count, sizes, own_v, own_scratch)
            for f in range(36):
                element_v, element_dm = pointer(own_v, f * sizes.v_step), pointer(own_dm, f * sizes.m_step)
                element_du = pointer(du, (part * 36 + f) * sizes.c * sizes.k_wide)
                _multiply(
                    shape_k, element_v, sizes.c, 1, sizes.c_wide, count, element_dm, sizes.k_wide, element_du, True
                )
        if dx.size:
            for f in range(36):
                element_v, element_dm = pointer(own_v, f * sizes.v_step), pointer(own_dm, f * sizes.m_step)
                element_u = pointer(u, f * sizes.k * sizes.c_wide)
                _multiply(
                    shape_c, element_dm, count, sizes.k_wide, 1, sizes.k, element_u, sizes.c_wide, element_v, False
                )
            _add_dx(own_v, first, count, sizes, own_scratch, dx)


@jit
def _transform_dy(dy, result, winners, first, count, sizes, fused, clamp, pool, scratch, dm, dbias):
    """dM = A dy A' for some tiles; dy is that before the epilogue, whose bias gradient is added up on the way."""
    for t in range(count):
        n, h, w = _place(first + t, sizes)
        inside = h + 4 <= sizes.oh and w + 4 <= sizes.ow
        for k in range(0, sizes.k, LANES):
            source, row, column = (
                pointer(dy, ((n * sizes.oh + h) * sizes.ow + w) * sizes.k + k),
                sizes.ow * sizes.k,
                sizes.k,
            )
            if fused or not inside or k + LANES > sizes.k:
                image = n * sizes.oh * sizes.ow * sizes.k
                if pool:
                    _unpool(dy, result, winners, n, h // 2, w // 2, k, sizes, clamp, scratch)
                else:
                    _gather(pointer(dy, image), h, w, k, 4, sizes.oh, sizes.ow, sizes.k, scratch)
                    if clamp:
                        _mask(pointer(result, image), h, w, k, sizes, scratch)
                if fused:
                    total = load(dbias, k)
                    for i in range(16):
                        total = total + load(scratch, i * LANES)
                    store(dbias, k, total)
                source, row, column = scratch, 4 * LANES, LANES
            _a_dy_at(source, 0, row, column, dm, t * sizes.k_wide + k, 6 * sizes.m_step, sizes.m_step)


@jit
def _mask(result, h, w, k, sizes, scratch):
    """Zero the elements of a 4x4 tile where the result of ReLU is not positive."""
    for i in range(min(4, sizes.oh - h)):
        for j in range(min(4, sizes.ow - w)):
            o, place = ((h + i) * sizes.ow + w + j) * sizes.k + k, (4 * i + j) * LANES
            store(scratch, place, select(load_first(result, o, sizes.k - k) > 0, load(scratch, place), 0))


@jit
def _unpool(dy, result, winners, n, h, w, k, sizes, clamp, scratch):
    """The 4x4 tile of the gradient before the pooling: each window's goes to its maximum."""
    height, width, left = sizes.oh // 2, sizes.ow // 2, sizes.k - k
    for i in range(2):
        for j in range(2):
            value, winner = splat(0), splat(0)
            if h + i < height and w + j < width:
                o = ((n * height + h + i) * width + w + j) * sizes.k + k
                value, winner = load_first(dy, o, left), load_bytes(winners, o, left)
                if clamp:
                    value = select(load_first(result, o, left) > 0, value, 0)
            for number in range(4):
                place = (8 * i + 2 * j + number // 2 * 4 + number % 2) * LANES
                store(scratch, place, select(winner == number, value, 0))


@jit
def _add_dx(dv, first, count, sizes, scratch, dx):
    """dx += B dV B' for some tiles, which overlap; an image is zeroed before its first."""
    for t in range(count):
        n, h, w = _place(first + t, sizes)
        if h == 0 and w == 0:
            dx[n] = 0
        h, w = h - sizes.top, w - sizes.left
        for c in range(0, sizes.c, LANES):
            _b_dv_bt(dv, t * sizes.c_wide + c, 6 * sizes.v_step, sizes.v_step, scratch, 0, 6 * LANES, LANES)
            for i in range(max(0, -h), min(6, sizes.h - h)):
                for j in range(max(0, -w), min(6, sizes.w - w)):
                    o, left = ((n * sizes.h + h + i) * sizes.w + w + j) * sizes.c + c, sizes.c - c
                    store_first(dx, o, load_first(dx, o, left) + load(scratch, (6 * i + j) * LANES), left)


@jit
def _transform_du(du, scratch, dweight):
    """dweight = G' dU G, dU being the sum of the parts' in their order."""
    parts, _, channels, columns = du.shape
    k = dweight.shape[3]
    for c in range(channels):
        for column in range(0, k, LANES):
            for f in range(36):
                total = splat(0)
                for part in range(parts):
                    total = total + load(du, ((part * 36 + f) * channels + c) * columns + column)
                store(scratch, f * LANES, total)
            taps = pointer(scratch, 36 * LANES)
            _gt_du_g(scratch, 0, 6 * LANES, LANES, taps, 0, 3 * LANES, LANES)
            for tap in range(9):
                store_first(dweight, (tap * channels + c) * k + column, load(taps, tap * LANES), k - column)
