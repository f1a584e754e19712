"""Import a user's file and the files beside it, so that several versions of them can be loaded in one process.

Every version of a module has its own `__name__`, made from its path and content: Numba identifies compiled code by it.
A module beside the file is found first, as if Python ran the file, and only while the file is imported.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib import invalidate_caches
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from zlib import crc32

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


def plain_name(module: str) -> str:
    """A module's name; of a version of a user's file, the name of the file."""
    return re.sub(rf"^{_PREFIX}(.+)_[0-9a-f]{{8}}$", r"\1", module)


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
