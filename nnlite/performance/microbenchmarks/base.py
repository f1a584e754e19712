"""The registry of microbenchmarks, and the state of caches and threads before each sample."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, Literal, NamedTuple

import numpy as np

from nnlite.conv.work import ITEMSIZE
from nnlite.runtime import memory, threads
from nnlite.runtime.processor import cache_sizes
from nnlite.runtime.replay import TRIALS, Repeated

#: the last-level cache, bytes: as much other memory evicts everything from it
LAST_LEVEL = cache_sizes()["L3"]
#: the largest working set, bytes: all of it was evicted, so a larger one has the same rate; products use up to twice as
#: much
MOST_BYTES = min(48 << 20, LAST_LEVEL)
#: bytes that a bandwidth is measured on at least, so that thread start-up is negligible
LEAST_COPIED = 32 << 20
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


#: a function of (size or problem, bytes of the working set) that returns a kind's work
Make = Callable[[tuple[Any, ...], int], Work]


class Kind(NamedTuple):
    """A kind of work item, and what bounds it.

    Products, and what compiled algorithms do with data that stay in cache, are bounded by their own rate, or by the
    bandwidth that their operands need. A pass over memory and the cost of calls are their own rate alone.
    """

    make: Make
    bound: Literal["product", "cache", "memory", "overhead"]


KINDS: dict[str, Kind] = {}


def kind(bound: Literal["product", "cache", "memory", "overhead"]) -> Callable[[Make], Make]:
    """Register a kind of work item under its function's name."""

    def register(make: Make) -> Make:
        KINDS[make.__name__] = Kind(make, bound)
        return make

    return register


def without_python(compute: Callable[[], np.ndarray | tuple[np.ndarray | None, ...]]) -> Callable[[], object]:
    """What computes new arrays, replayed: the Python before its kernels is of the overhead, not of the rate."""
    repeated = Repeated()

    def run() -> object:
        return repeated(lambda: found if isinstance(found := compute(), tuple) else (found,))

    for _ in range(TRIALS):
        run()
    return run


def prepare(work: Work, evicted: int) -> None:
    """Prepare caches and threads as in a step that has used `evicted` other bytes since it last used these arrays."""
    evict(evicted)
    if work.before is not None and max(_blas_threads(), threads.kernel_parts()) > 1:
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
    """Read and write `nbytes` of other memory with all kernel threads, to evict everything else from cache.

    Then wake all threads, as the call before does in a step.
    """
    from nnlite.kernels import peaks

    global _other
    if _other.nbytes < nbytes:
        _other = np.zeros(nbytes // ITEMSIZE, np.float32)
    peaks.rewrite(_other[: nbytes // ITEMSIZE], _ZERO)
    if threads.kernel_parts() > 1:
        peaks.nothing(np.zeros(threads.kernel_parts(), np.int64))
    if _blas_threads() > 1:
        np.matmul(_square, _square)


def _blas_threads() -> int:
    return 1 if threads.owner() == "kernels" else threads.get_num_threads()


def power_of_two(nbytes: float) -> int:
    """The next power of two, so that several steps share a microbenchmark."""
    return 1 << max(0, ceil(nbytes) - 1).bit_length()


def ones(shape: int | tuple[int, ...]) -> np.ndarray:
    """Ones, allocated like a step's arrays."""
    array = memory.empty((shape,) if isinstance(shape, int) else shape)
    array.fill(1)
    return array


def aligned_rows(rows: int, nbytes: int) -> np.ndarray:
    """(rows, size) ones of `nbytes` in all, which the kernels of bandwidths read 8 vectors at a time.

    Page-aligned: vectors across cache lines would run at a third of the rate.
    """
    from nnlite.compiler.target import LANES

    size = max(1, nbytes // (ITEMSIZE * rows * 8 * LANES)) * 8 * LANES
    array = memory.empty((max(rows * size, memory.SMALLEST),))[: rows * size].reshape(rows, size)
    array.fill(1)
    return array
