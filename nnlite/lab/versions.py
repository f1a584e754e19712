"""Versions of a user's algorithms: `nnlite bench --save NAME` keeps a run and its sources, `--compare NAME` loads them.

A version is a folder in FOLDER: the JSON of its run, and for each algorithm the user's file with the files beside it
that it imports.

`--diff A.json B.json` shows two runs side by side, of two machines or of one at two times.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple

from nnlite import conv
from nnlite.lab import tables
from nnlite.lab.loading import files_of, load_algorithm
from nnlite.lab.numbers import short, threads_said
from nnlite.lab.results import SCHEMA, Run
from nnlite.lab.table import MISSING, Cell, Table
from nnlite.lab.tables import ratio
from nnlite.lab.timing import COMPARED_ROUNDS
from nnlite.performance.statistics import Ratio, paired_ratio, verdict
from nnlite.runtime.errors import existing_file, unknown
from nnlite.runtime.files import write_json, write_whole
from nnlite.runtime.scopes import PART_NAMES

#: in the current folder, as nnlite explain's report is
FOLDER = Path("nnlite-bench")
_RUN = "run.json"
#: options of `nnlite bench` that --compare takes from the saved run if they are not given
OPTIONS = ("algorithm", "shapes", "batch_size", "passes")


def names() -> list[str]:
    """The saved versions, the oldest first."""
    found = sorted(FOLDER.glob(f"*/{_RUN}"), key=lambda path: (path.stat().st_mtime_ns, path))
    return [path.parent.name for path in found]


def check_free(name: str) -> None:
    """Raises ValueError unless a version can be saved under this name."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"--save: expected a name of letters, digits, '.', '_' and '-'. Received: {name!r}")
    if (FOLDER / name).exists():
        raise ValueError(
            f"--save: expected a new name. Received: {name!r}, which exists; to replace it, delete {FOLDER / name}"
        )


def folder_of(name: str, number: int) -> Path:
    """Of the files of a version's algorithm: the first, the second ..."""
    return FOLDER / name / str(number)


def save(name: str, algorithms: Mapping[str, str], content: dict[str, Any]) -> Path:
    """Save the user's algorithms (FILE.py:CLASS -> name), with the JSON of their run. Returns the folder."""
    check_free(name)
    sources = []
    for number, (spec, algorithm) in enumerate(algorithms.items(), 1):
        file, _, class_name = spec.partition(".py:")
        path = Path(f"{file}.py")
        for relative, source in files_of(path).items():
            copy = folder_of(name, number) / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_whole(copy, source)
        sources.append({"name": algorithm, "given_as": spec, "source": f"{number}/{path.name}:{class_name}"})
    write_json(FOLDER / name / _RUN, {**content, "sources": sources})  # last: a version without it is not complete
    return FOLDER / name


def read(name: str) -> dict[str, Any]:
    """The JSON of a version's run. Raises ValueError."""
    if name not in names():
        if not names():
            raise ValueError(f"--compare: expected a saved version. Received: {name!r}; there is none in {FOLDER}")
        raise unknown("--compare", name, names())
    path = FOLDER / name / _RUN
    try:
        content = json.loads(path.read_text())
        if not [entry["name"] + entry["source"] for entry in content["sources"]]:
            raise LookupError("no sources")
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"--compare {name}: expected the JSON of a run in {path}. Received: {error!r}") from error
    return content


def load(name: str) -> list[conv.Algorithm]:
    """The algorithms of a version, registered as `name@version`."""
    algorithms = []
    for entry in read(name)["sources"]:
        algorithm = load_algorithm(f"{FOLDER / name}/{entry['source']}", f"--compare {name}")
        algorithm.name = f"{entry['name']}@{name}"  # of this instance alone
        algorithms.append(conv.register(algorithm, replace=True))
    return algorithms


def fill_options(options: argparse.Namespace) -> list[conv.Algorithm]:
    """Load the versions of --compare. What the command line leaves open is as in the first of them."""
    loaded = [algorithm for name in dict.fromkeys(options.compare) for algorithm in load(name)]
    before = read(options.compare[0]).get("options", {})
    given = {option for option in OPTIONS if getattr(options, option)}
    if "shapes" in given:
        given.add("batch_size")  # the saved one belongs to the saved shapes
    for option in OPTIONS:
        if option not in given:
            setattr(options, option, before.get(option, options.default_of(option)))
    return loaded


def check_comparable(versions: Sequence[str], saved: Sequence[conv.Algorithm], today: Sequence[conv.Algorithm]) -> None:
    """Raises ValueError if none of today's algorithms has a saved version of its name."""
    known = [algorithm.name for algorithm in saved]
    if not any(f"{algorithm.name}@{version}" in known for algorithm in today for version in versions):
        received = ", ".join(algorithm.name for algorithm in today) or "none"
        expected = f"one of today's algorithms to have a saved version ({', '.join(known)})"
        raise ValueError(f"--compare: expected {expected}. Received: {received}")


# Comparing today's with a saved version ----------------------------------------------------------------------------


@dataclass
class Pair:
    """Today's algorithm relative to its saved version at a shape and pass, in the same rounds."""

    shape: str
    pass_name: str
    algorithm: str
    version: str
    ratio: Ratio
    verdict: str
    fails: bool  # by --fail-slower


def compare(run: Run, versions: Sequence[str], percent: float | None) -> list[Pair]:
    """Each algorithm that was timed beside a saved version of it. `percent`: of --fail-slower."""
    found = []
    for row in run.rows:
        timed = {cell.algorithm: cell.seconds for cell in row.timed}
        for version, name in product(dict.fromkeys(versions), timed):
            if before := timed.get(f"{name}@{version}"):
                ratio = paired_ratio(timed[name], before, fewest=COMPARED_ROUNDS)
                fails = False
                if percent is not None and row.noise is not None and ratio.low is not None:
                    fails = ratio.low > 1 + max(percent / 100, row.noise)
                place = row.shape.name, row.pass_name, name, version
                found.append(Pair(*place, ratio, verdict(ratio, row.noise), fails))
    return found


def table(pairs: Sequence[Pair], percent: float | None) -> Table:
    """One line per algorithm, shape and pass; and whether --fail-slower fails."""
    rows = [
        [
            *map(Cell, (f"{p.shape}, {PART_NAMES[p.pass_name]}", p.algorithm, p.version)),
            Cell(tables.ratio(p.ratio.value), p.ratio.value),
            *map(Cell, (tables.interval(p.ratio), p.verdict + (": FAILED" if p.fails else ""))),
        ]
        for p in pairs
    ]
    notes = ["Both were loaded and timed in the same rounds; below 1, today's source is faster."]
    if not pairs:
        notes = ["Nothing was compared: no algorithm was timed beside a saved one of its name."]
    elif percent is not None:
        notes.append(f"Slower by more than {percent:g}%: {sum(p.fails for p in pairs) or 'none'} of {len(pairs)}.")
    columns = ["layer and pass", "algorithm", "saved version", "x saved", "95%", "verdict"]
    return Table("Today's source relative to the saved one", columns, rows, notes)


# Two runs side by side: nnlite bench --diff A.json B.json ------------------------------------------------------------


#: (geometry, pass, algorithm) -> layer and pass in words, milliseconds, cells of the table
_Results = dict[tuple[str, str, str], tuple[str, float, list[Cell]]]


class Kept(NamedTuple):
    """A run that was written with --json."""

    content: dict[str, Any]
    results: _Results


def read_run(path: str) -> Kept:
    """The run in a JSON file. Raises FileNotFoundError or ValueError."""
    existing_file("--diff", Path(path), "a file that nnlite bench --json wrote")
    expected = f"--diff {path}: expected the JSON of nnlite bench --json"
    try:
        content = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{expected}. Received: a file that is not JSON") from error
    if not isinstance(content, dict) or not content.keys() >= {"schema", "rows", "peak_gflops"}:
        raise ValueError(f"{expected}. Received: JSON of another command")
    if content["schema"] != SCHEMA:
        raise ValueError(f"{expected}, of schema {SCHEMA}. Received: JSON of schema {content['schema']}")
    try:
        return Kept(content, _results(content))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{expected}. Received: rows that are not a run's ({error!r})") from error


def _results(run: dict[str, Any]) -> _Results:
    found = {}
    for row in run["rows"]:
        for cell in row["algorithms"]:
            if cell["status"] == "timed":
                ms, share = float(cell["median_ms"]), float(cell["percent_of_peak"])
                cells = [Cell(("~" if cell["scale"] != 1 else "") + short(ms), ms), Cell(f"{share:.0f}%", share)]
                key = json.dumps(row["geometry"], sort_keys=True), row["pass"], cell["algorithm"]
                found[key] = f"{row['shape']}, {PART_NAMES[row['pass']]}", ms, cells
    return found


def side_by_side(a: Kept, b: Kept) -> Table:
    """One line for each algorithm, shape and pass that was timed in one of the runs."""
    rows = []
    for key, (where, _, _) in (b.results | a.results).items():
        one, other = (run.results.get(key, ("", nan, [MISSING, MISSING])) for run in (a, b))
        change = other[1] / one[1]
        shown = MISSING if isnan(change) else Cell(ratio(change), change)
        rows.append([Cell(where), Cell(key[2]), *one[2], *other[2], shown])
    columns = ["layer and pass", "algorithm", "A ms", "of peak", "B ms", "of peak", "x A"]
    return Table("Two runs", columns, rows, [*_described(a.content, b.content)])


def _described(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    lines = [
        f"{letter}: {run['processor']}, {threads_said(run['threads'])}, FMA peak {short(run['peak_gflops'])} GFLOP/s, "
        f"{run['date']}."
        for letter, run in (("A", a), ("B", b))
    ]
    if a["processor"] != b["processor"]:
        lines.append("This compares two machines: a difference is theirs as well as the algorithm's.")
    else:
        lines.append(
            "This compares two times on one machine, or two machines with the same processor: the ratio includes "
            "what changed between the runs, so it has no interval. To compare versions of an algorithm, use --compare."
        )
    if a["threads"] != b["threads"]:
        lines.append("The numbers of threads differ.")
    return lines
