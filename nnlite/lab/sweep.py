"""`nnlite bench --sweep`: which values of an algorithm's parameters are the fastest here, and is the default right?

Most combinations are timed in a few rounds only, by successive halving. Karnin, Koren and Somekh (Almost Optimal
Exploration in Multi-Armed Bandits, 2013) and Jamieson and Talwalkar (Non-stochastic Best Arm Identification and
Hyperparameter Optimization, 2016) time all candidates a little, drop the slower ones, time the others longer, and so
on. Here that happens after each of DROPS rounds, and each time the same factor remains: of 27 challengers 9, then 3,
then one.

The challengers meet the default, which runs in every round. So each candidate is paired with the default in the rounds
in which it ran. The one that is left runs at least COMPARED_ROUNDS more rounds, as does the default's A/A control. The
interval of its ratio is that of these rounds alone, as those before chose it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from nnlite.conv import Algorithm
from nnlite.conv.parameters import check_names
from nnlite.lab import results
from nnlite.lab.numbers import of
from nnlite.lab.results import Row, Run
from nnlite.lab.table import MISSING, Cell, Table
from nnlite.lab.tables import interval, milliseconds_of, ratio
from nnlite.lab.timing import COMPARED_ROUNDS
from nnlite.performance.rounds import Candidate, Samples, no_garbage_collection, run_rounds
from nnlite.runtime.scopes import PART_NAMES

#: rounds after which the slower challengers are dropped
DROPS = (2, 3, 5)
METHOD = "successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943)"
#: rounds of the default and of the best other combination, at least
LEAST_ROUNDS = DROPS[-1] + COMPARED_ROUNDS
#: what the ratios of two parameters are marked with
_MARKS = "* best; (dropped after few rounds)"


class Sweep:
    """The combinations of an algorithm's parameters that are compared, its own values first."""

    def __init__(self, algorithms: Sequence[Algorithm], parameters: Sequence[str]):
        """`parameters` are the names of those that vary; all of them if it is empty.

        Raises ValueError unless there is one algorithm, and it declares these.
        """
        if len(algorithms) != 1:
            received = ", ".join(algorithm.name for algorithm in algorithms) or "none"
            raise ValueError(f"--sweep: expected one algorithm, from --only or --algorithm. Received: {received}")
        self.algorithm = algorithms[0]
        declared = self.algorithm.parameters
        names = parameters or list(declared)
        if not declared:
            raise ValueError(f"--sweep: algorithm {self.algorithm.name!r} declares no parameters")
        try:
            check_names(names, self.algorithm.name, declared)
            self.values = {name: values for name, values in declared.items() if name in names}
            self.combinations = {one.name: one for one in self.algorithm.combinations(*self.values)}
        except ValueError as error:
            raise ValueError(f"--sweep: {error}") from error
        self.default = next(iter(self.combinations))

    def said(self, name: str) -> str:
        """The values of a combination: "rows=6, vectors=2"."""
        return ", ".join(f"{parameter}={value}" for parameter, value in self._values(name).items())

    def _values(self, name: str) -> dict[str, Any]:
        return {parameter: getattr(self.combinations[name], parameter) for parameter in self.values}

    # What is printed, the answer first ------------------------------------------------------------------------------

    def checks(self, run: Run) -> Iterator[str]:
        """The results of the checks, in sentences."""
        timed = {cell.algorithm for row in run.rows for cell in row.timed}
        found = [report for report in run.checks if not report.refused]
        right = [report.checked for report in found if report.checked or report.algorithm in timed]
        least, most = min(right, default=0), max(right, default=0)
        on = f"{most}" if least == most else f"{least} to {most}"
        yield (
            f"{len(right)} of {len(run.checks)} combinations of {self.algorithm.name} are correct, on {on} geometries "
            "and at the timed shapes."
        )
        for report in run.refused:
            yield f"REFUSED {self.said(report.algorithm)}: {report.refusal}"

    def answer(self, row: Row) -> str:
        """Which combination is the best, in a sentence."""
        others = [cell for cell in row.finalists if cell.algorithm != row.baseline]
        if not others or row.baseline is None:
            return "No two combinations were timed."
        best = min(others, key=lambda cell: cell.median_ms)
        assert best.ratio is not None
        base = "the default" if row.baseline == self.default else self.said(row.baseline)
        values, times = self.said(best.algorithm), of(best.ratio.value)
        if best.ratio.low is None or row.noise is None:
            return f"{values} takes {times} the time of {base}: too few rounds for an interval."
        found = {
            "faster": f"The best is {values}: it takes {times} the time of {base}",
            "slower": f"The best is {base}. The best other, {values}, takes {times} its time",
            "no difference": f"No combination is shown to be faster than {base}. "
            f"The best other, {values}, takes {times} its time",
        }[best.verdict or ""]
        between = f"95% interval {ratio(best.ratio.low)} to {ratio(best.ratio.high)}"
        return f"{found} ({between}, {row.rounds - row.dropped} rounds, A/A noise {100 * row.noise:.1f}%)."

    def tables(self, row: Row) -> list[Table]:
        """One line per combination; and for two parameters the ratios, the values of one down and the other across."""
        title = f"{row.shape.name}, {PART_NAMES[row.pass_name]}: {row.shape.geometry}"
        base = "default" if row.baseline in (None, self.default) else self.said(row.baseline)
        columns = [*self.values, "rounds", "ms", f"x {base}", "95%", ""]
        found = [Table(title, columns, [self._line(cell) for cell in row.cells], [" ".join(self._notes(row))])]
        if len(self.values) == 2 and row.timed:
            (down, _), (across, _) = self.values.items()
            lines = [[Cell(f"{value}"), *cells] for value, cells in self._grid(row)]
            heading = [f"{down} \\ {across}", *(str(value) for value in self.values[across])]
            found.append(Table(f"x {base}; {_MARKS}", heading, lines))
        return found

    def _line(self, cell: results.Cell) -> list[Cell]:
        values = [Cell(str(value)) for value in self._values(cell.algorithm).values()]
        values[0] = Cell(f"{'*' if cell.best else ' '} {values[0].text}")
        if cell.status != "timed" or cell.ratio is None:
            status = "skipped" if cell.status == "declined" else cell.status
            return [*values, Cell("", 0), Cell("", 0), Cell("", 0), Cell("", 0), Cell(status)]
        return [
            *values,
            Cell(str(len(cell.seconds)), len(cell.seconds)),
            Cell(milliseconds_of(cell), cell.median_ms),
            _ratio(cell),
            Cell("" if cell.verdict == "baseline" else interval(cell.ratio), cell.ratio.low or 0),
            Cell("default" if cell.algorithm == self.default else cell.verdict or ""),
        ]

    def _grid(self, row: Row) -> list[tuple[Any, list[Cell]]]:
        """(value of the first parameter, a cell for each value of the second): ratios to the default."""
        values, others = self.values.values()
        cells = {tuple(self._values(cell.algorithm).values()): cell for cell in row.cells}

        return [(value, [_ratio(cells[value, other], "* ") for other in others]) for value in values]

    def _notes(self, row: Row) -> Iterator[str]:
        ran = [len(cell.seconds) for cell in row.timed]
        dropped = [f"{ran.count(n)} after {n} rounds" for n in sorted(set(ran)) if n < row.rounds]
        if dropped:
            yield f"Dropped for their fastest run so far, by {METHOD}: {', '.join(dropped)}."
            yield "Their ratios, in parentheses, are of these few rounds: do not compare them with the others', which"
            yield f"are of the {row.rounds - row.dropped} rounds after that, as are the intervals."
        for reason in dict.fromkeys(cell.reason for cell in row.cells if cell.status == "declined"):
            named = [self.said(cell.algorithm) for cell in row.cells if cell.reason == reason]
            yield f"Skipped: {'; '.join(named)}: {reason}."

    # Files ----------------------------------------------------------------------------------------------------------

    def to_dict(self, run: Run) -> dict[str, Any]:
        """The run for JSON, with what was swept."""
        return run.to_dict() | {
            "sweep": {
                "algorithm": self.algorithm.name,
                "default": self.default,
                "parameters": {name: list(map(str, values)) for name, values in self.values.items()},
                "method": METHOD,
                "answers": [self.answer(row) for row in run.rows],
            }
        }

    def draw(self, run: Run, folder: Path) -> list[str]:
        """Write sweep-heatmap as SVG and PNG, one panel per shape and pass. Returns the paths; for two parameters."""
        from nnlite.lab import figures

        rows = [row for row in run.rows if row.timed]
        if not rows:
            return []
        (down, values), (across, others) = self.values.items()
        figure = figures.blank(1.5 + 1.1 * len(others), (1.3 + 0.5 * len(values)) * len(rows))
        for i, row in enumerate(rows):
            axes = figure.add_subplot(len(rows), 1, i + 1)
            grid = [cells for _, cells in self._grid(row)]
            ratios = np.array([[np.nan if cell.value is None else cell.value for cell in cells] for cells in grid])
            texts = [[cell.text for cell in cells] for cells in grid]
            figures.heat(axes, ratios, texts, [*map(str, values)], [*map(str, others)], 2)
            axes.set_xlabel(across)
            axes.set_ylabel(down)
            title = f"{row.shape.name}, {PART_NAMES[row.pass_name]}\nx default; {_MARKS}"
            axes.set_title(title, loc="left", fontsize=9)
        return figures.write(figure, folder / "sweep-heatmap")


def _ratio(cell: results.Cell, star: str = "") -> Cell:
    """A ratio, in parentheses if it is of a dropped combination: of few rounds; after `star` if it is the best."""
    if cell.ratio is None:
        return MISSING
    text = ratio(cell.ratio.value)
    if (cell.verdict or "").startswith("dropped"):
        text = f"({text})"
    return Cell(star * cell.best + text, cell.ratio.value)


# The race ------------------------------------------------------------------------------------------------------------


def kept(challengers: int, drop: int) -> int:
    """How many challengers remain after a drop (0, 1, ...); one after the last."""
    return max(1, round(challengers ** (1 - (drop + 1) / len(DROPS))))


def race(
    candidates: Sequence[Candidate],
    *,
    rounds: int,
    fewest: int = 0,
    seconds: float = inf,
    seed: int = 0,
    samples: Samples | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Samples:
    """As `run_rounds`: the first candidate is the default, the last its A/A control, those between are challengers.

    A dropped candidate has fewer samples, those of the first rounds, and the control those of the last ones. `seconds`
    may shorten the rounds after the last drop, but not below `fewest` in all.
    """
    samples = {} if samples is None else samples
    default, *challengers, control = candidates
    count, done, end = len(challengers), 0, time.perf_counter() + seconds
    samples.update({candidate.name: [] for candidate in candidates})

    def run(until: int, least: int, *others: Candidate) -> None:
        part: Samples = {}
        try:
            run_rounds(
                [default, *challengers, *others],
                rounds=until - done,
                fewest=least,
                seconds=end - time.perf_counter(),
                seed=seed + done,
                warm=count < 2,  # else the faster of two runs decides, and the interval is that of later ones
                samples=part,
                progress=progress,
            )
        finally:  # after an interruption, the rounds completed before count
            for name, taken in part.items():
                samples[name] += taken

    with no_garbage_collection():  # once: a collection takes longer than a round
        for drop, until in enumerate(DROPS if count > 1 else ()):
            run(until, until)
            # by the shortest sample: other programs make a sample longer, never shorter
            challengers = sorted(challengers, key=lambda c: min(samples[c.name]))[: kept(count, drop)]
            done = until
        run(rounds, fewest - done, control)
    return samples
