"""Categorical cross-entropy, from logits or from probabilities, for labels or one row of targets a sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.autograd import differentiable
from nnlite.runtime.errors import as_array, boolean, numbers
from nnlite.runtime.operands import Floats

#: probabilities are kept this far from 0 and 1, as in Keras
EPSILON = 1e-7


@differentiable
def sparse_categorical_crossentropy(
    predictions: Floats, *, labels: np.ndarray, from_logits: bool = False
) -> tuple[np.ndarray, Any]:
    """The mean of -log p[label] over samples: predictions (n, classes), labels (n) integers -> ().

    Raises ValueError that names the first label out of range, or the shapes that do not fit.
    """
    labels = check_labels(labels, predictions.shape)
    if boolean("from_logits", from_logits):
        from nnlite.kernels.crossentropy import sparse_from_logits

        loss, gradient = sparse_from_logits(predictions, labels)
        return loss, lambda dloss: gradient * dloss

    rows = np.arange(len(labels))
    total = predictions.sum(axis=-1)  # (n)
    raw = predictions[rows, labels] / total
    p = np.clip(raw, EPSILON, 1 - EPSILON)

    def backward(dloss: np.ndarray) -> np.ndarray:
        # of -log(x[label] / sum(x)); where the clip holds the value, nothing flows
        scale = np.where(p == raw, -dloss / len(labels), 0).astype(predictions.dtype)  # (n)
        dx = np.repeat((-scale / total)[:, None], predictions.shape[1], axis=1)  # (n, classes)
        dx[rows, labels] += scale / (p * total)  # p is raw wherever the scale is not 0
        return dx

    return _mean(-np.log(p)), backward


@differentiable
def categorical_crossentropy(
    predictions: Floats, *, targets: np.ndarray, from_logits: bool = False
) -> tuple[np.ndarray, Any]:
    """The mean over samples of -sum(targets * log p): predictions and targets (n, classes) -> ().

    Raises ValueError if the shapes differ.
    """
    targets = numbers("y_true", targets).astype(predictions.dtype, copy=False)
    if targets.shape != predictions.shape or targets.ndim != 2:
        raise ValueError(f"y_true: expected one-hot rows, shape {predictions.shape}. Received: shape {targets.shape}")
    n = len(targets)
    if not n:
        raise ValueError(f"y_pred: expected shape (n, classes), n at least 1. Received: shape {predictions.shape}")
    if boolean("from_logits", from_logits):
        log_p = log_softmax(predictions)
        weight = targets.sum(axis=-1, keepdims=True)  # (n, 1), 1 where a row of targets is a distribution

        def from_logits_backward(dloss: np.ndarray) -> np.ndarray:
            return (np.exp(log_p) * weight - targets) * (dloss / n)

        return _mean(-(targets * log_p).sum(axis=-1)), from_logits_backward

    total = predictions.sum(axis=-1, keepdims=True)  # (n, 1)
    raw = predictions / total
    p = np.clip(raw, EPSILON, 1 - EPSILON)

    def backward(dloss: np.ndarray) -> np.ndarray:
        draw = np.where(p == raw, -targets / p, 0) * (dloss / n)  # (n, classes)
        return (draw - (draw * raw).sum(axis=-1, keepdims=True)) / total

    return _mean(-(targets * np.log(p)).sum(axis=-1)), backward


def log_softmax(x: np.ndarray) -> np.ndarray:
    """log(softmax(x)) along the last axis; the largest is subtracted first, so that nothing overflows."""
    shifted = x - x.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def check_labels(labels: Any, shape: tuple[int, ...], argument: str = "y_true") -> np.ndarray:
    """Labels as integers (n) for predictions of `shape`; a ValueError names the first that is no class."""
    labels = as_array(argument, labels)
    if len(shape) != 2 or not shape[0]:
        raise ValueError(f"y_pred: expected shape (n, classes), n at least 1. Received: shape {shape}")
    n, classes = shape
    if labels.shape not in ((n,), (n, 1)):
        raise ValueError(f"{argument}: expected {n} labels, one for each row of y_pred. Received: shape {labels.shape}")
    labels = labels.reshape(n)
    if labels.dtype.kind not in "iuf":
        raise ValueError(f"{argument}: expected integer labels. Received: dtype {labels.dtype}")
    if labels.dtype.kind == "f" and (fractional := labels != np.floor(labels)).any():
        i = int(fractional.argmax())
        raise ValueError(f"{argument}: expected integer labels. Received: {labels[i]} at position {i}")
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        i = int(outside.argmax())
        raise ValueError(f"{argument}: expected labels 0 to {classes - 1}. Received: {labels[i]} at position {i}")
    return labels.astype(np.int64, copy=False)


def _mean(losses: np.ndarray) -> np.ndarray:
    """The mean (), summed in float64, in the losses' dtype."""
    return np.asarray(losses.mean(dtype=np.float64), dtype=losses.dtype)
