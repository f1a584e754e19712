"""The ladder: one layer, from plain Python to the fastest algorithm there is."""

from __future__ import annotations

from nnlite.explain.report import axes
from nnlite.explain.report.canvas import Canvas, wrap
from nnlite.explain.report.numbers import milliseconds, times
from nnlite.explain.report.run import Figure, Run

WIDTH, LEFT, RIGHT, TOP, ROW = 520.0, 14.0, 14.0, 8.0, 54.0


def draw(run: Run) -> Figure | None:
    """None where the run holds no ladder."""
    rungs = run.document.get("ladder")
    if not rungs:
        return None
    bottom = TOP + ROW * len(rungs)
    canvas = Canvas(WIDTH, bottom + 40, "; ".join(f"{r['name']}: {milliseconds(r['ms'])}" for r in rungs))
    low, high = axes.log_range([rung["ms"] for rung in rungs], 2.0)
    x = axes.Scale(low, high, LEFT, WIDTH - RIGHT)
    axes.draw_x(canvas, x, TOP, bottom, "ms (log scale)")
    for i, rung in enumerate(rungs):
        top, faster = TOP + ROW * i, rungs[0]["ms"] / rung["ms"]
        about = "about " if rung.get("scaled") else ""  # timed on a slice of the work
        value = f"{rung['name']}: {about}{milliseconds(rung['ms'])}" + (f", {times(faster)} the first" if i else "")
        change = rung.get("changes") or ""
        canvas.text(LEFT, top + 14, value, size=12, bold=True)
        lines = wrap(change, WIDTH - LEFT - RIGHT - 10, 11)
        canvas.text(LEFT, top + 29, lines[0] + " …" * (len(lines) > 1), size=11, fill="muted")
        canvas.rect(LEFT, top + 34, max(x(rung["ms"]) - LEFT, 2), 12, "c0", title=f"{value}. {change}")
    fastest = min(rungs, key=lambda rung: rung["ms"])
    layer = run.document.get("ladder_layer")
    caption = (
        f"The same layer{f' ({layer})' if layer else ''}, computed {len(rungs)} ways. From {rungs[0]['name']} to "
        f"{fastest['name']} it becomes {times(rungs[0]['ms'] / fastest['ms'])} as fast."
    )
    return Figure("ladder", "The ladder", caption, [canvas], 1)
