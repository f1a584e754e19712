"""The same numbers in another shape or order."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from nnlite.autograd import Tensor, differentiable
from nnlite.runtime.operands import Floats

Result = tuple[np.ndarray, Any]


@differentiable
def reshape(x: Floats, *, shape: tuple[int, ...]) -> Result:
    """The same elements, in C order, in another shape; one size may be -1."""
    return x.reshape(shape), lambda dy: dy.reshape(x.shape)


@differentiable
def transpose(x: Floats, *, axes: tuple[int, ...] | None = None) -> Result:
    """The axes in another order; all reversed if none are given."""
    back = None if axes is None else np.argsort([axis % x.ndim for axis in axes])
    return x.transpose(axes), lambda dy: dy.transpose(back)


@differentiable
def getitem(x: Floats, *, index: Any) -> Result:
    """x[index], as NumPy indexes; an element that is taken twice gets both gradients."""

    def backward(dy: np.ndarray) -> np.ndarray:
        dx = np.zeros_like(x)
        if _takes_each_once(index):
            dx[index] = dy
        else:
            np.add.at(dx, index, dy)
        return dx

    return np.asarray(x[index]), backward


@differentiable
def flatten(x: Floats) -> Result:
    """All axes but the first as one: (n, ...) -> (n, features)."""
    return x.reshape(x.shape[0], prod(x.shape[1:])), lambda dy: dy.reshape(x.shape)


def _takes_each_once(index: Any) -> bool:
    """Whether an index is made of integers, slices, None and ... alone, so that it names no element twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice)) for part in parts)


def _unpacked(arguments: tuple) -> tuple:
    return tuple(arguments[0]) if len(arguments) == 1 and isinstance(arguments[0], (tuple, list)) else arguments


def _getitem(x: Tensor, index: Any) -> Tensor:
    return getitem(x, index=index)


Tensor.reshape = lambda x, *shape: reshape(x, shape=_unpacked(shape))  # type: ignore[method-assign]
Tensor.transpose = lambda x, *axes: transpose(x, axes=_unpacked(axes) or None)  # type: ignore[method-assign]
Tensor.T = property(lambda x: transpose(x))  # type: ignore[assignment]
Tensor.__getitem__ = _getitem  # type: ignore[method-assign]
