"""`nnlite machine`: this machine's ceilings, measured."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nnlite import machine
from nnlite.ceilings import REPEATS
from nnlite.cost import human_bytes
from nnlite.files import write_json
from nnlite.lab.terminal import announce_compilation, console
from nnlite.machine import Machine

if TYPE_CHECKING:
    from rich.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fresh", action="store_true", help="measure again, even if there is a measurement")
    parser.add_argument(
        "--clear-cache",
        action="store_true",
        help="delete all compiled kernels and the rates and choices that hang on them, and stop",
    )


def run(options: argparse.Namespace) -> int:
    from nnlite import jit_cache

    if options.clear_cache:
        count, folder = jit_cache.clear_cache(), jit_cache.cache_root() or "no folder"
        print(f"deleted {count} files, compiled kernels and the rates and choices that hang on them, in {folder}")
        return 0
    announce_compilation()
    ceilings = machine.load_or_measure(fresh=options.fresh)
    out = console()
    for table in (costs(ceilings), bandwidths(ceilings)):
        out.print(table)
    for sentence in remarks(ceilings):
        out.print(f"- {sentence}", soft_wrap=True)
    if options.json:
        write_json(options.json, ceilings.to_dict())
        print(f"wrote {options.json}")
    return 0


def costs(m: Machine) -> Table:
    """The rates and the costs of a call."""
    from rich.table import Table

    table = Table(title=f"{m.processor}, {m.threads} of {m.cpus} processors", title_justify="left")
    table.add_column("ceiling")
    table.add_column("measured", justify="right")
    rows = (
        ("multiply-adds in float32, one thread", f"{m.fma_gflops_one:.1f} GFLOP/s"),
        (f"multiply-adds in float32, {m.threads} thread(s)", f"{m.fma_gflops_all:.1f} GFLOP/s"),
        ("a call of a NumPy function", f"{m.numpy_call_us:.2f} us"),
        ("a call of a compiled function", f"{m.numba_call_us:.2f} us"),
        (f"starting a kernel on {m.threads} thread(s)", f"{m.parallel_region_us:.1f} us"),
        ("touching fresh memory, a page of 4 KiB", f"{m.fresh_page_ns:.0f} ns"),
        ("touching fresh memory, such pages", f"{m.fresh_gbs:.1f} GB/s"),
        ("touching fresh memory, huge pages", f"{m.fresh_huge_gbs:.1f} GB/s"),
    )
    for row in rows:
        table.add_row(*row)
    return table


def bandwidths(m: Machine) -> Table:
    """GB/s by working set and threads."""
    from rich.table import Table

    table = Table(title="bandwidth, 10**9 bytes a second; a copy counts both what it reads and writes")
    table.title_justify = "left"
    for i, column in enumerate(("working set in", "bytes", "threads", "read", "copy")):
        table.add_column(column, justify="left" if i == 0 else "right")
    for b in m.bandwidths:
        table.add_row(b.level, human_bytes(b.bytes), str(b.threads), f"{b.read_gbs:.1f}", f"{b.copy_gbs:.1f}")
    return table


def remarks(m: Machine) -> Iterator[str]:
    """Where the numbers come from, a sentence each."""
    from nnlite import jit_cache

    caches = ", ".join(f"{level} {human_bytes(size)}" for level, size in m.caches.items())
    yield f"Vectors of {m.lanes} float32; caches: {caches}; memory: {human_bytes(m.memory_bytes)}."
    versions = ", ".join(f"{name} {version}" for name, version in m.versions.items())
    yield f"Measured {m.measured_at} with {versions}."
    yield f"The best of at least {REPEATS} repeats each; of starting a kernel the usual."
    if m.disturbed:
        taken = f"{100 - 100 * m.share:.0f}% of the processors"
        yield f"Other programs had {taken} meanwhile: measure again with --fresh when they have not."
    folder = jit_cache.cache_dir() or "no folder to keep them in was found"
    yield f"Compiled kernels: {folder}; --clear-cache deletes them."
