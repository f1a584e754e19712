"""Softmax and cross-entropy of labels in one pass over the logits: the loss and its gradient."""

from __future__ import annotations

import numpy as np

from nnlite.compiler.compilation import jit
from nnlite.runtime import memory
from nnlite.runtime.replay import noted


@jit
def _forward(logits, labels, dlogits, mean, bad):
    """mean () = that of -log softmax(logits)[label], summed in float64; dlogits = its gradient.

    bad () = the place of the first label that is no class, or -1; there are no results then.
    """
    n, classes = logits.shape
    one = logits.dtype.type(1)
    share = one / logits.dtype.type(n)
    loss = 0.0
    bad[()] = -1
    for i in range(n):
        if not 0 <= labels[i] < classes:
            bad[()] = i
            return
    for i in range(n):
        row, gradient = logits[i], dlogits[i]
        largest = row[0]
        for j in range(1, classes):
            largest = row[j] if row[j] > largest or row[j] != row[j] else largest
        total = logits.dtype.type(0)
        for j in range(classes):
            gradient[j] = np.exp(row[j] - largest)
        for j in range(classes):  # by itself: beside what is stored, its order would depend on where the arrays lie
            total += gradient[j]
        loss += np.log(total) - (row[labels[i]] - largest)
        scale = share / total
        for j in range(classes):
            gradient[j] *= scale
        gradient[labels[i]] -= share
    mean[()] = loss / n


def sparse_from_logits(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(the mean loss (), its gradient (n, classes), -1) of logits (n, classes) and int64 labels (n).

    The last () is the place of the first label that is no class, if there is one; then the others are undefined.
    """
    dlogits, loss, bad = memory.empty(logits.shape, logits.dtype), np.empty((), logits.dtype), np.array(-1)
    noted(_forward, logits, labels, dlogits, loss, bad)
    return loss, dlogits, bad
