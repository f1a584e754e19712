"""Losses with Keras's names: `(y_true, y_pred) -> Tensor of shape ()`, the mean over the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnlite import ops
from nnlite.autograd import Tensor
from nnlite.ops import crossentropy
from nnlite.runtime.errors import numbers, one_of

Loss = Callable[..., Tensor]


def sparse_categorical_crossentropy(y_true: Any, y_pred: Tensor, from_logits: bool = False) -> Tensor:
    """Mean of -log of the probability of each label: y_true (n) integers, y_pred (n, classes).

    y_pred holds probabilities, or logits if `from_logits` (stable for logits of any size).
    Raises ValueError if the shapes do not fit or a label is out of range.
    """
    return ops.sparse_categorical_crossentropy(y_pred, labels=_array(y_true), from_logits=from_logits)


def categorical_crossentropy(y_true: Any, y_pred: Tensor, from_logits: bool = False) -> Tensor:
    """Mean over the batch of -sum(y_true * log p): both (n, classes), y_true one-hot or a distribution.

    Raises ValueError if the shapes differ.
    """
    return ops.categorical_crossentropy(y_pred, targets=_array(y_true), from_logits=from_logits)


def mean_squared_error(y_true: Any, y_pred: Tensor) -> Tensor:
    """Mean of the squared differences: both of the same shape, or y_true (n) for y_pred (n, 1).

    Raises ValueError if the shapes do not fit.
    """
    target = _array(y_true)
    if target.ndim == 1 and np.shape(y_pred) == (len(target), 1):
        target = target[:, None]  # (n, 1)
    return ops.mean_squared_error(y_pred, targets=target)


_LOSSES: dict[str, Loss] = {
    "sparse_categorical_crossentropy": sparse_categorical_crossentropy,
    "categorical_crossentropy": categorical_crossentropy,
    "mean_squared_error": mean_squared_error,
    "mse": mean_squared_error,
}


def get(loss: str | Loss) -> Loss:
    """The loss of that name, or the callable itself. Raises ValueError, which lists the names."""
    if callable(loss):
        return loss
    return one_of("loss", loss, _LOSSES)


def check_targets(argument: str, y_true: Any, output_shape: tuple[int, ...], loss: Loss) -> None:
    """Raise ValueError, which names `argument`, if targets do not fit a built-in loss."""
    if loss is sparse_categorical_crossentropy and len(output_shape) == 1:
        labels = _array(y_true)
        crossentropy.check_labels(labels, (len(labels), *output_shape), argument)
    elif loss in (categorical_crossentropy, mean_squared_error):
        shape = np.shape(_array(y_true))
        if shape[1:] != output_shape and (loss is categorical_crossentropy or shape[1:] or output_shape != (1,)):
            raise ValueError(f"{argument}: expected shape {(shape[0], *output_shape)}. Received: shape {shape}")


def name_of(loss: Loss | None) -> str | None:
    """The name of a built-in loss, None for others."""
    return next((name for name, known in _LOSSES.items() if known is loss), None)


def _array(y_true: Any) -> np.ndarray:
    return y_true.data if isinstance(y_true, Tensor) else numbers("y_true", y_true)
