"""`nnlite machine`: measure this machine's peak rates."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from nnlite.lab.numbers import threads_said
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
        help="delete all compiled kernels and autotune's stored choices, then exit",
    )


def run(options: argparse.Namespace) -> int:
    from nnlite.compiler import cache as jit_cache

    if options.clear_cache and (options.json or options.threads is not None):
        raise ValueError("--clear-cache: expected no other option. Received: --json or --threads with it")
    if options.clear_cache:
        count, folder = jit_cache.clear_cache(), jit_cache.cache_root() or "no folder"
        print(f"deleted {count} files (compiled kernels and autotune's choices) in {folder}")
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
    """The table of peak rates and of the cost of calls."""
    rows = [
        ("FMA in float32, one thread", f"{m.fma_gflops_one:.1f} GFLOP/s"),
        (f"FMA in float32, {threads_said(m.threads)}", f"{m.fma_gflops_all:.1f} GFLOP/s"),
        ("call of a NumPy function", f"{m.numpy_call_us:.2f} us"),
        ("call of a compiled function", f"{m.numba_call_us:.2f} us"),
        (f"fork-join overhead of a kernel, {threads_said(m.threads)}", f"{m.fork_join_us:.1f} us"),
        ("first-touch page faults, pages of 4 KiB", f"{m.first_touch_gbs:.1f} GB/s"),
        ("first-touch page faults, huge pages", f"{m.first_touch_huge_gbs:.1f} GB/s"),
    ]
    sums = ", ".join(f"{sums}: {gflops:.0f}" for sums, gflops in m.fma_gflops_by_sums.items())
    return Table(
        f"{m.processor}, {threads_said(m.threads)} on {m.cpus} CPUs",
        ["peak rate", "measured"],
        [[Cell(name), Cell(rate)] for name, rate in rows],
        [f"FMA rate of one thread by number of independent accumulators: {sums} GFLOP/s. The peak is the best."],
    )


def bandwidths(m: Machine) -> Table:
    """The table of bandwidths, GB/s, by working set and threads."""
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
    return Table("Bandwidth, GB/s (a copy counts bytes read plus bytes written)", columns, rows)


def remarks(m: Machine) -> Iterator[str]:
    """How the numbers were measured, in sentences."""
    from nnlite.compiler import cache as jit_cache

    caches = ", ".join(f"{level} {human_bytes(size)}" for level, size in m.caches.items())
    yield f"Vectors of {m.lanes} float32; caches: {caches}; memory: {human_bytes(m.memory_bytes)}."
    versions = ", ".join(f"{name} {version}" for name, version in m.versions.items())
    yield f"Measured {m.measured_at} with {versions}."
    yield f"Each rate is the best of at least {peaks.REPEATS} repeats. The fork-join overhead is a median."
    yield from (f"CAUTION: {said}" for said in caution(m.others_share))
    folder = jit_cache.cache_dir()
    if folder:
        yield f"Compiled kernels are stored in {folder}; --clear-cache deletes them."
    else:
        yield "Compiled kernels are not stored: no writable folder was found."
