"""`nnlite bench`: check and time convolution algorithms."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnlite import conv
from nnlite.lab import reference, roofline, shapes, tables, timing, versions, watch
from nnlite.lab.bench import SECONDS, bench
from nnlite.lab.loading import load_algorithms, named
from nnlite.lab.results import Run, write_csv
from nnlite.lab.sweep import LEAST_ROUNDS, Sweep, race
from nnlite.lab.table import Table, to_rich
from nnlite.lab.terminal import console
from nnlite.network.progress import announce_compilation
from nnlite.performance import peaks
from nnlite.performance.peaks import Machine
from nnlite.runtime.errors import positive_int, unknown, writable_file, writable_folder
from nnlite.runtime.files import write_json

#: images per step of the layers of the question
BATCH_SIZE = 128
#: options that choose another job -> the options that make no sense with them
_WATCHES = {"shapes", "passes", "batch_size", "rounds", "seed", "threads"}
_ALONE = {
    "diff": lambda other: True,
    "watch": lambda other: other not in _WATCHES,
    "sweep": lambda other: other in ("save", "compare", "roofline", "baseline"),
}


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
    parser.add_argument(
        "--roofline",
        action="store_true",
        help="also say which measured roof (FMA peak, bandwidth of a cache level or of memory) is above each algorithm "
        "and pass, and how near it is; with --figures as a plot",
    )
    group = parser.add_argument_group("versions and machines")
    group.add_argument(
        "--save",
        metavar="NAME",
        help=f"keep this run and the sources of --algorithm in {versions.FOLDER}/NAME in the current folder: each file "
        "and the files beside it that it imports",
    )
    group.add_argument(
        "--compare",
        action="append",
        metavar="NAME",
        help="time the saved source, as ALGORITHM@NAME, in the same rounds as today's; it is the baseline. "
        "--algorithm, --shapes, --passes and --batch-size are the saved run's if not given; built-in algorithms take "
        f"part only with --only; at least {timing.COMPARED_ROUNDS} rounds. May be repeated",
    )
    group.add_argument(
        "--fail-slower",
        type=float,
        metavar="PERCENT",
        help="with --compare: exit status 1 if an algorithm is slower than its saved version by more than this: the "
        "whole interval, and more than the A/A noise",
    )
    group.add_argument(
        "--watch",
        metavar="FILE.py:CLASS",
        help="check and time the algorithm now and whenever the file is saved, beside the version before and the best "
        f"so far; one line each, until Ctrl-C. Each version that is correct is kept in {versions.FOLDER}/CLASS-NUMBER, "
        "and a later watch goes on from there. Numba's cache=True does not see changes in imported files: leave it "
        f"out. Default: --shapes {watch.SHAPE} --passes {watch.PASS}; of several, the sum of the times",
    )
    group.add_argument(
        "--diff", nargs=2, metavar=("A.json", "B.json"), help="show two files of --json side by side: of two machines"
    )
    parser.set_defaults(default_of=parser.get_default)


def run(options: argparse.Namespace) -> int:
    """Check and time. 0: done. 1: an algorithm of --algorithm is refused, or slower. 130: interrupted."""
    _check(options)
    if options.diff:
        console().print(to_rich(versions.side_by_side(*map(versions.read_run, options.diff))))
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
    result = bench(
        algorithms,
        wanted,
        passes,
        baseline=sweep.default if sweep else options.baseline or (before[0].name if before else None),
        compare=race if sweep else None,
        rounds=options.rounds,
        fewest=fewest,
        seconds=options.seconds,
        seed=options.seed,
        machine=machine,
        one_slice=bool(sweep or before),
    )
    _print(result, sweep)
    content = sweep.to_dict(result) if sweep else result.to_dict()
    found: list[Table] = []
    slower = False
    if options.compare:
        pairs = versions.compare(result, options.compare, options.fail_slower)
        slower = any(pair.fails for pair in pairs) or (options.fail_slower is not None and not pairs)
        content["versions"] = [asdict(pair) for pair in pairs]
        found.append(versions.table(pairs, options.fail_slower))
    if machine:
        points = roofline.points(result, machine)
        content |= {"roofline": [point.to_dict() for point in points], "machine": machine.to_dict()}
        found += roofline.tables(points, machine)
    for table in found:
        print()
        console().print(to_rich(table))
    for path in _write(result, content, options, sweep, machine):
        print(f"wrote {path}", flush=True)
    refused = [report for report in result.refused if sweep or report.algorithm in [a.name for a in own]]
    if options.save is not None and (refused or result.interrupted):
        print(f"not saved as {options.save}: the run was interrupted or an algorithm was refused")
    elif options.save is not None:
        given = {name: getattr(options, name) for name in versions.OPTIONS}
        sources = dict(zip(dict.fromkeys(options.algorithm), [a.name for a in own], strict=True))
        print(f"wrote {versions.save(options.save, sources, {**result.to_dict(), 'options': given})}")
    if slower or refused:
        return 1
    return 130 if result.interrupted else 0


def _check(options: argparse.Namespace) -> None:
    """Raises ValueError for options that make no sense together."""
    given = [name for name in vars(options) if getattr(options, name) != options.default_of(name)]
    for job, is_refused in _ALONE.items():
        for other in given if job in given else ():
            if other != job and is_refused(other):
                raise ValueError(f"--{job}: expected no --{other.replace('_', '-')} with it. Received: both")
    if options.save is not None:
        versions.check_free(options.save)
        if not options.algorithm:
            raise ValueError("--save: expected --algorithm FILE.py:CLASS, whose source is kept. Received: none")
    if options.fail_slower is not None:
        if not options.compare:
            raise ValueError("--fail-slower: expected --compare NAME with it. Received: no --compare")
        if not options.fail_slower >= 0:
            raise ValueError(f"--fail-slower: expected a percentage of at least 0. Received: {options.fail_slower}")


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
    wanted, passes = _shapes(options), _passes(options.passes)
    positive_int("--rounds", options.rounds, minimum=timing.COMPARED_ROUNDS)
    announce_compilation()
    return watch.run(options, wanted, passes)


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
    result: Run, content: dict[str, Any], options: argparse.Namespace, sweep: Sweep | None, machine: Machine | None
) -> Iterator[str]:
    """Write the files that are asked for. Yields each path as soon as it is written."""
    if options.json:
        write_json(options.json, content)
        yield options.json
    if options.csv:
        write_csv(result.rows, Path(options.csv))
        yield options.csv
    if options.figures:
        from nnlite.lab import figures

        folder = Path(options.figures)
        yield from (sweep or figures).draw(result, folder)
        if machine and (points := roofline.points(result, machine)):
            yield from figures.write(roofline.draw(points, machine), folder / "bench-roofline")
