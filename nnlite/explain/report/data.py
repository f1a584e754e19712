"""The run's data as CSV: one row a layer and pass, of every network under every algorithm."""

from __future__ import annotations

import csv
from io import StringIO

from nnlite.explain.report.run import Run, moved

COLUMNS = (
    "algorithm",
    "network",
    "layer",
    "pass",
    "flops",
    "unfused_least_bytes",
    "moved_bytes",
    "ms",
    "predicted_ms",
    "bound",
)


def layers_csv(run: Run) -> str:
    """Empty where a value was not computed."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for variant in run.variants:
        for model in variant.models:
            for x in model["layers"]:
                counted = (x["name"], x["pass"], x["flops"], x["bytes"], moved(x), x["ms"])
                writer.writerow([variant.algorithm, model["name"], *counted, x.get("predicted_ms"), x.get("bound")])
    return text.getvalue()
