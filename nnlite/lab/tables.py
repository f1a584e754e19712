"""The laboratory's tables: one a shape and pass, one line an algorithm; at most 100 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nnlite.contention import UNDISTURBED
from nnlite.lab.results import MOST_OF_A_CEILING, Cell, Row, Run
from nnlite.performance.counts import human_bytes
from nnlite.scopes import PART_NAMES

if TYPE_CHECKING:
    from rich.table import Table


def row_table(row: Row) -> Table:
    """One line an algorithm; the best is marked with a star, what was scaled from a slice with a tilde."""
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
        "" if cell.verdict == "baseline" else f"{ratio(cell.ratio.low)}-{ratio(cell.ratio.high)}",
        cell.verdict,
        number(cell.gflops),
        percent(cell.percent_of_peak) + (" eff" if cell.effective else " !" if cell.over_peak else ""),
        "" if cell.extra_bytes is None else human_bytes(cell.extra_bytes),
        f"{cell.error:.0e}",
    ]


def _caption(row: Row) -> Iterator[str]:
    if row.timed:
        yield from _timing_remarks(row)
    else:
        yield "Nothing was timed."
    for cell in row.cells:
        if cell.status == "declined":
            yield f"{cell.algorithm} declines: {cell.reason}."


def _timing_remarks(row: Row) -> Iterator[str]:
    assert row.control is not None
    assert row.floor is not None
    flops = row.timed[0].flops
    yield (
        f"{flops / 2:,.0f} MACs ({flops / 1e9:.3g} GFLOP); {row.rounds} rounds; {row.baseline} against itself: "
        f"{row.control.low:.3f} - {row.control.high:.3f}, so less than {100 * row.floor:.1f}% is no difference."
    )
    if row.shape.cut:
        yield f"{row.shape.geometry.input_shape[0]} images; published with {row.shape.published_batch}."
    scaled = [f"{c.algorithm} 1/{c.scale:,.0f}" for c in row.timed if c.scale != 1]
    if scaled:
        yield f"~ scaled from a slice of the work: {', '.join(scaled)}."


def number(value: float) -> str:
    """Three significant digits, in full."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1e}"


def ratio(value: float) -> str:
    """Two decimals, none from 100 on, thousands as k."""
    if value >= 1000:
        return f"{value / 1000:.3g}k"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def percent(value: float) -> str:
    """A tenth of a percent, at the least."""
    return "<0.1%" if value < 0.1 else f"{value:.1f}%" if value < 10 else f"{value:.0f}%"


def checks(run: Run) -> Iterator[str]:
    """What checking found, a sentence each."""
    right = [report for report in run.checks if report.checked and not report.refused]
    if right:
        most = max(report.checked for report in right)
        names = ", ".join(
            report.algorithm + (f" ({report.checked})" if report.checked != most else "") for report in right
        )
        yield f"Right within their error bounds, on {most} geometries where no number is given: {names}."
    for report in run.checks:
        if not report.checked and report.declined and not report.refused:
            yield f"{report.algorithm} declines everything that it was to be checked on: {report.declined[0][1]}"
    for report in run.refused:
        yield f"REFUSED {report.algorithm}: {report.refusal}"


def disturbance(share: float) -> list[str]:
    """That this process got no more than a share of the processors' time, unless it was as good as alone."""
    if share >= UNDISTURBED:
        return []
    return [
        f"CAUTION: other programs use the processor: {100 * (1 - share):.0f}% of it went to them while the times were "
        "taken. The times of this run are not to be relied on."
    ]


def remarks(run: Run) -> Iterator[str]:
    """What a reader has to know about the numbers, a sentence each."""
    machine = run.machine
    yield from disturbance(run.share)
    yield (
        f"Peak: {machine.fma_gflops_all:.0f} GFLOP/s on {machine.threads} thread(s) of {machine.processor}, measured "
        f"{machine.measured_at[:10]}. Extra: memory beside operands and result. Error: the largest, relative to the "
        "result's root mean square."
    )
    cells = [cell for row in run.rows for cell in row.timed]
    if any(cell.effective for cell in cells):
        yield "eff: by the definition's count; the algorithm needs fewer multiplications, so it may exceed the peak."
    if any(cell.over_peak for cell in cells):
        yield (
            f"! DEFECT: a rate more than {100 * MOST_OF_A_CEILING - 100:.0f}% above the measured peak. Measure the "
            "machine again: nnlite machine --fresh."
        )
    if run.blas:
        yield (
            f"While {', '.join(run.blas)} ran, NumPy's BLAS had the {run.threads} thread(s), else the kernels: "
            "neither's threads wait for the other's."
        )
    if run.interrupted:
        yield "Interrupted: the tables hold what was measured until then."
