"""What the sums of a product begin with: a bias, filled up to whole register tiles."""

from __future__ import annotations

import numpy as np

from nnlite.runtime.replay import filled, noted


def start_values(bias: np.ndarray | None, groups: int, columns: int) -> np.ndarray:
    """(groups * columns): the bias (k), or zeros, each group filled up to `columns` with zeros."""
    if bias is not None and bias.size == groups * columns:
        return bias
    result = filled((groups, columns), np.float32, 0)
    if bias is not None:
        noted(np.copyto, result[:, : bias.size // groups], bias.reshape(groups, -1))
    return result.reshape(-1)
