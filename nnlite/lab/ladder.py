"""The ladder: all algorithms at one shape and pass, from the slowest to the fastest."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nnlite import conv
from nnlite.lab import results
from nnlite.lab.bench import bench
from nnlite.lab.numbers import short
from nnlite.lab.results import Row, Run
from nnlite.lab.shapes import Shape, resolve
from nnlite.lab.table import Cell, Table, to_rich
from nnlite.lab.tables import milliseconds_of, percent
from nnlite.performance.contention import caution

if TYPE_CHECKING:
    from rich.table import Table as RichTable


#: seconds for timing all algorithms
SECONDS = 20.0


class Rung(NamedTuple):
    """An algorithm, a sentence about it, and its speedup over the next slower and over the slowest algorithm."""

    cell: results.Cell
    change: str
    over_below: float
    over_first: float


def usual_shape(batch_size: int) -> Shape:
    """The default layer of the ladder: the CNN's second convolution."""
    return next(shape for shape in resolve(["seed"], batch_size) if shape.name == "cnn conv2d_1")


def climb(shape: Shape) -> tuple[list[Rung], Run]:
    """Time the forward pass of every correct algorithm at this shape.

    Raises KeyboardInterrupt if it is interrupted: an incomplete ladder is of no use.
    """
    algorithms = [conv.get(name) for name in conv.names()]
    run = bench(algorithms, [shape], ["forward"], seconds=SECONDS)
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


def table(ladder: Sequence[Rung], run: Run) -> RichTable:
    """One line per algorithm, the slowest first."""
    row = run.rows[0]
    rows = [
        [
            Cell(rung.cell.algorithm),
            Cell(milliseconds_of(rung.cell), rung.cell.median_ms),
            Cell(short(rung.over_below) if i else "", rung.over_below),
            Cell(short(rung.over_first) if i else "", rung.over_first),
            Cell(percent(rung.cell), rung.cell.percent_of_peak),
            Cell(rung.change),
        ]
        for i, rung in enumerate(ladder)
    ]
    legend = "~: scaled from a slice of the work. eff: counts the FLOPs of direct convolution."
    title = f"The ladder: {row.shape.geometry}, {row.pass_name}"
    columns = ["algorithm", "ms", "x previous", "x first", "of peak", "what it does"]
    return to_rich(Table(title, columns, rows, [" ".join([*caution(run.others_share), legend])]))
