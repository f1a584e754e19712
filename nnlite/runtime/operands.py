"""Checks of arrays before compiled kernels, which get an address without a shape, read them."""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

import numpy as np

#: annotation (by this name) of an operation's argument that must be an array of float32 or float64; `| None` and
#: `| float` allow those as well
Floats: TypeAlias = np.ndarray
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_ndarray = np.ndarray


def dtype_said(dtype: np.dtype) -> str:
    """A dtype in messages, with its byte order if that is not this machine's: convert with astype(np.float32)."""
    return str(dtype) if dtype.isnative else f"{dtype.name} in another byte order than this machine's ({dtype})"


def fitting(argument: str, array: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """The array, copied if it is not C-contiguous and aligned.

    Raises ValueError unless it is an array of that shape and dtype.
    """
    if array.__class__ is _ndarray and array.shape == shape and array.dtype == dtype:
        return array if array.flags.carray else readable(array)
    if not isinstance(array, _ndarray):
        received = type(array).__name__
    elif array.shape != shape or array.dtype != dtype:
        received = f"{dtype_said(array.dtype)} of shape {array.shape}"
    else:
        return readable(array)
    raise ValueError(f"{argument}: expected {np.dtype(dtype)} of shape {shape}. Received: {received}")


def readable(array: np.ndarray) -> np.ndarray:
    """The array, copied if it is not C-contiguous and aligned; never a subclass."""
    array = np.asarray(array, order="C")
    return array if array.flags.aligned else array.copy()


def checked_operands(positional: tuple[inspect.Parameter, ...]) -> list[tuple[int, str, tuple[type, ...]]]:
    """Of each argument annotated `Floats`: (its position, its name, the other allowed types)."""
    beside: dict[str, tuple[type, ...]] = {"None": (type(None),), "float": (float, int)}
    found = []
    for i, parameter in enumerate(positional):
        first, *others = str(parameter.annotation).split(" | ")
        if first == "Floats":
            found.append((i, parameter.name, tuple(kind for other in others for kind in beside[other])))
    return found


def require_floats(value: Any, argument: str, beside: tuple[type, ...]) -> None:
    """Raise ValueError unless it is an array (or NumPy scalar) of FLOATS, or of a type in `beside`."""
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype in FLOATS:
            return
        received = f"dtype {dtype_said(value.dtype)}"
    elif isinstance(value, beside):
        return
    else:
        received = f"{value!r:.60}"
    raise ValueError(f"{argument}: expected a Tensor or array of float32 or float64. Received: {received}")


def one_dtype(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> None:
    """Raise ValueError unless the arrays have the same dtype."""
    if x.dtype != weight.dtype or (bias is not None and x.dtype != bias.dtype):
        received = f"x {x.dtype}, weight {weight.dtype}" + ("" if bias is None else f", bias {bias.dtype}")
        raise ValueError(f"x: expected arrays of the same dtype. Received: {received}")
