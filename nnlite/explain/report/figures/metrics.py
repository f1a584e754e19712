"""Each count against the measured time, both relative to the MLP, on log axes: on the diagonal, a count predicts."""

from __future__ import annotations

from nnlite.explain.numbers import listed, miss, times
from nnlite.explain.report import axes, theme
from nnlite.explain.report.canvas import Canvas
from nnlite.explain.report.run import METRICS, Figure, Model, Run, Variant, ratio, step
from nnlite.explain.verdict import WITHIN

SHOWN = ("parameters", "forward MACs", "training MACs", "time model")
SIZE, LEFT, TOP = 280.0, 52.0, 80.0
PLOT = SIZE - LEFT - 8


def draw(run: Run, variant: Variant) -> Figure | None:
    """None without the MLP to compare with."""
    base = variant.baseline
    if base is None:
        return None
    scale = axes.log_range(_all_ratios(variant, base))
    panels = [_panel(run, variant, base, metric, scale) for metric in SHOWN]
    caption = (
        f"A dot on the diagonal is a network whose time this count predicts; the band is a factor of {WITHIN:g}. "
        f"Under {variant.algorithm}, {_landing([metric for metric in SHOWN if variant.lands(metric)])}"
    )
    if variant.lands("time model") is None:
        caption += " The time model's prediction is not in this run."
    return Figure(f"metrics-{variant.algorithm}", "Which count predicts the time?", caption, panels, 4)


def _landing(landing: list[str]) -> str:
    if not landing:
        return "none of these four lands for every network."
    verb = "lands" if len(landing) == 1 and not landing[0].endswith("s") else "land"
    return f"of these four, the {listed(landing)} {verb} for every network."


def _all_ratios(variant: Variant, base: Model) -> list[float]:
    measured = [step(m) / step(base) for m in variant.models]
    counted = [r for m in variant.models for metric in SHOWN if (r := ratio(m, base, METRICS[metric]))]
    return [*measured, *counted]


def _panel(run: Run, variant: Variant, base: Model, metric: str, limits: tuple[float, float]) -> Canvas:
    canvas = Canvas(SIZE, TOP + PLOT + 40)
    x = axes.Scale(*limits, LEFT, LEFT + PLOT)
    y = axes.Scale(*limits, TOP + PLOT, TOP)
    verdict, role = _verdict(variant, metric)
    canvas.label = f"{metric} against time, relative to the MLP: {'; '.join(verdict)}"
    canvas.text(LEFT, 18, metric[0].upper() + metric[1:], size=14, bold=True)
    for i, line in enumerate(verdict[:3]):
        canvas.text(LEFT, 36 + 15 * i, line, size=11.5, fill=role)
    _band(canvas, x, y)
    axes.draw_x(canvas, x, TOP, TOP + PLOT, f"{metric}, times the MLP's")
    axes.draw_y(canvas, y, LEFT, LEFT + PLOT, "time, times the MLP's")
    canvas.line((x(limits[0]), y(limits[0])), (x(limits[1]), y(limits[1])), stroke="muted", dashed=True)
    for model in variant.models:
        predicted = ratio(model, base, METRICS[metric])
        if predicted is not None:
            _dot(run, canvas, x, y, model, predicted, step(model) / step(base))
    return canvas


def _band(canvas: Canvas, x: axes.Scale, y: axes.Scale) -> None:
    low, high = x.low, x.high
    corners = [(low, low), (low * WITHIN, low), (high, high / WITHIN), (high, high), (high / WITHIN, high)]
    canvas.polygon([(x(a), y(b)) for a, b in [*corners, (low, low * WITHIN)]], "band")


def _dot(
    run: Run, canvas: Canvas, x: axes.Scale, y: axes.Scale, model: Model, predicted: float, measured: float
) -> None:
    colour, kind = theme.series(run.index(model["name"]))
    title = f"{model['name']}: predicted {times(predicted)}, measured {times(measured)}"
    canvas.marker(x(predicted), y(measured), 7, colour, kind, title=title)
    left = x(predicted) > LEFT + 0.62 * PLOT
    shift, drop = (-11 if left else 11), (17 if measured <= 1 else -7)
    canvas.text(x(predicted) + shift, y(measured) + drop, model["name"], size=11.5, anchor="end" if left else "start")


def _verdict(variant: Variant, metric: str) -> tuple[list[str], str]:
    """Lines of text, and their colour."""
    landed = variant.lands(metric)
    if landed is None:
        return ["not computed in this run"], "muted"
    if landed:
        return ["✓ lands: for every network", f"within a factor of {WITHIN:g}"], "good"
    missed = [
        f"{c.model['name']} {miss(c.predicted, c.measured)}"
        for c in variant.comparisons(metric)
        if c.predicted and not c.lands
    ]
    return [f"✗ fails: {missed[0]}", *missed[1:]], "bad"
