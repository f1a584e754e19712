"""The rooflines (Williams et al. 2009): one per network, each pass of a layer a dot."""

from __future__ import annotations

from nnlite.explain.answer import executed_flops
from nnlite.explain.document import Document, Network, Row
from nnlite.explain.report.drawing import Panel, Picture, new, pass_legend, row_name, slug, with_names
from nnlite.explain.report.theme import PASSES, light
from nnlite.explain.tables import shorten_name
from nnlite.lab.numbers import short, threads_said
from nnlite.lab.roofs import draw_roofs, name_dots

#: number of labelled dots in a roofline: those with the largest share of the step
NAMED = 6


def roofline(document: Document, algorithm: str) -> Picture | None:
    """Without peak rates there is no roof; None if no pass has FLOPs and bytes."""
    networks = [n for n in document.by_algorithm[algorithm] if _dots(n)]
    if not networks:
        return None
    n_threads = networks[0].threads
    peak, slopes = document.peak_rates(n_threads)
    panels = [_roofline_panel(document, n, peak, slopes) for n in networks]
    sentence = (
        f"Each dot is a pass of a layer with algorithm {algorithm}: its area is its share of the step, its FLOPs are "
        "those executed, of which Winograd needs fewer. The lines are the peak rate and the bandwidths of this "
        "machine: a dot below them does not reach its limit."
    )
    if document.machine:
        n_threads = 1 if n_threads == 1 else document.machine["threads"]
        best = max((dot[2] / peak, row_name(dot[0]), n.name) for n in networks for dot in _dots(n))
        sentence += (
            f" The highest share of the peak of {threads_said(n_threads)} is {100 * best[0]:.0f}%, {best[1]} of "
            f"{best[2]}."
        )
    else:
        sentence += " This run has no measured peak rates, so no roof is drawn."
    return Picture(f"roofline-{algorithm}", with_names(sentence, networks), panels, algorithm)


def _dots(n: Network) -> list[tuple[Row, float, float]]:
    """(row, FLOPs per byte of memory traffic, or else of the minimum traffic, GFLOP/s), the longest first.

    FLOPs are those that the algorithm executes, or else those of direct convolution.
    """
    found = []
    for row in sorted(n.layers, key=lambda row: -row.ms):
        if row.flops and row.bytes and row.ms > 0:
            flops = executed_flops(row) or row.flops
            found.append((row, flops / (row.moved_bytes or row.bytes), flops / row.ms / 1e6))
    return found


def _roofline_panel(document: Document, n: Network, peak: float, slopes: dict[str, float]) -> Panel:
    figure, axes = new(5.1, 3.7)
    dots = _dots(n)
    for row, x, y in dots:
        size = max(1500 * row.ms / n.step_ms.median, 14)
        axes.scatter([x], [y], s=size, color=light(PASSES[row.part]), alpha=0.85, edgecolors=light("page"))
    traffic = "memory traffic" if any(row.moved_bytes for row, *_ in dots) else "minimum traffic"
    extremes = {level: slopes[level] for level in ("L1", "memory") if level in slopes}  # the names of others overlap
    draw_roofs(axes, peak, extremes, traffic=traffic, colour=light("muted"))
    axes.set(title=shorten_name(n.name, 30))
    pass_legend(figure, {row.part for row, *_ in dots})
    name_dots(axes, [(row_name(row), x, y) for row, x, y in dots[:NAMED]], light("muted"))
    said = "; ".join(f"{row_name(row)} {short(y)} GFLOP/s at {short(x)} FLOPs per byte" for row, x, y in dots)
    return Panel(f"roofline-{n.algorithm}-{slug(document, n.name)}", figure, f"{n.name}. {said}.")
