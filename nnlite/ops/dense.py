"""The fully connected layer's product."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from nnlite import scopes
from nnlite.autograd import differentiable


@differentiable
def dense(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, *, relu: bool = False
) -> tuple[np.ndarray, Any]:
    """y = x @ weight + bias: x (..., in), weight (in, out), bias (out) -> y (..., out). With `relu`, max(y, 0).

    Raises ValueError if the shapes do not fit.
    """
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[0]:
        raise ValueError(
            f"x: expected shape (..., {weight.shape[0]}), as weight has shape {weight.shape}. Received: shape {x.shape}"
        )
    if bias is not None and bias.shape != weight.shape[1:]:
        raise ValueError(f"bias: expected shape {weight.shape[1:]}. Received: shape {bias.shape}")
    rows = x.reshape(prod(x.shape[:-1]), x.shape[-1])  # (m, in)
    y = rows @ weight  # (m, out)
    if bias is not None:
        y += bias
    if relu:
        np.maximum(y, 0, out=y)

    def backward(dy: np.ndarray, needs: tuple[bool, ...]) -> tuple:
        dy = dy.reshape(y.shape)  # (m, out)
        if relu:
            dy = dy * (y > 0)
        dx = dweight = dbias = None
        if needs[0]:
            dx = (dy @ weight.T).reshape(x.shape)
        with scopes.scope(None, "grad_weight"):
            if needs[1]:
                dweight = rows.T @ dy
            if needs[2]:
                dbias = dy.sum(axis=0)
        return dx, dweight, dbias

    return y.reshape(*x.shape[:-1], weight.shape[1]), backward
