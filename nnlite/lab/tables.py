"""The tables of `nnlite bench`: one per shape and pass, one line per algorithm; at most 100 characters wide."""

from __future__ import annotations

from collections.abc import Iterator

from nnlite.lab import results
from nnlite.lab.numbers import short, threads_said
from nnlite.lab.results import Row, Run
from nnlite.lab.table import Cell, Table
from nnlite.performance.contention import caution
from nnlite.performance.counts import human_bytes
from nnlite.performance.statistics import Ratio
from nnlite.runtime.scopes import PART_NAMES


def row_table(row: Row) -> Table:
    """One line per algorithm. A star marks the fastest, a tilde a time scaled from a slice."""
    ratios = f"x {row.baseline}" if row.baseline else "ratio"
    return Table(
        f"{row.shape.name}, {PART_NAMES[row.pass_name]}: {row.shape.geometry}",
        ["algorithm", "ms", ratios, "95%", "", "GFLOP/s", "of peak", "extra", "error"],
        [_line(cell) for cell in row.cells],
        [" ".join(_caption(row))],
    )


def _line(cell: results.Cell) -> list[Cell]:
    name = Cell(f"* {cell.algorithm}" if cell.best else f"  {cell.algorithm}")
    if cell.status != "timed":
        return [name, Cell(cell.status), *[Cell("")] * 7]
    assert cell.ratio is not None
    assert cell.verdict is not None
    return [
        name,
        Cell(milliseconds_of(cell), cell.median_ms),
        Cell(ratio(cell.ratio.value), cell.ratio.value),
        Cell("" if cell.verdict == "baseline" else interval(cell.ratio), cell.ratio.low),
        Cell(cell.verdict),
        Cell(short(cell.gflops), cell.gflops),
        Cell(percent(cell), cell.percent_of_peak),
        Cell("" if cell.extra_bytes is None else human_bytes(cell.extra_bytes), cell.extra_bytes),
        Cell(f"{cell.error:.0e}", cell.error),
    ]


def _caption(row: Row) -> Iterator[str]:
    if not row.timed:
        yield "Nothing was timed."
    else:
        flops = row.timed[0].flops
        noise = f"A/A noise: {100 * row.noise:.1f}%" if row.noise is not None else "too few rounds for intervals"
        yield f"{flops / 2:,.0f} MACs ({flops / 1e9:.3g} GFLOP); {row.rounds} rounds; {noise}."
        if row.shape.cut:
            yield f"Batch size: {row.shape.geometry.input_shape[0]}, not the published {row.shape.published_batch}."
        if scaled := [f"{c.algorithm} 1/{c.scale:,.0f}" for c in row.timed if c.scale != 1]:
            yield f"~ scaled from a slice of the work: {', '.join(scaled)}."
    for cell in row.cells:
        if cell.status == "declined":
            yield f"{cell.algorithm} declines: {cell.reason}."


def milliseconds_of(cell: results.Cell) -> str:
    """The median without unit; a tilde marks one that is scaled from a slice."""
    return ("~" if cell.scale != 1 else "") + short(cell.median_ms)


def ratio(value: float | None) -> str:
    """Two decimals, three digits below 0.1, none from 100 on, thousands as k."""
    if value is None:
        return ""
    if value < 0.1:
        return f"{value:.3g}"
    return f"{value / 1000:.3g}k" if value >= 1000 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def interval(found: Ratio) -> str:
    """0.95-1.02, or nothing with too few rounds."""
    return "" if found.low is None else f"{ratio(found.low)}-{ratio(found.high)}"


def percent(cell: results.Cell) -> str:
    """The rate relative to the peak; "eff" if it counts more FLOPs than there are, "!" if it cannot be true."""
    of_peak = cell.percent_of_peak
    text = "<0.1%" if of_peak < 0.1 else f"{of_peak:.1f}%" if of_peak < 10 else f"{of_peak:.0f}%"
    return text + (" eff" if cell.effective_rate else " !" if cell.over_peak else "")


def checks(run: Run) -> Iterator[str]:
    """The results of the checks, in sentences."""
    right = [report for report in run.checks if report.checked and not report.refused]
    if right:
        most = max(report.checked for report in right)
        names = ", ".join(
            report.algorithm + (f" ({report.checked})" if report.checked != most else "") for report in right
        )
        yield f"Correct on {most} geometries, or on the number in parentheses: {names}."
    for report in run.checks:
        if not report.checked and report.declined and not report.refused:
            yield f"{report.algorithm} declines every geometry of the check: {report.declined[0][1]}"
    for report in run.refused:
        yield f"REFUSED {report.algorithm}: {report.refusal}"


def remarks(run: Run) -> Iterator[str]:
    """Remarks on the numbers, in sentences."""
    yield from (f"CAUTION: {said}" for said in caution(run.others_share))
    yield (
        f"FMA peak: {run.peak_gflops:.0f} GFLOP/s, measured with {threads_said(run.threads)} on {run.processor}. "
        "Extra: memory besides operands and result. Error: the largest, relative to the result's RMS."
    )
    cells = [cell for row in run.rows for cell in row.timed]
    if any(cell.effective_rate for cell in cells):
        yield "eff: counts the FLOPs of direct convolution. The algorithm needs fewer, so it may exceed the peak."
    if any(cell.over_peak for cell in cells):
        yield "! Error in nnlite: a rate above the measured peak. The peak, the clock or a count is wrong."
    if run.blas:
        yield (
            f"NumPy's BLAS had the threads for {', '.join(run.blas)}, kernels had them for the others: "
            "BLAS and kernel threads never run together."
        )
    if run.prange:
        yield (
            f"{', '.join(run.prange)}: Numba's parallel=True runs on separate threads, which --threads does not set. "
            "@nn.compiler.kernel, as in examples/own_kernel.py, runs on nnlite's."
        )
    if run.interrupted:
        yield "Interrupted: the tables show the rounds completed before."
