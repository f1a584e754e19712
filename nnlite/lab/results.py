"""The results of a run as data: one Row per shape and pass, with one Cell per algorithm."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

from nnlite.lab.check import Report
from nnlite.lab.shapes import Shape
from nnlite.lab.timing import COMPARED_ROUNDS
from nnlite.performance.peaks import MOST_OF_A_PEAK
from nnlite.performance.statistics import FEWEST_ROUNDS, Ratio, noise, paired_ratio, verdict
from nnlite.runtime.files import write_whole

SCHEMA = 1
#: of a timed cell, its attributes in JSON
_TIMED = (
    "median_ms", "min_ms", "samples_ms", "scale", "verdict", "best", "gflops", "percent_of_peak", "effective_rate",
    "over_peak",
)  # fmt: skip


@dataclass
class Cell:
    """An algorithm at a shape and pass. `status`: "timed", "declined", "refused" or "interrupted", with a reason."""

    algorithm: str
    status: str
    reason: str | None = None
    seconds: list[float] = field(default_factory=list)  # of the whole work, one per round
    scale: float = 1.0  # whole work / timed work
    flops: int = 0  # of direct convolution: 2 per MAC
    peak_gflops: float = 0.0
    effective_rate: bool = False  # fewer multiplications than direct convolution: may exceed the peak
    extra_bytes: int | None = None
    error: float | None = None
    error_bound: float | None = None
    ratio: Ratio | None = None
    verdict: str | None = None
    best: bool = False

    @property
    def samples_ms(self) -> list[float]:
        return [1e3 * s for s in self.seconds]

    @property
    def median_ms(self) -> float:
        return median(self.samples_ms)

    @property
    def min_ms(self) -> float:
        return min(self.samples_ms)

    @property
    def gflops(self) -> float:
        """10**9 FLOPs of direct convolution per second."""
        return self.flops / self.median_ms / 1e6

    @property
    def percent_of_peak(self) -> float:
        return 100 * self.gflops / self.peak_gflops

    @property
    def over_peak(self) -> bool:
        """Whether the rate exceeds the peak although the algorithm saves no FLOPs: an error of the measurement."""
        return not self.effective_rate and self.percent_of_peak > 100 * MOST_OF_A_PEAK

    def to_dict(self) -> dict[str, Any]:
        """The content for JSON."""
        names = ("algorithm", "status", "reason", "error", "error_bound", "extra_bytes")
        content = {name: getattr(self, name) for name in names}
        if self.status == "timed":
            content |= {name: getattr(self, name) for name in _TIMED}
            content["ratio"] = asdict(self.ratio) if self.ratio else None
        return content


@dataclass
class Row:
    """All algorithms at one shape and pass. `control`: the baseline relative to itself (A/A)."""

    shape: Shape
    pass_name: str
    cells: list[Cell]
    baseline: str | None = None
    control_seconds: list[float] = field(default_factory=list)
    control: Ratio | None = None
    noise: float | None = None

    @property
    def timed(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.status == "timed"]

    @property
    def rounds(self) -> int:
        return len(self.timed[0].seconds) if self.timed else 0

    @property
    def finalists(self) -> list[Cell]:
        """Those that ran in every round; the others were dropped (nnlite.lab.sweep)."""
        return [cell for cell in self.timed if len(cell.seconds) == self.rounds]

    @property
    def dropped(self) -> int:
        """The rounds until the last was dropped: those that chose the finalists, and are in none of their ratios."""
        return max((len(cell.seconds) for cell in self.timed if cell not in self.finalists), default=0)

    def compare(self) -> None:
        """Set ratios, verdicts and the best from the samples."""
        for cell in self.timed:
            if not cell.seconds:
                cell.status, cell.reason = "interrupted", "the run was interrupted before it was timed"
        if not self.timed:
            return
        finalists, first = self.finalists, self.dropped
        base = next(cell for cell in self.timed if cell.algorithm == self.baseline)
        fewest = COMPARED_ROUNDS if first else FEWEST_ROUNDS
        for cell in self.timed:
            rounds = len(cell.seconds)
            if cell in finalists:
                cell.ratio = paired_ratio(cell.seconds[first:], base.seconds[first:], fewest=fewest)
            else:
                cell.ratio = Ratio(paired_ratio(cell.seconds, base.seconds[:rounds]).value)
                cell.verdict = f"dropped after {rounds} rounds"
        paired = min(len(self.control_seconds), len(base.seconds) - first)
        if paired:  # in the last rounds
            pairs = (seconds[len(seconds) - paired :] for seconds in (self.control_seconds, base.seconds))
            self.control = paired_ratio(*pairs, fewest=fewest)
            self.noise = noise(self.control)
        for cell in finalists:
            assert cell.ratio is not None
            cell.verdict = "baseline" if cell is base else verdict(cell.ratio, self.noise)
        ratios = {cell.algorithm: cell.ratio.value for cell in finalists if cell.ratio}
        min(finalists, key=lambda cell: ratios[cell.algorithm] if first else cell.median_ms).best = True

    def to_dict(self) -> dict[str, Any]:
        """The content for JSON."""
        geometry = self.shape.geometry
        return {
            "shape": self.shape.name,
            "geometry": {**asdict(geometry), "output_shape": geometry.output_shape, "macs": geometry.macs},
            "published_batch": self.shape.published_batch,
            "pass": self.pass_name,
            "rounds": self.rounds,
            "baseline": self.baseline,
            "control": asdict(self.control) if self.control else None,
            "noise": self.noise,
            "algorithms": [cell.to_dict() for cell in self.cells],
        }


@dataclass
class Run:
    """One run of `nnlite bench`."""

    processor: str
    peak_gflops: float
    threads: int
    seed: int
    command: str
    date: str
    checks: list[Report] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    blas: list[str] = field(default_factory=list)  # algorithms that BLAS had the threads for
    prange: list[str] = field(default_factory=list)  # algorithms that run on Numba's threads
    interrupted: bool = False
    others_share: float = 0.0  # of the CPU time, used by other programs during timing

    @property
    def refused(self) -> list[Report]:
        return [report for report in self.checks if report.refused]

    def to_dict(self) -> dict[str, Any]:
        """The content for JSON."""
        names = ("date", "command", "threads", "seed", "processor", "peak_gflops", "interrupted")
        return {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in names},
            "dtype": "float32",
            "others_share_of_processors": self.others_share,
            "threads_given_to_blas_for": self.blas,
            "checks": [report.to_dict() for report in self.checks],
            "rows": [row.to_dict() for row in self.rows],
        }


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """One line per shape, pass and algorithm; the columns are what JSON has, without the samples."""
    lines = []
    for row in rows:
        for cell in row.cells:
            line = {"shape": row.shape.name, "pass": row.pass_name, "rounds": len(cell.seconds), **cell.to_dict()}
            interval = line.pop("ratio", None) or {}
            lines.append({**line, "ratio": interval.get("value")})
            lines[-1] |= {f"ratio_{name}": interval.get(name) for name in ("low", "high")}
    columns = dict.fromkeys(name for line in lines for name in line if name != "samples_ms")
    text = StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(lines)
    write_whole(path, text.getvalue())
