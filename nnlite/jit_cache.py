"""Compiled code on disk: where it lies, what it is keyed on, and how Numba is told.

The folder is named after a hash of all kernel sources, so that an edit in one file (tiles.py, say) also renews the code
of the others that use it; Numba's own cache looks at the function's file alone. Each compiled signature is one file of
its own, written under a temporary name and renamed, so that processes that compile at the same time do not mix up each
other's code. What cannot be read or written is compiled again or left unkept: without a cache everything still works.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import pickle
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

from nnlite.files import write_whole
from nnlite.identity import identity, is_own

_PACKAGE = Path(__file__).parent
#: what a module outside of conv/ and kernels/ imports if it has a part in what is compiled
_COMPILES = re.compile(r"^(from|import) (numba|llvmlite)\b", re.MULTILINE)


@cache
def sources_hash() -> str:
    """A hash of the sources of everything that is compiled, and of the compiler's versions."""
    own = (file for file in _PACKAGE.glob("*.py") if _COMPILES.search(file.read_text("utf-8")))
    files = sorted([*own, *_PACKAGE.glob("[ck]*/*.py")])
    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    for file in files:
        digest.update(str(file.relative_to(_PACKAGE)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def target() -> tuple[str, ...]:
    """What is compiled for: (triple, processor, features)."""
    return tuple(cpu_target.target_context.codegen().magic_tuple())


@cache
def cache_root() -> Path | None:
    """The folder of all caches: in NUMBA_CACHE_DIR, the user's cache folder or a temporary one; None if all fail."""
    kept = os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    temporary = Path(tempfile.gettempdir()) / f"nnlite-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    for root in (*(Path(folder) / "nnlite" for folder in kept if folder), temporary):
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=root):
                pass
        except OSError:
            continue
        if _is_ours(root):
            return root
    return None


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can put code there for us to run: the temporary folder's name can be guessed."""
    if not hasattr(os, "getuid"):
        return True
    owners = {folder.stat().st_uid, folder.lstat().st_uid}  # of the folder, and of a link to it
    return owners == {os.getuid()} and not folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def cache_dir() -> Path | None:
    """The folder of the compiled code of these very sources, or None where nothing can be written."""
    root = cache_root()
    return root / f"kernels-{sources_hash()}" if root else None


def can_keep(function: Callable) -> bool:
    """Whether the code of a function can be found again: it is not where there is no file that it stands in."""
    return cache_dir() is not None and Path(inspect.getfile(function)).is_file()


def clear_cache() -> int:
    """Empty the cache on disk, also of earlier sources, forget what `autotune` measured and the rates of the
    time model, which hang on sources too; how many files went."""
    root = cache_root()
    if root is None:
        return 0
    folders, measured = list(root.glob("kernels-*")), [*root.glob("*choices-*"), *root.glob("*rates-*")]
    count = sum(1 for folder in folders for file in folder.iterdir() if file.is_file()) + len(measured)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    for file in measured:
        file.unlink(missing_ok=True)
    return count


class Links(Protocol):
    """The functions that compiled code jumps to; they have to be there before it is."""

    signatures: list[tuple]
    function: Callable

    def provide(self, signature: tuple) -> Any: ...


# What Numba sees -------------------------------------------------------------------------------------------------


class _Locator(_CacheLocator):
    """Tells Numba to keep a function's code in our folder, and that it is as old as all kernel sources together.

    Of a user's function the name tells its file too, and what is in it.
    """

    def __init__(self, function: Callable, py_file: str):
        self._py_file = py_file  # by this name Numba warns of what it does not keep
        digest = hashlib.sha256(f"{function.__module__}.{function.__qualname__}".encode())
        if not is_own(py_file):
            digest.update(py_file.encode() + b"\0" + Path(py_file).read_bytes())
        self._name = digest.hexdigest()[:8]

    def get_cache_path(self) -> str:
        return str(cache_dir())

    def get_source_stamp(self) -> str:
        return sources_hash()

    def get_disambiguator(self) -> str:
        return self._name

    @classmethod
    def from_function(cls, py_func: Callable, py_file: str) -> _Locator:
        return cls(py_func, py_file)


class _Implementation(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012

    def __init__(self, function: Callable, links: Links | None):
        super().__init__(function)
        self._links = links

    def reduce(self, compiled: Any) -> Any:
        """What is kept of a compiled function: the signatures of the code it jumps to, and its own code."""
        return self._links.signatures if self._links else (), super().reduce(compiled)

    def rebuild(self, target: Any, kept: Any) -> Any:
        """The compiled function, after the code that it jumps to."""
        signatures, code = kept
        for signature in signatures:
            assert self._links is not None
            self._links.provide(signature)
        return super().rebuild(target, code)


class _Files:
    """One file for each compiled signature of a function."""

    def __init__(self, folder: Path, name: str):
        self._folder = folder
        self._name = name

    def _path(self, key: tuple) -> Path:
        return self._folder / f"{self._name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.code"

    def load(self, key: tuple) -> Any:
        """What was saved under the key, or None."""
        path = self._path(key)
        if not path.is_file():
            return None
        kept_key, data = pickle.loads(path.read_bytes())
        return data if kept_key == key else None

    def save(self, key: tuple, data: Any) -> None:
        """Keep `data` under the key."""
        write_whole(self._path(key), dumps((key, data)))

    def flush(self) -> None:
        """Forget all."""
        for path in self._folder.glob(f"{self._name}-*.code"):
            path.unlink(missing_ok=True)


class CodeCache(FunctionCache):
    """The cache of one function's compiled code; `links` are the functions that it jumps to."""

    def __init__(self, function: Callable, links: Links | None = None):
        self._impl_class = lambda function: _Implementation(function, links)
        super().__init__(function)
        self._cache_file = _Files(Path(self.cache_path), self._impl.filename_base)
        self._function = links.function if links else function

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The kept code, or None where there is none that can be read: then it is compiled again."""
        if identity(self._function) is None:
            return None
        try:
            return super().load_overload(signature, target)
        except Exception:  # whatever damaged bytes may lead the unpickling to
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep code that was just compiled, if it can be told from other functions' and be written."""
        if identity(self._function) is not None:
            with contextlib.suppress(OSError):
                super().save_overload(signature, compiled)

    def _index_key(self, signature: Any, codegen: Any) -> tuple:
        return signature, codegen.magic_tuple(), identity(self._function)
