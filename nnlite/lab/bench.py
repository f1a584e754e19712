"""Check algorithms, then time the correct ones against each other: `nnlite bench` from Python."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import NamedTuple

import numpy as np

from nnlite.conv import Algorithm
from nnlite.lab import reference, timing
from nnlite.lab.check import Report, check, check_at, geometries
from nnlite.lab.contract import Refused, asking, why_not
from nnlite.lab.results import Cell, Row, Run
from nnlite.lab.shapes import Shape
from nnlite.lab.terminal import Progress, command_line
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
    checked: Sequence[Algorithm] = (),
    check_seconds: float = inf,
    one_slice: bool = False,
    compare: Callable[..., Samples] | None = None,
    machine: peaks.Machine | None = None,
    progress: Progress | None = None,
) -> Run:
    """Check each algorithm, then time the correct ones at each shape and pass, in float32.

    `baseline` is the algorithm that ratios are relative to (default: im2col, else the first that is timed). `seconds`
    is the time for timing per shape and pass, on average, for at least `fewest` rounds. Those in `checked` are checked
    at the timed shapes only; the check of another ends after `check_seconds`. With `one_slice`, all are timed on the
    same slice of a shape that takes too long. `compare` runs the rounds, as `run_rounds` does (the default). The FMA
    peak is that of `machine`, else it is measured. A KeyboardInterrupt ends the run early; the completed rounds are
    returned.
    """
    count = threads.get_num_threads()
    run = Run(
        peak_gflops=machine.fma_gflops(count) if machine else peaks.peak_gflops(count),
        processor=processor_name(),
        threads=count,
        seed=seed,
        command=command_line(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    run.prange = [algorithm.name for algorithm in algorithms if _is_parallel(algorithm)]
    with progress or Progress() as line:
        try:
            line.stage("checking", sum(len(geometries(a, seed)) for a in algorithms if a not in checked))
            for algorithm in algorithms:
                step = partial(line.step, f"checking {algorithm.name}")
                known = Report(algorithm.name) if algorithm in checked else None
                run.checks.append(known or check(algorithm, seed=seed, seconds=check_seconds, progress=step))
            line.stage("checking at the shapes to be timed", len(shapes) * len(passes) * len(algorithms))
            planned = [_plan(run, algorithms, shape, name, one_slice, line) for shape in shapes for name in passes]
            _time_rows(run, _of_correct(run, planned), baseline, (fewest, rounds), seconds, line, compare)
        except KeyboardInterrupt:
            run.interrupted = True
        finally:
            reference.problem.cache_clear()
    for row in run.rows:
        row.compare()
    return run


def _is_parallel(algorithm: Algorithm) -> bool:
    """Whether its module has a function that Numba runs on separate threads."""
    functions = vars(sys.modules[type(algorithm).__module__]).values()
    return any(one.targetoptions.get("parallel") for one in functions if hasattr(one, "py_func"))


# Planning: the slice of each shape that is timed, and a check of it --------------------------------------------------


def _plan(
    run: Run, algorithms: Sequence[Algorithm], shape: Shape, pass_name: str, one_slice: bool, line: Progress
) -> list[_Entry]:
    """Append a row to the run. Returns an entry for each algorithm that can be timed in it."""
    if not run.rows or run.rows[-1].shape != shape:
        reference.problem.cache_clear()  # the operands of large shapes take much memory
    geometry, both = shape.geometry, 2 if pass_name == "gradients" else 1
    run.rows.append(Row(shape, pass_name, []))
    entries = []
    for algorithm, report in zip(algorithms, run.checks, strict=True):
        line.step(f"checking {algorithm.name} at {shape.name}")
        cell = Cell(algorithm.name, "timed", effective_rate=algorithm.saves_multiplications(geometry))
        cell.flops, cell.peak_gflops = both * geometry.flops, run.peak_gflops
        run.rows[-1].cells.append(cell)
        if report.refused:
            continue
        with _noted(cell, report):
            cell.reason = why_not(algorithm, geometry, np.float32)
            if cell.reason is not None:
                cell.status = "declined"
                continue
            team = timing.team(algorithm, pass_name)
            with _alone(team), asking(pass_name, geometry):
                part = timing.plan(algorithm, pass_name, geometry, run.seed)
            entries.append(_Entry(algorithm, cell, part, team))
    if one_slice:
        entries = [e._replace(part=max((e.part for e in entries), key=lambda part: part.scale)) for e in entries]
    reports = {report.algorithm: report for report in run.checks}
    for algorithm, cell, part, team in entries:
        with _noted(cell, reports[algorithm.name]), _alone(team):
            cell.scale = part.scale
            cell.error, cell.error_bound = check_at(algorithm, pass_name, reference.problem(part.geometry, run.seed))
            if part.scale == 1:
                cell.extra_bytes = timing.extra_bytes(timing.call_of(algorithm, pass_name, geometry, run.seed))
    return entries


@contextmanager
def _noted(cell: Cell, report: Report) -> Iterator[None]:
    """What goes wrong inside is noted: an error of the algorithm in its report, too little memory in the cell."""
    try:
        yield
    except Refused as refusal:
        report.refusal = str(refusal)
    except MemoryError as error:
        cell.status, cell.reason = "declined", f"there is too little memory ({error})"


@contextmanager
def _alone(team: Team) -> Iterator[None]:
    """A team at work, and no thread of BLAS beside it."""
    if team.owner == "kernels":
        wait_until_idle()
    with team.at_work():
        yield


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
    line: Progress,
    compare: Callable[..., Samples] | None,
) -> None:
    """Time row after row; fills the cells of run.rows. What a row leaves of its time goes to those after it.

    `rounds`: the fewest and the most.
    """
    fewest, most = rounds
    pairs = [(row, entries) for row, entries in zip(run.rows, planned, strict=True) if entries]
    end = time.perf_counter() + seconds * len(run.rows)
    line.stage("timing", most * len(pairs))
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
                progress=partial(line.step, f"timing {row.shape.name}, {row.pass_name}"),
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
