"""Max pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.autograd import differentiable
from nnlite.conv.geometry import Padding, pooled
from nnlite.runtime.errors import int_pair
from nnlite.runtime.operands import Floats, readable


@differentiable
def max_pool2d(
    x: Floats,
    pool_size: int | tuple[int, int] = 2,
    strides: int | tuple[int, int] | None = None,
    padding: Padding = "valid",
) -> tuple[np.ndarray, Any]:
    """The largest of each window of x (n, h, w, c) -> (n, oh, ow, c). `strides=None` is the pool's size.

    Padding never wins, the first of equals wins, a NaN in the window wins; the gradient goes to the maximum.
    Raises ValueError if x has another rank, or a window does not fit or may lie in the padding alone.
    """
    from nnlite.kernels.pooling import max_pool, max_pool_backward

    if x.ndim != 4:
        raise ValueError(f"x: expected 4 dimensions (n, h, w, c). Received: shape {x.shape}")
    pool = int_pair("pool_size", pool_size)
    steps = pool if strides is None else int_pair("strides", strides)
    pads, size = pooled((x.shape[1], x.shape[2]), pool, steps, padding)
    y, argmax = max_pool(readable(x), size, pool, steps, pads)

    def backward(dy: np.ndarray, needs: tuple) -> tuple:
        dx = max_pool_backward(readable(dy), argmax, x.shape, pool, steps, pads)
        return dx, None, None, None

    return y, backward
