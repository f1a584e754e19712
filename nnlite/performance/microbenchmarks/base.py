"""What a microbenchmark is, the table of them, and the state of caches and threads that each sample starts from."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import numpy as np

from nnlite.conv.work import ITEMSIZE
from nnlite.runtime import memory, threads

#: working sets are measured up to so many bytes, and products up to twice that
MOST_BYTES = 96 << 20
_ZERO = np.float32(0)


class Work(NamedTuple):
    """Something to time, and how much work it is in the unit of its kind: FLOPs of products, bytes of all else."""

    run: Callable[[], object]
    amount: float
    #: arrays that in a step another kernel wrote just before, on all of its threads: what one reads, others wrote
    mixed: tuple[np.ndarray, ...] = ()
    #: the same, where both kernels divide the array alike: each thread wrote what it reads
    own: tuple[np.ndarray, ...] = ()
    #: what a step does just before, if that is more than writing arrays
    before: Callable[[], object] | None = None


#: kind of work item -> a function of (size, bytes of the working set) that gives its work
KINDS: dict[str, Callable[[tuple[int, ...], int], Work]] = {}


def kind(function: Callable[[tuple[int, ...], int], Work]) -> Callable[[tuple[int, ...], int], Work]:
    """Add a kind of work item under the function's name."""
    KINDS[function.__name__] = function
    return function


def prepare(work: Work, evicted: int) -> None:
    """Leave caches and threads as a step does that touched `evicted` bytes since it last used these arrays."""
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
    """Read and write so many bytes of other memory, on all of the kernels' threads."""
    from nnlite.kernels import peaks

    global _other
    if _other.nbytes < nbytes:
        _other = np.zeros(nbytes // ITEMSIZE, np.float32)
    peaks.rewrite(_other[: nbytes // ITEMSIZE], _ZERO)


def keep_awake(blas_threads: int) -> None:
    """Leave the threads awake, as they are within a step, where another call was just before."""
    from nnlite.kernels import peaks

    if threads.kernel_parts() > 1:
        peaks.nothing(np.zeros(threads.kernel_parts(), np.int64))
    if blas_threads > 1:
        np.matmul(_square, _square)


def power_of_two(nbytes: float) -> int:
    """The least that is as much, so that one microbenchmark serves several steps."""
    return 1 << max(0, ceil(nbytes) - 1).bit_length()


def ones(shape: int | tuple[int, ...]) -> np.ndarray:
    """Ones in memory of the kind that a step's arrays have."""
    array = memory.empty((shape,) if isinstance(shape, int) else shape)
    array.fill(1)
    return array


def operands(size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, int, int, int]:
    """(a, b, m, n, k) of a product, as they lie; the longest side is cut where memory would not hold them."""
    m, n, k, layout = size
    while ITEMSIZE * (m * k + k * n + m * n) > 2 * MOST_BYTES:
        longest = max(m, n, k)
        m, n, k = (side // 2 if side == longest else side for side in (m, n, k))
    a = ones((k, m) if layout == 1 else (m, k))
    b = ones((n, k) if layout == 2 else (k, n))
    return a, b, m, n, k
