"""The registry of microbenchmarks, and the state of caches and threads before each sample."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import numpy as np

from nnlite.conv.work import ITEMSIZE
from nnlite.runtime import memory, threads

#: the largest working set, bytes; products use up to twice as much
MOST_BYTES = 96 << 20
_ZERO = np.float32(0)


class Work(NamedTuple):
    """Work to time, and its amount: FLOPs of products, bytes of other kinds."""

    run: Callable[[], object]
    amount: float
    #: arrays that another kernel has just written in a step; a thread reads what other threads wrote
    mixed: tuple[np.ndarray, ...] = ()
    #: the same, but each thread reads what it wrote itself
    own: tuple[np.ndarray, ...] = ()
    #: runs just before, if a step does more there than write arrays
    before: Callable[[], object] | None = None


#: kind of work item -> a function of (size, bytes of the working set) that returns its work
KINDS: dict[str, Callable[[tuple[int, ...], int], Work]] = {}


def kind(function: Callable[[tuple[int, ...], int], Work]) -> Callable[[tuple[int, ...], int], Work]:
    """Register a kind of work item under the function's name."""
    KINDS[function.__name__] = function
    return function


def prepare(work: Work, evicted: int) -> None:
    """Prepare caches and threads as in a step that has used `evicted` other bytes since it last used these arrays."""
    evict(evicted)
    blas_threads = 1 if threads.owner() == "kernels" else threads.get_num_threads()
    keep_awake(blas_threads)
    if work.before is not None and max(blas_threads, threads.kernel_parts()) > 1:
        work.before()
    if threads.kernel_parts() > 1:
        from nnlite.kernels import peaks

        for array in work.mixed:
            peaks.rewrite(array.reshape(-1), _ZERO)
        for array in work.own:
            peaks.rewrite_own(array.reshape(-1), _ZERO)


_other = np.zeros(0, np.float32)
_square = np.ones((256, 256), np.float32)


def evict(nbytes: int) -> None:
    """Read and write `nbytes` of other memory with all kernel threads, to evict everything else from cache."""
    from nnlite.kernels import peaks

    global _other
    if _other.nbytes < nbytes:
        _other = np.zeros(nbytes // ITEMSIZE, np.float32)
    peaks.rewrite(_other[: nbytes // ITEMSIZE], _ZERO)


def keep_awake(blas_threads: int) -> None:
    """Wake the threads, as the call before it does in a step."""
    from nnlite.kernels import peaks

    if threads.kernel_parts() > 1:
        peaks.nothing(np.zeros(threads.kernel_parts(), np.int64))
    if blas_threads > 1:
        np.matmul(_square, _square)


def power_of_two(nbytes: float) -> int:
    """The next power of two, so that several steps share a microbenchmark."""
    return 1 << max(0, ceil(nbytes) - 1).bit_length()


def ones(shape: int | tuple[int, ...]) -> np.ndarray:
    """Ones, allocated like a step's arrays."""
    array = memory.empty((shape,) if isinstance(shape, int) else shape)
    array.fill(1)
    return array


def operands(size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, int, int, int]:
    """(a, b, m, n, k) of a product in its layout. The longest side is halved while the arrays exceed 2 * MOST_BYTES."""
    m, n, k, layout = size
    while ITEMSIZE * (m * k + k * n + m * n) > 2 * MOST_BYTES:
        longest = max(m, n, k)
        m, n, k = (side // 2 if side == longest else side for side in (m, n, k))
    a = ones((k, m) if layout == 1 else (m, k))
    b = ones((n, k) if layout == 2 else (k, n))
    return a, b, m, n, k
