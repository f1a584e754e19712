"""The options of `nnlite bench` for versions, watching, machines and rooflines, and what they add to the results."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nnlite.conv import Algorithm
from nnlite.lab import roofline, timing, versions, watch
from nnlite.lab.results import Run
from nnlite.lab.table import Table
from nnlite.performance.peaks import Machine

#: options that choose another job -> the options that can be given with them
_ALONE = {
    "watch": ("shapes", "passes", "batch_size", "rounds", "seed", "threads"),
    "diff": (),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
        f"so far; one line each, until Ctrl-C. Each version that is correct is kept in {versions.FOLDER}/CLASS-NUMBER. "
        "Numba's cache=True does not see changes in imported files: leave it out. "
        f"Default: --shapes {watch.SHAPE} --passes {watch.PASS}; of several, the sum of the times",
    )
    group.add_argument(
        "--diff", nargs=2, metavar=("A.json", "B.json"), help="show two files of --json side by side: of two machines"
    )
    parser.set_defaults(default_of=parser.get_default)


def check(options: argparse.Namespace) -> None:
    """Raises ValueError for options that make no sense together."""
    given = [name for name in vars(options) if getattr(options, name) != options.default_of(name)]
    for job, allowed in _ALONE.items():
        if job in given:
            for other in given:
                if other not in (job, *allowed):
                    raise ValueError(f"--{job}: expected no {_said(other)} with it. Received: both")
    for other in ("save", "compare", "roofline") if options.sweep is not None else ():
        if other in given:
            raise ValueError(f"--sweep: expected no {_said(other)} with it. Received: both")
    if options.save is not None:
        versions.check_free(options.save)
        if not options.algorithm:
            raise ValueError("--save: expected --algorithm FILE.py:CLASS, whose source is kept. Received: none")
    if options.fail_slower is not None:
        if not options.compare:
            raise ValueError("--fail-slower: expected --compare NAME with it. Received: no --compare")
        if not options.fail_slower >= 0:
            raise ValueError(f"--fail-slower: expected a percentage of at least 0. Received: {options.fail_slower}")


def _said(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@dataclass
class Extra:
    """What these options add to a run's results: tables, content of the JSON, points of the roofline plot."""

    tables: list[Table] = field(default_factory=list)
    content: dict[str, Any] = field(default_factory=dict)
    points: list[roofline.Point] = field(default_factory=list)
    machine: Machine | None = None  # of the roofline
    slower: bool = False  # than --fail-slower allows, or nothing was compared


def results(run: Run, options: argparse.Namespace, machine: Machine | None) -> Extra:
    """The results that are asked for by --compare, and by --roofline: it has `machine` measured."""
    extra = Extra(machine=machine)
    if options.compare:
        found = versions.compare(run, options.compare, options.fail_slower)
        extra.slower = any(pair.fails for pair in found) or (options.fail_slower is not None and not found)
        extra.content["versions"] = [asdict(pair) for pair in found]
        extra.tables.append(versions.table(found, options.fail_slower))
    if machine:
        extra.points = roofline.points(run, machine)
        extra.content["roofline"] = [point.to_dict() for point in extra.points]
        extra.content["machine"] = machine.to_dict()
        extra.tables += roofline.tables(extra.points, machine)
    return extra


def save(run: Run, options: argparse.Namespace, own: Sequence[Algorithm]) -> list[str]:
    """Keep the run if --save asks for it. Returns the folder."""
    if options.save is None:
        return []
    if run.interrupted or any(report.algorithm in [a.name for a in own] for report in run.refused):
        print(f"not saved as {options.save}: the run was interrupted or an algorithm was refused")
        return []
    given = {name: getattr(options, name) for name in versions.OPTIONS}
    by_spec = dict(zip(dict.fromkeys(options.algorithm), own, strict=True))
    return [str(versions.save(options.save, by_spec, {**run.to_dict(), "options": given}))]
