"""Elementwise arithmetic with NumPy's broadcasting, functions of one element, and the matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.autograd import Tensor, differentiable
from nnlite.runtime.errors import numbers
from nnlite.runtime.operands import Floats

Result = tuple[np.ndarray, Any]


def unbroadcast(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum a gradient over the axes along which an array of `shape` was broadcast."""
    if gradient.shape == shape:
        return gradient
    added = gradient.ndim - len(shape)
    stretched = tuple(i + added for i, size in enumerate(shape) if size == 1 and gradient.shape[i + added] != 1)
    return gradient.sum(axis=(*range(added), *stretched)).reshape(shape)


@differentiable
def add(x: Floats | float, y: Floats | float) -> Result:
    """x + y"""
    return np.add(x, y), (lambda dz: unbroadcast(dz, np.shape(x)), lambda dz: unbroadcast(dz, np.shape(y)))


@differentiable
def subtract(x: Floats | float, y: Floats | float) -> Result:
    """x - y"""
    return np.subtract(x, y), (lambda dz: unbroadcast(dz, np.shape(x)), lambda dz: unbroadcast(-dz, np.shape(y)))


@differentiable
def multiply(x: Floats | float, y: Floats | float) -> Result:
    """x * y"""
    return np.multiply(x, y), (lambda dz: unbroadcast(dz * y, np.shape(x)), lambda dz: unbroadcast(dz * x, np.shape(y)))


@differentiable
def divide(x: Floats | float, y: Floats | float) -> Result:
    """x / y"""
    z = np.divide(x, y)
    return z, (lambda dz: unbroadcast(dz / y, np.shape(x)), lambda dz: unbroadcast(-dz * z / y, np.shape(y)))


@differentiable
def negative(x: Floats) -> Result:
    """-x"""
    return np.negative(x), np.negative


@differentiable
def power(x: Floats, *, exponent: float) -> Result:
    """x ** exponent, for a number as exponent"""
    if exponent == 0:  # constant, also at 0, where the formula below is 0 times infinity
        return x**exponent, np.zeros_like
    return x**exponent, lambda dz: dz * (exponent * x ** (exponent - 1))


@differentiable
def exp(x: Floats) -> Result:
    """e ** x"""
    y = np.exp(x)
    return y, lambda dy: dy * y


@differentiable
def log(x: Floats) -> Result:
    """The natural logarithm."""
    return np.log(x), lambda dy: dy / x


@differentiable
def sqrt(x: Floats) -> Result:
    """The square root."""
    y = np.sqrt(x)
    return y, lambda dy: dy / (2 * y)


@differentiable
def matmul(x: Floats, y: Floats) -> Result:
    """x @ y: matrices (m, k) and (k, n) -> (m, n), with leading batch axes broadcast; vectors as NumPy has them."""
    z = np.matmul(x, y)

    def backward(dz: np.ndarray, needs: tuple[bool, bool]) -> tuple:
        left = x[None, :] if x.ndim == 1 else x  # (..., m, k)
        right = y[:, None] if y.ndim == 1 else y  # (..., k, n)
        if x.ndim == 1:
            dz = np.expand_dims(dz, -1 if y.ndim == 1 else -2)
        if y.ndim == 1:
            dz = np.expand_dims(dz, -1)  # (..., m, n)
        dx = unbroadcast(dz @ right.swapaxes(-1, -2), left.shape).reshape(x.shape) if needs[0] else None
        dy = unbroadcast(left.swapaxes(-1, -2) @ dz, right.shape).reshape(y.shape) if needs[1] else None
        return dx, dy

    return z, backward


def _operand(value: Any, like: Tensor) -> Any:
    """What stands on the other side of an operator: numbers and arrays take the tensor's dtype."""
    if isinstance(value, Tensor):
        return value
    return numbers("operand", value).astype(like.data.dtype, copy=False)


def _power(x: Tensor, exponent: Any) -> Tensor:
    if not isinstance(exponent, (int, float, np.number)):
        raise TypeError(f"exponent: expected a number. Received: {type(exponent).__name__}")
    return power(x, exponent=float(exponent))


def _attach() -> None:
    operators: dict[str, Any] = {"add": add, "sub": subtract, "mul": multiply, "truediv": divide, "matmul": matmul}
    for name, operation in operators.items():
        setattr(Tensor, f"__{name}__", lambda x, y, op=operation: op(x, _operand(y, x)))
        setattr(Tensor, f"__r{name}__", lambda x, y, op=operation: op(_operand(y, x), x))
    for name, function in {"__neg__": negative, "exp": exp, "log": log, "sqrt": sqrt}.items():
        setattr(Tensor, name, function)
    Tensor.__pow__ = _power  # type: ignore[method-assign]


_attach()
