"""The terminal output of `nnlite explain`: the first screen, and with --details all tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnlite.explain import answer, case_study, compare, tables
from nnlite.explain.document import Document
from nnlite.lab.table import Table, to_rich

if TYPE_CHECKING:
    from rich.console import Console

#: the most columns and lines of the first screen
WIDTH, HEIGHT = 80, 40


def show(document: Document, out: Console, *, details: bool = False) -> None:
    """Print the first screen; with `details`, all tables below it."""
    width = min(WIDTH, out.width)
    out.print(answer.question(document), style="bold", width=width)
    out.print(to_rich(tables.networks(document)), width=width)
    if epochs := case_study.epochs(document):
        out.print()
        out.print(to_rich(epochs), width=width)
    out.print()
    for sentence in answer.sentences(document):
        out.print(f"- {sentence}", width=width)
    out.print(f"\n{compare.worst_prediction(document)}", width=width)
    for caution in document.cautions:
        out.print(f"CAUTION: {caution}", width=width)
    for title, content in _details(document) if details else ():
        out.print(f"\n{title}\n", style="bold")
        for part in content:
            if isinstance(part, Table):
                out.print(to_rich(part), "")
            else:
                out.print(f"- {part}")


def _details(document: Document) -> list[tuple[str, list[Table | str]]]:
    """(title, tables and sentences) of each section, in order."""
    found: list[tuple[str, list[Table | str]]] = []
    several = len(document.models) > 1
    for algorithm, networks in document.by_algorithm.items():
        parts: list[Table | str] = [tables.metrics(document, algorithm)] if several else []
        for network in networks:
            base = document.base_of(network)
            parts += [tables.difference(network, base)] if base else []
        parts += [tables.layers(network, document) for network in networks]
        found.append((f"Algorithm {algorithm}", parts))
    found.append(("Predicted and measured", [tables.accuracy(document)]))
    found += [(title, list(said)) for title, said in case_study.sections(document).items()]
    return found
