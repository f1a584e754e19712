"""How many threads compute, and who owns them.

Kernels and NumPy's BLAS have a pool of threads each, and the idle threads of one keep the processors from the other:
on two processors a step in which they alternate takes many times as long. So one of them owns the threads and the
other computes on the caller's alone: the kernels, unless convolution algorithms that use BLAS are measured.

Every parallel launch holds one lock, because not all of Numba's threading layers bear two launches at once. It may be
taken twice by one thread: a signal handler that computes can come between the lock and the launch, never into the
launch, which is no Python. A forked child runs the same parts one after another, because the threads of its parent did
not come along: a lock that one of them held would stay locked. Ours are made anew in the child. For Numba's and LLVM's,
and for modules of ours that a thread imports, the fork waits.
"""

from __future__ import annotations

import _imp
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from importlib import _bootstrap, import_module
from typing import Any, Literal

from nnlite.runtime.errors import positive_int

#: held by every parallel launch
launch_lock = threading.RLock()
#: those of Numba and LLVM, in the order in which they are taken, once they are imported
compiler_locks: tuple[AbstractContextManager[Any], ...] = ()
_held: tuple[AbstractContextManager[Any], ...] = ()
#: by the names of modules that are being imported
_module_locks: dict[str, Any] = vars(_bootstrap).get("_module_locks", {})

Owner = Literal["kernels", "blas"]

_num_threads: int | None = None
#: None until the first kernel is defined: a program that uses none keeps its BLAS as it was
_owner: Owner | None = None
_forked = False


def available_cpus() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_num_threads() -> int:
    """How many threads kernels and BLAS may use: what was set, else `NUMBA_NUM_THREADS`, else every processor."""
    return _asked_for() if _num_threads is None else _num_threads


@cache
def _asked_for() -> int:
    asked = os.environ.get("NUMBA_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else available_cpus()


def set_num_threads(n: int, *, argument: str = "n") -> None:
    """Let nnlite's kernels, and NumPy's BLAS, use `n` threads from now on.

    Raises ValueError, which calls `n` by the name `argument`, if it is not an integer of at least 1, or above what
    this process may use.
    """
    global _num_threads
    n = positive_int(argument, n)
    limit = max(available_cpus(), _asked_for())
    if n > limit:
        raise ValueError(f"{argument}: expected at most {limit} threads, what this process may use. Received: {n}")
    _num_threads = n
    if _owner is not None:
        own(_owner)


@contextmanager
def using(n: int) -> Iterator[None]:
    """Let kernels and BLAS use `n` threads for what runs inside, and as many as before afterwards."""
    before = get_num_threads()
    if n != before:
        set_num_threads(n)
    try:
        yield
    finally:
        if n != before:
            set_num_threads(before)


def kernel_parts() -> int:
    """Into how many parts a kernel's work is divided: the threads that kernels may use."""
    return 1 if _owner == "blas" else get_num_threads()


def parts_for(size: int, least: int) -> int:
    """Into how many parts to divide the work on `size` numbers: fewer than `least` are one thread's work.

    To wake the others costs more than they save.
    """
    return 1 if size < least else kernel_parts()


def own(owner: Owner) -> None:
    """Give the threads to the kernels or to BLAS, for the whole process; it costs, so do it once."""
    global _owner
    import threadpoolctl

    threadpoolctl.threadpool_limits(limits=get_num_threads() if owner == "blas" else 1, user_api="blas")
    _owner = owner


def owner() -> Owner:
    """Who has the threads now."""
    return _owner or "kernels"


@contextmanager
def owned_by(owner: Owner) -> Iterator[None]:
    """Give the threads to `owner` for what runs inside, and to the kernels afterwards."""
    own(owner)
    try:
        yield
    finally:
        own("kernels")


def forked() -> bool:
    """Whether this process is a fork of one that had imported nnlite, so that its thread pool is gone."""
    return _forked


def _before_fork() -> None:
    """Wait for other threads that compile, or import a module of ours, and keep them from beginning until the fork."""
    global _held
    waited: set[str] = set()
    while True:
        _held = compiler_locks
        for lock in _held:
            lock.__enter__()
        _imp.acquire_lock()
        imported = {name for name in list(_module_locks) if name.split(".")[0] == "nnlite"}
        if imported <= waited:  # this thread itself imports those for which there was nothing to wait
            return
        _after_fork()
        for name in imported - waited:
            with suppress(Exception):  # which the other thread tells
                import_module(name)
        waited |= imported


def _after_fork() -> None:
    _imp.release_lock()
    for lock in reversed(_held):
        lock.__exit__(None, None, None)


def _after_fork_in_child() -> None:
    global _forked, launch_lock
    _forked = True
    launch_lock = threading.RLock()
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
