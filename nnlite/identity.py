"""What tells a function from all others, as far as its compiled code hangs on it.

Functions of one name may be many: a factory makes them, a loop, or a line with two lambdas. Numba takes the globals and
the values that a function closes over as constants, and goes through the functions that it calls; so does this.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

_PACKAGE = Path(__file__).parent
#: types of which a value is told by its representation
_PLAIN = (bool, int, float, complex, str, bytes, np.generic, np.dtype, np.ufunc, numba.types.Type)


def identity(function: Callable, within: tuple[Any, ...] = ()) -> str | None:
    """What tells a function from all others: its name, and a hash of what its code hangs on beside nnlite's sources.

    These are the values that it closes over and, of a user's function, its code and the globals that it uses, as they
    are now. None where one of them does not say all that it is by a text. `within` are the functions and modules that
    are being asked for what they use, outermost first: one that uses itself is known by its place among them.
    """
    if function in within:
        return f"<{within.index(function)}>"
    within = (*within, function)
    texts: list[str | None] = []
    try:
        texts += [_text(cell.cell_contents, within) for cell in function.__closure__ or ()]
    except ValueError:  # nothing is in a cell yet
        return None
    if not is_own(inspect.getfile(function)):
        for code in _codes(function.__code__):
            plain = [(type(value), value) for value in code.co_consts if not isinstance(value, CodeType)]
            texts.append(repr((code.co_code, code.co_names, plain)))
            values = [function.__globals__[name] for name in code.co_names if name in function.__globals__]
            texts += [_text(value, within) for value in values]
    if None in texts:
        return None
    digest = f".{hashlib.sha256(repr(texts).encode()).hexdigest()[:16]}" if texts else ""
    return f"{function.__module__}.{function.__qualname__}{digest}"


def _text(value: Any, within: tuple[Any, ...]) -> str | None:
    """A text that no other value has that the last function of `within` could use, or None."""
    if isinstance(value, Dispatcher):
        return identity(value.py_func, within)
    if isinstance(value, tuple):
        return _texts(type(value), [_text(item, within) for item in value])
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"{value.dtype.str}{value.shape}{hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, ModuleType):
        if value in within:
            return f"<{within.index(value)}>"
        function = next(asking for asking in reversed(within) if not isinstance(asking, ModuleType))
        names = sorted({name for code in _codes(function.__code__) for name in code.co_names} & vars(value).keys())
        return _texts(value.__name__, [_item_text(vars(value)[name], name, (*within, value)) for name in names])
    if value is None or isinstance(value, _PLAIN):
        return repr((type(value), value))
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    return f"{module}.{name}" if getattr(sys.modules.get(module or ""), name or "", None) is value else None


def _texts(owner: object, texts: list[str | None]) -> str | None:
    return None if None in texts else f"{owner}{texts}"


def _item_text(item: Any, name: str, within: tuple[Any, ...]) -> str | None:
    """A text of what a module has under a name: the name itself, where that is a function of a library."""
    return name if callable(item) and not isinstance(item, Dispatcher) else _text(item, within)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of functions and generators within it."""
    yield code
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from _codes(value)


def is_own(file: str) -> bool:
    """Whether it is one of nnlite's sources."""
    return Path(file).is_relative_to(_PACKAGE)
