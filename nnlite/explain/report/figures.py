"""The figures of the report, drawn by matplotlib. Each comes with the sentence that it shows."""

from __future__ import annotations

from nnlite.explain.document import Document
from nnlite.explain.report.comparisons import difference, passes, size
from nnlite.explain.report.drawing import Picture
from nnlite.explain.report.rooflines import roofline
from nnlite.explain.report.variations import ladder, sweep


def draw(document: Document) -> dict[str, list[Picture]]:
    """The figures of each section for which the document has data."""
    several = len(document.models) > 1
    each = document.by_algorithm
    return {
        "size": [size(document)] if several else [],
        "passes": [passes(document)],
        "difference": [difference(document, a) for a in each] if several else [],
        "roofline": [picture for a in each if (picture := roofline(document, a))],
        "sweeps": [sweep(document, swept) for swept in document.sweeps],
        "ladder": [ladder(document)] if document.ladder else [],
    }
