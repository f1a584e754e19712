"""The tables of `nnlite bench`: one per shape and pass, one line per algorithm; at most 100 characters wide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nnlite.lab.numbers import threads_said
from nnlite.lab.results import Cell, Row, Run
from nnlite.performance.contention import caution
from nnlite.performance.counts import human_bytes
from nnlite.performance.statistics import Ratio
from nnlite.runtime.scopes import PART_NAMES

if TYPE_CHECKING:
    from rich.table import Table


def row_table(row: Row) -> Table:
    """One line per algorithm. A star marks the fastest, a tilde a time scaled from a slice."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.title_justify = table.caption_justify = "left"
    table.title = f"{row.shape.name}, {PART_NAMES[row.pass_name]}: {row.shape.geometry}"
    ratios = f"x {row.baseline}" if row.baseline else "ratio"
    for column in ("algorithm", "ms", ratios, "95%", "", "GFLOP/s", "of peak", "extra", "error"):
        table.add_column(column, justify="left" if column in ("algorithm", "") else "right", no_wrap=True)
    for cell in row.cells:
        table.add_row(*_line(cell), style="bold" if cell.best else None)
    table.caption = " ".join(_caption(row))
    return table


def _line(cell: Cell) -> list[str]:
    name = f"* {cell.algorithm}" if cell.best else f"  {cell.algorithm}"
    if cell.status != "timed":
        return [name, cell.status]
    assert cell.ratio is not None
    assert cell.verdict is not None
    sign = "~" if cell.scale != 1 else ""
    return [
        name,
        sign + number(cell.median_ms),
        ratio(cell.ratio.value),
        _interval(cell.ratio) if cell.verdict != "baseline" else "",
        cell.verdict,
        number(cell.gflops),
        percent(cell.percent_of_peak) + (" eff" if cell.effective else " !" if cell.over_peak else ""),
        "" if cell.extra_bytes is None else human_bytes(cell.extra_bytes),
        f"{cell.error:.0e}",
    ]


def _interval(measured: Ratio) -> str:
    return "" if measured.low is None or measured.high is None else f"{ratio(measured.low)}-{ratio(measured.high)}"


def _caption(row: Row) -> Iterator[str]:
    if row.timed:
        yield from _timing_remarks(row)
    else:
        yield "Nothing was timed."
    for cell in row.cells:
        if cell.status == "declined":
            yield f"{cell.algorithm} declines: {cell.reason}."


def _timing_remarks(row: Row) -> Iterator[str]:
    flops = row.timed[0].flops
    noise = f"A/A noise: {100 * row.noise:.1f}%" if row.noise is not None else "too few rounds for intervals"
    yield f"{flops / 2:,.0f} MACs ({flops / 1e9:.3g} GFLOP); {row.rounds} rounds; {noise}."
    if row.shape.cut:
        yield f"Batch size: {row.shape.geometry.input_shape[0]}, not the published {row.shape.published_batch}."
    scaled = [f"{c.algorithm} 1/{c.scale:,.0f}" for c in row.timed if c.scale != 1]
    if scaled:
        yield f"~ scaled from a slice of the work: {', '.join(scaled)}."


def number(value: float) -> str:
    """Three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1e}"


def ratio(value: float) -> str:
    """Two decimals, none from 100 on, thousands as k."""
    if value >= 1000:
        return f"{value / 1000:.3g}k"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def percent(value: float) -> str:
    """A percentage; below 0.1% only "<0.1%"."""
    return "<0.1%" if value < 0.1 else f"{value:.1f}%" if value < 10 else f"{value:.0f}%"


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
    if any(cell.effective for cell in cells):
        yield "eff: counts the FLOPs of direct convolution. The algorithm needs fewer, so it may exceed the peak."
    if any(cell.over_peak for cell in cells):
        yield "! Error in nnlite: a rate above the measured peak. The peak, the clock or a count is wrong."
    if run.blas:
        yield (
            f"NumPy's BLAS had the threads for {', '.join(run.blas)}, kernels had them for the others: "
            "BLAS and kernel threads never run together."
        )
    if run.interrupted:
        yield "Interrupted: the tables show the rounds completed before."
