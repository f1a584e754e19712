"""Load objects from a user's file, given as FILE.py:NAME; an algorithm also as FILE.py:CLASS(rows=6)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from traceback import extract_tb
from typing import Any

from nnlite import conv
from nnlite.conv.parameters import accepted, made, read, split_call
from nnlite.lab.user_modules import load_module
from nnlite.runtime.errors import existing_file, unknown


def load_object(spec: str, kind: str) -> Any:
    """The object NAME of FILE.py, which is imported as a module, as are those beside it that it imports.

    Raises FileNotFoundError if the file does not exist, ValueError of one line if it fails to run or lacks the name.
    `kind` begins the message.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    existing_file(f"{kind} {spec}", path, "a Python file")
    if path.suffix != ".py":
        raise ValueError(f"{kind} {spec}: expected a file that ends in .py. Received: {file!r}")
    if not name.isidentifier():
        expected = "a name after the colon, or an algorithm's CLASS(PARAMETER=VALUE)"
        raise ValueError(f"{kind} {spec}: expected {expected}. Received: {name or 'nothing'}")
    try:
        module = load_module(path)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{kind} {spec}: {path.name} raised {said(error, path)}") from error
    if not hasattr(module, name):
        raise ValueError(f"{kind} {spec}: expected the name {name!r} in {path.name}. Received: a file without it")
    return getattr(module, name)


def said(error: BaseException, path: Path) -> str:
    """An error in one line: its type, the last line of the user's file in its traceback, its message."""
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(path.absolute())]
    where = f" in line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{where}: {error}"


def load_algorithms(specs: Sequence[str]) -> list[conv.Algorithm]:
    """Load and register the user's algorithms, given as FILE.py:CLASS or, with parameters, FILE.py:CLASS(rows=6).

    If two have the same name, the file is appended (tiled@old, tiled@new), and if need be its folder and the class.
    Raises FileNotFoundError or ValueError, of one line, if one cannot be loaded.
    """
    specs = list(dict.fromkeys(specs))
    algorithms = [load_algorithm(spec) for spec in specs]
    names = [algorithm.name for algorithm in algorithms]
    stems = [Path(split_call(spec)[0].rpartition(":")[0]).stem for spec in specs]
    for algorithm, spec, stem in zip(algorithms, specs, stems, strict=True):
        if names.count(algorithm.name) > 1 or algorithm.name in conv.names():
            place = stem if stems.count(stem) == 1 else spec.replace(".py:", ":")
            algorithm.name = f"{algorithm.name}@{place}"  # of this instance alone
    return [conv.register(algorithm) for algorithm in algorithms]


def named(option: str, name: str) -> conv.Algorithm:
    """The registered algorithm of that name, which may end in values of its parameters. Raises ValueError."""
    if split_call(name)[0] not in conv.names() and name not in conv.names():
        raise unknown(option, name, conv.names())
    try:
        return conv.get(name)
    except ValueError as error:
        raise ValueError(f"{option} {name}: {error}") from error


def load_algorithm(spec: str, kind: str = "--algorithm") -> conv.Algorithm:
    """The user's algorithm, unregistered even if its file registers it. `kind` begins the message of an error."""
    if ".py:" not in spec:
        raise ValueError(f"{kind}: expected FILE.py:CLASS. Received: {spec!r}")
    place, arguments = split_call(spec)
    found = load_object(place, kind)
    if not (isinstance(found, type) and issubclass(found, conv.Algorithm)):
        what = found.__name__ if isinstance(found, type) else type(found).__name__
        raise ValueError(f"{kind} {spec}: expected a subclass of nn.conv.Algorithm. Received: {what}")
    try:
        given = accepted(found.__name__, found.parameters, read(arguments, found.parameters))
        algorithm = made(found, given)
        name = getattr(algorithm, "name", None)
        if isinstance(name, str) and name in conv.names() and type(conv.get(name)) is found:
            algorithm = conv.get(name)
        conv.register(algorithm, replace=True)
    except ValueError as error:
        raise ValueError(f"{kind} {spec}: {error}") from error
    except Exception as error:
        raise ValueError(f"{kind} {spec}: {found.__name__}() raised {type(error).__name__}: {error}") from error
    conv.unregister(algorithm.name)
    return algorithm
