"""This machine's peak rates, measured: what "percent of the peak" means everywhere.

A peak rate is what the machine can do when nothing disturbs it, so it is the best of at least 30 repeats, and of
several kernels where one may fit a processor better than another. It is measured anew in each process that asks.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from statistics import median
from typing import Any

import numpy as np

from nnlite.performance.contention import Contention
from nnlite.runtime import memory, threads
from nnlite.runtime.errors import positive_int
from nnlite.runtime.processor import cache_sizes, memory_bytes, processor_name

REPEATS = 30
#: seconds that a short work is repeated for: among many repeats, some meet a moment without other programs
SECONDS = 0.1
#: a share of a peak rate above this is an error of ours: in the peak, the clock or a count
MOST_OF_A_PEAK = 1.03
_MOST_MEMORY = 256 << 20  # working set that stands for memory, at most
PAGE = 4096
_ROUNDS = 100_000  # of multiply-adds: about a millisecond, so that starting the threads does not count


@dataclass(frozen=True)
class Bandwidth:
    """10**9 bytes per second over a working set of `bytes`; a copy counts what it reads and what it writes."""

    level: str
    bytes: int
    threads: int
    read_gbs: float
    copy_gbs: float


@dataclass(frozen=True)
class Machine:
    """The peak rates of a processor for float32, and what they depend on."""

    processor: str
    cpus: int
    threads: int
    lanes: int
    caches: dict[str, int]
    memory_bytes: int
    fma_gflops_one: float
    fma_gflops_all: float
    #: independent sums -> the rate that they reached on one thread: the best is the peak
    fma_gflops_by_sums: dict[int, float]
    bandwidths: tuple[Bandwidth, ...]
    numpy_call_us: float
    numba_call_us: float
    fork_join_us: float
    first_touch_gbs: float  # memory that the process never had, in pages of 4 KiB
    first_touch_huge_gbs: (
        float  # where huge pages are asked for, as NumPy (from 4 MiB) and nnlite.runtime.memory (from 2 MiB) do
    )
    others_share: float  # of the processors' time, that other programs took meanwhile
    versions: dict[str, str] = field(default_factory=dict)
    measured_at: str = ""

    def fma_gflops(self, threads: int) -> float:
        """The multiply-add peak of one thread, or of all."""
        return self.fma_gflops_one if threads == 1 else self.fma_gflops_all

    def bandwidth(self, nbytes: float, threads: int) -> Bandwidth:
        """That of the smallest cache that can hold `nbytes`, or of memory, with one thread or with all."""
        mine = [b for b in self.bandwidths if b.threads == (1 if threads == 1 else self.threads)]
        private = {"L1": mine[0].threads, "L2": mine[0].threads}
        fits = [level for level, size in self.caches.items() if nbytes <= size * private.get(level, 1)]
        return next(b for b in mine if b.level == (fits[0] if fits else "memory"))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return json.loads(json.dumps(asdict(self)))


@cache
def measure(thread_count: int | None = None) -> Machine:
    """Measure the peak rates of so many threads (default: those in use); some seconds, once in a process.

    Raises ValueError where Numba's compiler is switched off, or on too many threads.
    """
    from nnlite.compiler import jit, simd

    if not jit.ENABLED:
        raise ValueError("machine: expected Numba's compiler, which measures. Received: NUMBA_DISABLE_JIT=1")
    count = positive_int("threads", threads.get_num_threads() if thread_count is None else thread_count)
    caches, contention = cache_sizes(), Contention()
    with threads.using(1):
        by_sums = fma_by_sums(1)
        bandwidths = _bandwidths(caches, 1)
        numpy_call, numba_call = _call_costs()
    with threads.using(count):
        fma_all = max(*fma_by_sums(count).values(), *by_sums.values())
        if count > 1:
            bandwidths += _bandwidths(caches, count)
        fork_join = fork_join_us(count)
    return Machine(
        processor=processor_name(),
        cpus=threads.available_cpus(),
        threads=count,
        lanes=simd.LANES,
        caches=caches,
        memory_bytes=memory_bytes(),
        fma_gflops_one=max(by_sums.values()),
        fma_gflops_all=fma_all,
        fma_gflops_by_sums=by_sums,
        bandwidths=bandwidths,
        numpy_call_us=numpy_call,
        numba_call_us=numba_call,
        fork_join_us=fork_join,
        first_touch_gbs=_first_touch_gbs("MADV_NOHUGEPAGE"),
        first_touch_huge_gbs=_first_touch_gbs("MADV_HUGEPAGE"),
        others_share=contention.share(),
        versions=versions(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@cache
def peak_gflops(count: int) -> float:
    """The multiply-add peak of so many threads alone, half a second: what a table of GFLOP/s needs."""
    with threads.using(count):
        return max(fma_by_sums(count).values())


def fma_by_sums(count: int) -> dict[int, float]:
    """GFLOP/s of `count` threads for each number of independent sums: too few wait, too many spill."""
    from nnlite.compiler.simd import LANES
    from nnlite.kernels import peaks as kernels

    factors = np.array([0.5, 0.25], np.float32)  # a * 0.5 + 0.25 tends to 0.5: no overflow, no denormals
    result = {}
    for shape in kernels.SUMS:
        out = np.arange(count * shape.rows * LANES, dtype=np.float32).reshape(count, -1)
        seconds = _best_seconds(partial(kernels.multiply_adds, _ROUNDS, shape, factors, out))
        result[shape.rows] = count * _ROUNDS * shape.rows * LANES * 2 / seconds / 1e9
    return result


def fork_join_us(count: int) -> float:
    """A kernel that does nothing, on all threads, as nnlite launches it: the median, in microseconds."""
    from nnlite.kernels import peaks as kernels

    places, samples = np.zeros(count, np.int64), []
    for _ in range(200):
        began = time.perf_counter()
        kernels.nothing(places)
        samples.append(time.perf_counter() - began)
    return 1e6 * median(samples)


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


def _bandwidths(caches: dict[str, int], count: int) -> tuple[Bandwidth, ...]:
    """Half of each thread's first two caches, a working set between the second and third, and one beyond all."""
    third = min(caches["L3"] // 2, max(8 * caches["L2"], 8 << 20))
    beyond = max(min(_MOST_MEMORY, 4 * caches["L3"]), 2 * third)
    sets = {
        "L1": caches["L1"] // 2 * count,
        "L2": caches["L2"] // 2 * count,
        "L3": third,
        "memory": min(beyond, memory_bytes() // 8),
    }
    return tuple(_bandwidth(level, nbytes, count) for level, nbytes in sets.items())


def _bandwidth(level: str, nbytes: int, count: int) -> Bandwidth:
    from nnlite.compiler.simd import LANES
    from nnlite.kernels import peaks as kernels

    unit = 8 * LANES  # elements that the kernels move at once
    size = max(nbytes // 4 // count // (2 * unit) * (2 * unit), 2 * unit)
    x = _ones(count, size)
    rounds = max(1, (32 << 20) // (4 * size * count))  # long enough that starting the threads does not matter
    out = np.zeros(count * LANES, np.float32)
    read = _best_seconds(lambda: kernels.read(rounds, x, out))
    # a copy's two halves make the same working set
    source, target = _ones(count, size // 2), _ones(count, size // 2)
    copied = _best_seconds(lambda: kernels.copy(rounds, source, target))
    moved = 4 * count * size * rounds
    return Bandwidth(level, 4 * count * size, count, moved / read / 1e9, moved / copied / 1e9)


def _ones(count: int, size: int) -> np.ndarray:
    """(count, size) ones from the beginning of a page: vectors across cache lines move at a third of the rate."""
    block = np.ones(count * size + PAGE // 4, np.float32)
    skipped = -block.ctypes.data % PAGE // 4
    return block[skipped : skipped + count * size].reshape(count, size)


def _call_costs() -> tuple[float, float]:
    """(a NumPy call, a call of compiled code), microseconds."""
    from nnlite.kernels import peaks as kernels

    a, b, c = np.ones(1, np.float32), np.ones(1, np.float32), np.ones(1, np.float32)
    count = 1000

    def numpy_calls() -> None:
        for _ in range(count):
            np.add(a, b, c)

    def numba_calls() -> None:
        for _ in range(count):
            kernels.call(a)

    return _best_seconds(numpy_calls) / count * 1e6, _best_seconds(numba_calls) / count * 1e6


def _first_touch_gbs(advice: str) -> float:
    """Touching private memory that the process never had, one byte a page: 10**9 bytes per second.

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


def versions() -> dict[str, str]:
    """Of everything that a measured number depends on."""
    from importlib.metadata import version

    from nnlite.runtime.version import __version__

    names = {"numpy": version("numpy"), "numba": version("numba"), "nnlite": __version__}
    return {"python": platform.python_version(), **names}
