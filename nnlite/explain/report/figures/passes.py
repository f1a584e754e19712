"""The time of a step by pass, stacked: one panel a network, one bar an algorithm."""

from __future__ import annotations

from nnlite.explain.numbers import listed, milliseconds
from nnlite.explain.report import axes, theme
from nnlite.explain.report.canvas import Canvas, text_width
from nnlite.explain.report.figures.legend import legend
from nnlite.explain.report.run import Figure, Model, Run, step
from nnlite.scopes import PART_NAMES

WIDTH, LEFT, RIGHT, TOP, ROW, BAR = 370.0, 14.0, 14.0, 30.0, 46.0, 19.0
#: a bar that is shorter than this part of the longest is drawn once more, as long as that
SHORT, MAGNIFIED = 0.3, 42.0


def draw(run: Run) -> Figure:
    panels = [_panel(run, name) for name in run.names]
    said = []
    for model in run.variants[0].models:
        part, ms = max(by_pass(model).items(), key=lambda item: item[1])
        said.append(f"{_named(part)} in the {model['name']} ({100 * ms / step(model):.0f}%)")
    caption = (
        f"The passes, each summed over all layers, add up to the measured step. Under {run.variants[0].algorithm}, the "
        f"largest of them: {listed(said)}."
    )
    if any(_is_short(model, _longest(run, model["name"])) for v in run.variants for model in v.models):
        caption += " A bar too short to be read is drawn once more below, stretched to the panel's width."
    return Figure("passes", "Where a step's time goes, by pass", caption, panels, 3, legend(_shown(run)))


def by_pass(model: Model) -> dict[str, float]:
    """Milliseconds of each pass that takes any, in the order of the legend."""
    totals = dict.fromkeys(theme.PASS_ROLES, 0.0)
    for layer in model["layers"]:
        totals[layer["pass"]] = totals.get(layer["pass"], 0.0) + layer["ms"]
    return {part: ms for part, ms in totals.items() if ms > 0}


def _shown(run: Run) -> list[str]:
    return [p for p in theme.PASS_ROLES if any(p in by_pass(m) for v in run.variants for m in v.models)]


def _named(part: str) -> str:
    return PART_NAMES.get(part, part)


def _role(part: str) -> str:
    return theme.PASS_ROLES.get(part, "c5")


def _longest(run: Run, name: str) -> float:
    """The network's slowest step, ms."""
    return max(step(model) for v in run.variants if (model := v.find(name)))


def _is_short(model: Model, longest: float) -> bool:
    return step(model) < SHORT * longest


def _panel(run: Run, name: str) -> Canvas:
    rows = [(v.algorithm, model) for v in run.variants if (model := v.find(name))]
    longest = _longest(run, name)
    bottom = TOP + sum(ROW + MAGNIFIED * _is_short(model, longest) for _, model in rows)
    canvas = Canvas(WIDTH, bottom + 40)
    canvas.text(LEFT, 18, name, size=14, bold=True)
    x = axes.Scale(0, longest, LEFT, WIDTH - RIGHT, log=False)
    axes.draw_x(canvas, x, TOP + 4, bottom, "ms a step")
    top = TOP
    for algorithm, model in rows:
        canvas.text(LEFT, top + 16, f"{algorithm}: {milliseconds(step(model))}")
        _bar(canvas, x, top + 21, model)
        if _is_short(model, longest):
            _magnify(canvas, x, top + 21 + BAR, model)
            top += MAGNIFIED
        top += ROW
    canvas.label = f"{name}, ms by pass: " + "; ".join(
        f"{algorithm}: " + ", ".join(f"{_named(p)} {milliseconds(ms)}" for p, ms in by_pass(model).items())
        for algorithm, model in rows
    )
    return canvas


def _magnify(canvas: Canvas, x: axes.Scale, top: float, model: Model) -> None:
    """The bar that ends at `top`, as long as the panel is wide, and what widens to it."""
    below, wide = top + MAGNIFIED - BAR, axes.Scale(0, step(model), x.start, x.end, log=False)
    canvas.polygon([(x.start, top), (x(step(model)), top), (x.end, below), (x.start, below)], "band")
    _bar(canvas, wide, below, model)


def _bar(canvas: Canvas, x: axes.Scale, top: float, model: Model) -> None:
    begin = 0.0
    for part, ms in by_pass(model).items():
        width = x(begin + ms) - x(begin)
        share = f"{100 * ms / step(model):.0f}%"
        title = f"{_named(part)}: {milliseconds(ms)}, {share}"
        canvas.rect(x(begin), top, max(width - 1.2, 0.4), BAR, _role(part), title=title)
        if width > text_width(share, 11) + 6:
            middle = x(begin) + width / 2
            canvas.text(middle, top + 13.5, share, size=11, anchor="middle", fill=f"on-{_role(part)}")
        begin += ms
