"""The step's time as one property varies: filters, batch, kernel, image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from nnlite.explain.numbers import milliseconds, short
from nnlite.explain.question import BASELINE
from nnlite.explain.report import axes, theme
from nnlite.explain.report.canvas import Canvas, text_width
from nnlite.explain.report.run import Figure, Run
from nnlite.explain.sweeps import Point, groups

WIDTH, HEIGHT, LEFT, TOP = 520.0, 340.0, 54.0, 16.0
RIGHT, BOTTOM = WIDTH - 130, HEIGHT - 44

Sweep = dict[str, Any]


def draw(run: Run) -> list[Figure]:
    """One figure a sweep of the run."""
    return [_figure(sweep) for sweep in run.document.get("sweeps") or []]


def _figure(sweep: Sweep) -> Figure:
    tried = ", ".join(f"{x:g}" for x in sorted({p["x"] for p in sweep["points"]}))
    caption = f"The median training step for {sweep['x']} {tried}."
    title = f"Sweep: {sweep['title']}"
    return Figure(f"sweep-{sweep['name']}", title, caption, [_canvas(sweep)], 1, notes=sweep["findings"])


def _canvas(sweep: Sweep) -> Canvas:
    canvas = Canvas(WIDTH, HEIGHT, f"{sweep['title']}: ms a step. " + " ".join(sweep["findings"]))
    values = [p["ms"] for p in sweep["points"]] + [b["ms"] for b in sweep["baselines"]]
    places = sorted({p["x"] for p in sweep["points"]})
    x = axes.Scale(places[0] / 1.12, places[-1] * 1.12, LEFT, RIGHT)
    y = axes.Scale(*axes.log_range(values, 1.3), BOTTOM, TOP)
    ticks = places if len(places) <= 12 else places[::2]
    axes.draw_x(canvas, x, TOP, BOTTOM, f"{sweep['x']} (log scale)", ticks)
    axes.draw_y(canvas, y, LEFT, RIGHT, "ms a step (log scale)")
    style = _styles(sweep)
    names: list[tuple[float, str]] = []  # height, text
    for baseline in sweep["baselines"]:
        at = y(baseline["ms"])
        own = style(baseline["network"], baseline["algorithm"])
        canvas.line((LEFT, at), (RIGHT, at), stroke=own.colour, dashed=own.hollow)
        names.append((at, f"{baseline['network']}, {baseline['algorithm']}"))
    for (network, algorithm), points in groups(sweep["points"]).items():
        name = f"{network}, {algorithm}"
        _draw_line(canvas, x, y, name, points, style(network, algorithm))
        names.append((y(points[-1]["ms"]), name))
    for crossing in sweep["crossings"]:
        cx, cy = x(crossing["x"]), y(crossing["ms"])
        canvas.line((cx, cy), (cx, BOTTOM), stroke="text", width=1, dashed=True)
        canvas.marker(cx, cy, 4, "text", title=f"crossed at {short(crossing['x'])}")
        canvas.text(cx + 5, BOTTOM - 7, short(crossing["x"]), size=11.5, bold=True)
    _name_lines(canvas, names)
    return canvas


class _Style(NamedTuple):
    """A network's colour and marker; an algorithm's line: whole and filled, or broken and hollow."""

    colour: str
    kind: str
    hollow: bool


def _styles(sweep: Sweep) -> Callable[[str, str], _Style]:
    """How the line of a network under an algorithm is drawn: as its network is elsewhere in the report."""
    shown = [*sweep["baselines"], *sweep["points"]]
    networks = list(dict.fromkeys([BASELINE, *(p["network"] for p in shown)]))
    first = shown[0]["algorithm"]

    def style(network: str, algorithm: str) -> _Style:
        return _Style(*theme.series(networks.index(network)), hollow=algorithm != first)

    return style


def _draw_line(canvas: Canvas, x: axes.Scale, y: axes.Scale, name: str, points: list[Point], style: _Style) -> None:
    colour, kind, hollow = style
    canvas.line(*((x(p["x"]), y(p["ms"])) for p in points), stroke=colour, width=2, dashed=hollow)
    for p in points:
        title = f"{name}, {p['x']:g}: {milliseconds(p['ms'])}"
        fill, stroke = ("page", colour) if hollow else (colour, None)
        canvas.marker(x(p["x"]), y(p["ms"]), 5, fill, kind, title=title, stroke=stroke)


def _name_lines(canvas: Canvas, names: list[tuple[float, str]]) -> None:
    """At the right of each line; moved down where two would meet."""
    lowest = TOP - 20
    for at, name in sorted(names):
        lowest = max(at + 4, lowest + 15)
        canvas.text(RIGHT + 8, lowest, name, size=11.5 if text_width(name, 11.5) < 124 else 10)
