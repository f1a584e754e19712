"""The roofline (Williams et al. 2009): work for each byte against speed; every pass of a layer is a dot."""

from __future__ import annotations

from math import sqrt
from typing import Any

from nnlite.explain.names import shorten
from nnlite.explain.numbers import milliseconds, short, threads_said
from nnlite.explain.report import axes, labels, theme
from nnlite.explain.report.canvas import Canvas, text_width
from nnlite.explain.report.figures.legend import legend
from nnlite.explain.report.labels import Box
from nnlite.explain.report.run import Ceilings, Figure, Model, Run, Variant, moved, step
from nnlite.scopes import PART_NAMES

WIDTH, HEIGHT, LEFT, TOP = 440.0, 416.0, 56.0, 50.0
RIGHT, BOTTOM = WIDTH - 14, HEIGHT - 44
LARGEST = 26.0  # the radius of a dot that is the whole step
LABELS = 6  # dots with a name, those of the largest share
ALONG = 60  # boxes along a slope that keep names off it

Dot = tuple[dict[str, Any], float, float]  # the layer's pass, FLOPs a byte (unfused least), GFLOP/s


def draw(run: Run, variant: Variant) -> Figure | None:
    """None without a pass that has both FLOPs and bytes."""
    models = [m for m in variant.models if _dots(m)]
    if not models:
        return None
    ceilings = run.ceilings(variant)
    limits = _limits(ceilings, models)
    panels = [_panel(ceilings, model, limits) for model in models]
    caption = (
        f"Each dot is a pass of a layer under {variant.algorithm}; its area is its share of the step. "
        f"{_without_flops(models)}"
    )
    if ceilings and any(speed > ceilings.peak_gflops for model in models for _, _, speed in _dots(model)):
        caption += " Counted are the FLOPs of the direct sum: a dot above the peak (an effective rate) does fewer."
    if ceilings:
        caption += " The slopes, from above, are the bandwidths that its title tells."
    else:
        caption += " This run holds no measured ceilings, so there are no roofs."
    if not any(moved(layer) for model in models for layer in model["layers"]):
        caption += " Moved bytes are not in this run, so there are no arrows: a dot stands at its unfused least bytes."
    else:
        caption += " An arrow leads from the unfused least bytes to the bytes that the algorithm moves."
    return Figure(f"roofline-{variant.algorithm}", "The roofline", caption, panels, 2, legend(_parts(models)))


def _parts(models: list[Model]) -> list[str]:
    present = {layer["pass"] for model in models for layer, _, _ in _dots(model)}
    return [part for part in theme.PASS_ROLES if part in present]


def _without_flops(models: list[Model]) -> str:
    shares = [
        f"{100 * sum(x['ms'] for x in m['layers'] if not x['flops']) / step(m):.0f}% of the {m['name']}" for m in models
    ]
    return f"Parts without products have no place here: {', '.join(shares)}."


def _dots(model: Model) -> list[Dot]:
    """Largest first, so that small ones lie on top."""
    rows = [x for x in model["layers"] if x["flops"] and x["bytes"] and x["ms"] > 0]
    rows.sort(key=lambda x: -x["ms"])
    return [(x, x["flops"] / x["bytes"], x["flops"] / x["ms"] / 1e6) for x in rows]


def _limits(ceilings: Ceilings | None, models: list[Model]) -> tuple[axes.Scale, axes.Scale]:
    across, up = [], []
    for model in models:
        for layer, intensity, speed in _dots(model):
            across += [intensity, layer["flops"] / (moved(layer) or layer["bytes"])]
            up.append(speed)
    if ceilings:
        up.append(ceilings.peak_gflops)
        across += [ceilings.peak_gflops / gbs / 4 for _, gbs in ceilings.slopes]  # so that some of each slope is seen
    x = axes.Scale(*axes.log_range(across), LEFT, RIGHT)
    return x, axes.Scale(*axes.log_range(up, 2.0), BOTTOM, TOP)


def _slope(gbs: float, peak: float, x: axes.Scale, y: axes.Scale) -> tuple[float, float]:
    """From which to which FLOPs a byte a bandwidth's line is seen: as far as the picture, or up to the peak."""
    return max(x.low, y.low / gbs), min(peak / gbs, x.high)


def _panel(ceilings: Ceilings | None, model: Model, limits: tuple[axes.Scale, axes.Scale]) -> Canvas:
    x, y = limits
    dots = _dots(model)
    said = "; ".join(f"{_name(d[0])} {short(d[1])} FLOPs a byte, {short(d[2])} GFLOP/s" for d in dots)
    canvas = Canvas(WIDTH, HEIGHT, f"Roofline of the {model['name']}: {said}")
    canvas.text(LEFT, 20, model["name"], size=14, bold=True)
    axes.draw_x(canvas, x, TOP, BOTTOM, "FLOPs for each byte (log scale)")
    axes.draw_y(canvas, y, LEFT, RIGHT, "GFLOP/s (log scale)")
    if ceilings:
        _draw_roofs(ceilings, canvas, x, y)
    for layer, intensity, speed in dots:
        if moved(layer):
            now = layer["flops"] / moved(layer)
            if abs(x(now) - x(intensity)) > 8:
                canvas.arrow((x(intensity), y(speed)), (x(now), y(speed)), title=f"{_name(layer)}: least to moved")
    for layer, intensity, speed in dots:
        radius = _radius(layer, model)
        role = theme.PASS_ROLES.get(layer["pass"], "c5")
        share = f"{100 * layer['ms'] / step(model):.1f}%"
        title = f"{layer['name']} {_pass(layer)}: {short(speed)} GFLOP/s, {short(intensity)} FLOPs a byte"
        title += f", {milliseconds(layer['ms'])}, {share}"
        canvas.marker(x(intensity), y(speed), radius, role, opacity=0.85, title=title)
    _name_dots(ceilings, canvas, model, limits)
    return canvas


def _radius(layer: dict[str, Any], model: Model) -> float:
    return max(LARGEST * sqrt(layer["ms"] / step(model)), 2.5)


def _draw_roofs(ceilings: Ceilings, canvas: Canvas, x: axes.Scale, y: axes.Scale) -> None:
    peak, slopes = ceilings.peak_gflops, ceilings.slopes
    begin = peak / slopes[0][1] if slopes else x.low
    canvas.line((x(x.inside(begin)), y(peak)), (RIGHT, y(peak)), width=2)
    canvas.text(RIGHT - 2, y(peak) - 6, _peak_name(ceilings), size=11, anchor="end")
    for level, gbs in slopes:
        low, high = _slope(gbs, peak, x, y)
        if low < high:
            dashed = level != "memory"
            canvas.line((x(low), y(low * gbs)), (x(high), y(high * gbs)), width=1 if dashed else 2, dashed=dashed)
    said = ", ".join(f"{level} {short(gbs)}" for level, gbs in slopes)
    canvas.text(LEFT, 37, f"{threads_said(ceilings.threads)}: {said} GB/s", size=11, fill="muted")


def _roof_boxes(ceilings: Ceilings, x: axes.Scale, y: axes.Scale) -> list[Box]:
    """Where no dot's name may stand: the peak, and small boxes along the slopes."""
    peak = ceilings.peak_gflops
    boxes = [(LEFT, y(peak) - 3, RIGHT, y(peak) + 3)]
    for _, gbs in ceilings.slopes:
        low, high = _slope(gbs, peak, x, y)
        for i in range(ALONG if low < high else 0):
            intensity = low * (high / low) ** (i / ALONG)
            across, up = x(intensity), y(intensity * gbs)
            boxes.append((across - 2, up - 2, across + 2, up + 2))
    return boxes


def _name(layer: dict[str, Any]) -> str:
    return f"{shorten(layer['name'])} {_pass(layer)}"


def _pass(layer: dict[str, Any]) -> str:
    return PART_NAMES.get(layer["pass"], layer["pass"])


def _peak_name(ceilings: Ceilings) -> str:
    return f"peak {ceilings.peak_gflops:.0f} GFLOP/s"


def _name_dots(ceilings: Ceilings | None, canvas: Canvas, model: Model, limits: tuple[axes.Scale, axes.Scale]) -> None:
    """Names of the dots of the largest shares."""
    x, y = limits
    dots = [
        labels.Dot(
            _name(layer),
            (x(intensity), y(speed)),
            _radius(layer, model),
            (x(layer["flops"] / (moved(layer) or layer["bytes"])), y(speed)),
        )
        for layer, intensity, speed in _dots(model)
    ]
    boxes, names = [], []
    if ceilings:
        boxes, up = _roof_boxes(ceilings, x, y), y(ceilings.peak_gflops)
        names = [(RIGHT - 2 - text_width(_peak_name(ceilings), 11), up - 18, RIGHT, up)]
    labels.draw(canvas, dots, LABELS, (LEFT, TOP, RIGHT, BOTTOM), boxes, names)
