"""Your own algorithm: copy this file, change `forward`, then check and time it.

    nnlite bench --algorithm examples/own_algorithm.py:RowByRow

`python examples/own_algorithm.py` does the same for one layer, from Python.
"""

import numpy as np

import nnlite as nn
from nnlite.lab.bench import bench
from nnlite.lab.check import check
from nnlite.lab.shapes import resolve


class RowByRow(nn.conv.Algorithm):
    """One matrix product for each output row and each row of the kernel, over windows as wide as the kernel."""

    name = "row_by_row"  # unique; what `algorithm=` and `--only` call it
    uses_blas = True  # NumPy's matrix product: BLAS gets the threads while this runs

    def supports(self, geometry):
        """None, or the reason why not: then `auto` uses another algorithm."""
        if geometry.groups != 1 or geometry.dilation_rate != (1, 1):
            return "groups and dilation are not written yet"
        return None

    def forward(self, x, weight, geometry):
        """x (n, h, w, c), weight (r, s, c, k) -> y (n, oh, ow, k): new, C-contiguous, of x's dtype."""
        kh, kw, c, k = weight.shape
        n, oh, ow, _ = geometry.output_shape
        stride_h, stride_w = geometry.strides
        padded = np.pad(x, ((0, 0), *geometry.pads, (0, 0)))
        y = np.zeros(geometry.output_shape, x.dtype)
        for r in range(kh):
            rows = padded[:, r : r + (oh - 1) * stride_h + 1 : stride_h]  # (n, oh, w, c)
            windows = np.lib.stride_tricks.sliding_window_view(rows, kw, axis=2)[:, :, ::stride_w]  # (n, oh, ow, c, s)
            patches = windows.transpose(0, 1, 2, 4, 3).reshape(n * oh * ow, kw * c)
            y += (patches @ weight[r].reshape(kw * c, k)).reshape(y.shape)
        return y

    # grad_input and grad_weight are inherited; define them to try your own. Others that may be declared: dtypes,
    # error_bound (of float32 sums by default), moved_bytes, backward (both gradients at once): nn.conv.Algorithm.


if __name__ == "__main__":
    mine = nn.conv.register(RowByRow())
    found = check(mine)
    print(found.refusal or f"correct on {found.checked} geometries; declines {len(found.declined)}")

    run = bench([nn.conv.get("im2col"), mine], resolve(["16,32,26,26,64,3,3,1,0"], 16), ["forward"], rounds=10)
    for cell in run.rows[0].timed:
        print(f"{cell.algorithm}: {cell.median_ms:.2f} ms, {cell.gflops:.0f} GFLOP/s, {cell.verdict}")
