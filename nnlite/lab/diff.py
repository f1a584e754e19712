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

#: (geometry, pass, algorithm) -> its result in the JSON
_Results = dict[tuple[str, str, str], dict[str, Any]]


def read(path: str) -> dict[str, Any]:
    """The JSON of a run. Raises FileNotFoundError or ValueError."""
    existing_file("--diff", Path(path), "a file that nnlite bench --json wrote")
    try:
        content = json.loads(Path(path).read_text())
        _results(content)
        assert content["schema"] == SCHEMA
        content["processor"], content["threads"], content["peak_gflops"], content["date"]
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(f"--diff {path}: expected the JSON of nnlite bench --json. Received: {error!r}") from error
    return content


def _results(run: dict[str, Any]) -> _Results:
    found = {}
    for row in run["rows"]:
        geometry = json.dumps(row["geometry"], sort_keys=True)
        for cell in row["algorithms"]:
            if cell["status"] == "timed":
                label = {**cell, "where": f"{row['shape']}, {PART_NAMES[row['pass']]}", "rounds": row["rounds"]}
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
