"""Step 1: seven loops. The definition of a convolution, as it stands in a textbook, in Python.

Each output y[n, i, j, k] is a sum over the kernel's rows r, its columns s and the input channels c. It is right, it is
easy to read, and it is what all that follows is checked against. In Python each multiplication costs many function
calls and objects: the table says how little of the processor's peak is left. So it is timed on a slice of the layer,
and the time is scaled (~).

Exercise: Write the three sums over r, s and c as one matrix product. Hint: copy the patch of the image that each output
pixel needs into a row of a matrix; the weights are a matrix as they are. The solution is 2_im2col.py.
"""

import numpy as np

import nnlite as nn
from nnlite.conv.patches import pad_image


class SevenLoops(nn.conv.Algorithm):
    """The definition: seven Python loops."""

    name = "seven_loops"
    reference_only = True  # so slow that it is for reading and checking

    def supports(self, geometry):
        plain = geometry.strides == geometry.dilation_rate == (1, 1) and geometry.groups == 1
        return None if plain else "this step is for stride 1 without dilation or groups"

    def forward(self, x, weight, geometry):
        """x (n, h, w, c), weight (r, s, c, k) -> y (n, i, j, k)"""
        x = pad_image(x, geometry)  # within its border of zeros
        kh, kw, channels, _ = weight.shape
        images, height, width, filters = geometry.output_shape
        y = np.zeros(geometry.output_shape, x.dtype)
        for n in range(images):
            for i in range(height):
                for j in range(width):
                    for k in range(filters):
                        for r in range(kh):
                            for s in range(kw):
                                for c in range(channels):
                                    y[n, i, j, k] += x[n, i + r, j + s, c] * weight[r, s, c, k]
        return y


if __name__ == "__main__":
    from show import show

    raise SystemExit(show(SevenLoops, loops=0))
