"""python -m benchmarks.machine_code: the machine code of every kernel, as a table in benchmarks/README.md.

Nothing runs, so the table is the same on any x86-64 machine with the same versions. Needs the extra inspect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from nnlite.lab.inspect import bounds
from nnlite.lab.inspect.assembly import innermost_loops
from nnlite.lab.inspect.compiling import Compiled, Function, Request, compile_for
from nnlite.lab.inspect.counts import count
from nnlite.lab.inspect.report import LoopReport, report

#: AVX2 and AVX-512, Intel's and AMD's; the first of each width is the one that LLVM optimises for
PROCESSORS = ("haswell", "znver3", "skylake-avx512", "znver4")
README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- compiled: python -m benchmarks.machine_code -->\n", "<!-- end compiled -->"
_REGISTERS = {128: "xmm", 256: "ymm", 512: "zmm"}


def spilled_sums(function: Function) -> int:
    """Sums that the innermost loops of a function keep on the stack: the most of any loop."""
    return max((count(loop).spilled_sums for loop in innermost_loops(function.assembly)), default=0)


def table(compiled: Sequence[Compiled]) -> Iterator[str]:
    """A row a kernel, a column a processor, in Markdown."""
    columns = [c.processor for c in compiled]
    cells = {c.processor: _cells(c) for c in compiled}
    yield f"| kernel | {' | '.join(columns)} |"
    yield "|---" * (1 + len(columns)) + "|"
    for name in sorted(set().union(*cells.values())):
        yield f"| `{name}` | {' | '.join(cells[processor].get(name, '') for processor in columns)} |"
    yield ""
    names = ", ".join(f"{name} {version(name)}" for name in ("numba", "llvmlite", "osaca"))
    yield f"Made with {names}. Unknown to OSACA, and left out of its cycles:"
    for c in compiled:
        yield f"{c.processor}: {_unknown(c) or 'nothing'}{'.' if c is compiled[-1] else ';'}"


def _cells(compiled: Compiled) -> dict[str, str]:
    """Kernel -> what is said of the hottest loop of all signatures that it is compiled for."""
    hot: dict[str, list[tuple[LoopReport, int]]] = {}
    for function in compiled.functions:
        for loop in report(function, compiled, 1).loops:
            hot.setdefault(function.name.removeprefix("nnlite."), []).append((loop, spilled_sums(function)))
    return {name: _cell([r for r, _ in found], max(spilled for _, spilled in found)) for name, found in hot.items()}


def _cell(loops: list[LoopReport], spilled: int) -> str:
    r = max(loops, key=lambda r: (r.counts.flops, r.counts.instructions))
    c = r.counts
    spills = f"{spilled} spill{'s' if spilled != 1 else ''}"
    if c.fused < c.loads + c.stores and (c.stores or not c.fused):  # memory, not arithmetic, bounds it
        return f"{_REGISTERS.get(c.bits, 'scalar')}, {c.loads} loads, {c.stores} stores, {spills}"
    waits = ", waits" if r.bound and r.bound.carried > r.bound.ports else ""
    share = "" if r.percent_of_peak is None else f", {r.percent_of_peak:.0f}%{waits}"
    return f"{c.fused} FMA, {c.loads} loads, {spills}{share}"


def _unknown(compiled: Compiled) -> str:
    analyser = bounds.analyser(compiled.processor)
    assert analyser is not None
    hot = [loop for function in compiled.functions for loop in report(function, compiled, 1).loops]
    return ", ".join(sorted({name for r in hot if r.bound for name in r.bound.unknown}))


def main() -> None:
    bounds.require()
    compiled = compile_for(Request(None), PROCESSORS)
    text = "\n".join(table(compiled))
    before, after = README.read_text("utf-8").split(BEGIN)[0], README.read_text("utf-8").split(END)[1]
    README.write_text(f"{before}{BEGIN}{text}\n{END}{after}", "utf-8")
    print(text)


if __name__ == "__main__":
    main()
