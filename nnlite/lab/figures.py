"""Figures of a run: a heat map of times, and bar charts of rates relative to the peak."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnlite.lab.numbers import short
from nnlite.lab.results import Row, Run
from nnlite.lab.tables import milliseconds_of, percent
from nnlite.runtime.files import write_whole
from nnlite.runtime.scopes import PART_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: safe for colour-blind readers (Okabe and Ito, 2008)
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#999999"
#: behind a text; keeps the peak's line off it
_PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
_CENTRED: dict[str, Any] = {"ha": "center", "va": "center"}
#: the ratio at which the heat map's colours end
_MOST_RATIO = 16


def draw(run: Run, folder: Path) -> list[str]:
    """Write bench-heatmap and bench-bars as SVG and PNG. Returns the paths; none if nothing was timed."""
    rows = [row for row in run.rows if row.timed]
    if not rows:
        return []
    return [*write(heat_map(rows), folder / "bench-heatmap"), *write(bars(rows, run), folder / "bench-bars")]


def write(figure: Figure, path: Path) -> list[str]:
    """Write a figure as SVG and PNG. Returns the paths; `path` has no suffix."""
    written = []
    for suffix in ("svg", "png"):
        drawn = BytesIO()
        figure.savefig(drawn, format=suffix, dpi=150, bbox_inches="tight")
        written.append(f"{path}.{suffix}")
        write_whole(written[-1], drawn.getvalue())
    return written


def blank(width: float, height: float) -> Figure:
    """A figure of `width` by `height` inches that needs no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def heat_map(rows: list[Row]) -> Figure:
    """One line per shape and pass, one column per algorithm: ms, coloured by the ratio to the baseline."""
    names = list(dict.fromkeys(cell.algorithm for row in rows for cell in row.cells))
    ratios = np.full((len(rows), len(names)), np.nan)
    for i, row in enumerate(rows):
        for cell in row.timed:
            assert cell.ratio is not None
            ratios[i, names.index(cell.algorithm)] = cell.ratio.value
    from matplotlib import colormaps

    figure = blank(2.6 + 0.95 * len(names), 1.6 + 0.42 * len(rows))
    axes = figure.add_subplot()
    limit = np.log2(_MOST_RATIO)
    # purple is faster; the order is visible to colour-blind readers
    colours = colormaps["PuOr_r"].with_extremes(bad="#f2f2f2")
    image = axes.imshow(np.log2(ratios), cmap=colours, vmin=-limit, vmax=limit, aspect="auto")
    for i, row in enumerate(rows):
        for cell in row.cells:
            column = names.index(cell.algorithm)
            if cell.status == "timed":
                light = "white" if abs(np.log2(ratios[i, column])) > 0.55 * limit else "black"
                weight = "bold" if cell.best else "normal"
                axes.text(column, i, milliseconds_of(cell), fontsize=9, weight=weight, color=light, **_CENTRED)
            else:
                axes.text(column, i, cell.status, fontsize=7, color="#666666", **_CENTRED)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), [f"{row.shape.name}, {PART_NAMES[row.pass_name]}" for row in rows])
    axes.tick_params(length=0)
    axes.set_title("Time in ms. Bold: the fastest. ~: scaled from a slice of the work", loc="left", fontsize=11)
    bar = figure.colorbar(image, ax=axes, ticks=[-4, -2, 0, 2, 4], aspect=30, pad=0.01, extend="both")
    bar.set_ticklabels(["1/16", "1/4", "equal", "4x", "16x"])
    baselines = ", ".join(dict.fromkeys(str(row.baseline) for row in rows))
    bar.set_label(f"time relative to {baselines}")
    return figure


def bars(rows: list[Row], run: Run) -> Figure:
    """One panel per shape and pass, one bar per algorithm: GFLOP/s on a log scale; the measured peak is a line."""
    across = len(dict.fromkeys(row.pass_name for row in rows))
    down = -(-len(rows) // across)
    most = max(len(row.timed) for row in rows)
    figure = blank(4.4 * across, down * (0.75 + 0.2 * most))
    peak = run.peak_gflops
    least = min(cell.gflops for row in rows for cell in row.timed)
    for i, row in enumerate(rows):
        axes = figure.add_subplot(down, across, i + 1)
        cells = row.timed
        colours = [ORANGE if cell.best else GREY if cell.scale != 1 else BLUE for cell in cells]
        drawn = axes.barh([cell.algorithm for cell in cells], [cell.gflops for cell in cells], color=colours)
        axes.bar_label(drawn, [f"{short(c.gflops)} ({percent(c)})" for c in cells], fontsize=7, padding=3, bbox=_PAPER)
        axes.axvline(peak, color="black", linewidth=1, linestyle="--")
        axes.set_xscale("log")
        axes.set_xlim(least / 2, peak * 30)
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize=8, length=0)
        axes.tick_params(axis="x", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{row.shape.name}, {PART_NAMES[row.pass_name]}", fontsize=9, loc="left")
    figure.suptitle(
        f"GFLOP/s of direct convolution (percent of the peak); dashed: the measured FMA peak, {peak:.0f} GFLOP/s\n"
        "orange: the fastest; grey: scaled from a slice; above the peak: fewer FLOPs than direct convolution",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    return figure
