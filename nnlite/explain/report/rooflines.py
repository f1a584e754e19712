"""The rooflines (Williams et al. 2009): one per network, each pass of a layer a dot."""

from __future__ import annotations

from nnlite.explain.answer import executed_flops
from nnlite.explain.document import Document, Network, Row
from nnlite.explain.report.drawing import Panel, Picture, new, pass_legend, slug, where, with_names
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
    count = networks[0].threads
    peak, slopes = document.peak_rates(count)
    panels = [_roofline_panel(document, n, peak, slopes) for n in networks]
    sentence = f"Each dot is a pass of a layer with algorithm {algorithm}; its area is its share of the step. "
    if document.machine:
        sentence += (
            f"FLOPs are those executed (Winograd needs fewer). The lines are the limits of {threads_said(count)}: peak "
            "rate, bandwidths of L1 and memory. A dot below them does not reach its limit."
        )
    else:
        sentence += "This run has no measured peak rates, so no roof is drawn."
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
    extremes = {level: gbs for level, gbs in slopes.items() if level in ("L1", "memory")}  # the names of others overlap
    draw_roofs(axes, peak, extremes, traffic=traffic, colour=light("muted"))
    axes.set(title=shorten_name(n.name, 30))
    pass_legend(figure, {row.part for row, *_ in dots})
    named = [(where(row.name, row.part), x, y) for row, x, y in dots]
    name_dots(axes, named[:NAMED], light("muted"))
    said = "; ".join(f"{name} {short(y)} GFLOP/s at {short(x)} FLOPs per byte" for name, x, y in named)
    return Panel(f"roofline-{n.algorithm}-{slug(document, n.name)}", figure, f"{n.name}. {said}.")
