"""Sums, means and maxima over axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.autograd import Tensor, differentiable
from nnlite.runtime.errors import boolean
from nnlite.runtime.operands import Floats

Result = tuple[np.ndarray, Any]
Axis = int | tuple[int, ...] | None


def _over(gradient: np.ndarray, axis: Axis, keepdims: bool) -> np.ndarray:
    """A gradient of the reduced array, with the reduced axes back as axes of length 1."""
    if axis is None or keepdims:
        return gradient
    return np.expand_dims(gradient, axis)


@differentiable
def sum(x: Floats, axis: Axis = None, keepdims: bool = False) -> Result:
    """The sum over `axis` (an int, several, or None for all)."""

    def backward(dy: np.ndarray, needs: tuple) -> tuple:
        return np.broadcast_to(_over(dy, axis, keepdims), x.shape), None, None

    return x.sum(axis=axis, keepdims=boolean("keepdims", keepdims)), backward


@differentiable
def mean(x: Floats, axis: Axis = None, keepdims: bool = False) -> Result:
    """The mean over `axis` (an int, several, or None for all)."""
    y = x.mean(axis=axis, keepdims=boolean("keepdims", keepdims), dtype=x.dtype)
    count = x.size / (np.size(y) or 1)  # there may be none: an empty batch

    def backward(dy: np.ndarray, needs: tuple) -> tuple:
        return np.broadcast_to(_over(dy, axis, keepdims) / x.dtype.type(count), x.shape), None, None

    return y, backward


@differentiable
def max(x: Floats, axis: Axis = None, keepdims: bool = False) -> Result:
    """The maximum over `axis` (an int, several, or None for all). Equal maxima share the gradient."""
    y = x.max(axis=axis, keepdims=boolean("keepdims", keepdims))

    def backward(dy: np.ndarray, needs: tuple) -> tuple:
        largest = x == _over(y, axis, keepdims)
        share = largest / largest.sum(axis=axis, keepdims=True, dtype=x.dtype)
        return _over(dy, axis, keepdims) * share, None, None

    return y, backward


Tensor.sum = sum  # type: ignore[method-assign]
Tensor.mean = mean  # type: ignore[method-assign]
Tensor.max = max  # type: ignore[method-assign]
