"""What `nnlite explain` writes: explain.json completed with this run's facts, sweeps and ladder; the report."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnlite import conv, machine
from nnlite.explain import report, sweeps
from nnlite.explain.structure import structure
from nnlite.model import Sequential

if TYPE_CHECKING:
    from rich.console import Console

#: images, channels, rows, columns, filters, kernel, strides and padding of the CNN's second convolution
LADDER_SHAPE = "128,32,26,26,64,3,3,1,0"


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


def complete(
    content: dict[str, Any],
    models: Sequence[Sequential],
    verdict: Sequence[str],
    options: argparse.Namespace,
    console: Console,
) -> None:
    """Add to explain.json's content the layers' shapes, the verdict, this run's facts, and what was asked besides."""
    described = {model.name: structure(model, options.batch_size) for model in models}
    for group in (content["models"], *content["comparisons"].values()):
        for entry in group:
            entry["structure"] = described[entry["name"]]
    content |= {
        "verdict": list(verdict),
        "run": _facts(),
        "sweeps": [_sweep(name, options, console) for name in sweeps.chosen(options.sweep)],
        "ladder": _ladder(options, console) if options.ladder else None,
    }


def write(content: dict[str, Any], options: argparse.Namespace, console: Console) -> None:
    """explain.json, the report and its pictures in --out; the JSON where --json says as well."""
    out = Path(options.out)
    text = json.dumps(content, indent=1) + "\n"
    for path in (out / "explain.json", *([Path(options.json)] if options.json else [])):
        path.write_text(text)
        console.print(f"wrote {path}", highlight=False)
    written = report.write(content, out)
    console.print(f"wrote {written[0]} and {len(written) - 1} pictures beside it", highlight=False)


def _facts() -> dict[str, Any]:
    """What one has to know to run this again."""
    return {
        "command": shlex.join(["nnlite", *sys.argv[1:]]),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "processor": machine.processor_name(),
        "versions": machine.versions(),
    }


def _sweep(name: str, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nnlite.explain import tables

    result = sweeps.run(
        name,
        algorithm=options.algorithm,
        batch_size=options.batch_size,
        data=options.data,
        data_dir=options.data_dir,
    )
    console.print(tables.sweep(result))
    for finding in result["findings"]:
        console.print(f"- {finding}", highlight=False)
    return result


def _ladder(options: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Every algorithm that is right, the slowest first; "scaled" if it was timed on a slice of the work."""
    from nnlite.lab import ladder
    from nnlite.lab.bench import bench
    from nnlite.lab.shapes import resolve

    algorithms = [conv.get(name) for name in conv.names()]
    run = bench(algorithms, resolve([LADDER_SHAPE], options.batch_size), ["forward"], seconds=20)
    rungs = ladder.rungs(run.rows[0])
    console.print(ladder.table(rungs, run))
    return [
        {
            "name": rung.cell.algorithm,
            "ms": rung.cell.median_ms,
            "changes": rung.change,
            "scaled": rung.cell.scale != 1,
        }
        for rung in rungs
    ]
