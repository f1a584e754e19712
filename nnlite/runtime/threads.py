"""The number of threads, and their owner: kernels or BLAS.

Kernels and NumPy's BLAS have separate thread pools. Idle threads of one pool spin and take CPU time from the other: on
two CPUs, a step that alternates between them takes many times as long. So one of them owns the threads, and the other
runs on the caller's thread only. The owner is the kernels, except while algorithms that use BLAS are timed.

A forked child has none of its parent's threads. Locks that a lost thread held would stay locked in it, so the fork
waits for Numba's and LLVM's locks and for imports of nnlite's modules.
"""

from __future__ import annotations

import _imp
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from importlib import _bootstrap, import_module
from typing import Any, Literal

from nnlite.runtime.errors import positive_int

#: locks of Numba and LLVM in the order of acquisition, once imported
compiler_locks: tuple[AbstractContextManager[Any], ...] = ()
_held: tuple[AbstractContextManager[Any], ...] = ()
#: by name: the modules that are being imported
_module_locks: dict[str, Any] = vars(_bootstrap).get("_module_locks", {})

Owner = Literal["kernels", "blas"]

_num_threads: int | None = None
#: None until the first kernel is defined: without kernels, BLAS keeps its threads
_owner: Owner | None = None


def available_cpus() -> int:
    """The number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_num_threads() -> int:
    """The number of threads of kernels and BLAS: as set, else `NUMBA_NUM_THREADS`, else all available CPUs."""
    return _asked_for() if _num_threads is None else _num_threads


@cache
def _asked_for() -> int:
    asked = os.environ.get("NUMBA_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else available_cpus()


def set_num_threads(n: int, *, argument: str = "n") -> None:
    """Set the number of threads of nnlite's kernels and of NumPy's BLAS.

    Raises ValueError, which names `argument`, unless `n` is an integer from 1 to the number of CPUs that this process
    may use.
    """
    global _num_threads
    n = positive_int(argument, n)
    limit = max(available_cpus(), _asked_for())
    if n > limit:
        raise ValueError(f"{argument}: expected at most {limit}, the CPUs that this process may use. Received: {n}")
    _num_threads = n
    if _owner is not None:
        own(_owner)


@contextmanager
def using(n: int) -> Iterator[None]:
    """Inside, kernels and BLAS use `n` threads."""
    before = get_num_threads()
    if n != before:
        set_num_threads(n)
    try:
        yield
    finally:
        if n != before:
            set_num_threads(before)


def kernel_parts() -> int:
    """The number of threads that kernels use now, and so of parts of their work."""
    return 1 if _owner == "blas" else get_num_threads()


def parts_for(size: int, least: int) -> int:
    """The number of threads for work on `size` elements: one if there are fewer than `least`.

    For less work, waking the other threads costs more than it saves.
    """
    return 1 if size < least else kernel_parts()


def own(owner: Owner) -> None:
    """Give the threads of the whole process to the kernels or to BLAS. This is slow: do not alternate."""
    global _owner
    import threadpoolctl

    threadpoolctl.threadpool_limits(limits=get_num_threads() if owner == "blas" else 1, user_api="blas")
    _owner = owner


def owner() -> Owner:
    """The present owner of the threads."""
    return _owner or "kernels"


@contextmanager
def owned_by(owner: Owner) -> Iterator[None]:
    """Inside, `owner` has the threads; afterwards the kernels have them."""
    own(owner)
    try:
        yield
    finally:
        own("kernels")


def _before_fork() -> None:
    """Wait for other threads that compile or import a module of nnlite, and block them until the fork."""
    global _held
    waited: set[str] = set()
    while True:
        locks = compiler_locks
        for lock in locks:
            lock.__enter__()
        _imp.acquire_lock()
        _held = locks
        imported = {name for name in list(_module_locks) if name.split(".")[0] == "nnlite"}
        if imported <= waited:  # this thread itself imports the rest
            return
        _after_fork()
        for name in imported - waited:
            with suppress(Exception):  # the other thread reports it
                import_module(name)
        waited |= imported


def _after_fork() -> None:
    _imp.release_lock()
    for lock in reversed(_held):
        lock.__exit__(None, None, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
