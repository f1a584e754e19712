"""`nnlite bench --roofline`: which roof of this machine is above each timed algorithm and pass, and how near it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nnlite import conv
from nnlite.conv import Algorithm, Geometry
from nnlite.lab import results, roofs
from nnlite.lab.numbers import short, threads_said
from nnlite.lab.reference import result_passes
from nnlite.lab.results import Row, Run
from nnlite.lab.table import Cell, Table
from nnlite.performance.counts import human_bytes
from nnlite.performance.peaks import Machine
from nnlite.runtime.scopes import PART_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: colours of the plot: dots; roofs and names
DOTS, LINES = "#0072B2", "#666666"


@dataclass
class Point:
    """An algorithm at a shape and pass in the roofline. Its roof is the lower of peak and intensity x bandwidth."""

    shape: str
    pass_name: str
    algorithm: str
    gflops: float  # of direct convolution
    effective_rate: bool  # the algorithm needs fewer FLOPs
    sliced: bool  # the time is scaled from a slice
    threads: int
    traffic_bytes: int
    declared: bool  # the traffic; otherwise it is the minimum
    level: str  # the smallest that holds the traffic: its bandwidth counts
    flops_per_byte: float
    roof: str  # "FMA peak", or the level
    roof_gflops: float

    @property
    def percent(self) -> float:
        return 100 * self.gflops / self.roof_gflops

    def to_dict(self) -> dict[str, Any]:
        """The content for JSON."""
        return {**asdict(self), "percent_of_roof": self.percent}


def points(run: Run, machine: Machine) -> list[Point]:
    """A point for each timed cell, with the measured rates of `machine`."""
    return [_point(row, cell, run, machine) for row in run.rows for cell in row.timed]


def _point(row: Row, cell: results.Cell, run: Run, machine: Machine) -> Point:
    algorithm = conv.get(cell.algorithm)
    moved, declared = traffic(algorithm, row.shape.geometry, row.pass_name)
    threads = 1 if algorithm.one_thread else run.threads
    held = {name: size * (1 if name == "L3" else threads) for name, size in machine.caches.items()}
    level = next((name for name, size in held.items() if moved <= size), "memory")
    intensity = cell.flops / moved
    peak, slope = machine.fma_gflops(threads), intensity * bandwidths(machine, threads)[level]
    roof = ("FMA peak", peak) if peak <= slope else (level, slope)
    measured = cell.gflops, cell.effective_rate, cell.scale != 1
    place = row.shape.name, row.pass_name, cell.algorithm
    return Point(*place, *measured, threads, moved, declared, level, intensity, *roof)


def traffic(algorithm: Algorithm, geometry: Geometry, pass_name: str) -> tuple[int, bool]:
    """(bytes of memory traffic, whether they are declared): the minimum if the algorithm does not declare them."""
    own = type(algorithm)
    passes = result_passes(pass_name) if own.backward is Algorithm.backward else (pass_name,)
    found = []
    for name in passes:
        inherited = name != "forward" and getattr(own, name, None) is getattr(Algorithm, name, own)
        source = conv.get("im2col") if inherited else algorithm  # which the inherited gradients are
        if own.moved_bytes is Algorithm.moved_bytes and source.work(geometry, name) is None:
            return sum(geometry.least_bytes(single) for single in result_passes(pass_name)), False
        found.append(source.moved_bytes(geometry, name))
    return sum(found), True


def bandwidths(machine: Machine, threads: int) -> dict[str, float]:
    """GB/s of a copy by level, of one thread or of all."""
    count = 1 if threads == 1 else machine.threads
    return {b.level: b.copy_gbs for b in machine.bandwidths if b.threads == count}


def tables(found: Sequence[Point], machine: Machine) -> list[Table]:
    """One per shape, with a line per pass and algorithm; the last one with notes."""
    result = []
    for shape in dict.fromkeys(p.shape for p in found):
        columns = ["pass", "algorithm", "traffic", "FLOPs/byte", "GFLOP/s", "roof", "roof's GFLOP/s", "reached"]
        result.append(Table(f"Roofline, {shape}", columns, [_line(p) for p in found if p.shape == shape]))
    if result:
        result[-1].notes.extend(_notes(found, machine))
    return result


def _line(p: Point) -> list[Cell]:
    return [
        Cell(PART_NAMES[p.pass_name]),
        Cell(p.algorithm),
        Cell(human_bytes(p.traffic_bytes) + ("" if p.declared else " min"), p.traffic_bytes),
        Cell(short(p.flops_per_byte), p.flops_per_byte),
        Cell(("~" if p.sliced else "") + short(p.gflops) + (" eff" if p.effective_rate else ""), p.gflops),
        Cell(p.roof),
        Cell(short(p.roof_gflops), p.roof_gflops),
        Cell(f"{p.percent:.0f}%" if p.percent >= 1 else "<1%", p.percent),
    ]


def _notes(found: Sequence[Point], machine: Machine) -> list[str]:
    notes = []
    for threads in sorted({p.threads for p in found}):
        rates = ", ".join(f"{level} {short(gbs)}" for level, gbs in bandwidths(machine, threads).items())
        peak = short(machine.fma_gflops(threads))
        notes.append(
            f"Measured in this run with {threads_said(threads)}: FMA peak {peak} GFLOP/s; copies: {rates} GB/s."
        )
    notes.append(
        "The roof is the FMA peak, or FLOPs/byte times the bandwidth of the smallest level that holds the traffic, "
        "whichever is lower. FLOPs are those of direct convolution."
    )
    if not all(p.declared for p in found):
        notes.append("min: the algorithm does not declare its traffic (moved_bytes), so the minimum is used.")
    if any(p.effective_rate for p in found):
        notes.append("eff: the algorithm needs fewer FLOPs, so it may exceed the roof.")
    if any(p.percent > 100 and not p.effective_rate for p in found):
        notes.append("Above 100% of a bandwidth: a faster level served a part, or it reads more than it writes.")
    if any(p.percent < 50 for p in found):
        notes.append("Far below its roof: neither bandwidth nor peak limits it; nnlite inspect shows its loops.")
    return notes


def draw(found: Sequence[Point], machine: Machine) -> Figure:
    """One panel per shape and pass, one dot per algorithm."""
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys((p.shape, p.pass_name) for p in found))
    across = len({pass_name for _, pass_name in cases})
    down = -(-len(cases) // across)
    figure = Figure(figsize=(5.6 * across, 3.4 * down), layout="constrained")
    for i, case in enumerate(cases):
        axes = figure.add_subplot(down, across, i + 1)
        here = [p for p in found if (p.shape, p.pass_name) == case]
        axes.scatter([p.flops_per_byte for p in here], [p.gflops for p in here], s=22, color=DOTS, zorder=3)
        threads = max(p.threads for p in here)
        peak, slopes = machine.fma_gflops(threads), bandwidths(machine, threads)
        axes.update_datalim([(0.3 * peak / max(slopes.values()), peak)])  # every roof is in view
        roofs.draw_roofs(axes, peak, slopes, traffic="memory traffic", colour=LINES)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{case[0]}, {PART_NAMES[case[1]]}", fontsize=9, loc="left")
        roofs.name_dots(axes, [(p.algorithm, p.flops_per_byte, p.gflops) for p in here], LINES)
    return figure
