"""`nnlite explain [MODEL...]`: time networks and explain the differences."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnlite import conv
from nnlite.explain import Explanation, case_study, screen, sweeps
from nnlite.explain.case import RANDOM
from nnlite.explain.document import Document
from nnlite.explain.measure import explain_networks
from nnlite.explain.request import MODEL_HELP, add_autotune_argument, add_data_arguments, resolve_networks
from nnlite.explain.rows import ROUNDS
from nnlite.lab.check import check
from nnlite.lab.loading import load_algorithms
from nnlite.lab.table import to_rich
from nnlite.lab.terminal import Line, command_line, console
from nnlite.network import datasets
from nnlite.network.progress import announce_compilation
from nnlite.runtime.errors import writable_folder
from nnlite.runtime.files import write_json

if TYPE_CHECKING:
    from rich.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help=f"{MODEL_HELP} (default: {', '.join(case_study.PARAMETERS)}). nnlite summary MODEL lists the layers",
    )
    parser.add_argument(
        "--baseline", metavar="NAME", help="the network that ratios are relative to (default: the first)"
    )
    parser.add_argument(
        "--algorithm",
        default="auto",
        metavar="NAME",
        help="algorithm of all convolutions: a name, or FILE.py:CLASS (default: auto, compared with im2col)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=ROUNDS,
        metavar="N",
        help="timed steps of each network (default: %(default)s, the fewest that give intervals)",
    )
    parser.add_argument("--details", action="store_true", help="print every table, layer by layer")
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="NAME",
        help=f"also vary one property: {', '.join(sweeps.names())} or all; may be repeated",
    )
    parser.add_argument(
        "--ladder", action="store_true", help="also time the CNN's second convolution with every algorithm"
    )
    parser.add_argument(
        "--out", default="nnlite-report", metavar="DIR", help="folder for the report (default: %(default)s)"
    )
    parser.add_argument("--png", action="store_true", help="write the figures as PNG files too, not only as SVG")
    add_autotune_argument(parser)
    add_data_arguments(parser, RANDOM)


def run(options: argparse.Namespace) -> int:
    """Measure, print the first screen, write explain.json and the report. 1: a refused algorithm. 130: interrupted."""
    if ".py:" in options.algorithm:
        (own,) = load_algorithms([options.algorithm])
        found = check(own, seed=options.seed)
        if found.refused:
            print(f"nnlite: algorithm {own.name} is refused: {found.refusal}", file=sys.stderr)
            return 1
        options.algorithm = own.name
    if options.autotune and options.algorithm != "auto":
        raise ValueError(f"--autotune: expected only with --algorithm auto. Received: {options.algorithm}")
    networks = resolve_networks(options.models or list(case_study.PARAMETERS))
    data = None if options.data == RANDOM else datasets.load(options.data, data_dir=options.data_dir)[0]
    sweeps.chosen(options.sweep)
    writable_folder("--out", options.out)
    announce_compilation()
    conv.autotune(options.autotune)
    with Line() as line:
        document = explain_networks(
            networks,
            data,
            data_name=options.data,
            algorithm=options.algorithm,
            baseline=options.baseline,
            batch_size=options.batch_size,
            rounds=options.rounds,
            seed=options.seed,
            command=command_line(),
            say=line.say,
        )
    out = console()
    screen.show(document, out, details=options.details)
    written = _write(document, options)
    try:
        document = _extend(document, options, out)
    finally:
        if document.sweeps or document.ladder:
            written = _write(document, options)
        out.print(written, soft_wrap=True)
    return 130 if document.rounds < options.rounds else 0


def _extend(document: Document, options: argparse.Namespace, out: Console) -> Document:
    """Add the sweeps and the ladder that were asked for. They take minutes."""
    from nnlite.explain import tables

    for name in sweeps.chosen(options.sweep):
        result = sweeps.run(name, algorithm=options.algorithm, batch_size=options.batch_size, seed=options.seed)
        document.sweeps.append(result)
        out.print(to_rich(tables.sweep(result)))
        for finding in result["findings"]:
            out.print(f"- {finding}")
    if options.ladder:
        document = replace(document, **_ladder(options.batch_size, out))
    return document


def _ladder(batch_size: int, out: Console) -> dict[str, Any]:
    """Time every correct algorithm, the slowest first; "scaled" if it was timed on a slice of the work."""
    from nnlite.lab import ladder

    shape = ladder.usual_shape(batch_size)
    rungs, run = ladder.climb(shape)
    out.print(ladder.table(rungs, run))
    cells = [(rung.cell, rung.change) for rung in rungs]
    found = [{"name": c.algorithm, "ms": c.median_ms, "changes": how, "scaled": c.scale != 1} for c, how in cells]
    return {"ladder_layer": str(shape.geometry), "ladder": found}


def _write(document: Document, options: argparse.Namespace) -> str:
    """Write explain.json and the report. Returns the line that names them."""
    Explanation(document).save(options.out, png=options.png)
    if options.json:
        write_json(options.json, document.to_json())
    out = Path(options.out)
    return f"Details: --details; the report: {out / 'report.html'}; all numbers: {out / 'explain.json'}"
