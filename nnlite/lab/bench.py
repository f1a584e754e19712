"""Check algorithms, then time the correct ones against each other: `nnlite bench` from Python."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import numpy as np

from nnlite.conv import Algorithm, Geometry
from nnlite.lab import reference, timing
from nnlite.lab.check import Report, check, check_at, geometries
from nnlite.lab.contract import Refused, asking, why_not
from nnlite.lab.results import Cell, Row, Run
from nnlite.lab.shapes import Shape
from nnlite.lab.terminal import Bar, command_line
from nnlite.lab.timing import Slice
from nnlite.performance import peaks
from nnlite.performance.contention import Contention
from nnlite.performance.rounds import Candidate, Samples, Team, run_rounds, timed, wait_until_idle
from nnlite.runtime import threads
from nnlite.runtime.processor import processor_name

#: seconds of timing per shape and pass, on average
SECONDS = 5.0


class _Entry(NamedTuple):
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
    fewest: int = timing.LEAST_ROUNDS,
    seed: int = 0,
    bar: Bar | None = None,
    compare: Callable[..., Samples] | None = None,
    machine: peaks.Machine | None = None,
) -> Run:
    """Check each algorithm, then time the correct ones at each shape and pass, in float32.

    `baseline` is the algorithm that ratios are relative to (default: im2col, else the first that is timed). `seconds`
    is the time for timing per shape and pass, on average, for at least `fewest` rounds. `compare` runs the rounds, as
    `run_rounds` does (the default). The FMA peak is that of `machine`, else it is measured. A KeyboardInterrupt ends
    the run early; the completed rounds are returned.
    """
    bar = Bar() if bar is None else bar
    count = threads.get_num_threads()
    run = Run(
        peak_gflops=machine.fma_gflops(count) if machine else peaks.peak_gflops(count),
        processor=processor_name(),
        threads=count,
        seed=seed,
        command=command_line(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    try:
        bar.stage("checking", sum(len(geometries(a, seed)) for a in algorithms))
        for algorithm in algorithms:
            run.checks.append(check(algorithm, seed=seed, progress=partial(bar.step, f"checking {algorithm.name}")))
        bar.stage("checking at the shapes to be timed", len(shapes) * len(passes) * len(algorithms))
        planned = [_plan_row(run, algorithms, shape, name, bar) for shape in shapes for name in passes]
        _time_rows(run, _of_correct(run, planned), baseline, (fewest, rounds), seconds, bar, compare)
    except KeyboardInterrupt:
        run.interrupted = True
    finally:
        reference.problem.cache_clear()
    for row in run.rows:
        row.compare()
    return run


# Planning: the slice of each shape that is timed, and a check of it --------------------------------------------------


def _plan_row(run: Run, algorithms: Sequence[Algorithm], shape: Shape, pass_name: str, bar: Bar) -> list[_Entry]:
    """Append a row to the run. Returns an entry for each algorithm that can be timed in it."""
    if not run.rows or run.rows[-1].shape != shape:
        reference.problem.cache_clear()  # the operands of large shapes take much memory
    row = Row(shape, pass_name, [])
    run.rows.append(row)
    entries = []
    for algorithm, report in zip(algorithms, run.checks, strict=True):
        bar.step(f"checking {algorithm.name} at {shape.name}")
        cell = Cell(algorithm.name, "timed", effective_rate=algorithm.saves_multiplications(shape.geometry))
        row.cells.append(cell)
        part = _plan(algorithm, pass_name, shape.geometry, run.seed, cell, report)
        if part is not None:
            both = 2 if pass_name == "gradients" else 1
            cell.flops, cell.scale = both * shape.geometry.flops, part.scale
            cell.peak_gflops = run.peak_gflops
            entries.append(_Entry(algorithm, cell, part, timing.team(algorithm, pass_name)))
    return entries


def _plan(
    algorithm: Algorithm, pass_name: str, geometry: Geometry, seed: int, cell: Cell, report: Report
) -> Slice | None:
    """The slice of `geometry` to time, checked; None if there is none, and the cell or the report holds the reason."""
    if report.refused:
        return None
    try:
        cell.reason = why_not(algorithm, geometry, np.float32)
        if cell.reason is None:
            return _check_and_slice(algorithm, pass_name, geometry, seed, cell)
    except Refused as refusal:
        report.refusal = str(refusal)
        return None
    except MemoryError as error:
        cell.reason = f"there is too little memory ({error})"
    cell.status = "declined"
    return None


def _check_and_slice(algorithm: Algorithm, pass_name: str, geometry: Geometry, seed: int, cell: Cell) -> Slice:
    """The slice of `geometry` to time; fills the cell's errors and extra memory. Raises Refused if it is wrong."""
    team = timing.team(algorithm, pass_name)
    if team.owner == "kernels":
        wait_until_idle()
    with team.at_work():
        with asking(pass_name, geometry):
            part = timing.plan(algorithm, pass_name, geometry, seed)
        cell.error, cell.error_bound = check_at(algorithm, pass_name, reference.problem(part.geometry, seed))
        if part.scale == 1:
            cell.extra_bytes = timing.extra_bytes(timing.call_of(algorithm, pass_name, geometry, seed))
    return part


def _of_correct(run: Run, planned: list[list[_Entry]]) -> list[list[_Entry]]:
    """The entries of algorithms that are correct at every shape; the others' cells are marked."""
    for row in run.rows:
        for cell, report in zip(row.cells, run.checks, strict=True):
            if report.refused:
                cell.status, cell.reason = "refused", report.refusal
    run.blas = list(dict.fromkeys(e.algorithm.name for entries in planned for e in entries if e.team.owner == "blas"))
    return [[e for e in entries if e.cell.status == "timed"] for entries in planned]


# Timing ------------------------------------------------------------------------------------------------------------


def _time_rows(
    run: Run,
    planned: list[list[_Entry]],
    baseline: str | None,
    rounds: tuple[int, int],
    seconds: float,
    bar: Bar,
    compare: Callable[..., Samples] | None,
) -> None:
    """Time row after row; fills the cells of run.rows. What a row leaves of its time goes to those after it.

    `rounds`: the fewest and the most.
    """
    fewest, most = rounds
    pairs = [(row, entries) for row, entries in zip(run.rows, planned, strict=True) if entries]
    end = time.perf_counter() + seconds * len(run.rows)
    bar.stage("timing", most * len(pairs))
    contention = Contention()
    for i, (row, entries) in enumerate(pairs):
        reference.problem.cache_clear()
        base = _baseline(entries, baseline)
        row.baseline = base.algorithm.name
        samples: Samples = {}
        try:
            (compare or run_rounds)(
                [_candidate(e.algorithm.name, e, row, run.seed) for e in entries]
                + [_candidate(timing.CONTROL, base, row, run.seed)],  # the baseline again: the A/A control
                rounds=most,
                fewest=min(fewest, most),
                seconds=max(0.0, end - time.perf_counter()) / (len(pairs) - i),
                seed=run.seed,
                samples=samples,
                progress=partial(bar.step, f"timing {row.shape.name}, {row.pass_name}"),
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


def _candidate(name: str | None, entry: _Entry, row: Row, seed: int) -> Candidate:
    call = timing.call_of(entry.algorithm, row.pass_name, entry.part.geometry, seed)
    return Candidate(name, timed(call), entry.team)
