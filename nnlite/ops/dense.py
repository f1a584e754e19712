"""The fully connected layer's product."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from nnlite.autograd import differentiable
from nnlite.runtime import random, scopes
from nnlite.runtime.errors import boolean, fraction
from nnlite.runtime.operands import Floats, fitting, one_dtype, readable

_FLOAT32 = np.dtype(np.float32)


class Products(NamedTuple):
    """The matrix products of a dense layer, forward and back."""

    forward: Callable[..., np.ndarray]  # (x, weight, bias, relu) -> relu(x @ weight + bias)
    grad_input: Callable[..., np.ndarray]  # (dy, weight) -> dy @ weight.T
    grad_weight: Callable[..., np.ndarray]  # (x, dy) -> x.T @ dy
    #: (x, weight, dy, needs) -> (dx, dweight), where they share work
    gradients: Callable[..., tuple] | None = None
    #: whether `forward` takes a dropout mask too
    drops: bool = False


@differentiable
def dense(
    x: Floats,
    weight: Floats,
    bias: Floats | None = None,
    *,
    relu: bool = False,
    dropout: float = 0.0,
    seed: random.Seed = 0,
) -> tuple[np.ndarray, Any]:
    """y = x @ weight + bias: x (..., in), weight (in, out), bias (out) -> y (..., out). With `relu`, max(y, 0).

    With `relu`, `dropout` and `seed` do what `ops.dropout` does. Dropped elements are 0, as negative ones are after
    ReLU, so the gradient needs no second mask.
    float32 is computed on register tiles, with bias and ReLU in their store; float64 by NumPy.
    Raises ValueError if the shapes or dtypes do not fit, `dropout` is not in [0, 1) or asked for without `relu`, or
    `seed` no integer of at least 0.
    """
    relu = boolean("relu", relu)
    if dropout:
        dropout, seed = fraction("dropout", dropout), random.mask_seed("seed", seed)
    if dropout and not relu:
        raise ValueError(f"dropout: expected relu=True with it. Received: dropout={dropout} alone")
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[0]:
        raise ValueError(
            f"x: expected shape (..., {weight.shape[0]}), as weight has shape {weight.shape}. Received: shape {x.shape}"
        )
    one_dtype(x, weight, bias)
    if bias is not None:
        bias = fitting("bias", bias, weight.shape[1:], x.dtype)
    products = (_on_tiles(weight.shape[1]) if x.dtype == _FLOAT32 else None) or _NUMPY
    rows = readable(x).reshape(prod(x.shape[:-1]), x.shape[-1])  # (m, in)
    weight = readable(weight)
    if dropout and products.drops:
        from nnlite.kernels.dropout import Mask

        y = products.forward(rows, weight, bias, relu, Mask.of(dropout, seed))  # (m, out)
    else:
        y = products.forward(rows, weight, bias, relu)
        if dropout:
            from nnlite.kernels.dropout import apply_mask

            y = apply_mask(y, dropout, seed)

    def backward(dy: np.ndarray, needs: tuple[bool, ...]) -> tuple:
        dy = readable(dy).reshape(y.shape)  # (m, out)
        dx = dweight = dbias = None
        if relu:
            from nnlite.kernels.activation import relu_backward

            dy, dbias = relu_backward(dy, y, 1 / (1 - dropout))
        elif needs[2]:
            from nnlite.kernels.activation import bias_gradient

            dbias = bias_gradient(dy)
        if products.gradients is not None:
            with scopes.scope(None, scopes.gradient_part(needs)):
                dx, dweight = products.gradients(rows, weight, dy, needs[:2])
        else:
            if needs[0]:
                dx = products.grad_input(dy, weight)
            if needs[1]:
                with scopes.scope(None, "grad_weight"):
                    dweight = products.grad_weight(rows, dy)
        return None if dx is None else dx.reshape(x.shape), dweight, dbias

    return y.reshape(*x.shape[:-1], weight.shape[1]), backward


def drops_in_kernel(columns: int, dtype: Any) -> bool:
    """Whether the kernel of a product with that many columns includes the dropout; otherwise it is a separate pass."""
    products = _on_tiles(columns) if np.dtype(dtype) == _FLOAT32 else None
    return products is not None and products.drops


@lru_cache(maxsize=1024)
def _on_tiles(columns: int) -> Products | None:
    """Those on register tiles for a result of that many columns, None where no kernel can be compiled."""
    from nnlite.compiler import compilation

    if not compilation.ENABLED:
        return None
    from nnlite.kernels import matmul, tall_skinny

    if columns <= tall_skinny.WIDEST:
        return Products(tall_skinny.matmul, matmul.matmul_nt, matmul.matmul_tn, tall_skinny.gradients)
    return Products(matmul.matmul, matmul.matmul_nt, matmul.matmul_tn, drops=True)


def _forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, relu: bool) -> np.ndarray:
    y = x @ weight  # (m, out)
    if bias is not None:
        y += bias
    if relu:
        np.maximum(y, 0, out=y)
    return y


_NUMPY = Products(_forward, lambda dy, weight: dy @ weight.T, lambda x, dy: x.T @ dy)
