"""Categorical cross-entropy, from logits or from probabilities, for labels or one row of targets a sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.autograd import differentiable
from nnlite.runtime import memory
from nnlite.runtime.errors import as_array, boolean, numbers
from nnlite.runtime.operands import Floats
from nnlite.runtime.replay import copied, noted

#: probabilities are kept this far from 0 and 1, as in Keras
EPSILON = 1e-7


@differentiable
def sparse_categorical_crossentropy(
    predictions: Floats, *, labels: np.ndarray, from_logits: bool = False
) -> tuple[np.ndarray, Any]:
    """The mean of -log p[label] over samples: predictions (n, classes), labels (n) integers -> ().

    Raises ValueError that names the first label out of range, or the shapes that do not fit.
    """
    if boolean("from_logits", from_logits):
        from nnlite.kernels.crossentropy import sparse_from_logits

        labels = _integers(labels, predictions.shape, "y_true")
        integers = labels if labels.dtype == np.int64 else copied(labels, np.int64)
        loss, gradient, bad = sparse_from_logits(predictions, integers)
        noted(_require_classes, labels, bad, predictions.shape[1])
        return loss, lambda dloss: noted(np.multiply, gradient, dloss, memory.empty(gradient.shape, gradient.dtype))

    labels = check_labels(labels, predictions.shape)
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
    targets = numbers("y_true", targets)
    if targets.dtype != predictions.dtype or not targets.flags.c_contiguous:
        targets = copied(targets, predictions.dtype)
    if targets.shape != predictions.shape or targets.ndim != 2:
        raise ValueError(f"y_true: expected one-hot rows, shape {predictions.shape}. Received: shape {targets.shape}")
    n = len(targets)
    if not n:
        raise ValueError(f"y_pred: expected shape (n, classes), n at least 1. Received: shape {predictions.shape}")
    if boolean("from_logits", from_logits):
        loss, gradient = np.empty((), predictions.dtype), memory.empty(predictions.shape, predictions.dtype)
        noted(_from_logits, predictions, targets, loss, gradient)
        return loss, lambda dloss: noted(np.multiply, gradient, dloss, memory.empty(gradient.shape, gradient.dtype))

    total = predictions.sum(axis=-1, keepdims=True)  # (n, 1)
    raw = predictions / total
    p = np.clip(raw, EPSILON, 1 - EPSILON)

    def backward(dloss: np.ndarray) -> np.ndarray:
        draw = np.where(p == raw, -targets / p, 0) * (dloss / n)  # (n, classes)
        return (draw - (draw * raw).sum(axis=-1, keepdims=True)) / total

    return _mean(-(targets * np.log(p)).sum(axis=-1)), backward


def _from_logits(logits: np.ndarray, targets: np.ndarray, loss: np.ndarray, gradient: np.ndarray) -> None:
    """loss () = the mean of -sum(targets * log softmax(logits)); gradient (n, classes) = its gradient."""
    log_p = log_softmax(logits)
    weight = targets.sum(axis=-1, keepdims=True)  # (n, 1), 1 where a row of targets is a distribution
    loss[()] = _mean(-(targets * log_p).sum(axis=-1))
    gradient[:] = (np.exp(log_p) * weight - targets) * logits.dtype.type(1 / len(logits))


def log_softmax(x: np.ndarray) -> np.ndarray:
    """log(softmax(x)) along the last axis; the largest is subtracted first, so that nothing overflows."""
    shifted = x - x.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def check_labels(labels: Any, shape: tuple[int, ...], argument: str = "y_true") -> np.ndarray:
    """Labels as integers (n) for predictions of `shape`; a ValueError names the first that is no class."""
    labels = _integers(labels, shape, argument)
    outside = (labels < 0) | (labels >= shape[1])
    if outside.any():
        raise _no_class(labels, int(outside.argmax()), shape[1], argument)
    return labels.astype(np.int64, copy=False)


def _integers(labels: Any, shape: tuple[int, ...], argument: str) -> np.ndarray:
    """Labels (n) for predictions of `shape`, of any dtype, but integers."""
    labels = as_array(argument, labels)
    if len(shape) != 2 or not shape[0]:
        raise ValueError(f"y_pred: expected shape (n, classes), n at least 1. Received: shape {shape}")
    n = shape[0]
    if labels.shape not in ((n,), (n, 1)):
        hint = ", one-hot rows: use the loss categorical_crossentropy" if labels.shape == shape else ""
        raise ValueError(
            f"{argument}: expected {n} labels, one for each row of y_pred. Received: shape {labels.shape}{hint}"
        )
    labels = labels.reshape(n)
    if labels.dtype.kind not in "iuf":
        raise ValueError(f"{argument}: expected integer labels. Received: dtype {labels.dtype}")
    if labels.dtype.kind == "f":
        noted(_require_integers, labels, argument)
    return labels


def _require_integers(labels: np.ndarray, argument: str) -> None:
    if (fractional := (labels != np.floor(labels)) | np.isinf(labels)).any():
        i = int(fractional.argmax())
        raise ValueError(f"{argument}: expected integer labels. Received: {labels[i]} at position {i}")


def _require_classes(labels: np.ndarray, bad: np.ndarray, classes: int) -> None:
    if bad >= 0:
        raise _no_class(labels, int(bad), classes, "y_true")


def _no_class(labels: np.ndarray, i: int, classes: int, argument: str) -> ValueError:
    return ValueError(f"{argument}: expected labels 0 to {classes - 1}. Received: {labels[i]} at position {i}")


def _mean(losses: np.ndarray) -> np.ndarray:
    """The mean (), summed in float64, in the losses' dtype."""
    return np.asarray(losses.mean(dtype=np.float64), dtype=losses.dtype)
