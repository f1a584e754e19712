"""This machine's measured ceilings: what "percent of peak" means everywhere.

How each is measured is written in ceilings.py. A measurement is kept on disk under the processor, the threads and the
versions it was made with.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

from nnlite import ceilings, kept
from nnlite import threads as thread_owner
from nnlite.ceilings import Bandwidth
from nnlite.contention import UNDISTURBED, share_of_processors
from nnlite.errors import positive_int
from nnlite.processor import cache_sizes, memory_bytes, processor_name

SCHEMA = 4
#: kept ceilings hold if they are within so much of what is measured in one of so many tries
CHECKS, TOLERANCE = 3, 0.1


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

    def fma_gflops(self, threads: int) -> float:
        """The multiply-add peak of one thread, or of all."""
        return self.fma_gflops_one if threads == 1 else self.fma_gflops_all

    def roof(self, nbytes: float, threads: int) -> Bandwidth:
        """The bandwidth, of one thread or of all, of the smallest cache that can hold `nbytes`, or of memory."""
        owners = {"L1": threads, "L2": threads}
        fits = [level for level, size in self.caches.items() if nbytes <= size * owners.get(level, 1)]
        level = fits[0] if fits else "memory"
        return next(b for b in self.bandwidths if b.threads == threads and b.level == level)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"schema": SCHEMA, **asdict(self)}

    @property
    def disturbed(self) -> bool:
        """Whether other programs were using the processors while it was measured."""
        return self.share < UNDISTURBED

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Machine:
        """What `to_dict` gave. Raises AttributeError, KeyError, TypeError or ValueError on anything else."""
        values = {field.name: content[field.name] for field in fields(cls)}
        values["bandwidths"] = tuple(Bandwidth(**b) for b in values["bandwidths"])
        numbers = [values[field.name] for field in fields(cls) if field.type in ("int", "float")]
        numbers += [number for b in values["bandwidths"] for number in (b.bytes, b.read_gbs, b.copy_gbs)]
        numbers += values["caches"].values()
        needed = {(level, n) for level in (*values["caches"], "memory") for n in (1, values["threads"])}
        measured = {(b.level, b.threads) for b in values["bandwidths"]}
        if not (needed <= measured and all(isfinite(n) and n > 0 for n in numbers)):
            raise ValueError(f"content: expected what to_dict gives. Received: {content!r}")
        return cls(**values)


def load_or_measure(threads: int | None = None, *, fresh: bool = False) -> Machine:
    """The kept measurement for so many threads (default: those in use), or a new one, kept for the next time.

    One that other programs disturbed does not take the place of what is kept.
    """
    count = positive_int("threads", thread_owner.get_num_threads() if threads is None else threads)
    before = _kept(count)
    if before is not None and not fresh:
        return before
    machine = measure(count)
    if before is None or not machine.disturbed:
        _keep(machine)
    return machine


def _kept(threads: int) -> Machine | None:
    """What is kept for so many threads; None if nothing is, or something else wrote it."""
    try:
        return Machine.from_dict(kept.read(_kept_path(threads)))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _keep(machine: Machine) -> None:
    """Write it where the next run looks for it."""
    kept.write(_kept_path(machine.threads), machine.to_dict())


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
    with thread_owner.using(machine.threads):
        for check in range(CHECKS):
            again = _measured_again(machine)
            now = _highest(now, again) if check else again
            found = now.main_ceilings
            if all(found[name] >= (1 - TOLERANCE) * before for name, before in machine.main_ceilings.items()):
                return _raised(machine, now)
            if ceilings.launch_us(machine.threads) > (1 + TOLERANCE) * machine.parallel_region_us:
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


def _measured_again(machine: Machine) -> Machine:
    """With those of `Machine.main_ceilings` as they are now."""

    def again(b: Bandwidth) -> Bandwidth:
        return ceilings.bandwidth(b.level, b.bytes, b.threads) if b.threads == machine.threads else b

    bandwidths = tuple(again(b) for b in machine.bandwidths)
    return replace(machine, fma_gflops_all=ceilings.fma_gflops(machine.threads), bandwidths=bandwidths)


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
    with thread_owner.using(1):
        fma_one = ceilings.fma_gflops(1)
        bandwidths = ceilings.bandwidths(caches, 1)
        numpy_call, numba_call = ceilings.call_costs()
    with thread_owner.using(threads):
        fma_all = max(ceilings.fma_gflops(threads), fma_one)
        if threads > 1:
            bandwidths += ceilings.bandwidths(caches, threads)
        region = ceilings.launch_us(threads)
    fresh = ceilings.fresh_gbs("MADV_NOHUGEPAGE")
    return Machine(
        processor=processor_name(),
        cpus=thread_owner.available_cpus(),
        threads=threads,
        lanes=simd.LANES,
        caches=caches,
        memory_bytes=memory_bytes(),
        fma_gflops_one=fma_one,
        fma_gflops_all=fma_all,
        bandwidths=bandwidths,
        numpy_call_us=numpy_call,
        numba_call_us=numba_call,
        parallel_region_us=region,
        fresh_page_ns=ceilings.PAGE / fresh,
        fresh_gbs=fresh,
        fresh_huge_gbs=ceilings.fresh_gbs("MADV_HUGEPAGE"),
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


def _kept_path(threads: int) -> Path | None:
    from nnlite import jit_cache, simd

    root = jit_cache.cache_root()
    key = (SCHEMA, processor_name(), thread_owner.available_cpus(), threads, simd.LANES, sorted(versions().items()))
    return root / f"machine-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.json" if root else None
