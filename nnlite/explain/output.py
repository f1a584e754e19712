"""What `nnlite explain` writes: explain.json completed with this run's facts, sweeps and ladder; the report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnlite import machine
from nnlite.datasets import Arrays
from nnlite.explain import report, sweeps
from nnlite.explain.structure import structure
from nnlite.explain.verdict import Verdict
from nnlite.files import write_json
from nnlite.lab.terminal import command_line
from nnlite.model import Sequential

if TYPE_CHECKING:
    from rich.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--sweep, --ladder and --out."""
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="NAME",
        help=f"vary one property as well: {', '.join(sweeps.names())} or all; may be repeated",
    )
    parser.add_argument("--ladder", action="store_true", help="time the CNN's second layer by every algorithm as well")
    parser.add_argument("--out", default="nnlite-report", metavar="DIR", help="where to write (default: nnlite-report)")


def describe(
    content: dict[str, Any], models: Sequence[Sequential], verdict: Verdict, options: argparse.Namespace
) -> None:
    """Add the layers' shapes, the verdict and this run's facts to explain.json's content."""
    described = {model.name: structure(model, options.batch_size) for model in models}
    for group in (content["models"], *content["comparisons"].values()):
        for entry in group:
            entry["structure"] = described[entry["name"]]
    content |= {"verdict": verdict, "run": _facts(), "sweeps": [], "ladder_layer": None, "ladder": None}


def _facts() -> dict[str, Any]:
    """What one has to know to run this again."""
    return {
        "command": command_line(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "processor": machine.processor_name(),
        "versions": machine.versions(),
    }


def write(content: dict[str, Any], data: Arrays, options: argparse.Namespace, console: Console) -> None:
    """explain.json, the report and its pictures in --out, and the JSON where --json says as well; sweeps are of `data`.

    It is written before the sweeps and the ladder, which take minutes, and again with those that were measured until
    one of them fails or is interrupted.
    """
    written = _write(content, options)
    try:
        for name in sweeps.chosen(options.sweep):
            content["sweeps"].append(_sweep(name, data, options, console))
        if options.ladder:
            content |= _ladder(options.batch_size, console)
    finally:
        if content["sweeps"] or content["ladder"]:
            written = _write(content, options)
        for line in written:
            console.print(line)


def _write(content: dict[str, Any], options: argparse.Namespace) -> list[str]:
    """Write everything as it is by now; what was written, a line each."""
    out = Path(options.out)
    paths = [out / "explain.json", *([Path(options.json)] if options.json else [])]
    for path in paths:
        write_json(path, content)
    page, *pictures = report.write(content, out)
    return [*(f"wrote {path}" for path in paths), f"wrote {page} and {len(pictures)} pictures beside it"]


def _sweep(name: str, data: Arrays, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nnlite.explain import tables

    result = sweeps.run(name, *data, algorithm=options.algorithm, batch_size=options.batch_size)
    console.print(tables.sweep(result))
    for finding in result["findings"]:
        console.print(f"- {finding}")
    return result


def _ladder(batch_size: int, console: Console) -> dict[str, Any]:
    """Every algorithm that is right, the slowest first; "scaled" if it was timed on a slice of the work."""
    from nnlite.lab import ladder

    shape = ladder.usual_shape(batch_size)
    rungs, run = ladder.climb(shape)
    console.print(ladder.table(rungs, run))
    found = [
        {
            "name": rung.cell.algorithm,
            "ms": rung.cell.median_ms,
            "changes": rung.change,
            "scaled": rung.cell.scale != 1,
        }
        for rung in rungs
    ]
    return {"ladder_layer": str(shape.geometry), "ladder": found}
