"""The rooflines (Williams et al. 2009): one per network, each pass of a layer a dot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnlite.explain.document import Document, Network, Row
from nnlite.explain.report.drawing import Panel, Picture, log, new, row_name, slug, with_names
from nnlite.explain.report.theme import PASSES, light
from nnlite.explain.tables import shorten_name
from nnlite.lab.numbers import short, threads_said

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
        f"Each dot is a pass of a layer with algorithm {algorithm}; its area is its share of the step. The "
        "lines are the limits of this machine; a dot below them does not reach its limit."
    )
    if document.machine:
        n_threads = 1 if n_threads == 1 else document.machine["threads"]
        best = max((dot[2] / peak, row_name(dot[0]), n.name) for n in networks for dot in _dots(n))
        sentence += (
            f" The peak of {threads_said(n_threads)} is {short(peak)} GFLOP/s; the highest share of it is "
            f"{100 * best[0]:.0f}%, {best[1]} of {best[2]}."
        )
        if best[0] > 1:
            sentence += " FLOPs are those of direct convolution: an algorithm that does fewer may exceed the peak."
    else:
        sentence += " This run has no measured peak rates, so no roof is drawn."
    return Picture(f"roofline-{algorithm}", with_names(sentence, networks), panels, algorithm)


def _dots(n: Network) -> list[tuple[Row, float, float]]:
    """(row, FLOPs per byte of memory traffic, or else of the minimum traffic, GFLOP/s), the longest first."""
    rows = sorted((row for row in n.layers if row.flops and row.bytes and row.ms > 0), key=lambda row: -row.ms)
    return [(r, r.flops / (r.moved_bytes or r.bytes), r.flops / r.ms / 1e6) for r in rows if r.flops and r.bytes]


def _roofline_panel(document: Document, n: Network, peak: float, slopes: dict[str, float]) -> Panel:
    figure, axes = new(5.1, 3.7)
    dots = _dots(n)
    for row, x, y in dots:
        size = max(1500 * row.ms / n.step_ms.median, 14)
        axes.scatter([x], [y], s=size, color=light(PASSES[row.part]), alpha=0.85, edgecolors=light("page"))
    axes.set(xscale="log", yscale="log")
    axes.margins(0.15, 0.3)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    if peak:
        top = max(top, 1.6 * peak)
        for level, gbs in slopes.items():
            ends = [left, min(right, peak / gbs)]
            if ends[1] > ends[0]:
                axes.plot(ends, [gbs * x for x in ends], color=light("muted"), linewidth=1)
                at = max(ends[0], bottom / gbs)
                axes.annotate(f" {level}", (at, gbs * at), color=light("muted"), fontsize=8, va="top")
        axes.axhline(peak, color=light("muted"), linewidth=1)
        axes.annotate(f"peak {short(peak)} GFLOP/s", (right, peak), (0, 3), textcoords="offset points", ha="right",
                      fontsize=8, color=light("muted"))  # fmt: skip
    axes.set(xlim=(left, right), ylim=(bottom, top), title=shorten_name(n.name, 30))
    traffic = "memory traffic" if any(row.moved_bytes for row, *_ in dots) else "minimum traffic"
    log(axes, x=f"FLOPs per byte of {traffic}", y="GFLOP/s")
    _name_dots(axes, dots[:NAMED])
    said = "; ".join(f"{row_name(row)} {short(y)} GFLOP/s at {short(x)} FLOPs per byte" for row, x, y in dots)
    return Panel(f"roofline-{n.algorithm}-{slug(document, n.name)}", figure, f"{n.name}. {said}.")


def _name_dots(axes: Axes, dots: Sequence[tuple[Row, float, float]]) -> None:
    """Labels at the right of the axes in the vertical order of their dots, each with a thin line to its dot."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    ordered = sorted(dots, key=lambda dot: -dot[2])
    for place, (row, x, y) in enumerate(ordered):
        height = bottom * (top / bottom) ** (0.96 - 0.92 * (place + 0.5) / len(ordered))
        axes.plot([x, right * (right / left) ** 0.03], [y, height], color=light("muted"), linewidth=0.6, clip_on=False)
        axes.annotate(row_name(row), (right, height), (9, 0), textcoords="offset points", fontsize=8.5, va="center")
