"""python -m benchmarks.machine_code: the machine code of every kernel, as a table in benchmarks/machine_code.md.

Nothing runs, so the table is the same on any x86-64 machine with the same versions. Needs the extra inspect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from pkgutil import walk_packages

import nnlite
from nnlite.compiler.launch import kernel
from nnlite.lab.inspect import bounds
from nnlite.lab.inspect.assembly import Loop, innermost_loops
from nnlite.lab.inspect.compiling import Compiled, Function, Request, compile_for
from nnlite.lab.inspect.counts import Counts, count
from nnlite.lab.inspect.report import heat, loop_report

#: AVX2 and AVX-512, Intel's and AMD's; the first of each width is the one that LLVM optimises for
PROCESSORS = ("haswell", "znver3", "skylake-avx512", "znver4")
PAGE = Path(__file__).with_name("machine_code.md")
EVERY_KERNEL = Request(f"{Path(__file__).with_name('every_kernel.py')}:reach", lines=False)
BEGIN, END = "<!-- compiled: python -m benchmarks.machine_code -->\n", "<!-- end compiled -->"
_REGISTERS = {128: "xmm", 256: "ymm", 512: "zmm"}


def spilled_sums(function: Function) -> int:
    """Sums that the innermost loops of a function keep on the stack: the most of any loop."""
    return max((count(loop).spilled_sums for loop in innermost_loops(function.assembly)), default=0)


def not_reached(compiled: Compiled) -> set[str]:
    """The package's kernels that are not among the compiled ones. Microbenchmarks are parts of kernels."""
    found = {function.name for function in compiled.functions}
    modules = [import_module(m.name) for m in walk_packages(nnlite.__path__, "nnlite.") if m.name != "nnlite.__main__"]
    return {
        f"{module.__name__}.{one.__name__}"
        for module in modules
        if ".microbenchmarks." not in module.__name__
        for one in vars(module).values()
        if isinstance(one, kernel) and one.compiled.__module__ == module.__name__
    } - found


def table(compiled: Sequence[Compiled]) -> Iterator[str]:
    """One row per kernel and one column per processor, in Markdown."""
    columns = [c.processor for c in compiled]
    unknown: dict[str, set[str]] = {processor: set() for processor in columns}
    cells = {c.processor: dict(_cells(c, unknown[c.processor])) for c in compiled}
    yield f"| kernel | {' | '.join(columns)} |"
    yield "|---" * (1 + len(columns)) + "|"
    for name in sorted(set().union(*cells.values())):
        yield f"| `{name}` | {' | '.join(cells[processor].get(name, '') for processor in columns)} |"
    yield ""
    names = ", ".join(f"{name} {version(name)}" for name in ("numba", "llvmlite", "osaca"))
    yield f"Made with {names}. Instructions that OSACA does not know, and leaves out of its cycles:"
    yield "; ".join(f"{name}: {', '.join(sorted(found)) or 'none'}" for name, found in unknown.items()) + "."


def _cells(compiled: Compiled, unknown: set[str]) -> Iterator[tuple[str, str]]:
    """Each kernel, and what is said of its hottest loop of multiply-adds, or if it has none, of its hottest loop."""
    functions: dict[str, list[Function]] = {}
    for function in compiled.functions:
        functions.setdefault(function.name.removeprefix("nnlite."), []).append(function)
    for name, same in functions.items():
        loops = [(loop, count(loop)) for function in same for loop in innermost_loops(function.assembly)]
        if loops:
            loop, counts = max(loops, key=lambda pair: (not _is_bound_by_memory(pair[1]), heat(*pair)))
            spilled = max(map(spilled_sums, same))
            yield name, f"{_said(loop, counts, compiled, unknown)}, spills: {spilled}"


def _is_bound_by_memory(c: Counts) -> bool:
    """Whether a loop moves more numbers than it computes."""
    return not c.fused or (c.stores > 0 and c.fused < c.loads + c.stores)


def _said(loop: Loop, counts: Counts, compiled: Compiled, unknown: set[str]) -> str:
    c = counts
    if _is_bound_by_memory(c):
        return f"{_REGISTERS.get(c.bits, 'scalar')}, loads: {c.loads}, stores: {c.stores}"
    r = loop_report(loop, counts, compiled.lanes, bounds.analyser(compiled.processor))
    assert r.bound is not None
    unknown.update(r.bound.unknown)
    waits = " (waits)" if r.bound.carried > r.bound.ports else ""
    return f"{c.fused} FMA, loads: {c.loads}, {r.percent_of_peak:.0f}%{waits}"


def main() -> None:
    bounds.require()
    compiled = compile_for(EVERY_KERNEL, PROCESSORS)
    assert not (missing := not_reached(compiled[0])), missing
    text = "\n".join(table(compiled))
    before, after = PAGE.read_text("utf-8").split(BEGIN)[0], PAGE.read_text("utf-8").split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}{text}\n{END}{after}", "utf-8")
    print(text)


if __name__ == "__main__":
    main()
