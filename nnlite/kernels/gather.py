"""Gather the rows of a batch, and see on the way whether a number is missing."""

from __future__ import annotations

from math import prod

import numpy as np

from nnlite.compiler.compilation import jit
from nnlite.runtime import memory


@jit
def _gather(source, indices, out):
    """out[i] = source[indices[i]]; returns the first i whose row holds NaN or infinity, -1 if none does."""
    bad = -1
    for i in range(indices.size):
        row = indices[i]
        wrong = False
        for j in range(source.shape[1]):
            value = out.dtype.type(source[row, j])
            out[i, j] = value
            wrong |= value - value != 0
        if wrong and bad < 0:
            bad = i
    return bad


def gather_rows(source: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, int]:
    """(source[indices] in float, the first position in `indices` of a row that is not finite, or -1).

    source (n, ...) of any numeric dtype that Numba knows, C-contiguous; the result is float32, as parameters are.
    """
    out = memory.empty((len(indices), *source.shape[1:]))
    width = prod(source.shape[1:])
    bad = _gather(source.reshape(len(source), width), indices, out.reshape(len(out), width))
    return out, int(bad)
