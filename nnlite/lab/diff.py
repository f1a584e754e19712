"""`nnlite bench --diff A.json B.json`: two runs side by side, of two machines or of one at two times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnlite.lab.numbers import short, threads_said
from nnlite.lab.results import SCHEMA
from nnlite.lab.table import MISSING, Cell, Table
from nnlite.lab.tables import ratio
from nnlite.runtime.errors import existing_file
from nnlite.runtime.scopes import PART_NAMES

#: what the JSON of a run has
_KEYS = {"schema", "rows", "processor", "threads", "peak_gflops", "date"}
#: (geometry, pass, algorithm) -> its result in the JSON
_Results = dict[tuple[str, str, str], dict[str, Any]]


def read(path: str) -> dict[str, Any]:
    """The JSON of a run. Raises FileNotFoundError or ValueError."""
    existing_file("--diff", Path(path), "a file that nnlite bench --json wrote")
    expected = f"--diff {path}: expected the JSON of nnlite bench --json"
    try:
        content = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{expected}. Received: a file that is not JSON") from error
    if not isinstance(content, dict) or not content.keys() >= _KEYS:
        raise ValueError(f"{expected}. Received: JSON of another command")
    if content["schema"] != SCHEMA:
        raise ValueError(f"{expected}, of schema {SCHEMA}. Received: JSON of schema {content['schema']}")
    try:
        results = _results(content)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{expected}. Received: rows that are not a run's") from error
    for cell in results.values():
        for name in ("median_ms", "percent_of_peak", "scale"):
            if not isinstance(cell.get(name), (int, float)):
                where = f"{cell['algorithm']} at {cell['where']}"
                raise ValueError(f"{expected}. Received: no number as {name} of {where}")
    return content


def _results(run: dict[str, Any]) -> _Results:
    found = {}
    for row in run["rows"]:
        geometry = json.dumps(row["geometry"], sort_keys=True)
        for cell in row["algorithms"]:
            if cell["status"] == "timed":
                label = {**cell, "where": f"{row['shape']}, {PART_NAMES[row['pass']]}"}
                found[geometry, row["pass"], cell["algorithm"]] = label
    return found


def table(a: dict[str, Any], b: dict[str, Any]) -> Table:
    """One line for each algorithm, shape and pass that was timed in one of the runs."""
    left, right = _results(a), _results(b)
    rows = []
    for key in dict.fromkeys([*left, *right]):
        one, other = left.get(key), right.get(key)
        known = one or other
        assert known is not None
        change = MISSING
        if one and other:
            value = other["median_ms"] / one["median_ms"]
            change = Cell(ratio(value), value)
        rows.append([Cell(known["where"]), Cell(known["algorithm"]), *_time(one), *_time(other), change])
    columns = ["layer and pass", "algorithm", "A ms", "of peak", "B ms", "of peak", "x A"]
    return Table("Two runs", columns, rows, [*_described(a, b)])


def _time(cell: dict[str, Any] | None) -> list[Cell]:
    if cell is None:
        return [MISSING, MISSING]
    milliseconds, share = cell["median_ms"], cell["percent_of_peak"]
    tilde = "~" if cell["scale"] != 1 else ""
    return [Cell(tilde + short(milliseconds), milliseconds), Cell(f"{share:.0f}%", share)]


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
