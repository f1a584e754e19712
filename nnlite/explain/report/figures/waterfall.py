"""From the time at the processor's peak to the measured step: what is added on the way."""

from __future__ import annotations

from dataclasses import dataclass

from nnlite.explain.numbers import milliseconds, threads_said, times
from nnlite.explain.report import axes
from nnlite.explain.report.canvas import Canvas, text_width
from nnlite.explain.report.run import Figure, Model, Run, Variant, step

WIDTH, LEFT, RIGHT, TOP, ROW, SIZE = 370.0, 14.0, 84.0, 30.0, 40.0, 11.5
SMALL = "small_cnn"
#: a stage that is less than this part of the step is not drawn
LEAST = 0.005
#: whether they take longer than at the peak -> what is said of the products, as measured and as predicted
PRODUCTS = {
    True: "convolutions and products, slower than the peak",
    False: "fewer multiplications than counted (Winograd)",
}
ARITHMETIC = {True: "arithmetic, at the rates of these shapes", False: PRODUCTS[False]}


@dataclass(frozen=True)
class Stage:
    """What one reason adds to the step; `total` stands for a sum, drawn from zero."""

    name: str
    ms: float
    role: str
    total: bool = False


def draw(run: Run, variant: Variant) -> Figure | None:
    """None without the measured peak."""
    ceilings = run.ceilings(variant)
    if ceilings is None:
        return None
    peak = ceilings.peak_gflops
    models = sorted(variant.models, key=lambda m: m["name"] != SMALL)
    panels = [_panel(model, stages(model, peak)) for model in models]
    first = models[0]
    at_peak = peak_ms(first, peak)
    caption = (
        f"Under {variant.algorithm}, the arithmetic of the {first['name']} would take {milliseconds(at_peak)} at the "
        f"measured peak of {threads_said(ceilings.threads)}, {peak:.0f} GFLOP/s. The step takes "
        f"{milliseconds(step(first))}, {times(step(first) / at_peak)}."
    )
    if first.get("predicted_ms") is None:
        caption += " Without the time model in this run, the stages are measured parts of the step, not causes."
    title = "From the processor's peak to the measured step"
    return Figure(f"waterfall-{variant.algorithm}", title, caption, panels, 3)


def peak_ms(model: Model, peak: float) -> float:
    """The step's arithmetic at the peak, ms."""
    return sum(layer["flops"] or 0 for layer in model["layers"]) / peak / 1e6


def stages(model: Model, peak: float) -> list[Stage]:
    """The stages that are large enough to be seen; with the rest they add up to the last, the measured step."""
    begin = Stage("its FLOPs at the peak", peak_ms(model, peak), "c5", total=True)
    added = _predicted_stages(model, peak) if model.get("predicted_ms") is not None else _measured_stages(model, peak)
    seen = [stage for stage in added if abs(stage.ms) >= LEAST * step(model)]
    return [begin, *seen, Stage("measured", step(model), "c5", total=True)]


def _measured_stages(model: Model, peak: float) -> list[Stage]:
    layers = model["layers"]
    products = sum(layer["ms"] for layer in layers if layer["flops"])
    optimizer = sum(layer["ms"] for layer in layers if layer["pass"] == "optimizer")
    other = sum(layer["ms"] for layer in layers if layer["pass"] == "other" or layer["name"] == "loss")
    rest = step(model) - products - optimizer - other
    return [
        Stage(PRODUCTS[products >= peak_ms(model, peak)], products - peak_ms(model, peak), "c0"),
        Stage("passes without products: activation, pooling, dropout", rest, "c1"),
        Stage("optimizer", optimizer, "c4"),
        Stage("loss, and between the layers", other, "c3"),
    ]


def _predicted_stages(model: Model, peak: float) -> list[Stage]:
    """The time model's terms, summed over the passes, and what they leave."""
    rows = [layer["terms_ms"] for layer in model["layers"] if layer.get("terms_ms")]
    total = {term: sum(row[term] for row in rows) for term in ("compute", "memory", "calls", "fresh")}
    arithmetic = total["compute"] - peak_ms(model, peak)
    return [
        Stage(ARITHMETIC[arithmetic >= 0], arithmetic, "c0"),
        Stage("bytes moved, where they take longer than arithmetic", total["memory"], "c1"),
        Stage("calls", total["calls"], "c3"),
        Stage("memory touched for the first time", total["fresh"], "c4"),
        Stage("not explained", step(model) - sum(total.values()), "c6"),
    ]


def _panel(model: Model, rows: list[Stage]) -> Canvas:
    bottom = TOP + ROW * len(rows)
    canvas = Canvas(WIDTH, bottom + 40)
    canvas.label = f"{model['name']}: " + ", ".join(f"{s.name} {milliseconds(s.ms)}" for s in rows)
    canvas.text(LEFT, 18, model["name"], size=14, bold=True)
    reached, ends = 0.0, []
    for stage in rows:
        begin = 0.0 if stage.total else reached
        reached = begin + stage.ms
        ends.append((begin, reached))
    lowest = min(0.0, *(min(pair) for pair in ends))
    x = axes.Scale(lowest, max(max(pair) for pair in ends), LEFT, WIDTH - RIGHT, log=False)
    axes.draw_x(canvas, x, TOP + 4, bottom, "ms")
    for i, (stage, (begin, end)) in enumerate(zip(rows, ends, strict=True)):
        top = TOP + ROW * i
        sign = "" if stage.total else "+" if stage.ms >= 0 else "−"
        value = f"{sign}{milliseconds(abs(stage.ms))}"
        # a ground for the name, which grid lines would cross
        canvas.rect(LEFT - 2, top + 4, text_width(stage.name, SIZE) + 6, 14, "page")
        canvas.text(LEFT, top + 15, stage.name, size=SIZE)
        left, right = sorted((x(begin), x(end)))
        canvas.rect(left, top + 19, max(right - left, 1), 15, stage.role, title=f"{stage.name}: {value}")
        canvas.text(max(right, LEFT) + 5, top + 31, value, size=SIZE)
        if i + 1 < len(rows):
            canvas.line((x(end), top + 19), (x(end), top + ROW + 19), stroke="muted", width=1, dashed=True)
    return canvas
