"""This machine's measured ceilings: what "percent of peak" means everywhere.

Each number is the best of at least 30 repeats, because a ceiling is what the machine can do when nothing disturbs it;
but what a launch costs is the usual, which tells in which state the processors are (nnlite.rates.state).
A measurement is kept on disk under the processor, the threads and the versions it was made with.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np

from nnlite import threads as thread_owner
from nnlite.errors import positive_int
from nnlite.processor import cache_sizes, processor_name

SCHEMA = 4
REPEATS = 30
SECONDS = 0.15  # short works are repeated for so long: among many, some meet a moment without other programs
_MOST_MEMORY = 256 << 20  # working set that stands for memory, at most
_PAGE = 4096
_ROUNDS = 200_000  # of multiply-adds, a millisecond: starting the threads takes some microseconds
_SIDE = 512  # of the matrices of a product for all threads of BLAS: a millisecond as well
LAUNCHES, UNTIMED = 100, 10  # samples of a launch
#: kept ceilings hold if they are within so much of what is measured in one of so many tries
CHECKS, TOLERANCE = 3, 0.1
#: a process that gets this part of the processors is as good as alone
UNDISTURBED = 0.9
#: it is asked for so long; a system may count processor time in ticks of 4 ms
SHARE_SECONDS = 0.02


@dataclass(frozen=True)
class Bandwidth:
    """10**9 bytes a second over a working set of `bytes`; a copy counts what it reads and what it writes."""

    level: str
    bytes: int
    threads: int
    read_gbs: float
    copy_gbs: float


@dataclass(frozen=True)
class Machine:
    """The ceilings of a processor for float32 on `threads` threads, and what the measurement depends on."""

    processor: str
    cpus: int
    threads: int
    lanes: int
    caches: dict[str, int]
    memory_bytes: int
    fma_gflops_one: float
    fma_gflops_all: float
    bandwidths: tuple[Bandwidth, ...]
    numpy_call_us: float
    numba_call_us: float
    parallel_region_us: float
    fresh_page_ns: float  # a page of 4 KiB
    fresh_gbs: float
    fresh_huge_gbs: float  # where huge pages are asked for, as NumPy (from 4 MiB on) and nnlite.memory (from 2 MiB) do
    versions: dict[str, str]
    share: float  # of the processors' time, that this process got while it measured; 1 if it was alone
    measured_at: str

    @property
    def main_ceilings(self) -> dict[str, float]:
        """The peak (GFLOP/s) and the copies (GB/s), on all threads."""
        copies = {b.level: b.copy_gbs for b in self.bandwidths if b.threads == self.threads}
        return {"multiply-adds": self.fma_gflops_all, **copies}

    def roof(self, nbytes: float) -> Bandwidth:
        """The bandwidth, on all threads, of the smallest cache that can hold `nbytes`, or of memory."""
        threads = {"L1": self.threads, "L2": self.threads}
        fits = [level for level, size in self.caches.items() if nbytes <= size * threads.get(level, 1)]
        level = fits[0] if fits else "memory"
        return next(b for b in self.bandwidths if b.threads == self.threads and b.level == level)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"schema": SCHEMA, **asdict(self)}

    @property
    def disturbed(self) -> bool:
        """Whether other programs were using the processors while it was measured."""
        return self.share < UNDISTURBED

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Machine:
        """What `to_dict` gave. Raises KeyError or TypeError on anything else."""
        values = {name: content[name] for name in cls.__dataclass_fields__}
        values["bandwidths"] = tuple(Bandwidth(**b) for b in values["bandwidths"])
        return cls(**values)


def load_or_measure(threads: int | None = None, *, fresh: bool = False) -> Machine:
    """The kept measurement for so many threads (default: those in use), or a new one, kept for the next time.

    One that other programs disturbed does not take the place of what is kept.
    """
    count = positive_int("threads", thread_owner.get_num_threads() if threads is None else threads)
    kept = _kept(count)
    if kept is not None and not fresh:
        return kept
    machine = measure(count)
    if kept is None or not machine.disturbed:
        _keep(machine)
    return machine


def _kept(threads: int) -> Machine | None:
    """What is kept for so many threads; None if nothing is, or something else wrote it."""
    path = _kept_path(threads)
    try:
        return Machine.from_dict(json.loads(path.read_text())) if path is not None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(machine: Machine) -> None:
    """Write it where the next run looks for it."""
    path = _kept_path(machine.threads)
    if path is not None:
        path.write_text(json.dumps(machine.to_dict(), indent=1) + "\n")


def load_and_check(threads: int | None = None) -> Machine:
    """As `load_or_measure`, but kept ceilings are shown to still hold, or everything is measured again.

    The multiply-adds and the bandwidths on all threads are measured once more, up to CHECKS times until they reach the
    kept numbers to within TOLERANCE: a ceiling that other programs hide for a moment still holds, and what is higher
    now is the ceiling from now on. While other programs keep the processor busy, or the host has moved the processors
    apart, so that a launch takes longer than it did, nothing can be told of a lower number, and the kept ones stay.
    Ceilings that were kept although other programs disturbed them are measured again as soon as those are gone.
    """
    machine = load_or_measure(threads)
    if machine.disturbed and share_of_processors(machine.threads) >= UNDISTURBED:
        return load_or_measure(machine.threads, fresh=True)
    now = machine
    with _threads(machine.threads):
        for check in range(CHECKS):
            again = _measured_again(machine)
            now = _highest(now, again) if check else again
            found = now.main_ceilings
            if all(found[name] >= (1 - TOLERANCE) * kept for name, kept in machine.main_ceilings.items()):
                return _raised(machine, now)
            if launch_us(machine.threads) > (1 + TOLERANCE) * machine.parallel_region_us:
                return _raised(machine, now)
    if share_of_processors(machine.threads) < UNDISTURBED:
        return _raised(machine, now)
    return load_or_measure(machine.threads, fresh=True)


def _raised(machine: Machine, now: Machine) -> Machine:
    """With what is higher now, and kept so."""
    highest = _highest(machine, now)
    if highest != machine:
        _keep(highest)
    return highest


def share_of_processors(threads: int, *, blas: bool = False) -> float:
    """The part of the processors' time that this process gets while all of its threads compute; 1 if it is alone.

    `blas`: they are those of NumPy's BLAS, which has to own them. Where nothing is compiled nothing asks, and it is 1.
    """
    from nnlite import jit

    if not jit.ENABLED:
        return 1.0
    if blas:
        return _share(_products(), threads)
    with _threads(threads):
        return _share(_multiply_adds(threads), threads)


def _share(work: Callable[[], object], threads: int) -> float:
    work()
    wall, processor = time.perf_counter(), time.process_time()
    while time.perf_counter() < wall + SHARE_SECONDS:
        work()
    return (time.process_time() - processor) / (time.perf_counter() - wall) / threads


def _measured_again(machine: Machine) -> Machine:
    """With those of `Machine.main_ceilings` as they are now."""

    def again(b: Bandwidth) -> Bandwidth:
        return _bandwidth(b.level, b.bytes, b.threads) if b.threads == machine.threads else b

    bandwidths = tuple(again(b) for b in machine.bandwidths)
    return replace(machine, fma_gflops_all=_fma_gflops(machine.threads), bandwidths=bandwidths)


def _highest(a: Machine, b: Machine) -> Machine:
    """The higher of each ceiling of two measurements of one machine."""
    bandwidths = tuple(
        replace(p, read_gbs=max(p.read_gbs, q.read_gbs), copy_gbs=max(p.copy_gbs, q.copy_gbs))
        for p, q in zip(a.bandwidths, b.bandwidths, strict=True)
    )
    return replace(a, fma_gflops_all=max(a.fma_gflops_all, b.fma_gflops_all), bandwidths=bandwidths)


def measure(threads: int) -> Machine:
    """Measure now; some seconds. Raises ValueError where Numba's compiler is switched off, or on too many threads."""
    from nnlite import jit, simd

    if not jit.ENABLED:
        raise ValueError("machine: expected Numba's compiler, which measures. Received: NUMBA_DISABLE_JIT=1")
    caches = cache_sizes()
    before = share_of_processors(threads)
    with _threads(1):
        fma_one = _fma_gflops(1)
        bandwidths = _bandwidths(caches, 1)
        numpy_call, numba_call = _call_costs()
    with _threads(threads):
        fma_all = max(_fma_gflops(threads), fma_one)
        if threads > 1:
            bandwidths += _bandwidths(caches, threads)
        region = launch_us(threads)
    fresh = _fresh_gbs("MADV_NOHUGEPAGE")
    return Machine(
        processor=processor_name(),
        cpus=thread_owner.available_cpus(),
        threads=threads,
        lanes=simd.LANES,
        caches=caches,
        memory_bytes=_memory_bytes(),
        fma_gflops_one=fma_one,
        fma_gflops_all=fma_all,
        bandwidths=bandwidths,
        numpy_call_us=numpy_call,
        numba_call_us=numba_call,
        parallel_region_us=region,
        fresh_page_ns=_PAGE / fresh,
        fresh_gbs=fresh,
        fresh_huge_gbs=_fresh_gbs("MADV_HUGEPAGE"),
        versions=versions(),
        share=min(before, share_of_processors(threads)),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


# What the system says ----------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Of everything that a measured number depends on."""
    from importlib.metadata import version

    from nnlite.version import __version__

    names = {"numpy": version("numpy"), "numba": version("numba"), "nnlite": __version__}
    return {"python": platform.python_version(), **names}


def _memory_bytes() -> int:
    import psutil

    return psutil.virtual_memory().total


def _kept_path(threads: int) -> Path | None:
    from nnlite import jit_cache, simd

    root = jit_cache.cache_root()
    key = (SCHEMA, processor_name(), thread_owner.available_cpus(), threads, simd.LANES, sorted(versions().items()))
    return root / f"machine-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.json" if root else None


# Measuring ---------------------------------------------------------------------------------------------------------


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = thread_owner.get_num_threads()
    if count != before:
        thread_owner.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            thread_owner.set_num_threads(before)


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


def _fma_gflops(threads: int) -> float:
    from nnlite.kernels import ceilings
    from nnlite.simd import LANES

    return threads * _ROUNDS * ceilings.SUMS * LANES * 2 / _best_seconds(_multiply_adds(threads)) / 1e9


def _multiply_adds(threads: int) -> Callable[[], object]:
    from nnlite.kernels import ceilings
    from nnlite.simd import LANES

    factors = np.array([0.5, 0.25, 1, 2, 3, 4], np.float32)  # a * 0.5 + 0.25 tends to 0.5: no overflow, no denormals
    out = np.zeros(threads * LANES, np.float32)
    return lambda: ceilings.multiply_adds(_ROUNDS, factors, out)


def _products() -> Callable[[], object]:
    square, out = (np.ones((_SIDE, _SIDE), np.float32) for _ in range(2))
    return lambda: np.matmul(square, square, out=out)


def _bandwidths(caches: dict[str, int], threads: int) -> tuple[Bandwidth, ...]:
    """Half of each thread's first two caches, a working set between the second and third, and one beyond all."""
    third = min(caches["L3"] // 2, max(8 * caches["L2"], 8 << 20))
    beyond = max(min(_MOST_MEMORY, 4 * caches["L3"]), 2 * third)
    sets = {
        "L1": caches["L1"] // 2 * threads,
        "L2": caches["L2"] // 2 * threads,
        "L3": third,
        "memory": min(beyond, _memory_bytes() // 8),
    }
    return tuple(_bandwidth(level, nbytes, threads) for level, nbytes in sets.items())


def _bandwidth(level: str, nbytes: int, threads: int) -> Bandwidth:
    from nnlite.kernels import ceilings
    from nnlite.simd import LANES

    unit = 8 * LANES  # elements that the kernels move at once
    size = max(nbytes // 4 // threads // (2 * unit) * (2 * unit), 2 * unit)
    x = _ones(threads, size)
    rounds = max(1, (32 << 20) // (4 * size * threads))  # long enough that starting the threads does not matter
    out = np.zeros(threads * LANES, np.float32)
    read = _best_seconds(lambda: ceilings.read(rounds, x, out))
    # a copy's two halves make the same working set
    source, target = _ones(threads, size // 2), _ones(threads, size // 2)
    copied = _best_seconds(lambda: ceilings.copy(rounds, source, target))
    moved = 4 * threads * size * rounds
    return Bandwidth(level, 4 * threads * size, threads, moved / read / 1e9, moved / copied / 1e9)


def _ones(threads: int, size: int) -> np.ndarray:
    """(threads, size) ones from the beginning of a page: vectors across cache lines move at a third of the rate."""
    room = np.ones(threads * size + _PAGE // 4, np.float32)
    skipped = -room.ctypes.data % _PAGE // 4
    return room[skipped : skipped + threads * size].reshape(threads, size)


def _call_costs() -> tuple[float, float]:
    """(a NumPy call, a call of compiled code), microseconds."""
    from nnlite.kernels import ceilings

    a, b, c = np.ones(1, np.float32), np.ones(1, np.float32), np.ones(1, np.float32)
    count = 1000

    def numpy_calls() -> None:
        for _ in range(count):
            np.add(a, b, c)

    def numba_calls() -> None:
        for _ in range(count):
            ceilings.call(a)

    return _best_seconds(numpy_calls) / count * 1e6, _best_seconds(numba_calls) / count * 1e6


def launch_us(threads: int) -> float:
    """A kernel that does nothing, on all threads, as nnlite launches it: microseconds, usually."""
    from nnlite.kernels import ceilings

    places = np.zeros(threads, np.int64)
    return usual_us(lambda: ceilings.nothing(places))


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


def _fresh_gbs(advice: str) -> float:
    """Touching private memory that the process never had, one byte a page: 10**9 bytes a second.

    `advice`: what the system is told about the pages' size, by its name in mmap.
    """
    import mmap

    size = 16 << 20
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    best = float("inf")
    for _ in range(REPEATS):
        with mmap.mmap(-1, size, **private) as block:
            if hasattr(mmap, advice):
                block.madvise(getattr(mmap, advice))
            array = np.frombuffer(block, np.uint8)
            began = time.perf_counter()
            array[::_PAGE] = 1
            best = min(best, time.perf_counter() - began)
            del array
    return size / best / 1e9
