"""The ladder: one layer, from plain Python to the fastest algorithm there is."""

from __future__ import annotations

from nnlite.explain.numbers import milliseconds, times
from nnlite.explain.report import axes
from nnlite.explain.report.canvas import Canvas, wrap
from nnlite.explain.report.run import Figure, Run

WIDTH, LEFT, RIGHT, TOP, ROW, LINE = 520.0, 14.0, 14.0, 8.0, 54.0, 14.0
SIZE = 11.0  # of what a rung does


def draw(run: Run) -> Figure | None:
    """None where the run holds no ladder."""
    rungs = run.document.get("ladder")
    if not rungs:
        return None
    said = [wrap(rung.get("changes") or "", WIDTH - LEFT - RIGHT - 10, SIZE) for rung in rungs]
    bottom = TOP + sum(ROW + LINE * (len(lines) - 1) for lines in said)
    canvas = Canvas(WIDTH, bottom + 40, "; ".join(f"{r['name']}: {milliseconds(r['ms'])}" for r in rungs))
    low, high = axes.log_range([rung["ms"] for rung in rungs], 2.0)
    x = axes.Scale(low, high, LEFT, WIDTH - RIGHT)
    axes.draw_x(canvas, x, TOP, bottom, "ms (log scale)")
    top = TOP
    for i, (rung, lines) in enumerate(zip(rungs, said, strict=True)):
        faster = rungs[0]["ms"] / rung["ms"]
        about = "about " if rung.get("scaled") else ""  # timed on a slice of the work
        value = f"{rung['name']}: {about}{milliseconds(rung['ms'])}" + (f", {times(faster)} the first" if i else "")
        canvas.text(LEFT, top + 14, value, size=12, bold=True)
        for j, line in enumerate(lines):
            canvas.text(LEFT, top + 29 + LINE * j, line, size=SIZE, fill="muted")
        top += LINE * (len(lines) - 1)
        canvas.rect(LEFT, top + 34, max(x(rung["ms"]) - LEFT, 2), 12, "c0", title=f"{value}. {' '.join(lines)}")
        top += ROW
    fastest = min(rungs, key=lambda rung: rung["ms"])
    layer = run.document.get("ladder_layer")
    caption = (
        f"The same layer{f' ({layer})' if layer else ''}, computed {len(rungs)} ways. From {rungs[0]['name']} to "
        f"{fastest['name']} it becomes {times(rungs[0]['ms'] / fastest['ms'])} as fast."
    )
    return Figure("ladder", "The ladder", caption, [canvas], 1)
