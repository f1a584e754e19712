"""Metrics: what fit and evaluate report besides the loss. `(y_true, y_pred) -> mean over the batch`, as in Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnlite.autograd import Tensor
from nnlite.runtime.errors import one_of

#: (y_true, y_pred) -> the mean over a batch, or one value per sample (n)
Metric = Callable[[np.ndarray, np.ndarray], Any]


def accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """The fraction of rows of y_pred (n, classes) whose largest value is at the label.

    y_true holds labels (n), or rows (n, classes) whose largest value marks the class. A y_pred of (n, 1) holds the
    probability of label 1, with a threshold of 0.5. Raises ValueError if y_pred has another rank.
    """
    if y_pred.ndim != 2 or not len(y_pred):
        raise ValueError(f"y_pred: expected shape (n, classes), n at least 1. Received: shape {y_pred.shape}")
    if y_pred.shape[1] == 1:
        return np.count_nonzero((y_pred[:, 0] >= 0.5) == (y_true.reshape(-1) == 1)) / len(y_pred)
    labels = y_true.argmax(axis=-1) if y_true.ndim == y_pred.ndim and y_true.shape[-1] > 1 else y_true.reshape(-1)
    return np.count_nonzero(y_pred.argmax(axis=-1) == labels) / len(y_pred)


def mean_absolute_error(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """The mean absolute difference; y_true has y_pred's shape, or (n) for (n, 1).

    Raises ValueError if the shapes do not fit.
    """
    if y_true.shape != y_pred.shape:
        if y_true.size != y_pred.size or len(y_true) != len(y_pred):
            raise ValueError(f"y_true: expected shape {y_pred.shape}, that of y_pred. Received: shape {y_true.shape}")
        y_true = y_true.reshape(y_pred.shape)
    return float(np.abs(y_true - y_pred).mean())


_METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "acc": accuracy,
    "sparse_categorical_accuracy": accuracy,
    "categorical_accuracy": accuracy,
    "mean_absolute_error": mean_absolute_error,
    "mae": mean_absolute_error,
}


def is_known(name: str, metric: Metric) -> bool:
    """Whether this is the built-in metric of that name."""
    return _METRICS.get(name) is metric


def get(metric: str | Metric) -> tuple[str, Metric]:
    """(name, function) of a metric, given as either."""
    if callable(metric):
        return getattr(metric, "__name__", "metric"), metric
    return metric, one_of("metric", metric, _METRICS)


def check_names(names: list[str]) -> None:
    """Raise ValueError if a result would replace another of the same name."""
    reported = ["loss", *names]
    reported += [f"val_{name}" for name in reported]
    if len(set(reported)) < len(reported):
        raise ValueError(
            "metrics: expected different names, and none that fit uses (loss, val_loss, ...). "
            f"Received: {', '.join(names)}. A function's name is its __name__"
        )


def total(name: str, value: Any, n: int) -> float:
    """The sum over a batch of `n` samples, from what a metric returned. Raises ValueError if it is neither form."""
    if value.__class__ is float:
        return value * n
    array = value.data if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.kind in "fiub" and array.shape == ():
        return float(array) * n
    if array.dtype.kind in "fiub" and array.shape == (n,):
        return float(array.sum(dtype=np.float64))
    received = f"shape {array.shape}" if array.dtype.kind in "fiub" else f"{value!r:.60}"
    raise ValueError(f"metric {name!r}: expected a mean, or one number per sample, shape ({n},). Received: {received}")
