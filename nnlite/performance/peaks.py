"""This machine's measured peak rates, the reference of every "percent of the peak".

A peak rate is the best of many repeats, the one that other programs disturbed least, and of several kernels if
different processors need different ones. Each process measures it again.
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
from nnlite.performance.microbenchmarks import kinds
from nnlite.performance.microbenchmarks.base import LEAST_COPIED, aligned_rows
from nnlite.runtime import memory, threads
from nnlite.runtime.errors import positive_int
from nnlite.runtime.processor import cache_sizes, memory_bytes, processor_name

REPEATS = 10
#: seconds for which short work is repeated: with many repeats, some are not disturbed by other programs
SECONDS = 0.03
#: a larger share of a peak rate is an error in the peak, the clock or a count
MOST_OF_A_PEAK = 1.03
_MOST_MEMORY = 256 << 20  # bytes, the largest working set for the bandwidth of memory
PAGE = 4096
_ROUNDS = 100_000  # of multiply-adds: about a millisecond, so that thread start-up is negligible


@dataclass(frozen=True)
class Bandwidth:
    """10**9 bytes per second with a working set of `bytes`; a copy counts bytes read and written."""

    level: str
    bytes: int
    threads: int
    read_gbs: float
    copy_gbs: float


@dataclass(frozen=True)
class Machine:
    """The peak rates of a processor for float32, with processor, threads and versions."""

    processor: str
    cpus: int
    threads: int
    lanes: int
    caches: dict[str, int]
    memory_bytes: int
    fma_gflops_one: float
    fma_gflops_all: float
    #: number of independent accumulators -> GFLOP/s of one thread; the best is the peak
    fma_gflops_by_sums: dict[int, float]
    bandwidths: tuple[Bandwidth, ...]
    numpy_call_us: float
    numba_call_us: float
    fork_join_us: float
    first_touch_gbs: float  # page faults on first touch, with pages of 4 KiB
    first_touch_huge_gbs: float  # with huge pages, as NumPy (from 4 MiB) and nnlite.runtime.memory (from 2 MiB) ask for
    others_share: float  # of the CPU time, used by other programs meanwhile
    versions: dict[str, str] = field(default_factory=dict)
    measured_at: str = ""

    def fma_gflops(self, threads: int) -> float:
        """The FMA peak of one thread or of all threads, GFLOP/s."""
        return self.fma_gflops_one if threads == 1 else self.fma_gflops_all

    def to_dict(self) -> dict[str, Any]:
        """The content for JSON."""
        return json.loads(json.dumps(asdict(self)))


@cache
def measure(thread_count: int | None = None) -> Machine:
    """Measure the peak rates of `thread_count` threads (default: those in use). It takes seconds, once per process.

    Raises ValueError if Numba's compiler is switched off, or for too many threads.
    """
    from nnlite.compiler import compilation, target

    if not compilation.ENABLED:
        raise ValueError("machine: expected Numba's compiler to be on. Received: NUMBA_DISABLE_JIT=1. Unset it")
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
        lanes=target.LANES,
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
    """The FMA peak of `count` threads, GFLOP/s, for tables of GFLOP/s. It takes a fraction of a second."""
    with threads.using(count):
        return max(fma_by_sums(count).values())


def fma_by_sums(count: int) -> dict[int, float]:
    """GFLOP/s of `count` threads by number of accumulators: too few wait for latency, too many spill."""
    from nnlite.compiler.target import LANES
    from nnlite.kernels import peaks as kernels

    factors = np.array([0.5, 0.25], np.float32)  # a * 0.5 + 0.25 tends to 0.5: no overflow, no denormals
    result = {}
    for shape in kernels.SUMS:
        out = np.arange(count * shape.rows * LANES, dtype=np.float32).reshape(count, -1)
        seconds = _best_seconds(partial(kernels.multiply_adds, _ROUNDS, shape, factors, out))
        result[shape.rows] = count * _ROUNDS * shape.rows * LANES * 2 / seconds / 1e9
    return result


def fork_join_us(count: int) -> float:
    """The fork-join overhead, microseconds: the median time of an empty kernel on `count` threads."""
    from nnlite.kernels import peaks as kernels

    places, samples = np.zeros(count, np.int64), []
    for _ in range(200):
        began = time.perf_counter()
        kernels.nothing(places)
        samples.append(time.perf_counter() - began)
    return 1e6 * median(samples)


def _best_seconds(work: Callable[[], object]) -> float:
    """The shortest time of at least REPEATS runs and SECONDS seconds, after a warm-up run."""
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
    """Bandwidths with working sets of half of L1 and half of L2 per thread, within L3, and beyond L3."""
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
    from nnlite.kernels import peaks as kernels

    # source and target together have the size of what is read
    copy, x = kinds()["copy"].make((), nbytes), aligned_rows(count, nbytes)
    rounds, out = max(1, LEAST_COPIED // x.nbytes), np.zeros(16 * count, np.float32)
    read = _best_seconds(lambda: kernels.read(rounds, x, out))
    return Bandwidth(
        level, x.nbytes, count, rounds * x.nbytes / read / 1e9, copy.amount / _best_seconds(copy.run) / 1e9
    )


def _call_costs() -> tuple[float, float]:
    """(time of a NumPy call, time of a call of compiled code), microseconds."""
    from nnlite.kernels import peaks as kernels

    a, numpy_calls = np.ones(1, np.float32), kinds()["numpy_call"].make((), 0)

    def numba_calls() -> None:
        for _ in range(1000):
            kernels.call(a)

    return _best_seconds(numpy_calls.run) / numpy_calls.amount * 1e6, _best_seconds(numba_calls) / 1000 * 1e6


def _first_touch_gbs(advice: str) -> float:
    """Rate of first-touch page faults in new private memory, 10**9 bytes per second.

    `advice`: the name in mmap of the advice on the page size.
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
    """The versions of the packages that a measurement depends on."""
    from importlib.metadata import version

    from nnlite.runtime.version import __version__

    names = {"numpy": version("numpy"), "numba": version("numba"), "nnlite": __version__}
    return {"python": platform.python_version(), **names}
