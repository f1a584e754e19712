"""Compiled code of nnlite's functions on disk: where it is, what its key is, and how Numba finds it.

The folder is named after a hash of all kernel sources, so that an edit in one file (tiles.py, say) also renews the code
of the others that use it; Numba's own cache looks at the function's file alone, and its settings may move it elsewhere.
Each compiled signature is one file, which starts with a digest of the rest. What is damaged, or what another user
may have written, is compiled again. Without a cache everything still works.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import llvmlite
import numba
import numpy as np

from nnlite.compiler import numba_private
from nnlite.compiler.numba_private import target
from nnlite.runtime.files import write_whole

_PACKAGE = Path(__file__).parents[1]
#: the rooms whose sources take part in what is compiled
_COMPILED = ("compiler", "conv", "kernels", "performance/microbenchmarks")


@cache
def sources_hash() -> str:
    """A hash of the sources of everything that is compiled, and of the compiler's versions."""
    files = sorted(file for room in _COMPILED for file in (_PACKAGE / room).rglob("*.py"))
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {np.__version__} {sys.version}".encode())
    for file in files:
        digest.update(str(file.relative_to(_PACKAGE)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def cache_root() -> Path | None:
    """The folder of all caches: in NUMBA_CACHE_DIR, the user's cache folder or a temporary one; None if all fail."""
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))  # its specification says to ignore a relative one
    lasting = os.environ.get("NUMBA_CACHE_DIR"), xdg if xdg.is_absolute() else Path.home() / ".cache"
    temporary = Path(tempfile.gettempdir()) / f"nnlite-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    return next(filter(_is_private, (*(Path(folder) / "nnlite" for folder in lasting if folder), temporary)), None)


def _is_private(folder: Path) -> bool:
    """Make a folder if need be; whether we can write in it and nobody else can, who may have made a temporary one."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return _is_ours(folder.stat()) and folder.lstat().st_uid == folder.stat().st_uid  # of a link, who made it
    except OSError:
        return False


def _is_ours(status: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user and nobody else may write to it."""
    ours = status.st_uid == os.geteuid() if hasattr(os, "geteuid") else True
    return ours and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def cache_dir() -> Path | None:
    """The folder of the compiled code of these very sources, or None where nothing can be written."""
    root = cache_root()
    return root / f"kernels-{sources_hash()}" if root else None


def cache_name(function: Callable) -> str | None:
    """The name under which a function's code is cached, or None if it is not.

    Only functions whose sources are in the hash are cached, and of them those that one name can tell: Numba takes what
    a function closes over as constants.
    """
    several = function.__closure__ or "<" in function.__qualname__  # made in another function, or a lambda
    file = Path(function.__code__.co_filename)
    hashed = any(file.is_relative_to(_PACKAGE / room) for room in _COMPILED)
    return f"{function.__module__}.{function.__qualname__}" if hashed and not several else None


def clear_cache() -> int:
    """Empty the cache on disk, also of earlier sources, forget what `autotune` measured and the rates of the
    time model, which depend on sources too; how many files went."""
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

    def provide(self, signature: tuple) -> Any: ...


class CodeCache(numba_private.Cache):
    """What Numba asks for one function's compiled code, cached as `name`; `links` are what that code jumps to."""

    def __init__(self, name: str, links: Links | None):
        self._name = name
        self._links = links

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The cached code, or None where there is none that can be trusted: then it is compiled again."""
        context.refresh()
        try:
            key, path = self._place(signature)
            stored_key, signatures, code = pickle.loads(_checked(path))
            if stored_key != key:
                return None
            for linked in signatures:
                assert self._links is not None
                self._links.provide(linked)
            return numba_private.rebuild(context, code)
        except Exception:  # no file, a damaged one, or one that fits no longer
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Store code that was just compiled, if it can be written and holds no address of this process."""
        if numba_private.holds_addresses(compiled):
            return
        with contextlib.suppress(OSError):
            key, path = self._place(signature)
            path.unlink(missing_ok=True)  # it may be a link, or have the rights for which it was refused
            content = numba_private.to_bytes(compiled, key, self._links.signatures if self._links else ())
            write_whole(path, hashlib.sha256(content).digest() + content, mode=0o600)

    def _place(self, signature: Any) -> tuple[tuple, Path]:
        """What tells a signature's code from all others, and its file. Raises OSError if no folder can be trusted."""
        key, folder = (self._name, signature, target()), cache_dir()
        if folder is None or not _is_trusted(folder):
            _warn_once(folder)
            raise FileNotFoundError
        return key, folder / f"{self._name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.code"


_is_trusted = cache(_is_private)


@cache
def _warn_once(folder: Path | None) -> None:
    where = f"{folder} cannot be written by this user alone" if folder else "no writable folder was found"
    warnings.warn(
        f"compiled kernels are not stored, so each process compiles them again: {where}. "
        "Set NUMBA_CACHE_DIR to a folder of yours",
        stacklevel=2,
    )


def _checked(path: Path) -> bytes:
    """What was stored in a file. Raises OSError if another user may have written it, ValueError if it is damaged."""
    with open(path, "rb", opener=_open_no_link) as file:
        if not _is_ours(os.fstat(file.fileno())):
            raise PermissionError
        digest, content = file.read(32), file.read()
    if hashlib.sha256(content).digest() != digest:
        raise ValueError
    return content


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
