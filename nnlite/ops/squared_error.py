"""The mean squared error."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.autograd import differentiable
from nnlite.runtime import memory
from nnlite.runtime.errors import numbers
from nnlite.runtime.operands import Floats
from nnlite.runtime.replay import copied, noted


@differentiable
def mean_squared_error(predictions: Floats, *, targets: np.ndarray) -> tuple[np.ndarray, Any]:
    """The mean of (predictions - targets) ** 2, over all elements: two arrays of one shape -> ().

    Raises ValueError if the shapes differ, or if there is no element.
    """
    targets = numbers("y_true", targets)
    if targets.dtype != predictions.dtype:
        targets = copied(targets, predictions.dtype)
    if targets.shape != predictions.shape:
        raise ValueError(f"y_true: expected shape {predictions.shape}, that of y_pred. Received: shape {targets.shape}")
    if not targets.size:
        raise ValueError(f"y_pred: expected at least one number. Received: shape {predictions.shape}")
    loss, gradient = np.empty((), predictions.dtype), memory.empty(predictions.shape, predictions.dtype)
    noted(_forward, predictions, targets, loss, gradient)
    return loss, lambda dloss: noted(np.multiply, gradient, dloss, memory.empty(gradient.shape, gradient.dtype))


def _forward(predictions: np.ndarray, targets: np.ndarray, loss: np.ndarray, gradient: np.ndarray) -> None:
    np.subtract(predictions, targets, out=gradient)
    loss[()] = np.square(gradient).mean(dtype=np.float64)
    np.multiply(gradient, predictions.dtype.type(2 / gradient.size), out=gradient)
