"""Check algorithms, then time the correct ones against each other: `nnlite bench` from Python."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np

from nnlite.conv import Algorithm, Geometry
from nnlite.lab import reference, timing
from nnlite.lab.check import Report, check, check_at, geometries
from nnlite.lab.contract import Refused, asking, why_not
from nnlite.lab.reference import Operands
from nnlite.lab.results import Cell, Row, Run
from nnlite.lab.shapes import Shape
from nnlite.lab.terminal import Bar, command_line
from nnlite.lab.timing import Slice
from nnlite.performance import peaks
from nnlite.performance.contention import Contention
from nnlite.performance.rounds import Candidate, Samples, Team, run_rounds, timed, wait_until_idle
from nnlite.runtime import threads
from nnlite.runtime.processor import processor_name

#: seconds of timing per shape and pass, on average: quick ones leave their rest to slow ones
SECONDS = 5.0
#: about how long a change of the threads' owner takes
_SWITCH_SECONDS = 0.1


@dataclass(frozen=True)
class _Entry:
    """A correct algorithm at a shape and pass, and the slice of the shape that is timed."""

    algorithm: Algorithm
    cell: Cell
    part: Slice
    team: Team


def bench(
    algorithms: Sequence[Algorithm],
    shapes: Sequence[Shape],
    passes: Sequence[str],
    *,
    baseline: str | None = None,
    rounds: int = timing.ROUNDS,
    seconds: float = SECONDS,
    seed: int = 0,
    bar: Bar | None = None,
) -> Run:
    """Check each algorithm, then time the correct ones at each shape and pass, in float32.

    `baseline` is the algorithm that ratios are relative to (default: im2col, else the first that is timed). `seconds`
    is the time for timing per shape and pass, on average. A KeyboardInterrupt ends the run early; the completed rounds
    are returned.
    """
    bar = Bar() if bar is None else bar
    run = Run(
        peak_gflops=peaks.peak_gflops(threads.get_num_threads()),
        processor=processor_name(),
        threads=threads.get_num_threads(),
        seed=seed,
        command=command_line(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    try:
        _check_all(run, algorithms, bar)
        planned = _plan_all(run, algorithms, shapes, passes, bar)
        _time_all(run, planned, baseline, rounds, seconds, bar)
    except KeyboardInterrupt:
        run.interrupted = True
    for row in run.rows:
        row.compare()
    return run


def _check_all(run: Run, algorithms: Sequence[Algorithm], bar: Bar) -> None:
    bar.stage("checking", sum(len(geometries(a, run.seed)) for a in algorithms))
    for algorithm in algorithms:
        run.checks.append(check(algorithm, seed=run.seed, progress=partial(bar.step, f"checking {algorithm.name}")))


# Planning: the slice of each shape that is timed, and a check of it --------------------------------------------------


def _plan_all(
    run: Run, algorithms: Sequence[Algorithm], shapes: Sequence[Shape], passes: Sequence[str], bar: Bar
) -> list[list[_Entry]]:
    """The entries of each row; fills run.rows. An algorithm that is wrong at one shape is timed at none."""
    bar.stage("checking at the shapes to be timed", len(shapes) * len(passes) * len(algorithms))
    reports = {report.algorithm: report for report in run.checks}
    planned = []
    for shape in shapes:
        problem = _Problem(run.seed)
        for pass_name in passes:
            row, entries = Row(shape, pass_name, []), []
            run.rows.append(row)
            for algorithm in algorithms:
                bar.step(f"checking {algorithm.name} at {shape.name}")
                cell = Cell(algorithm.name, "timed", effective=algorithm.saves_multiplications(shape.geometry))
                row.cells.append(cell)
                part = _plan(algorithm, pass_name, shape.geometry, problem, cell, reports[algorithm.name])
                if part is not None:
                    both = 2 if pass_name == "gradients" else 1
                    cell.flops, cell.scale = both * shape.geometry.flops, part.scale
                    cell.peak_gflops = run.peak_gflops
                    entries.append(_Entry(algorithm, cell, part, timing.team(algorithm, pass_name)))
            planned.append(entries)
    for row in run.rows:
        for cell in row.cells:
            if reports[cell.algorithm].refused:
                cell.status, cell.reason = "refused", reports[cell.algorithm].refusal
    run.blas = list(dict.fromkeys(e.algorithm.name for entries in planned for e in entries if e.team.owner == "blas"))
    return [[e for e in entries if e.cell.status == "timed"] for entries in planned]


def _plan(
    algorithm: Algorithm, pass_name: str, geometry: Geometry, problem: _Problem, cell: Cell, report: Report
) -> Slice | None:
    """The slice of `geometry` to time, checked; None if there is none, and the cell holds the reason."""
    if report.refused:
        return None
    try:
        cell.reason = why_not(algorithm, geometry, np.float32)
        if cell.reason is None:
            return _check_and_slice(algorithm, pass_name, geometry, problem, cell)
    except Refused as refusal:
        report.refusal = str(refusal)
        return None
    except MemoryError as error:
        cell.reason = f"there is too little memory ({error})"
    cell.status = "declined"
    return None


def _check_and_slice(algorithm: Algorithm, pass_name: str, geometry: Geometry, problem: _Problem, cell: Cell) -> Slice:
    """The slice of `geometry` to time; fills the cell's errors and extra memory. Raises Refused if it is wrong."""
    team = timing.team(algorithm, pass_name)
    if team.owner == "kernels":
        wait_until_idle()
    with team.at_work():
        with asking(pass_name, geometry):
            part = timing.plan(algorithm, pass_name, geometry, problem.operands32)
        given, right = problem.operands(part.geometry), partial(problem.right, part.geometry)
        cell.error, cell.error_bound = check_at(algorithm, pass_name, part.geometry, given, right)
        if part.scale == 1:
            operands = problem.operands32(geometry)
            cell.extra_bytes = timing.extra_bytes(partial(reference.run_pass, algorithm, pass_name, operands, geometry))
    return part


class _Problem:
    """Cached operands and expected results of a shape and of its slices."""

    def __init__(self, seed: int):
        self._seed = seed
        self._operands: dict[Geometry, Operands] = {}
        self._operands32: dict[Geometry, Operands] = {}
        self._right: dict[tuple[Geometry, str], np.ndarray] = {}

    def operands(self, geometry: Geometry) -> Operands:
        if geometry not in self._operands:
            self._operands[geometry] = reference.operands(geometry, self._seed)
        return self._operands[geometry]

    def operands32(self, geometry: Geometry) -> Operands:
        if geometry not in self._operands32:
            self._operands32[geometry] = self.operands(geometry).astype(np.float32)
        return self._operands32[geometry]

    def right(self, geometry: Geometry, pass_name: str) -> np.ndarray:
        key = geometry, pass_name
        if key not in self._right:
            self._right[key] = reference.expected(geometry, pass_name, self.operands(geometry))
        return self._right[key]


# Timing ------------------------------------------------------------------------------------------------------------


def _time_all(
    run: Run, planned: list[list[_Entry]], baseline: str | None, rounds: int, seconds: float, bar: Bar
) -> None:
    """Time row after row; fills the cells of run.rows."""
    pairs = [(row, entries) for row, entries in zip(run.rows, planned, strict=True) if entries]
    needs = [rounds * _round_seconds(entries) for _, entries in pairs]
    end = time.perf_counter() + seconds * len(run.rows)
    bar.stage("timing", rounds * len(pairs))
    contention = Contention()
    for i, (row, entries) in enumerate(pairs):
        budget = first_share(needs[i:], end - time.perf_counter())
        base = _baseline(entries, baseline)
        row.baseline = base.algorithm.name
        progress = partial(bar.step, f"timing {row.shape.name}, {row.pass_name}")
        samples: Samples = {}
        try:
            run_rounds(
                _candidates(row, entries, base, run.seed),
                rounds=rounds,
                fewest=min(timing.LEAST_ROUNDS, rounds),
                seconds=budget,
                seed=run.seed,
                samples=samples,
                progress=progress,
            )
        finally:
            for entry in entries:
                entry.cell.seconds = [entry.part.scale * s for s in samples.get(entry.algorithm.name, [])]
            row.control_seconds = [base.part.scale * s for s in samples.get(timing.CONTROL, [])]
    run.others_share = contention.share()


def _baseline(entries: Sequence[_Entry], wanted: str | None) -> _Entry:
    """The requested baseline, else im2col, else the first algorithm that is not for reading only."""
    by_name = {e.algorithm.name: e for e in entries}
    usable = [e for e in entries if not e.algorithm.reference_only] or list(entries)
    return by_name.get(wanted or "im2col") or by_name.get("im2col") or usable[0]


def _candidates(row: Row, entries: Sequence[_Entry], base: _Entry, seed: int) -> list[Candidate]:
    """One candidate per entry, and the baseline a second time as the A/A control."""
    problem = _Problem(seed)

    def candidate(name: str | None, entry: _Entry) -> Candidate:
        operands = problem.operands32(entry.part.geometry)
        call = partial(reference.run_pass, entry.algorithm, row.pass_name, operands, entry.part.geometry)
        return Candidate(name, timed(call), entry.team)

    return [*(candidate(entry.algorithm.name, entry) for entry in entries), candidate(timing.CONTROL, base)]


def _round_seconds(entries: Sequence[_Entry]) -> float:
    """About how long a round takes, seconds: the calls, the control, and the change of the threads' owner."""
    return sum(e.part.seconds for e in entries) + max(e.part.seconds for e in entries) + _SWITCH_SECONDS


def first_share(needs: Sequence[float], seconds: float) -> float:
    """Seconds for the first of several tasks: its need, or an equal share if the sum of needs exceeds `seconds`.

    Time that the other tasks do not need goes to the first.
    """
    level, left, count = 0.0, seconds, len(needs)
    for need in sorted(needs):
        level = left / count  # an equal share of the time that smaller needs leave
        if need > level:
            break
        left, count = left - need, count - 1
    return max(0.0, seconds - sum(min(need, level) for need in needs[1:]))
