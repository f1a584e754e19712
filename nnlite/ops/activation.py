"""Activation functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnlite.autograd import Tensor, differentiable
from nnlite.runtime import memory
from nnlite.runtime.errors import one_of
from nnlite.runtime.operands import Floats, readable
from nnlite.runtime.replay import noted

Result = tuple[np.ndarray, Any]


@differentiable
def relu(x: Floats) -> Result:
    """max(x, 0); NaN stays NaN. The gradient passes where the result is above 0."""
    y = memory.empty(x.shape, x.dtype)
    noted(_relu, x, y)
    return y, lambda dy: relu_gradient(dy, y)


def _relu(x: np.ndarray, y: np.ndarray) -> None:
    np.maximum(x, 0, out=y)


def relu_gradient(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dy where y, ReLU's result, is above 0, and zero elsewhere; in recycled memory."""
    above = noted(np.greater, y, 0, memory.empty(y.shape, np.bool_))
    return noted(np.multiply, dy, above, memory.empty(y.shape, y.dtype))


@differentiable
def sigmoid(x: Floats) -> Result:
    """1 / (1 + e ** -x)."""
    y = logistic(x)
    return y, lambda dy: sigmoid_gradient(dy, y)


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e ** -x), in recycled memory; where e ** -x is too large for a number, 0, which is nearest."""
    y = memory.empty(x.shape, x.dtype)
    noted(_logistic, x, y)
    return y


def _logistic(x: np.ndarray, y: np.ndarray) -> None:
    np.negative(x, out=y)
    with np.errstate(over="ignore"):
        np.exp(y, out=y)
    np.add(y, 1, out=y)
    np.divide(1, y, out=y)


def sigmoid_gradient(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dy * y * (1 - y) for y, sigmoid's result; in recycled memory."""
    slope = noted(np.subtract, 1, y, memory.empty(y.shape, y.dtype))
    noted(np.multiply, y, slope, slope)
    return noted(np.multiply, dy, slope, slope)


@differentiable
def tanh(x: Floats) -> Result:
    """The hyperbolic tangent."""
    y = noted(np.tanh, x, memory.empty(x.shape, x.dtype))
    return y, lambda dy: tanh_gradient(dy, y)


def tanh_gradient(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dy * (1 - y * y) for y, tanh's result; in recycled memory."""
    slope = noted(np.multiply, y, y, memory.empty(y.shape, y.dtype))
    noted(np.subtract, 1, slope, slope)
    return noted(np.multiply, dy, slope, slope)


@differentiable
def softmax(x: Floats) -> Result:
    """e ** x / sum(e ** x) along the last axis; the largest element is subtracted first, so that nothing overflows."""
    from nnlite.kernels import activation

    if not x.shape or not x.shape[-1]:
        raise ValueError(f"x: expected a last axis of at least 1. Received: shape {x.shape}")
    y = activation.softmax(readable(x).reshape(-1, x.shape[-1])).reshape(x.shape)
    return y, lambda dy: softmax_gradient(dy, y)


def softmax_gradient(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """y * (dy - sum(dy * y)) for y, softmax's result; in recycled memory."""
    dx = memory.empty(y.shape, y.dtype)
    noted(_softmax_gradient, dy, y, dx)
    return dx


def _softmax_gradient(dy: np.ndarray, y: np.ndarray, dx: np.ndarray) -> None:
    np.multiply(y, dy - np.sum(dy * y, axis=-1, keepdims=True), out=dx)


@differentiable
def linear(x: Floats) -> Result:
    """x itself."""
    return x, lambda dy: dy


ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "linear": linear,
    "relu": relu,
    "sigmoid": sigmoid,
    "softmax": softmax,
    "tanh": tanh,
}


def get_activation(activation: str | Callable | None) -> Callable[..., Tensor]:
    """The operation of that name; None is "linear"; a callable is itself. Raises ValueError on an unknown name."""
    if activation is None:
        return linear
    if callable(activation):
        return activation
    return one_of("activation", activation, ACTIVATIONS)


def activation_name(activation: Callable[..., Tensor]) -> str | None:
    """The name under which `get_activation` knows an operation, None if it does not."""
    return next((name for name, known in ACTIVATIONS.items() if known is activation), None)
