"""The figures of sweeps and of the ladder of algorithms."""

from __future__ import annotations

from typing import Any

from nnlite.explain.document import Document
from nnlite.explain.report.drawing import BESIDE, Panel, Picture, new, style_of
from nnlite.explain.report.theme import light
from nnlite.lab.numbers import milliseconds, short, times
from nnlite.lab.roofs import log


def sweep(document: Document, swept: dict[str, Any]) -> Picture:
    figure, axes = new(6.4, 3.9)
    first = (swept["baselines"] or swept["points"])[0]["algorithm"]
    for network, algorithm in dict.fromkeys((p["network"], p["algorithm"]) for p in swept["points"]):
        points = [p for p in swept["points"] if (p["network"], p["algorithm"]) == (network, algorithm)]
        colour, marker = style_of(document, network)
        is_first = algorithm == first
        axes.plot([p["x"] for p in points], [p["ms"] for p in points], color=colour, marker=marker, markersize=5,
                  linestyle="-" if is_first else "--", markerfacecolor=colour if is_first else light("page"),
                  label=f"{network}, {algorithm}")  # fmt: skip
    for b in swept["baselines"]:
        style = "-" if b["algorithm"] == first else "--"
        colour, _ = style_of(document, b["network"])
        axes.axhline(b["ms"], color=colour, linestyle=style, linewidth=1, label=f"{b['network']}, {b['algorithm']}")
    for crossing in swept["crossings"]:
        axes.plot(crossing["x"], crossing["ms"], "o", color=light("text"), markersize=4)
        axes.annotate(
            short(crossing["x"]), (crossing["x"], crossing["ms"]), (5, -11), textcoords="offset points", fontsize=9
        )
    ticks = sorted({p["x"] for p in swept["points"]})
    log(axes, x=swept["x"], y="ms per step")
    axes.set_xticks(ticks[:: 1 + len(ticks) // 10])
    figure.legend(loc="outside lower left", ncols=3)
    panel = Panel(f"sweep-{swept['name']}", figure, f"{swept['title']}: ms per step. {' '.join(swept['findings'])}")
    return Picture(f"sweep-{swept['name']}", " ".join(swept["findings"]), [panel])


def ladder(document: Document) -> Picture:
    rungs = document.ladder or []
    figure, axes = new(6.4, 1.0 + 0.34 * len(rungs))
    axes.barh([rung["name"] for rung in rungs], [rung["ms"] for rung in rungs], color=light("c0"))
    for place, rung in enumerate(rungs):
        text = ("about " if rung.get("scaled") else "") + milliseconds(rung["ms"])
        axes.annotate(text, (rung["ms"], place), **BESIDE)
    log(axes, x="ms")
    least, most = (select(rung["ms"] for rung in rungs) for select in (min, max))
    axes.set_xlim(least / 2, 2 * most * (most / least) ** 0.4)  # space for the numbers
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    fastest = min(rungs, key=lambda rung: rung["ms"])
    sentence = (
        f"The same layer with {len(rungs)} algorithms: {fastest['name']} is {times(rungs[0]['ms'] / fastest['ms'])} "
        f"as fast as {rungs[0]['name']}."
    )
    said = "; ".join(f"{rung['name']} {milliseconds(rung['ms'])}" for rung in rungs)
    return Picture("ladder", sentence, [Panel("ladder", figure, f"Times: {said}.")])
