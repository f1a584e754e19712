"""Functions of one element."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.autograd import Tensor, differentiable
from nnlite.runtime.operands import Floats

Result = tuple[np.ndarray, Any]


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


Tensor.exp = exp  # type: ignore[method-assign]
Tensor.log = log  # type: ignore[method-assign]
Tensor.sqrt = sqrt  # type: ignore[method-assign]
