"""Step 2: im2col. The patch of each output pixel becomes a row of a matrix, and one matrix product does the rest.

What changed: the seven loops are now in NumPy, and the multiplications in BLAS, which somebody has tuned for this very
processor. The price is memory: a 3x3 kernel copies each pixel nine times ("extra" in the table), and reading and
writing that takes time in which nothing is multiplied.

Exercise: Do without the copy. Write the seven loops again, and have them compiled: put `@nn.compiler.jit` above a
function of arrays and numbers that has no Python objects in it. Keep the sum of one output in a local variable. The
solution is 3_compiled_loops.py.
"""

import numpy as np

import nnlite as nn
from nnlite.conv.patches import pad_image


class Im2col(nn.conv.Algorithm):
    """Every patch a row of a matrix, one matrix product."""

    name = "tutorial_im2col"
    uses_blas = True  # NumPy's matrix product: BLAS gets the threads while this runs

    def supports(self, geometry):
        plain = geometry.strides == geometry.dilation_rate == (1, 1) and geometry.groups == 1
        return None if plain else "this step is for stride 1 without dilation or groups"

    def forward(self, x, weight, geometry):
        """x (n, h, w, c), weight (r, s, c, k) -> y (n, i, j, k)"""
        kh, kw, channels, filters = weight.shape
        windows = np.lib.stride_tricks.sliding_window_view(pad_image(x, geometry), (kh, kw), axis=(1, 2))
        patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, kh * kw * channels)  # (n * i * j, r * s * c): a copy
        return (patches @ weight.reshape(-1, filters)).reshape(geometry.output_shape)


if __name__ == "__main__":
    from show import show

    raise SystemExit(show(Im2col, "1_seven_loops.py:SevenLoops", loops=0))
