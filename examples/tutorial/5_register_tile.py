"""Step 5: a register tile. A block of sums stays in registers through all of its reduction.

What changed: a tile is `shape.rows` neighbouring pixels times `shape.width` output channels. A term of the reduction
loads a few vectors of weights and one number for each pixel, and uses each of them several times: many multiply-adds
per load, and no store until the sums are complete. The tile has enough independent sums to hide the latency of a
multiply-add, and no more than fit into the registers; `tile_shape` chooses. `weight` is copied once into panels as wide
as a tile, so that a reduction reads it in order.

Exercise: One core is busy now. Have all of them compute, each a part of the output's rows: `nn.compiler.kernel` instead
of `jit`, a share of the rows for each thread. No two threads may write the same output. The solution is 6_threads.py.
"""

import numpy as np

import nnlite as nn
from nnlite.compiler import ENABLED, even_rows, jit, multiply_add, store_tile, tile_shape, zero_tile
from nnlite.conv.patches import pad_image


def panels_of(weight, width):
    """weight (r, s, c, k) -> (panels, r * s * c, width), filled up with zeros"""
    columns = np.zeros((weight[..., 0].size, -(-weight.shape[3] // width) * width), np.float32)
    columns[:, : weight.shape[3]] = weight.reshape(-1, weight.shape[3])
    return columns.reshape(len(columns), -1, width).transpose(1, 0, 2).copy()


@jit
def correlate(shape, x, panels, y, kh):
    """y[n, i, j, k] = sum over r, s, c of x[n, i + r, j + s, c] * weight[r, s, c, k], a tile of j and k at a time"""
    _, h, w, c = x.shape
    images, height, width, filters = y.shape
    terms = panels.shape[1] // kh  # s and c of a kernel row: they lie together in x
    for line in range(images * height):
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


class RegisterTile(nn.conv.Algorithm):
    """Sums of pixels times channels in registers."""

    name = "register_tile"
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

    raise SystemExit(show(RegisterTile, "2_im2col.py:Im2col", "4_blocking.py:Blocking"))
