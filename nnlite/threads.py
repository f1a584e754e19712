"""How many threads compute, and who owns them.

Inside a step the compiled kernels own the threads. Every parallel launch holds one lock, because not all of
Numba's threading layers bear two launches at once, and a forked child runs the same parts one after another,
because the threads of its parent did not come along.
"""

from __future__ import annotations

import os
import threading

from nnlite.errors import positive_int

#: held by every parallel launch
launch_lock = threading.Lock()

_num_threads: int | None = None
_forked = False


def available_cpus() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_num_threads() -> int:
    """How many threads kernels and BLAS may use: what was set, else `NUMBA_NUM_THREADS`, else every processor."""
    global _num_threads
    if _num_threads is None:
        asked = os.environ.get("NUMBA_NUM_THREADS", "")
        _num_threads = int(asked) if asked.isdigit() and int(asked) > 0 else available_cpus()
    return _num_threads


def set_num_threads(n: int) -> None:
    """Let nnlite's kernels, and NumPy's BLAS, use `n` threads from now on.

    Raises ValueError if `n` is not an integer of at least 1, or above what this process may use.
    """
    global _num_threads
    n = positive_int("n", n)
    limit = max(available_cpus(), get_num_threads())
    if n > limit:
        raise ValueError(f"n: expected at most {limit} threads, what this process may use. Received: {n}")
    _num_threads = n
    limit_blas(n)


def limit_blas(n: int) -> None:
    """Keep every BLAS in the process to `n` threads (threadpoolctl: for the whole process, so set once)."""
    import threadpoolctl

    threadpoolctl.threadpool_limits(limits=n, user_api="blas")


def forked() -> bool:
    """Whether this process is a fork of one that had imported nnlite, so that its thread pool is gone."""
    return _forked


def _after_fork() -> None:
    global _forked, launch_lock
    _forked = True
    launch_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
