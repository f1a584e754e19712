"""Step 4: blocking. The same multiplications in an order that the caches and the compiler like.

What changed: the innermost loop runs over the output channels, neighbours in `weight` and in `y`, so LLVM uses vectors.
The loops over r and s stand outside of the pixels of an output row: that row of y, one row of x and the weights of one
kernel position are all that the inner loops touch, and they stay in the first cache. What is left to gain is in the
hottest loop: each multiply-add loads a sum and stores it again, and the ports for loads and stores set the pace.

Exercise: Keep a block of sums in registers through all of a reduction: some neighbouring pixels times some vectors of
output channels. Compilers keep no array in registers; `nn.compiler` has tiles for that: `TileShape`, `zero_tile`,
`multiply_add`, `store_tile`. The solution is 5_register_tile.py.
"""

import numpy as np

import nnlite as nn
from nnlite.compiler import ENABLED, jit
from nnlite.conv.patches import pad_image


@jit
def correlate(x, weight, y):
    """y[n, i, j, :] += x[n, i + r, j + s, c] * weight[r, s, c, :], an output row at a time"""
    kh, kw, channels, filters = weight.shape
    images, height, width, _ = y.shape
    for n in range(images):
        for i in range(height):
            y[n, i] = 0
            for r in range(kh):
                for s in range(kw):
                    for j in range(width):
                        for c in range(channels):
                            value = x[n, i + r, j + s, c]
                            for k in range(filters):
                                y[n, i, j, k] += value * weight[r, s, c, k]


class Blocking(nn.conv.Algorithm):
    """Compiled loops, the innermost over neighbours, what they reuse in the first cache."""

    name = "blocking"
    dtypes = (np.float32,)
    reference_only = not ENABLED  # uncompiled, they are plain Python

    def supports(self, geometry):
        plain = geometry.strides == geometry.dilation_rate == (1, 1) and geometry.groups == 1
        return None if plain else "this step is for stride 1 without dilation or groups"

    def forward(self, x, weight, geometry):
        """x (n, h, w, c), weight (r, s, c, k) -> y (n, i, j, k)"""
        y = np.empty(geometry.output_shape, np.float32)
        correlate(pad_image(x, geometry), weight, y)
        return y


if __name__ == "__main__":
    from show import show

    raise SystemExit(show(Blocking, "2_im2col.py:Im2col", "3_compiled_loops.py:CompiledLoops"))
