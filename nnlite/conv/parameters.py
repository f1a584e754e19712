"""The parameters of algorithms: a tile shape, a block size, a layout; each with the values that there are to choose.

An algorithm with other values than its defaults is called after them, as in Python: `winograd(least_tiles=24)`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from nnlite.runtime.errors import unknown

Parameters = Mapping[str, tuple[Any, ...]]
_CALL = re.compile(r"(.+?)\((\s*\w+\s*=.*)?\)", re.DOTALL)


def declare(algorithm: type, base: type) -> None:
    """Give a class an attribute for each of its parameters: its own, or the first value. `base` has no parameters.

    Raises ValueError if the class declares them wrongly.
    """
    where = f"parameters of {algorithm.__name__}"
    declared = algorithm.parameters  # type: ignore[attr-defined]
    if not isinstance(declared, Mapping) or not all(isinstance(v, tuple) and v for v in declared.values()):
        raise ValueError(f"{where}: expected a dict from names to tuples of values. Received: {declared!r}")
    for name, values in declared.items():
        if not (isinstance(name, str) and name.isidentifier()) or hasattr(base, name) or name in base.__annotations__:
            raise ValueError(f"{where}: expected a name that is not taken. Received: {name!r}")
        if any(value in values[:i] for i, value in enumerate(values)):
            raise ValueError(f"{where}: expected different values of {name}. Received: {values!r}")
        inherited = getattr(algorithm, name, algorithm)
        if name not in vars(algorithm) and inherited not in values:
            setattr(algorithm, name, values[0])
        one_of(name, getattr(algorithm, name), values)


def one_of(name: str, value: Any, values: tuple[Any, ...]) -> Any:
    """That of the declared values which equals `value`. Raises ValueError, which lists them, if there is none."""
    if value not in values:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, values))}. Received: {value!r}")
    return values[values.index(value)]


def accepted(algorithm: str, declared: Parameters, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, in the order declared. Raises ValueError, which names the parameter, if it is not declared."""
    check_names(given, algorithm, declared)
    return {name: one_of(name, given[name], values) for name, values in declared.items() if name in given}


def check_names(names: Iterable[str], algorithm: str, declared: Parameters) -> None:
    """Raises ValueError for a name that is not a declared parameter's."""
    for name in names:
        if not declared:
            raise ValueError(f"parameter {name!r}: algorithm {algorithm!r} declares no parameters")
        if name not in declared:
            raise unknown("parameter", name, declared, f" of {algorithm!r}")


def combinations(declared: Parameters, own: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of values of the parameters in `own`, its values first."""
    choices = [[own[name], *(v for v in declared[name] if v != own[name])] for name in own]
    return [dict(zip(own, values, strict=True)) for values in product(*choices)]


def made(algorithm: type, given: Mapping[str, Any]) -> Any:
    """An object of the class with these parameters. Raises ValueError if its constructor does not take or keep them."""
    expected = f"{algorithm.__name__}: expected __init__(self, **parameters) that calls super().__init__(**parameters)"
    try:
        result = algorithm(**given)
    except TypeError as error:
        raise ValueError(f"{expected}, for {', '.join(given) or 'no parameter'}. Received: {error}") from error
    for name, value in given.items():
        if getattr(result, name) != value:
            raise ValueError(f"{expected}. Received: {name}={getattr(result, name)!r} after it got {name}={value!r}")
    return result


def call(name: str, given: Mapping[str, Any]) -> str:
    """`mine(rows=6, vectors=2)`, or the name alone if nothing is given."""
    arguments = ", ".join(f"{parameter}={value!r}" for parameter, value in given.items())
    return f"{name}({arguments})" if given else name


def split_call(text: str) -> tuple[str, str]:
    """`mine(rows=6)` -> ("mine", "rows=6"); ("mine", "") if no values follow."""
    found = _CALL.fullmatch(text)
    return (found[1], (found[2] or "").strip()) if found else (text, "")


def read(arguments: str, declared: Parameters) -> dict[str, Any]:
    """`rows=6, layout=nhwc` -> the values of that text. Raises ValueError if it is not of this form."""
    try:
        said = ast.parse(f"f({arguments})", mode="eval").body
    except (SyntaxError, ValueError):
        said = None
    texts = {}
    if isinstance(said, ast.Call) and not said.args:
        texts = {keyword.arg: ast.unparse(keyword.value) for keyword in said.keywords}
    if not isinstance(said, ast.Call) or None in texts or len(texts) < len(said.keywords) + len(said.args):
        raise ValueError(f"parameters: expected NAME=VALUE, separated by commas. Received: {arguments!r}")
    given: dict[str, Any] = {}
    for name, text in texts.items():
        values = {form: value for value in declared.get(name or "", ()) for form in (repr(value), str(value))}
        given[str(name)] = values.get(text, text)
    return given
