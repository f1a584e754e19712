"""What an array has to be before a compiled kernel, which sees an address and no shape, reads it."""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

import numpy as np

#: what an operation annotates an argument with (by this name) to get nothing but arrays of float32 or float64 for it;
#: with `| None` or `| float`, that as well
Floats: TypeAlias = np.ndarray
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_ndarray = np.ndarray


def fitting(argument: str, array: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """The array as kernels read it: C-contiguous and aligned; one that lies otherwise in memory is copied.

    Raises ValueError unless it is an array of that shape and dtype.
    """
    if array.__class__ is _ndarray and array.shape == shape and array.dtype == dtype:
        return array if array.flags.carray else readable(array)
    if not isinstance(array, _ndarray):
        received = type(array).__name__
    elif array.shape != shape or array.dtype != dtype:
        received = f"{array.dtype} of shape {array.shape}"
    else:
        return readable(array)
    raise ValueError(f"{argument}: expected {np.dtype(dtype)} of shape {shape}. Received: {received}")


def readable(array: np.ndarray) -> np.ndarray:
    """The array, or a copy of it, that is C-contiguous and aligned, and of no subclass."""
    array = np.asarray(array, order="C")
    return array if array.flags.aligned else array.copy()


def checked_operands(positional: tuple[inspect.Parameter, ...]) -> dict[int, tuple[str, tuple[type, ...]]]:
    """By position, of each argument that is annotated `Floats`: its name, and the types it may have beside."""
    beside: dict[str, tuple[type, ...]] = {"None": (type(None),), "float": (float, int)}
    found = {}
    for i, parameter in enumerate(positional):
        first, *others = str(parameter.annotation).split(" | ")
        if first == "Floats":
            found[i] = parameter.name, tuple(kind for other in others for kind in beside[other])
    return found


def require_floats(value: Any, argument: str, beside: tuple[type, ...]) -> None:
    """Raise ValueError unless it is an array (NumPy's scalars and subclasses too) of FLOATS, or of a type `beside`."""
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype in FLOATS:
            return
        received = f"dtype {value.dtype}"
    elif isinstance(value, beside):
        return
    else:
        received = f"{value!r:.60}"
    raise ValueError(f"{argument}: expected a Tensor or array of float32 or float64. Received: {received}")


def one_dtype(**arrays: np.ndarray | None) -> None:
    """Raise ValueError unless the arrays, named as arguments, are of one dtype."""
    first, *others = (array.dtype for array in arrays.values() if array is not None)
    if any(other != first for other in others):
        received = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items() if array is not None)
        raise ValueError(f"{next(iter(arrays))}: expected arrays of one dtype. Received: {received}")
