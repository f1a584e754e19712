"""The ladder: all algorithms at one shape and pass, from the slowest to the fastest."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nnlite import conv
from nnlite.lab.bench import bench
from nnlite.lab.figures import BLUE, GREY, ORANGE, blank
from nnlite.lab.numbers import threads_said
from nnlite.lab.results import Cell, Row, Run
from nnlite.lab.shapes import Shape, resolve
from nnlite.lab.tables import number, percent
from nnlite.lab.terminal import Bar
from nnlite.performance.contention import caution
from nnlite.runtime.errors import writable_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table


#: seconds for timing all algorithms
SECONDS = 20.0


@dataclass(frozen=True)
class Rung:
    """An algorithm, a sentence about it, and its speedup over the next slower and over the slowest algorithm."""

    cell: Cell
    change: str
    over_below: float
    over_first: float


def usual_shape(batch_size: int) -> Shape:
    """The default layer of the ladder: the CNN's second convolution."""
    return next(shape for shape in resolve(["seed"], batch_size) if shape.name == "cnn conv2d_1")


def climb(shape: Shape, bar: Bar | None = None) -> tuple[list[Rung], Run]:
    """Time the forward pass of every correct algorithm at this shape.

    Raises KeyboardInterrupt if it is interrupted: an incomplete ladder is of no use.
    """
    algorithms = [conv.get(name) for name in conv.names()]
    run = bench(algorithms, [shape], ["forward"], seconds=SECONDS, bar=bar)
    if run.interrupted:
        raise KeyboardInterrupt
    return rungs(run.rows[0]), run


def rungs(row: Row) -> list[Rung]:
    """The timed algorithms of a row, the slowest first, each described by its docstring."""
    cells = sorted(row.timed, key=lambda cell: -cell.median_ms)
    return [
        Rung(cell, _sentence(cell.algorithm), below.median_ms / cell.median_ms, cells[0].median_ms / cell.median_ms)
        for below, cell in zip([*cells[:1], *cells], cells, strict=False)
    ]


def _sentence(name: str) -> str:
    """The first paragraph of the docstring: of the module for built-in algorithms, of the class for others."""
    algorithm = type(conv.get(name))
    built_in = algorithm.__module__.startswith("nnlite.conv.")
    text = (sys.modules[algorithm.__module__].__doc__ if built_in else algorithm.__doc__) or ""
    return " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())


def table(ladder: Sequence[Rung], run: Run) -> Table:
    """One line per algorithm, the slowest first."""
    from rich import box
    from rich.table import Table

    row = run.rows[0]
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", caption_justify="left")
    result.title = f"The ladder: {row.shape.geometry}, {row.pass_name}"
    for column in ("algorithm", "ms", "x previous", "x first", "of peak"):
        result.add_column(column, justify="left" if column == "algorithm" else "right", no_wrap=True)
    result.add_column("what it does")
    for rung in ladder:
        cell = rung.cell
        result.add_row(
            cell.algorithm,
            _ms(cell),
            f"{rung.over_below:.3g}" if rung is not ladder[0] else "",
            number(rung.over_first) if rung is not ladder[0] else "",
            percent(cell.percent_of_peak) + (" eff" if cell.effective else ""),
            rung.change,
        )
    legend = "~: scaled from a slice of the work. eff: counts the FLOPs of direct convolution."
    result.caption = " ".join([*caution(run.others_share), legend])
    return result


def _ms(cell: Cell) -> str:
    return ("~" if cell.scale != 1 else "") + number(cell.median_ms)


def writable_picture(argument: str, path: str) -> None:
    """Raises OSError or ValueError unless matplotlib can write a picture of that name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    kinds = FigureCanvasAgg.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in kinds:
        raise ValueError(
            f"{argument}: expected a name that ends in one of .{', .'.join(sorted(kinds))}. Received: {path!r}"
        )
    writable_file(argument, path)


def picture(ladder: Sequence[Rung], run: Run) -> Figure:
    """One bar per algorithm, ms on a log scale; a line shows the time of direct convolution at the peak."""
    row = run.rows[0]
    figure = blank(11, 1.4 + 0.55 * len(ladder))
    axes = figure.add_subplot()
    times = [rung.cell.median_ms for rung in ladder]
    least = min(times) / 3
    colours = [ORANGE if rung is ladder[-1] else GREY if rung.cell.scale != 1 else BLUE for rung in ladder]
    axes.barh(range(len(ladder)), times, left=0, color=colours, height=0.5)
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # keeps the peak's line off the text
    for i, rung in enumerate(ladder):
        gained = f"   {number(rung.over_first)} times as fast as the first" if i else ""
        below = f", {rung.over_below:.3g} times as fast as the previous" if i else ""
        axes.text(times[i] * 1.1, i, f"{_ms(rung.cell)} ms{gained}{below}", va="center", fontsize=8, bbox=paper)
        axes.text(least * 1.05, i - 0.4, rung.change, va="center", fontsize=7, color="#444444", bbox=paper)
    bound = row.timed[0].flops / run.peak_gflops / 1e6
    axes.axvline(bound, color="black", linestyle="--", linewidth=1, zorder=0)
    axes.text(bound, len(ladder) - 0.45, f" {number(bound)} ms: direct convolution at the measured peak", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(least, max(times) * 50)
    axes.set_ylim(len(ladder) - 0.2, -0.8)
    axes.set_yticks(range(len(ladder)), [rung.cell.algorithm for rung in ladder])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("ms (log scale)")
    axes.set_title(
        f"{row.shape.geometry}, {row.pass_name}, {threads_said(run.threads)} on {run.processor}",
        loc="left",
        fontsize=10,
    )
    return figure
