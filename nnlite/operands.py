"""Which arguments of an operation have to be arrays of floating-point numbers, and the check that they are."""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

import numpy as np

#: what an operation annotates an argument with (by this name) to get nothing but arrays of float32 or float64 for it;
#: with `| None` or `| float`, that as well
Floats: TypeAlias = np.ndarray
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


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
