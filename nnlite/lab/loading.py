"""Load objects from a user's file, given as FILE.py:NAME; an algorithm also as FILE.py:CLASS(rows=6).

Several versions of a file and of the files beside it can be loaded in one process. Every version of a module has its
own `__name__`, made from its path and content: Numba identifies compiled code by it. A module beside the file is found
first, as if Python ran the file, and only while the file is imported.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib import invalidate_caches
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any
from zlib import crc32

from nnlite import conv
from nnlite.conv.parameters import accepted, made, read, split_call
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


# A user's file as a module -------------------------------------------------------------------------------------------


_PREFIX = "nnlite_user_"
#: absolute path of a user's file -> {path relative to its folder: content}, of it and of the files beside it that it
#: imported, when it was last loaded
_files: dict[Path, dict[str, bytes]] = {}


def files_of(path: Path) -> dict[str, bytes]:
    """The file and those beside it that it imported, as they were when it was last loaded, by relative path."""
    return _files.get(path.absolute(), {})


def load_module(path: Path) -> ModuleType:
    """Import a user's file again, from its source as it is now."""
    path = path.absolute()
    files = _files[path] = {}
    finder = _Beside(path.parent, files)
    loader = _Loader(path.stem, path, path.parent, files)
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    invalidate_caches()  # of folders: a file may be new
    sys.meta_path.insert(0, finder)
    try:
        loader.exec_module(module)
    finally:
        sys.meta_path.remove(finder)
        for name in finder.found:
            sys.modules.pop(name, None)  # the next version imports its own
    return module


def plain_name(name: str) -> str:
    """The name of a module or of a function in it; of a version of a user's file, with the name of the file."""
    return re.sub(rf"^{_PREFIX}(.+?)_[0-9a-f]{{8}}(?=\.|$)", r"\1", name)


class _Loader(SourceFileLoader):
    """Reads the source, never a .pyc file: that may be of another save in the same second."""

    def __init__(self, name: str, path: Path, folder: Path, files: dict[str, bytes]):
        super().__init__(name, str(path))
        self._relative, self._files = str(path.relative_to(folder)), files

    def exec_module(self, module: ModuleType) -> None:
        source = self._files[self._relative] = self.get_data(self.path)
        version = crc32(self.path.encode() + source)
        module.__name__ = f"{_PREFIX}{self.name.removeprefix(_PREFIX)}_{version:08x}"
        sys.modules[module.__name__] = module
        exec(compile(source, self.path, "exec", dont_inherit=True), module.__dict__)


class _Beside:
    """Finds modules in the folder of a user's file."""

    def __init__(self, folder: Path, files: dict[str, bytes]):
        self._folder, self._files = folder, files
        self.found: list[str] = []

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        parent = name.rpartition(".")[0]
        if parent and parent not in self.found and not parent.startswith(_PREFIX):
            return None  # part of another package
        spec = PathFinder.find_spec(name, [str(self._folder)] if path is None else path)
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        spec.loader = _Loader(name, Path(spec.loader.path), self._folder, self._files)
        self.found.append(name)
        return spec
