"""`nnlite machine`: this machine's peak rates, measured."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from nnlite.lab.table import Cell, Table, to_rich
from nnlite.lab.terminal import console
from nnlite.network.progress import announce_compilation
from nnlite.performance import peaks
from nnlite.performance.contention import caution
from nnlite.performance.counts import human_bytes
from nnlite.performance.peaks import Machine
from nnlite.runtime.files import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clear-cache",
        action="store_true",
        help="delete all compiled kernels and the choices that autotune measured, and stop",
    )


def run(options: argparse.Namespace) -> int:
    from nnlite.compiler import cache as jit_cache

    if options.clear_cache and (options.json or options.threads is not None):
        raise ValueError("--clear-cache: expected alone. Received: options of a measurement, which it does not make")
    if options.clear_cache:
        count, folder = jit_cache.clear_cache(), jit_cache.cache_root() or "no folder"
        print(f"deleted {count} files, compiled kernels and autotune's choices, in {folder}")
        return 0
    announce_compilation()
    machine = peaks.measure()
    out = console()
    for table in (rates(machine), bandwidths(machine)):
        out.print(to_rich(table))
    for sentence in remarks(machine):
        out.print(f"- {sentence}", soft_wrap=True)
    if options.json:
        write_json(options.json, machine.to_dict())
        print(f"wrote {options.json}")
    return 0


def rates(m: Machine) -> Table:
    """The peak rates and the cost of a call."""
    rows = [
        ("multiply-adds in float32, one thread", f"{m.fma_gflops_one:.1f} GFLOP/s"),
        (f"multiply-adds in float32, {m.threads} thread(s)", f"{m.fma_gflops_all:.1f} GFLOP/s"),
        ("a call of a NumPy function", f"{m.numpy_call_us:.2f} us"),
        ("a call of a compiled function", f"{m.numba_call_us:.2f} us"),
        (f"fork-join overhead of a kernel on {m.threads} thread(s)", f"{m.fork_join_us:.1f} us"),
        ("first-touch page faults, pages of 4 KiB", f"{m.first_touch_gbs:.1f} GB/s"),
        ("first-touch page faults, huge pages", f"{m.first_touch_huge_gbs:.1f} GB/s"),
    ]
    sums = ", ".join(f"{sums}: {gflops:.0f}" for sums, gflops in m.fma_gflops_by_sums.items())
    return Table(
        f"{m.processor}, {m.threads} of {m.cpus} processors",
        ["peak rate", "measured"],
        [[Cell(name), Cell(rate)] for name, rate in rows],
        [f"Multiply-adds of one thread by independent sums: {sums} GFLOP/s. The best counts."],
    )


def bandwidths(m: Machine) -> Table:
    """GB/s by working set and threads."""
    rows = [
        [
            Cell(b.level),
            Cell(human_bytes(b.bytes), b.bytes),
            Cell(str(b.threads), b.threads),
            Cell(f"{b.read_gbs:.1f}", b.read_gbs),
            Cell(f"{b.copy_gbs:.1f}", b.copy_gbs),
        ]
        for b in m.bandwidths
    ]
    columns = ["working set in", "bytes", "threads", "read", "copy"]
    return Table("Bandwidth, GB/s; a copy counts both what it reads and what it writes", columns, rows)


def remarks(m: Machine) -> Iterator[str]:
    """Where the numbers come from, a sentence each."""
    from nnlite.compiler import cache as jit_cache

    caches = ", ".join(f"{level} {human_bytes(size)}" for level, size in m.caches.items())
    yield f"Vectors of {m.lanes} float32; caches: {caches}; memory: {human_bytes(m.memory_bytes)}."
    versions = ", ".join(f"{name} {version}" for name, version in m.versions.items())
    yield f"Measured {m.measured_at} with {versions}."
    yield f"The best of at least {peaks.REPEATS} repeats each; of the fork-join overhead the median."
    yield from (f"CAUTION: {said}" for said in caution(m.others_share))
    folder = jit_cache.cache_dir() or "no folder to keep them in was found"
    yield f"Compiled kernels: {folder}; --clear-cache deletes them."
