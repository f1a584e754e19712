"""Softmax and cross-entropy of labels in one pass over the logits: the loss and its gradient."""

from __future__ import annotations

import numpy as np

from nnlite.compiler.compilation import jit
from nnlite.runtime import memory


@jit
def _forward(logits, labels, dlogits):
    """The mean of -log softmax(logits)[label], summed in float64; dlogits = its gradient."""
    n, classes = logits.shape
    one = logits.dtype.type(1)
    share = one / logits.dtype.type(n)
    loss = 0.0
    for i in range(n):
        row, gradient = logits[i], dlogits[i]
        largest = row[0]
        for j in range(1, classes):
            largest = row[j] if row[j] > largest or row[j] != row[j] else largest
        total = logits.dtype.type(0)
        for j in range(classes):
            gradient[j] = np.exp(row[j] - largest)
            total += gradient[j]
        loss += np.log(total) - (row[labels[i]] - largest)
        scale = share / total
        for j in range(classes):
            gradient[j] *= scale
        gradient[labels[i]] -= share
    return loss / n


def sparse_from_logits(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the mean loss (), its gradient (n, classes)) of logits (n, classes) and int64 labels in range (n)."""
    dlogits = memory.empty(logits.shape, logits.dtype)
    loss = _forward(logits, labels, dlogits)
    return np.asarray(loss, dtype=logits.dtype), dlogits
