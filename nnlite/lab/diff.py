"""`nnlite bench --diff A.json B.json`: two runs side by side, of two machines or of one at two times."""

from __future__ import annotations

import json
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple

from nnlite.lab.numbers import short, threads_said
from nnlite.lab.results import SCHEMA
from nnlite.lab.table import MISSING, Cell, Table
from nnlite.lab.tables import ratio
from nnlite.runtime.errors import existing_file
from nnlite.runtime.scopes import PART_NAMES

#: (geometry, pass, algorithm) -> layer and pass in words, milliseconds, cells of the table
_Results = dict[tuple[str, str, str], tuple[str, float, list[Cell]]]


class Kept(NamedTuple):
    """A run that was written with --json."""

    content: dict[str, Any]
    results: _Results


def read(path: str) -> Kept:
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


def table(a: Kept, b: Kept) -> Table:
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
