"""Each ceiling of a processor, measured by itself: multiply-adds, bandwidths, calls, launches, fresh memory.

A ceiling is what the machine can do when nothing disturbs it, so it is the best of at least 30 repeats; but what a
launch costs is the usual, which tells in which state the processors are (nnlite.rates.state).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import quantiles

import numpy as np

from nnlite import memory
from nnlite.processor import memory_bytes

REPEATS = 30
SECONDS = 0.15  # short works are repeated for so long: among many, some meet a moment without other programs
_MOST_MEMORY = 256 << 20  # working set that stands for memory, at most
PAGE = 4096
_ROUNDS = 200_000  # of multiply-adds, a millisecond: starting the threads takes some microseconds
LAUNCHES, UNTIMED = 100, 10  # samples of a launch


@dataclass(frozen=True)
class Bandwidth:
    """10**9 bytes a second over a working set of `bytes`; a copy counts what it reads and what it writes."""

    level: str
    bytes: int
    threads: int
    read_gbs: float
    copy_gbs: float


def _best_seconds(work: Callable[[], object]) -> float:
    """The fastest of at least REPEATS runs and SECONDS seconds, after one that does not count."""
    work()
    best = float("inf")
    done, end = 0, time.perf_counter() + SECONDS
    while done < REPEATS or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
        done += 1
    return best


def fma_gflops(threads: int) -> float:
    from nnlite.kernels import ceilings as kernels
    from nnlite.simd import LANES

    return threads * _ROUNDS * kernels.SUMS * LANES * 2 / _best_seconds(multiply_adds(threads)) / 1e9


def multiply_adds(threads: int) -> Callable[[], object]:
    from nnlite.kernels import ceilings as kernels
    from nnlite.simd import LANES

    factors = np.array([0.5, 0.25, 1, 2, 3, 4], np.float32)  # a * 0.5 + 0.25 tends to 0.5: no overflow, no denormals
    out = np.zeros(threads * LANES, np.float32)
    return lambda: kernels.multiply_adds(_ROUNDS, factors, out)


def bandwidths(caches: dict[str, int], threads: int) -> tuple[Bandwidth, ...]:
    """Half of each thread's first two caches, a working set between the second and third, and one beyond all."""
    third = min(caches["L3"] // 2, max(8 * caches["L2"], 8 << 20))
    beyond = max(min(_MOST_MEMORY, 4 * caches["L3"]), 2 * third)
    sets = {
        "L1": caches["L1"] // 2 * threads,
        "L2": caches["L2"] // 2 * threads,
        "L3": third,
        "memory": min(beyond, memory_bytes() // 8),
    }
    return tuple(bandwidth(level, nbytes, threads) for level, nbytes in sets.items())


def bandwidth(level: str, nbytes: int, threads: int) -> Bandwidth:
    from nnlite.kernels import ceilings as kernels
    from nnlite.simd import LANES

    unit = 8 * LANES  # elements that the kernels move at once
    size = max(nbytes // 4 // threads // (2 * unit) * (2 * unit), 2 * unit)
    x = _ones(threads, size)
    rounds = max(1, (32 << 20) // (4 * size * threads))  # long enough that starting the threads does not matter
    out = np.zeros(threads * LANES, np.float32)
    read = _best_seconds(lambda: kernels.read(rounds, x, out))
    # a copy's two halves make the same working set
    source, target = _ones(threads, size // 2), _ones(threads, size // 2)
    copied = _best_seconds(lambda: kernels.copy(rounds, source, target))
    moved = 4 * threads * size * rounds
    return Bandwidth(level, 4 * threads * size, threads, moved / read / 1e9, moved / copied / 1e9)


def _ones(threads: int, size: int) -> np.ndarray:
    """(threads, size) ones from the beginning of a page: vectors across cache lines move at a third of the rate."""
    room = np.ones(threads * size + PAGE // 4, np.float32)
    skipped = -room.ctypes.data % PAGE // 4
    return room[skipped : skipped + threads * size].reshape(threads, size)


def call_costs() -> tuple[float, float]:
    """(a NumPy call, a call of compiled code), microseconds."""
    from nnlite.kernels import ceilings as kernels

    a, b, c = np.ones(1, np.float32), np.ones(1, np.float32), np.ones(1, np.float32)
    count = 1000

    def numpy_calls() -> None:
        for _ in range(count):
            np.add(a, b, c)

    def numba_calls() -> None:
        for _ in range(count):
            kernels.call(a)

    return _best_seconds(numpy_calls) / count * 1e6, _best_seconds(numba_calls) / count * 1e6


def launch_us(threads: int) -> float:
    """A kernel that does nothing, on all threads, as nnlite launches it: microseconds, usually."""
    from nnlite.kernels import ceilings as kernels

    places = np.zeros(threads, np.int64)
    return usual_us(lambda: kernels.nothing(places))


def usual_us(work: Callable[[], object]) -> float:
    """The lower quartile of LAUNCHES times, in microseconds: what other programs take is not in it."""
    for _ in range(UNTIMED):
        work()
    samples = []
    for _ in range(LAUNCHES):
        began = time.perf_counter()
        work()
        samples.append(time.perf_counter() - began)
    return 1e6 * quantiles(samples, n=4)[0]


def fresh_gbs(advice: str) -> float:
    """Touching private memory that the process never had, one byte a page: 10**9 bytes a second.

    `advice`: what the system is told about the pages' size, by its name in mmap.
    """
    size = 16 << 20
    best = float("inf")
    for _ in range(REPEATS):
        with memory.private_block(size, advice) as block:
            array = np.frombuffer(block, np.uint8)
            began = time.perf_counter()
            array[::PAGE] = 1
            best = min(best, time.perf_counter() - began)
            del array
    return size / best / 1e9
