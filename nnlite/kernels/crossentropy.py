"""Softmax and cross-entropy of labels in one pass over the logits: the loss and its gradient."""

from __future__ import annotations

import numpy as np

from nnlite.compiler.compilation import jit
from nnlite.runtime import memory


@jit
def _forward(logits, labels, dlogits):
    """The mean of -log softmax(logits)[label], summed in float64, which is never negative; dlogits = its gradient.

    Where a label is no class: -1 - the place of the first.
    """
    n, classes = logits.shape
    one = logits.dtype.type(1)
    share = one / logits.dtype.type(n)
    loss = 0.0
    for i in range(n):
        if not 0 <= labels[i] < classes:
            return -1.0 - i
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


def sparse_from_logits(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """(the mean loss (), its gradient (n, classes), -1) of logits (n, classes) and int64 labels (n).

    The last is the place of the first label that is no class, if there is one; then the others are undefined.
    """
    dlogits = memory.empty(logits.shape, logits.dtype)
    loss = _forward(logits, labels, dlogits)
    return np.asarray(loss, dtype=logits.dtype), dlogits, int(-1 - loss) if loss < 0 else -1
