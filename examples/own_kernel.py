"""Your own compiled algorithm: a register tile, all threads, two parameters. It computes direct convolution.

    nnlite bench --algorithm examples/own_kernel.py:TiledRows --shapes 16,32,26,26,64,3,3,1,0
    nnlite bench --algorithm examples/own_kernel.py:TiledRows --shapes 16,32,26,26,64,3,3,1,0 --passes forward --sweep
    nnlite inspect examples/own_kernel.py:TiledRows --shape 16,32,26,26,64,3,3,1,0

What it uses, in the order in which one needs it (`help(nn.compiler)` has the rest):

1. `kernel` compiles a function that runs on all threads. Each call gets its number `thread` of `num_threads` and does
   its share, here some of the output's rows. It is called with the other arguments only.
2. A *tile* is a block of sums in registers: `rows` output pixels of `vectors` vectors of output channels.
   `zero_tile` makes it, `multiply_add` adds products to it, `store_tile` writes it; `even_rows` says where its rows
   lie. Why it is fast: a term of the sum loads `vectors` vectors of weights and `rows` numbers of the image, for
   `rows * vectors` multiply-adds. Compiled loops over arrays load and store a sum for each multiply-add instead.
   The tile's shape is an argument, a `TileShape`: the kernel is compiled once for each.
3. *simd*: a vector is LANES float32 numbers in one register, as many as the processor has: 4, 8 or 16. This kernel
   only needs their number; `load`, `store` and arithmetic on vectors are for what is no sum of products.
4. `parameters` names what there is to choose, with its values: `--sweep` times all combinations, and
   `TiledRows(rows=4)` has others than the class's own. `supports` declines those that do not fit the registers.

All offsets count numbers from the beginning of an array, and nobody checks them when the kernel runs.
"""

import numpy as np

import nnlite as nn
from nnlite.compiler import ENABLED, LANES, REGISTERS, TileShape, even_rows, kernel, multiply_add, store_tile, zero_tile
from nnlite.conv.patches import pad_image


@kernel
def correlate(thread, num_threads, shape, x, panels, y, kh, stride_h, stride_w):
    """y[n, oh, ow, k] = sum over r, s, c of x[n, oh * stride_h + r, ow * stride_w + s, c] * weight[r, s, c, k]"""
    n_images, h, w, c = x.shape
    _, oh, ow, k = y.shape
    terms = panels.shape[1] // kh  # of a kernel row: kw * c numbers, which lie together in x
    for line in range(thread * n_images * oh // num_threads, (thread + 1) * n_images * oh // num_threads):
        image, row = divmod(line, oh)
        top = (image * h + row * stride_h) * w * c
        for panel in range(panels.shape[0]):
            column = panel * shape.width  # the first of this panel's output channels
            for pixel in range(0, ow, shape.rows):
                rows_in = even_rows(shape, pixel, ow, stride_w * c)
                tile = zero_tile(shape)
                for r in range(kh):
                    weights = (panel * kh + r) * terms * shape.width
                    tile = multiply_add(tile, x, rows_in, top + r * w * c, 1, panels, weights, shape.width, terms)
                store_tile(y, even_rows(shape, pixel, ow, k), line * ow * k + column, tile, k - column)


class TiledRows(nn.conv.Algorithm):
    """Direct convolution on a register tile: some pixels of an output row, some vectors of output channels."""

    name = "tiled_rows"
    dtypes = (np.float32,)  # vectors hold nothing else
    parameters = {"rows": (2, 3, 4, 6), "vectors": (1, 2, 3)}  # noqa: RUF012, no object changes it
    rows, vectors = 6, 2 if REGISTERS == 16 else 3  # unless told otherwise

    def supports(self, geometry):
        """None, or the reason why not: then `auto` uses another algorithm."""
        needed = TileShape(self.rows, self.vectors).registers
        if needed > REGISTERS:
            return f"{self.rows} rows of {self.vectors} vectors need {needed} registers; this processor has {REGISTERS}"
        if geometry.groups != 1 or geometry.dilation_rate != (1, 1):
            return "groups and dilation are not written yet"
        return None if ENABLED else "vectors exist in compiled code only, and NUMBA_DISABLE_JIT=1 is set"

    def forward(self, x, weight, geometry):
        """x (n, h, w, c), weight (r, s, c, k) -> y (n, oh, ow, k): new, C-contiguous, of x's dtype."""
        kh, kw, c, k = weight.shape
        width = self.vectors * LANES
        # the weights in panels as wide as a tile, filled up with zeros: a reduction then reads one panel in order
        panels = np.zeros((kh * kw * c, -(-k // width) * width), np.float32)
        panels[:, :k] = weight.reshape(-1, k)
        panels = np.ascontiguousarray(
            panels.reshape(kh * kw * c, -1, width).transpose(1, 0, 2)
        )  # (panels, r*s*c, width)
        y = np.empty(geometry.output_shape, np.float32)
        correlate(TileShape(self.rows, self.vectors), pad_image(x, geometry), panels, y, kh, *geometry.strides)
        return y

    # grad_input and grad_weight are inherited: im2col's. nn.conv.Algorithm says what else may be declared.
