"""What is said of each function: its innermost loops, hottest first, with counts, bounds and faults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nnlite.lab.inspect import bounds
from nnlite.lab.inspect.assembly import Loop, innermost_loops
from nnlite.lab.inspect.bounds import Analyser, Bound
from nnlite.lab.inspect.compiling import Compiled, Function
from nnlite.lab.inspect.counts import Counts, accesses, count, on_stack, stack_accesses
from nnlite.lab.inspect.faults import Fault, faults, strided_loads, waiting

#: how the order of loops is found, for readers
ORDER = (
    "Loops are in the order of their FLOPs per iteration, times 10 for each loop around them, as compilers "
    "estimate it; trips are not counted."
)
#: what the cycles leave out, for readers
MODEL = (
    "Cycles are OSACA's: all operands in L1, no instruction-fetch stalls; so the share by ports is an upper bound. "
    "A short loop that waits can be faster than shown: the processor overlaps it with the loop around it."
)
#: a chain that is longer than the ports' cycles by this factor is worth a sentence
_WAITS = 1.2


@dataclass(frozen=True)
class LoopReport:
    loop: Loop
    counts: Counts
    faults: list[Fault]
    bound: Bound | None  # None: OSACA does not know the processor
    percent_of_peak: float | None  # at most; None: no float arithmetic, or no bound

    def to_dict(self) -> dict[str, Any]:
        bound = self.bound
        return {
            "function": self.loop.function,
            "source": self.loop.place,
            "depth": self.loop.depth,
            **asdict(self.counts),
            "port_cycles": bound and bound.ports,
            "dependency_cycles": bound and bound.carried,
            "unknown_instructions": list(bound.unknown) if bound else [],
            "percent_of_peak": self.percent_of_peak,
            "faults": [fault._asdict() for fault in self.faults],
            "assembly": self.loop.lines,
        }


@dataclass(frozen=True)
class FunctionReport:
    function: Function
    loops: list[LoopReport]  # the hottest
    colder: int  # loops that are not in `loops`
    versions: int  # loops that do the same as another in fewer numbers per iteration: remainders

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.function.name,
            "signature": self.function.signature,
            "loops": [report.to_dict() for report in self.loops],
            "colder_loops": self.colder,
            "remainder_loops": self.versions,
        }


def report(function: Function, compiled: Compiled, most: int) -> FunctionReport:
    """The `most` hottest loops of a function."""
    counted = [(loop, count(loop)) for loop in innermost_loops(function.assembly)]
    main = sorted(without_remainders(counted), key=lambda pair: heat(*pair), reverse=True)
    analyser = bounds.analyser(compiled.processor)
    loops = [loop_report(loop, counts, compiled.lanes, analyser) for loop, counts in main[:most]]
    return FunctionReport(function, loops, len(main) - len(loops), len(counted) - len(main))


def loop_report(loop: Loop, counts: Counts, lanes: int, analyser: Analyser | None) -> LoopReport:
    bound = analyser.bound(loop.lines) if analyser else None
    share = None
    if analyser and bound and bound.cycles and counts.flops:
        share = 100 * counts.flops / bound.cycles / analyser.peak(lanes)
    found = faults(loop, lanes)
    if bound and counts.flops and bound.carried > _WAITS * bound.ports:
        found.append(waiting(bound.ports, bound.carried))
    return LoopReport(loop, counts, found, bound, share)


def heat(loop: Loop, counts: Counts) -> tuple[float, float]:
    """Loops are sorted by this: by FLOPs, or by instructions if they have none."""
    around = 10.0 ** (loop.depth - 1)
    return counts.flops * around, counts.instructions * around


def without_remainders(counted: Sequence[tuple[Loop, Counts]]) -> list[tuple[Loop, Counts]]:
    """Without loops of the same source lines as another that computes more per iteration, or just the same.

    LLVM makes several loops of one: for whole vectors, for the rest, for arrays that may overlap, and for a step of one
    where the step is known only when the code runs: of those, both are kept.
    """
    different = {(loop.function, loop.sources, counts): (loop, counts) for loop, counts in reversed(counted)}
    pairs = list(different.values())
    return [(loop, counts) for loop, counts in pairs if not any(_covers(m, n, loop, counts) for m, n in pairs)]


def _covers(main: Loop, main_counts: Counts, loop: Loop, counts: Counts) -> bool:
    same = main.sources <= loop.sources or loop.sources <= main.sources
    if main is loop or main.function != loop.function or not same:
        return False
    if strided_loads(loop) and not strided_loads(main):
        return False
    return _size(main_counts) > _size(counts)


def _size(counts: Counts) -> tuple[int, int, int]:
    """How much an iteration computes."""
    return counts.bits, counts.flops, counts.instructions


def summary(r: LoopReport, lanes: int) -> Iterator[tuple[str, str]]:
    """The lines of a loop's table."""
    c = r.counts
    yield "multiply-adds", f"{c.fused} fused, {c.unfused} unfused"
    yield "float instructions", f"{c.vectors} of vectors{_width(c, lanes)}, {c.scalar} scalar"
    yield "loads, stores", f"{c.loads} ({c.broadcasts} broadcasts), {c.stores} ({c.masked_stores} masked)"
    yield (
        "divisions, gathers",
        f"{c.divisions}, {c.gathers}{f'; {c.inserts} numbers put in one by one' * bool(c.inserts)}",
    )
    yield "stack (spills)", _stack(r)
    if r.bound is None:
        yield "cycles", "OSACA does not know this processor"
        return
    yield "cycles by ports", f"{r.bound.ports:.1f}"
    yield "cycles by dependencies", f"{r.bound.carried:.1f}"
    share = "no float arithmetic" if r.percent_of_peak is None else f"{r.percent_of_peak:.0f}%"
    yield "of the peak, at most", share


def _width(c: Counts, lanes: int) -> str:
    if not c.bits:
        return ""
    name = {128: "xmm", 256: "ymm", 512: "zmm"}[c.bits]
    return f" of {c.bits} bits ({name}; registers have {32 * lanes})" if c.bits != 32 * lanes else f" ({name})"


def _stack(r: LoopReport) -> str:
    if not r.counts.stack:
        return "none"
    found = stack_accesses(r.loop)
    found.sort(key=lambda access: not access.vector)
    shown = [
        " ".join(a.instruction.text.split())
        + (" ({}:{})".format(*a.instruction.source) if a.instruction.source else "")
        for a in found[:3]
    ]
    several = "references" if r.counts.stack > 1 else "reference"
    return f"{r.counts.stack} {several}: {'; '.join(shown)}{' ...' if len(found) > 3 else ''}"


def lead(reports: Sequence[LoopReport]) -> str:
    """Why the bounds are a lead, not a verdict; empty if there is no reason."""
    unknown = sorted({name for r in reports if r.bound for name in r.bound.unknown})
    if not unknown:
        return ""
    return (
        f"OSACA has no data on {', '.join(unknown)} in this form: the cycles leave them out, so here its answer is a "
        "lead, and the loop may be slower."
    )


def annotated(loop: Loop) -> Iterator[str]:
    """The loop's instructions, each with its source line and what it is counted as."""
    found = {id(access.instruction): access for access in accesses(loop.code)}
    for i in loop.code:
        source = "{}:{}".format(*i.source) if i.source else ""
        what = []
        if access := found.get(id(i)):
            what.append(", ".join(["load"] * access.loads + ["store"] * access.stores))
            what += ["stack"] * on_stack(loop, access)
        what += ["fma"] * ("fma" in i.mnemonic or "fnma" in i.mnemonic)
        yield f"{source:<24} {' '.join(what):<16} {' '.join(i.text.split())}"
