"""Batches of a data set. Shapes are checked once; NaN and infinity are checked while a batch is gathered."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any

import numpy as np

from nnlite.autograd import Tensor
from nnlite.runtime.errors import as_array, numbers

_FLOAT32 = np.dtype(np.float32)
_LARGEST = np.float64(np.finfo(np.float32).max)
#: samples and their targets, if there are any
Batch = tuple[np.ndarray, np.ndarray | None]


def as_samples(argument: str, x: Any, shape: tuple[int, ...] | None) -> np.ndarray:
    """`x` as a C-contiguous array of samples (n, *shape). Raises ValueError, which names the argument."""
    array = np.ascontiguousarray(as_array(argument, x.data if isinstance(x, Tensor) else x))
    if array.dtype == _FLOAT32 and array.shape[1:] == shape and len(array):
        return array
    expected = "(n, ...)" if shape is None else f"(n{''.join(f', {size}' for size in shape)})"
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{argument}: expected an array of numbers, shape {expected}. Received: dtype {array.dtype}")
    if array.ndim < 1 or (shape is not None and array.shape[1:] != shape):
        raise ValueError(f"{argument}: expected shape {expected}. Received: shape {array.shape}")
    if not len(array):
        raise ValueError(f"{argument}: expected at least one sample. Received: shape {array.shape}")
    if array.dtype.kind == "f" and array.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        return array.astype(np.float32)  # half and extended precision
    return array


def as_targets(argument: str, y: Any, count: int) -> np.ndarray:
    """`y` as an array of `count` rows, finite in float32. Raises ValueError, which names the argument."""
    array = numbers(argument, y.data if isinstance(y, Tensor) else y)
    if array.ndim < 1 or len(array) != count:
        raise ValueError(f"{argument}: expected {count} rows, one for each sample of x. Received: shape {array.shape}")
    if array.dtype.kind == "f":
        _require_finite(argument, np.abs(array) <= _LARGEST)
    return array


def as_finite(argument: str, x: np.ndarray) -> np.ndarray:
    """Samples in float32. Raises ValueError, which names the first one with NaN or infinity."""
    if x.dtype != _FLOAT32:
        with np.errstate(over="ignore"):
            x = x.astype(_FLOAT32)
    if not isfinite(np.vdot(x, x)):  # twice as fast as np.isfinite; squares of large numbers overflow too
        _require_finite(argument, np.isfinite(x))
    return x


def _require_finite(argument: str, finite: np.ndarray) -> None:
    if not finite.all():
        sample = int(finite.reshape(len(finite), -1).all(axis=1).argmin())
        raise _not_finite(argument, sample)


def _not_finite(argument: str, sample: int) -> ValueError:
    return ValueError(f"{argument}: expected finite numbers. Received: NaN or infinity in sample {sample}")


def batches(
    argument: str, x: np.ndarray, y: np.ndarray | None, batch_size: int, order: np.ndarray | None = None
) -> Iterator[Batch]:
    """(x, y) of each batch, in `order` or as stored; the last batch may be smaller.

    Raises ValueError, which names the first sample with NaN or infinity, when its batch is gathered.
    """
    from nnlite.kernels.gather import gather_rows

    indices = np.arange(len(x)) if order is None else order
    for start in range(0, len(x), batch_size):
        chosen = indices[start : start + batch_size]
        rows, bad = gather_rows(x, chosen)
        if bad >= 0:
            raise _not_finite(argument, chosen[bad])
        yield rows, None if y is None else y[chosen]
