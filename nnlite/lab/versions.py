"""Versions of a user's algorithms: `nnlite bench --save NAME` keeps a run and its sources, `--compare NAME` loads them.

A version is a folder in FOLDER: the JSON of its run, and for each algorithm the user's file with the files beside it
that it imports.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from nnlite import conv
from nnlite.lab import tables
from nnlite.lab.loading import load_algorithm
from nnlite.lab.results import Run
from nnlite.lab.table import Cell, Table
from nnlite.lab.timing import COMPARED_ROUNDS
from nnlite.lab.user_modules import files_of
from nnlite.performance.statistics import Ratio, paired_ratio, verdict
from nnlite.runtime.errors import unknown
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


def save(name: str, algorithms: dict[str, conv.Algorithm], content: dict[str, Any]) -> Path:
    """Save the user's algorithms, given by FILE.py:CLASS, with the JSON of their run. Returns the folder."""
    check_free(name)
    folder, sources = FOLDER / name, []
    for number, (spec, algorithm) in enumerate(algorithms.items(), 1):
        file, _, class_name = spec.partition(".py:")
        file += ".py"
        for relative, source in files_of(Path(file)).items():
            path = folder / str(number) / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, source)
        loads = f"{number}/{Path(file).name}:{class_name}"
        sources.append({"name": algorithm.name, "given_as": spec, "source": loads})
    write_json(folder / _RUN, {**content, "sources": sources})  # last: a version without it is not complete
    return folder


def load(name: str) -> tuple[list[conv.Algorithm], dict[str, Any]]:
    """The algorithms of a version, registered as `name@version`, and the JSON of its run."""
    if name not in names():
        if not names():
            raise ValueError(f"--compare: expected a saved version. Received: {name!r}; there is none in {FOLDER}")
        raise unknown("--compare", name, names())
    folder, kind = FOLDER / name, f"--compare {name}"
    try:
        content = json.loads((folder / _RUN).read_text())
        sources = [(str(entry["name"]), str(entry["source"])) for entry in content["sources"]]
        sources[0]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{kind}: expected the JSON of a run in {folder / _RUN}. Received: {error!r}") from error
    algorithms = []
    for algorithm_name, source in sources:
        algorithm = load_algorithm(f"{folder}/{source}", kind)
        algorithm.name = f"{algorithm_name}@{name}"  # of this instance alone
        algorithms.append(conv.register(algorithm, replace=True))
    return algorithms, content


def fill_options(options: argparse.Namespace) -> list[conv.Algorithm]:
    """Load the versions of --compare. What the command line leaves open is as in the first of them."""
    loaded = [load(name) for name in dict.fromkeys(options.compare)]
    before = loaded[0][1].get("options", {})
    given = {option for option in OPTIONS if getattr(options, option)}
    if "shapes" in given:
        given.add("batch_size")  # the saved one belongs to the saved shapes
    for option in OPTIONS:
        if option not in given:
            setattr(options, option, before.get(option, options.default_of(option)))
    return [algorithm for algorithms, _ in loaded for algorithm in algorithms]


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
        timed = {cell.algorithm: cell for cell in row.timed}
        for version, (name, cell) in product(dict.fromkeys(versions), timed.items()):
            if before := timed.get(f"{name}@{version}"):
                ratio = paired_ratio(cell.seconds, before.seconds, fewest=COMPARED_ROUNDS)
                most = None if percent is None or row.noise is None else 1 + max(percent / 100, row.noise)
                fails = most is not None and ratio.low is not None and ratio.low > most
                said = verdict(ratio, row.noise)
                found.append(Pair(row.shape.name, row.pass_name, name, version, ratio, said, fails))
    return found


def table(pairs: Sequence[Pair], percent: float | None) -> Table:
    """One line per algorithm, shape and pass; and whether --fail-slower fails."""
    rows = [
        [
            Cell(f"{p.shape}, {PART_NAMES[p.pass_name]}"),
            Cell(p.algorithm),
            Cell(p.version),
            Cell(tables.ratio(p.ratio.value), p.ratio.value),
            Cell("" if p.ratio.low is None else f"{tables.ratio(p.ratio.low)}-{tables.ratio(p.ratio.high)}"),
            Cell(p.verdict + (": FAILED" if p.fails else "")),
        ]
        for p in pairs
    ]
    notes = ["Both were loaded and timed in the same rounds; below 1, today's source is faster."]
    if not pairs:
        notes = ["Nothing was compared: no algorithm was timed beside a saved one of its name."]
    elif percent is not None:
        failed = sum(p.fails for p in pairs)
        notes.append(f"Slower by more than {percent:g}%: {failed or 'none'} of {len(pairs)}.")
    columns = ["layer and pass", "algorithm", "saved version", "x saved", "95%", "verdict"]
    return Table("Today's source relative to the saved one", columns, rows, notes)
