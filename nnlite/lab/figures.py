"""Figures of a run: a heat map of times, and bar charts of rates relative to the peak."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnlite.lab.numbers import short
from nnlite.lab.results import Row, Run
from nnlite.lab.tables import milliseconds_of, percent
from nnlite.runtime.files import write_whole
from nnlite.runtime.scopes import PART_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

#: safe for colour-blind readers (Okabe and Ito, 2008)
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#999999"
#: behind a text; keeps the peak's line off it
_PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
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


def heat(
    axes: Axes, ratios: np.ndarray, texts: list[list[str]], down: list[str], across: list[str], most: float
) -> AxesImage:
    """A heat map of ratios (down, across) with a text in each cell: bold after a star, faint in parentheses.

    The colours end at `most` and its reciprocal.
    """
    from matplotlib import colormaps

    limit = np.log2(most)
    faint = np.array([[text.startswith("(") for text in line] for line in texts])
    # purple is faster; the order is visible to colour-blind readers
    colours = colormaps["PuOr_r"].with_extremes(bad="#f2f2f2")
    alpha = np.where(faint, 0.4, 1.0)
    image = axes.imshow(np.log2(ratios), cmap=colours, vmin=-limit, vmax=limit, aspect="auto", alpha=alpha)
    for (y, x), ratio in np.ndenumerate(ratios):
        dark = abs(np.log2(ratio)) > 0.55 * limit and not faint[y, x]  # never of NaN
        font = {"size": 7 if np.isnan(ratio) else 9, "weight": "bold" if texts[y][x].startswith("*") else "normal"}
        axes.text(x, y, texts[y][x], font, color="white" if dark else "black", ha="center", va="center")
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    axes.tick_params(length=0)
    return image


def heat_map(rows: list[Row]) -> Figure:
    """One line per shape and pass, one column per algorithm: ms, coloured by the ratio to the baseline."""
    names = list(dict.fromkeys(cell.algorithm for row in rows for cell in row.cells))
    ratios = np.full((len(rows), len(names)), np.nan)
    texts = [[""] * len(names) for _ in rows]
    for i, row in enumerate(rows):
        for cell in row.cells:
            column = names.index(cell.algorithm)
            texts[i][column] = cell.status
            if cell.ratio is not None:
                ratios[i, column] = cell.ratio.value
                texts[i][column] = "* " * cell.best + milliseconds_of(cell)
    down = [f"{row.shape.name}, {PART_NAMES[row.pass_name]}" for row in rows]
    figure = blank(1.6 + 0.07 * max(map(len, down)) + 0.95 * len(names), 2.1 + 0.42 * len(rows))
    axes = figure.add_subplot()
    image = heat(axes, ratios, texts, down, names, _MOST_RATIO)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.set_title("Time in ms. *: the fastest. ~: scaled from a slice of the work", loc="left", fontsize=11)
    bar = figure.colorbar(image, ax=axes, ticks=[-4, -2, 0, 2, 4], aspect=30, pad=0.01, extend="both")
    bar.set_ticklabels(["1/16", "1/4", "equal", "4x", "16x"])
    baselines = ", ".join(dict.fromkeys(str(row.baseline) for row in rows))
    bar.set_label(f"relative to {baselines}")
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
