"""Step 3: compiled loops. The seven loops of step 1, compiled by Numba, with each output's sum in a register.

What changed: `jit` makes machine code of the function at its first call, for the types of its arguments. Nothing is
copied any more. See "of peak" in the table for how far that is from what the processor can do. The reason: from c to
c + 1 `weight` goes on by as many numbers as there are output channels, so no load can bring a vector of them. LLVM may
compile the innermost loop in two versions: one of vectors, for weights with a single output channel, and one that loads
number by number, for all others. The latter is what runs here.

Exercise: Exchange the loops so that the innermost one runs over numbers that are neighbours, in `weight` and in `y`:
LLVM then uses vectors by itself. Order the others so that what the inner loops touch again and again is small
enough for the first cache (32 kB, usually). The solution is 4_blocking.py.
"""

import numpy as np

import nnlite as nn
from nnlite.compiler import ENABLED, jit
from nnlite.conv.patches import pad_image


@jit
def correlate(x, weight, y):
    """y[n, i, j, k] = sum over r, s, c of x[n, i + r, j + s, c] * weight[r, s, c, k]"""
    kh, kw, channels, filters = weight.shape
    images, height, width, _ = y.shape
    for n in range(images):
        for i in range(height):
            for j in range(width):
                for k in range(filters):
                    total = np.float32(0)
                    for r in range(kh):
                        for s in range(kw):
                            for c in range(channels):
                                total += x[n, i + r, j + s, c] * weight[r, s, c, k]
                    y[n, i, j, k] = total


class CompiledLoops(nn.conv.Algorithm):
    """The seven loops, compiled."""

    name = "compiled_loops"
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

    raise SystemExit(show(CompiledLoops, "1_seven_loops.py:SevenLoops", "2_im2col.py:Im2col", loops=2))
