"""The one way nnlite compiles: `jit` for functions, `kernel` for what runs on all threads.

Compiled code is cached on disk under a hash of all kernel sources, so that an edit in one file (simd.py, say)
also renews the code of the others that use it; Numba's own cache looks at the function's file alone. Without a
folder to write in, nothing is cached and everything still works.

Importing this module imports Numba; modules that hold kernels are therefore imported when first used.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config, dispatcher
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from nnlite import threads

#: what LLVM may do with float arithmetic: fuse multiply-adds and reorder sums, but honour NaN and infinity
FASTMATH = {"contract", "reassoc", "nsz"}
#: whether kernels are compiled at all (not with NUMBA_DISABLE_JIT=1)
ENABLED = not config.DISABLE_JIT

prange = numba.prange

threads.own("kernels")


def jit(function: Callable | None = None, *, inline: bool = False, parallel: bool = False, **options: Any) -> Any:
    """Compile `function` with Numba on first use, from the cache where it was compiled before."""
    if function is None:
        return lambda f: jit(f, inline=inline, parallel=parallel, **options)
    options.setdefault("fastmath", FASTMATH)
    compiled = numba.njit(
        nogil=True, error_model="numpy", inline="always" if inline else "never", parallel=parallel, **options
    )(function)
    if isinstance(compiled, dispatcher.Dispatcher) and not inline and cache_dir() is not None:
        setattr(compiled, "_cache", _Cache(function))  # noqa: B010, Numba has no public way to choose a cache
        _watch(compiled)
    return compiled


class _Launch(threading.local):
    """How many threads Numba was last told to use by this Python thread: it keeps the number for each."""

    threads = 0


_launch = _Launch()


class kernel:
    """A compiled function `f(part, parts, *arrays)` that does one of `parts` equal shares of the work.

    Calling the kernel as `f(*arrays)` runs all parts, one a thread. Results depend on how many parts there are only
    where a kernel says so.
    """

    def __init__(self, function: Callable):
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.serial = jit(function)
        self._parallel: Callable | None = None
        self._function = function

    def __call__(self, *arrays: Any) -> None:
        parts = threads.kernel_parts()
        if parts == 1 or threads.forked() or not ENABLED:
            for part in range(parts):
                self.serial(part, parts, *arrays)
            return
        if self._parallel is None:
            self._parallel = _parallel(self._function, self.serial)
        with threads.launch_lock:
            if _launch.threads != parts:
                numba.set_num_threads(min(parts, config.NUMBA_NUM_THREADS))
                _launch.threads = parts
            self._parallel(parts, *arrays)


def _parallel(function: Callable, serial: Any) -> Callable:
    """A compiled function that runs `serial` once a part, in parallel.

    prange counts in uint64; without the cast `serial` would be compiled a second time for that type.
    """
    arguments = ", ".join(list(inspect.signature(function).parameters)[2:])
    name = f"{function.__name__}_parallel"
    source = (
        f"def {name}(parts, {arguments}):\n    for part in prange(parts):\n"
        f"        serial(int64(part), parts, {arguments})\n"
    )
    namespace = {"prange": prange, "int64": numba.int64, "serial": serial, "__name__": function.__module__}
    exec(compile(source, inspect.getfile(function), "exec"), namespace)
    parallel = namespace[name]
    parallel.__module__ = function.__module__
    parallel.__qualname__ = f"{function.__qualname__}_parallel"
    return jit(parallel, parallel=True)


# The cache on disk ---------------------------------------------------------------------------------------------


@cache
def sources_hash() -> str:
    """A hash of the sources of everything that is compiled, and of the compiler's versions."""
    package = Path(__file__).parent
    files = sorted([package / "jit.py", package / "simd.py", *package.glob("conv/*.py"), *package.glob("kernels/*.py")])
    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    for file in files:
        if file.exists():
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def cache_root() -> Path | None:
    """The folder of all caches: in NUMBA_CACHE_DIR, the user's cache folder or a temporary one; None if all fail."""
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    temporary = Path(tempfile.gettempdir()) / f"nnlite-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    for folder in (os.environ.get("NUMBA_CACHE_DIR"), user, temporary):
        if folder:
            root = Path(folder) / "nnlite"
            try:
                root.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=root):
                    return root
            except OSError:
                continue
    return None


def cache_dir() -> Path | None:
    """The folder of the compiled code of these very sources, or None where nothing can be written."""
    root = cache_root()
    return root / f"kernels-{sources_hash()}" if root else None


def clear_cache() -> int:
    """Empty the cache on disk, also of earlier sources; returns how many files went."""
    root = cache_root()
    if root is None:
        return 0
    folders = list(root.glob("kernels-*"))
    count = sum(1 for folder in folders for file in folder.iterdir() if file.is_file())
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return count


class _Locator(_CacheLocator):
    """Tells Numba to keep a function's code in our folder, and that it is as old as all kernel sources together."""

    def __init__(self, function: Callable):
        self._name = hashlib.sha256(f"{function.__module__}.{function.__qualname__}".encode()).hexdigest()[:8]

    def get_cache_path(self) -> str:
        return str(cache_dir())

    def get_source_stamp(self) -> str:
        return sources_hash()

    def get_disambiguator(self) -> str:
        return self._name

    @classmethod
    def from_function(cls, py_func: Callable, py_file: str) -> _Locator:
        return cls(py_func)


class _CacheImpl(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012


class _Cache(FunctionCache):
    _impl_class = _CacheImpl

    def _index_key(self, sig: Any, codegen: Any) -> tuple:
        # the bytes of a closure that holds an intrinsic differ from run to run; the sources' hash says all they could
        return sig, codegen.magic_tuple(), self._py_func.__qualname__


# Telling the user that something compiles ----------------------------------------------------------------------

_listeners: list[Callable[[str], None]] = []


def on_compile(listener: Callable[[str], None]) -> None:
    """Call `listener(name)` before each kernel that is compiled anew (not for one that comes from the cache)."""
    _listeners.append(listener)


def _watch(compiled: Any) -> None:
    compile_for_real = compiled._compiler.compile

    def announce(args: Any, return_type: Any) -> Any:
        for listener in _listeners:
            listener(compiled.__name__)
        return compile_for_real(args, return_type)

    compiled._compiler.compile = announce
