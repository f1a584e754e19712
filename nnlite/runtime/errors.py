"""nnlite's exceptions, and checks of arguments.

Every message names the argument, what was expected and what was received.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from math import inf
from numbers import Real
from operator import index
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar

import numpy as np

Value = TypeVar("Value")
_ndarray = np.ndarray
#: of a 64-bit integer
LARGEST = 2**63 - 1


class NNLiteError(Exception):
    """Base of nnlite's own exceptions."""


class Unsupported(NNLiteError, ValueError):
    """A convolution algorithm that was requested by name does not support the problem."""


class GradientError(NNLiteError, AssertionError):
    """An analytic gradient disagrees with the numerical one."""


class GraphError(NNLiteError, RuntimeError):
    """backward() cannot run: there is no graph, or it was already freed."""


def one_of(kind: str, name: object, table: Mapping[str, Value]) -> Value:
    """The entry `name` of a table. Raises ValueError, which lists the names."""
    if not isinstance(name, str) or name not in table:
        raise unknown(kind, name, table)
    return table[name]


def unknown(kind: str, name: object, known: Iterable[str], of: str = "") -> ValueError:
    """A ValueError that lists the known names and suggests the nearest one. `of` follows the name."""
    names = list(known)
    near = get_close_matches(str(name), names, n=1) or [n for n in names if _initials(n) == name]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ValueError(f"unknown {kind} {name!r}{of}: expected one of {', '.join(names)}.{hint}")


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def positive_int(argument: str, value: object, minimum: int = 1) -> int:
    """`value` as an int. Raises ValueError unless it is an integer of at least `minimum` and no boolean."""
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < minimum:
        raise ValueError(f"{argument}: expected an integer of at least {minimum}. Received: {value!r}")
    return number


def int_pair(argument: str, value: object, minimum: int = 1) -> tuple[int, int]:
    """An integer or two integers as a pair: `3` -> `(3, 3)`. Raises ValueError for anything else."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{argument}: expected an integer or two integers. Received: {value!r}")
    first, second = positive_int(argument, pair[0], minimum), positive_int(argument, pair[1], minimum)
    if first > LARGEST or second > LARGEST:
        raise ValueError(f"{argument}: expected integers of at most {LARGEST}, as kernels take. Received: {value!r}")
    return first, second


def printable(text: object) -> str:
    r"""`text` with control characters escaped ("\x1b"): names in a file may contain them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def existing_file(argument: str, path: Path, what: str) -> None:
    """Raises FileNotFoundError unless `path` is a file. `what` describes the expected file."""
    if not path.is_file():
        which = "which is not a file" if path.exists() else "which does not exist"
        raise FileNotFoundError(f"{argument}: expected {what}. Received: {str(path)!r}, {which}")


def writable_file(argument: str, path: str | Path | None) -> None:
    """Raises FileNotFoundError or ValueError if no file can be written at `path`. Nothing is written."""
    if path is None:
        return
    if "\0" in str(path):
        raise ValueError(f"{argument}: expected a file name. Received: {str(path)!r}, with a null character")
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{argument}: expected an existing folder. Received: {str(path.parent)!r}")
    if path.is_dir() or not path.name:
        raise ValueError(f"{argument}: expected a file name. Received: {str(path)!r}, a folder")
    if path.exists() and not path.is_file():
        raise ValueError(f"{argument}: expected a file name. Received: {str(path)!r}, a device or a pipe")
    try:
        target = Path(os.path.realpath(path))
        if not target.exists():  # permissions alone do not show whether a virtual file system is writable
            target.touch()
            target.unlink()
        elif not os.access(target, os.W_OK):
            raise PermissionError
        else:  # it is replaced by a file that is written beside it
            with TemporaryFile(dir=target.parent):
                pass
    except OSError as error:
        why = f": {error.strerror}" if error.strerror else ""
        raise ValueError(f"{argument}: expected a writable file. Received: {str(path)!r}{why}") from error


def writable_folder(argument: str, path: str | Path) -> Path:
    """The folder `path`, created if needed. Raises ValueError if it cannot be created or written."""
    if not str(path) or "\0" in str(path):  # Path("") is the current folder
        raise ValueError(f"{argument}: expected a writable folder. Received: {path!r}")
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            return Path(path)
    except OSError as error:
        what = f"{str(path)!r}: {error.strerror or error}"
        raise ValueError(f"{argument}: expected a writable folder. Received: {what}") from error


def boolean(argument: str, value: object) -> bool:
    """`value` as a bool. Raises ValueError unless it is True or False (NumPy's included)."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ValueError(f"{argument}: expected True or False. Received: {value!r}")


def several(argument: str, value: Any, what: str) -> list[Any]:
    """The elements of an iterable of `what`. Raises ValueError for a string or anything not iterable."""
    if isinstance(value, str) or not isinstance(value, Iterable) or (isinstance(value, _ndarray) and not value.ndim):
        raise ValueError(f"{argument}: expected a list of {what}. Received: {value!r}")
    return list(value)


def as_array(argument: str, value: Any) -> np.ndarray:
    """`value` as an array in this machine's byte order.

    Raises ValueError for lists whose rows differ in length, and for masked arrays, whose mask would be lost.
    """
    if value.__class__ is _ndarray and value.dtype.isnative:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{argument}: expected an array without a mask, as of x.filled(0). Received: a masked array")
    try:
        array = np.asarray(value)
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    except ValueError:
        kind = type(value).__name__
        raise ValueError(
            f"{argument}: expected rows of the same length. Received: a {kind} of rows that differ"
        ) from None


def numbers(argument: str, value: Any) -> np.ndarray:
    """`value` as an array of real numbers of any dtype. Raises ValueError for others."""
    array = as_array(argument, value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{argument}: expected an array of numbers. Received: dtype {array.dtype}")
    return array


def fraction(argument: str, value: object) -> float:
    """`value` as a float. Raises ValueError unless it is in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise ValueError(f"{argument}: expected a number in [0, 1). Received: {value!r}")
    return float(value)


def positive(argument: str, value: object) -> float:
    """`value` as a float. Raises ValueError unless it is finite and above 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < inf:
        raise ValueError(f"{argument}: expected a finite number above 0. Received: {value!r}")
    return float(value)
