"""`nnlite bench`: check and time convolution algorithms."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from nnlite import conv
from nnlite.lab import diff, race, reference, roofline, shapes, tables, timing, versions, watch
from nnlite.lab import options as options_of
from nnlite.lab.bench import SECONDS, bench
from nnlite.lab.loading import load_algorithms, named
from nnlite.lab.options import Extra
from nnlite.lab.results import Run, write_csv
from nnlite.lab.sweep import LEAST_ROUNDS, Sweep
from nnlite.lab.table import to_rich
from nnlite.lab.terminal import Bar, console
from nnlite.network.progress import announce_compilation
from nnlite.performance import peaks
from nnlite.runtime.errors import positive_int, unknown, writable_file, writable_folder
from nnlite.runtime.files import write_json

#: images per step of the layers of the question
BATCH_SIZE = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--algorithm",
        action="append",
        default=[],
        metavar="FILE.py:CLASS",
        help="also check and time your own algorithm, with parameters as FILE.py:'CLASS(rows=6)'; may be repeated",
    )
    parser.add_argument("--only", metavar="NAME,...", help="built-in algorithms to run (default: all)")
    parser.add_argument(
        "--sweep",
        nargs="?",
        const="",
        metavar="NAME,...",
        help="time every combination of one algorithm's parameters (NAME: only these); --only or --algorithm names the "
        "algorithm",
    )
    parser.add_argument(
        "--shapes",
        action="append",
        metavar="SET",
        help=f"layers: {', '.join(shapes.SETS)}, all, or N,C,H,W,K,R,S,stride,pad; may be repeated (default: seed)",
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help=f"images per step, for the set seed (default: {BATCH_SIZE})"
    )
    parser.add_argument(
        "--passes",
        metavar="PASS,...",
        help=f"passes to time: {', '.join(reference.PASSES)} (default: the first three)",
    )
    parser.add_argument(
        "--baseline", metavar="NAME", help="the algorithm that ratios are relative to (default: im2col)"
    )
    parser.add_argument(
        "--rounds", type=int, default=timing.ROUNDS, metavar="N", help="timed rounds (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        metavar="S",
        help="seconds of timing per shape and pass, on average (default: %(default)s); may reduce the rounds",
    )
    parser.add_argument("--csv", metavar="PATH", help="write the results to this file, as CSV")
    parser.add_argument("--figures", metavar="DIR", help="folder for a heat map and bar charts, as SVG and PNG")
    options_of.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Check and time. 0: done. 1: an algorithm of --algorithm is refused, or slower. 130: interrupted."""
    options_of.check(options)
    if options.diff:
        console().print(to_rich(diff.table(*map(diff.read, options.diff))))
        return 0
    if options.watch:
        return _watch(options)
    before = versions.fill_options(options) if options.compare else []
    own = load_algorithms(options.algorithm)
    sweep = _sweep(options, own)
    others = [] if before and options.only is None else _others(options.only, own)
    algorithms = list(sweep.combinations.values()) if sweep else [*before, *others, *own]
    passes = _passes(options.passes)
    fewest = LEAST_ROUNDS if sweep else timing.COMPARED_ROUNDS if before else timing.LEAST_ROUNDS
    positive_int("--rounds", options.rounds, minimum=fewest)
    if not options.seconds > 0:
        raise ValueError(f"--seconds: expected more than 0. Received: {options.seconds}")
    wanted = _shapes(options)
    if options.baseline is not None and options.baseline not in [a.name for a in algorithms]:
        raise unknown("--baseline", options.baseline, [a.name for a in algorithms])
    if before:
        versions.check_comparable(options.compare, before, [*others, *own])
    writable_file("--csv", options.csv)
    if options.save is not None:
        writable_folder("--save", versions.FOLDER)
    if options.figures is not None:
        writable_folder("--figures", options.figures)
    announce_compilation()
    machine = peaks.measure() if options.roofline else None
    with Bar() as bar:
        result = bench(
            algorithms,
            wanted,
            passes,
            baseline=sweep.default if sweep else options.baseline or (before[0].name if before else None),
            compare=race.race if sweep else None,
            rounds=options.rounds,
            fewest=fewest,
            seconds=options.seconds,
            seed=options.seed,
            bar=bar,
            machine=machine,
        )
    _print(result, sweep)
    extra = options_of.results(result, options, machine)
    for table in extra.tables:
        print()
        console().print(to_rich(table))
    for path in _write(result, options, sweep, extra, own):
        print(f"wrote {path}", flush=True)
    refused = any(sweep or report.algorithm in [a.name for a in own] for report in result.refused)
    if extra.slower or refused:
        return 1
    return 130 if result.interrupted else 0


def _shapes(options: argparse.Namespace) -> list[shapes.Shape]:
    requests = options.shapes or ["seed"]
    if options.batch_size is None:
        return shapes.resolve(requests, BATCH_SIZE)
    if not {"seed", "all"} & set(requests):
        received = f"{options.batch_size} with --shapes {' '.join(requests)}, which include a batch size"
        raise ValueError(f"--batch-size: expected only with --shapes seed or all. Received: {received}")
    return shapes.resolve(requests, positive_int("--batch-size", options.batch_size))


def _watch(options: argparse.Namespace) -> int:
    options.shapes = options.shapes or [watch.SHAPE]
    options.passes = options.passes or watch.PASS
    passes = _passes(options.passes)
    positive_int("--rounds", options.rounds, minimum=timing.COMPARED_ROUNDS)
    announce_compilation()
    return watch.run(options, [(shape.geometry, name) for shape in _shapes(options) for name in passes])


def _passes(request: str | None) -> list[str]:
    names = _listed(request) if request else list(conv.PASSES)
    for name in names:
        if name not in reference.PASSES:
            raise unknown("--passes", name, reference.PASSES)
    return names


def _others(only: str | None, own: list[conv.Algorithm]) -> list[conv.Algorithm]:
    """The registered algorithms that --only selects, without the user's own."""
    found = [named("--only", name) for name in (conv.names() if only is None else _listed(only))]
    return [algorithm for algorithm in found if algorithm.name not in [a.name for a in own]]


def _sweep(options: argparse.Namespace, own: list[conv.Algorithm]) -> Sweep | None:
    """What --sweep asks for; None without it."""
    if options.sweep is None:
        return None
    if options.baseline is not None:
        what = "none with --sweep, whose baseline is the default"
        raise ValueError(f"--baseline: expected {what}. Received: {options.baseline}")
    names = _listed(options.sweep) if options.sweep else []
    found = Sweep(own + (_others(options.only, own) if options.only else []), names)
    if options.figures is not None and len(found.values) != 2:
        raise ValueError(f"--figures: expected two parameters with --sweep. Received: {', '.join(found.values)}")
    return found


def _listed(text: str) -> list[str]:
    """The names in a list with commas, each once; a comma in parentheses is part of a name."""
    return list(dict.fromkeys(part.strip() for part in re.split(r",(?![^(]*\))", text)))


def _print(result: Run, sweep: Sweep | None) -> None:
    out = console()
    for sentence in (sweep or tables).checks(result):
        out.print(sentence)
    for row in result.rows:
        if result.interrupted and not row.timed:
            continue
        out.print()
        if sweep:
            out.print(sweep.answer(row))
        for table in sweep.tables(row) if sweep else [tables.row_table(row)]:
            out.print(to_rich(table))
    out.print()
    for sentence in tables.remarks(result):
        out.print(f"- {sentence}")


def _write(
    result: Run, options: argparse.Namespace, sweep: Sweep | None, extra: Extra, own: list[conv.Algorithm]
) -> Iterator[str]:
    """Write what is asked for. Yields each path as soon as it is written."""
    if options.json:
        write_json(options.json, sweep.to_dict(result) if sweep else {**result.to_dict(), **extra.content})
        yield options.json
    if options.csv:
        write_csv(result.rows, Path(options.csv))
        yield options.csv
    if options.figures:
        from nnlite.lab import figures

        folder = Path(options.figures)
        yield from (sweep or figures).draw(result, folder)
        if extra.points and extra.machine:
            yield from figures.write(roofline.draw(extra.points, extra.machine), folder / "bench-roofline")
    yield from options_of.save(result, options, own)
