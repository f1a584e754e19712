"""Step 7: Winograd. A 3x3 convolution with a quarter of the multiplications.

What changed: 4x4 outputs are computed at once from 6x6 inputs d and weights g (Lavin and Gray, arXiv:1509.09308):

    V = B d B',   U = G g G',   M = sum over channels of V * U, number by number,   y = A M A'

M is a matrix product over channels for each of the 36 numbers, and step 5's tile does it, on all threads. The two
transforms around it are additions with vectors of channels: `load`, `store`, `+` and `*`. "eff" in the table counts the
FLOPs of the definition. The price is accuracy: see "error", and `error_bound`, without which the check refuses it.

Exercise: Keep V and M in the second cache by taking some of an image's tiles at a time; keep what is between rows and
columns of a transform in registers; write the gradients, the same steps transposed. The solution is
nnlite/conv/winograd.py, with winograd_tiles.py and winograd_transforms.py beside it.
"""

import numpy as np

import nnlite as nn
from nnlite.compiler import (
    ENABLED,
    LANES,
    even_rows,
    jit,
    kernel,
    load,
    multiply_add,
    store,
    store_tile,
    tile_shape,
    zero_tile,
)

G = np.float32([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24


@jit
def input_line(x, place, step, y, out, out_step):
    """y = B times six vectors of x"""
    d0, d1, d2 = load(x, place), load(x, place + step), load(x, place + 2 * step)
    d3, d4, d5 = load(x, place + 3 * step), load(x, place + 4 * step), load(x, place + 5 * step)
    even, odd, far_even, far_odd = d4 - 4 * d2, d3 - 4 * d1, d4 - d2, 2 * (d3 - d1)
    store(y, out, 4 * d0 - 5 * d2 + d4)
    store(y, out + out_step, even + odd)
    store(y, out + 2 * out_step, even - odd)
    store(y, out + 3 * out_step, far_even + far_odd)
    store(y, out + 4 * out_step, far_even - far_odd)
    store(y, out + 5 * out_step, 4 * d1 - 5 * d3 + d5)


@jit
def output_line(x, place, step, y, out, out_step):
    """y = A times six vectors of x"""
    m0, m1, m2 = load(x, place), load(x, place + step), load(x, place + 2 * step)
    m3, m4, m5 = load(x, place + 3 * step), load(x, place + 4 * step), load(x, place + 5 * step)
    even, odd, far_even, far_odd = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    store(y, out, m0 + even + far_even)
    store(y, out + out_step, odd + 2 * far_odd)
    store(y, out + 2 * out_step, even + 4 * far_even)
    store(y, out + 3 * out_step, odd + 8 * far_odd + m5)


@jit
def transform(line, count, x, place, row, column, between, y, out, out_row, out_column):
    """Columns, then the `count` rows that they give: x[p, q] lies at place + p * row + q * column, y accordingly."""
    for q in range(6):
        line(x, place + q * column, row, between, q * LANES, 6 * LANES)
    for i in range(count):
        line(between, i * 6 * LANES, LANES, y, out + i * out_row, out_column)


@kernel
def correlate(thread, num_threads, shape, x, u, y):
    """y (n, height, width, k), of whole 4x4 tiles, from x (n, height + 2, width + 2, c) and u (6, 6, c, k)"""
    images, h, w, c = x.shape
    _, height, width, k = y.shape
    across = width // 4
    tiles = height // 4 * across
    v, m = np.empty(36 * tiles * c, np.float32), np.empty(36 * tiles * k, np.float32)  # each thread's own
    between = np.empty(36 * LANES, np.float32)
    for n in range(thread * images // num_threads, (thread + 1) * images // num_threads):
        for t in range(tiles):
            corner = ((n * h + t // across * 4) * w + t % across * 4) * c
            for lane in range(0, c, LANES):
                into = t * c + lane  # v (6, 6, tiles, c)
                transform(input_line, 6, x, corner + lane, w * c, c, between, v, into, 6 * tiles * c, tiles * c)
        for e in range(36):
            for first in range(0, k, shape.width):
                for t in range(0, tiles, shape.rows):
                    rows, rows_out = even_rows(shape, t, tiles, c), even_rows(shape, t, tiles, k)
                    place, weights, into = e * tiles * c, e * c * k + first, e * tiles * k + first
                    tile = multiply_add(zero_tile(shape), v, rows, place, 1, u, weights, k, c)
                    store_tile(m, rows_out, into, tile, shape.width)  # m (6, 6, tiles, k)
        for t in range(tiles):
            corner = ((n * height + t // across * 4) * width + t % across * 4) * k
            for lane in range(0, k, LANES):
                place = t * k + lane
                transform(output_line, 4, m, place, 6 * tiles * k, tiles * k, between, y, corner + lane, width * k, k)


class Winograd(nn.conv.Algorithm):
    """F(4x4, 3x3): 36 multiplications instead of 144."""

    name = "tutorial_winograd"
    dtypes = (np.float32,)
    fewer_multiplications = True

    def supports(self, geometry):
        if not ENABLED:
            return "vectors exist in compiled code only, and NUMBA_DISABLE_JIT=1 is set"
        plain = geometry.strides == geometry.dilation_rate == (1, 1) and geometry.groups == 1
        return None if plain and geometry.weight_shape[:2] == (3, 3) else "this step is for 3x3 kernels with stride 1"

    def error_bound(self, geometry, pass_name, dtype=np.float32):
        return 3e-4  # of the result's root mean square; the default is that of a sum in any order, some ten times less

    def forward(self, x, weight, geometry):
        """x (n, h, w, c), weight (3, 3, c, k) -> y (n, oh, ow, k)"""
        n, oh, ow, filters = geometry.output_shape
        (top, _), (left, _) = geometry.pads
        shape = tile_shape(filters)
        # channels to whole vectors, filters to whole tiles, outputs to whole 4x4 ones: what is added is zero
        c, k = -(-x.shape[3] // LANES) * LANES, -(-filters // shape.width) * shape.width
        y = np.empty((n, -(-oh // 4) * 4, -(-ow // 4) * 4, k), np.float32)
        image, u = np.zeros((n, y.shape[1] + 2, y.shape[2] + 2, c), np.float32), np.zeros((6, 6, c, k), np.float32)
        image[:, top : top + x.shape[1], left : left + x.shape[2], : x.shape[3]] = x
        u[:, :, : x.shape[3], :filters] = np.einsum("ir,js,rsck->ijck", G, G, weight)
        correlate(shape, image, u, y)
        return np.ascontiguousarray(y[:, :oh, :ow, :filters])


if __name__ == "__main__":
    from show import show

    raise SystemExit(show(Winograd, "5_register_tile.py:RegisterTile", "6_threads.py:Threads", threads=None))
