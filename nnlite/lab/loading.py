"""Objects from a user's own file, as the command line names them: FILE.py:NAME."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from typing import Any

from nnlite import conv
from nnlite.errors import existing_file


def load_object(spec: str, kind: str) -> Any:
    """What NAME is in FILE.py, which is run as a module of its own.

    Raises FileNotFoundError if there is no such file, ValueError in one line if it fails to run or has no such name.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    existing_file(f"{kind} {spec}", path, "a Python file")
    module_name = f"nnlite_user_{path.stem}"
    found = spec_from_file_location(module_name, path)
    if found is None or found.loader is None:
        raise ValueError(f"{kind} {spec}: expected a file that ends in .py. Received: {file!r}")
    module = module_from_spec(found)
    sys.modules[module_name] = module
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{kind} {spec}: {path.name} raised {said(error, path)}") from error
    if not name:
        raise ValueError(f"{kind} {spec}: expected a name after the colon. Received: nothing")
    if not hasattr(module, name):
        raise ValueError(f"{kind} {spec}: expected the name {name!r} in {path.name}. Received: a file without it")
    return getattr(module, name)


def said(error: BaseException, path: Path) -> str:
    """What an error says in one line, with the last line of the user's file that it came through."""
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(path.absolute())]
    where = f" in line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{where}: {error}"


def load_algorithm(spec: str) -> conv.Algorithm:
    """The user's algorithm FILE.py:CLASS, registered; one that its file has registered already is taken as it is.

    Raises FileNotFoundError or ValueError, in one line, if it is none.
    """
    if ".py:" not in spec:
        raise ValueError(f"--algorithm: expected FILE.py:CLASS. Received: {spec!r}")
    found = load_object(spec, "--algorithm")
    if not (isinstance(found, type) and issubclass(found, conv.Algorithm)):
        what = found.__name__ if isinstance(found, type) else type(found).__name__
        raise ValueError(f"--algorithm {spec}: expected a subclass of nn.conv.Algorithm. Received: {what}")
    try:
        algorithm = found()
    except Exception as error:
        raise ValueError(f"--algorithm {spec}: {found.__name__}() raised {type(error).__name__}: {error}") from error
    name = getattr(algorithm, "name", None)
    if isinstance(name, str) and name in conv.names() and type(conv.get(name)) is found:
        return conv.get(name)
    try:
        return conv.register(algorithm)
    except ValueError as error:
        raise ValueError(f"--algorithm {spec}: {error}") from error
