"""Step 6: threads. Every core computes a share of the output's rows.

What changed: `kernel` compiles a function of `(thread, num_threads, ...)` and runs it on all threads at once; it is
called without these two. Each thread takes a part of the rows, so no two write the same output, and the result does not
depend on how many there are. The rest is step 5's, and so is the hottest loop. How much it gains depends on how many
cores are idle: the table is for all threads, and the peak is theirs.

Exercise: What is left is to multiply less. Winograd's F(4x4, 3x3) needs 36 multiplications for the 16 outputs of a tile
and a pair of channels, where the definition needs 144 (Lavin and Gray, arXiv:1509.09308, equation 12). For each of the
36 it is a matrix product over channels: step 5's tile does it. The solution is 7_winograd.py.
"""

import numpy as np

import nnlite as nn
from nnlite.compiler import ENABLED, even_rows, kernel, multiply_add, store_tile, tile_shape, zero_tile
from nnlite.conv.patches import pad_image


def panels_of(weight, width):
    """weight (r, s, c, k) -> (panels, r * s * c, width), filled up with zeros"""
    columns = np.zeros((weight[..., 0].size, -(-weight.shape[3] // width) * width), np.float32)
    columns[:, : weight.shape[3]] = weight.reshape(-1, weight.shape[3])
    return columns.reshape(len(columns), -1, width).transpose(1, 0, 2).copy()


@kernel
def correlate(thread, num_threads, shape, x, panels, y, kh):
    """y[n, i, j, k] = sum over r, s, c of x[n, i + r, j + s, c] * weight[r, s, c, k], a tile of j and k at a time"""
    _, h, w, c = x.shape
    images, height, width, filters = y.shape
    terms = panels.shape[1] // kh  # s and c of a kernel row: they lie together in x
    lines = images * height
    for line in range(thread * lines // num_threads, (thread + 1) * lines // num_threads):
        n, i = divmod(line, height)
        for panel in range(panels.shape[0]):
            k = panel * shape.width
            for j in range(0, width, shape.rows):
                tile = zero_tile(shape)
                for r in range(kh):
                    place, weights = (n * h + i + r) * w * c, (panel * kh + r) * terms * shape.width
                    rows = even_rows(shape, j, width, c)  # pixel j + m of the row is c numbers after the one before
                    tile = multiply_add(tile, x, rows, place, 1, panels, weights, shape.width, terms)
                store_tile(y, even_rows(shape, j, width, filters), line * width * filters + k, tile, filters - k)


class Threads(nn.conv.Algorithm):
    """Sums of pixels times channels in registers, on all threads."""

    name = "threads"
    dtypes = (np.float32,)

    def supports(self, geometry):
        if not ENABLED:
            return "vectors exist in compiled code only, and NUMBA_DISABLE_JIT=1 is set"
        plain = geometry.strides == geometry.dilation_rate == (1, 1) and geometry.groups == 1
        return None if plain else "this step is for stride 1 without dilation or groups"

    def forward(self, x, weight, geometry):
        """x (n, h, w, c), weight (r, s, c, k) -> y (n, i, j, k)"""
        shape = tile_shape(weight.shape[3])
        y = np.empty(geometry.output_shape, np.float32)
        correlate(shape, pad_image(x, geometry), panels_of(weight, shape.width), y, weight.shape[0])
        return y


if __name__ == "__main__":
    from show import show

    raise SystemExit(show(Threads, "5_register_tile.py:RegisterTile", threads=None))
