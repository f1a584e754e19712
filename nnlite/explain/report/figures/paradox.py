"""How many times as long as the MLP each network takes: as counted, as asked, and under each algorithm."""

from __future__ import annotations

from nnlite.explain.numbers import listed, times
from nnlite.explain.report import axes, theme
from nnlite.explain.report.canvas import Canvas, text_width
from nnlite.explain.report.run import METRICS, Figure, Run, Variant, asked, ratio, step

WIDTH, LEFT, RIGHT, TOP, ROW = 470.0, 14.0, 40.0, 34.0, 54.0
SIZE, GAP = 11.5, 8.0  # of a dot's label, and between labels

Row = tuple[str, dict[str, float]]  # what is said, and each network's ratio to the MLP


def draw(run: Run) -> Figure | None:
    """None without the MLP to compare with."""
    rows = _rows(run)
    if not rows:
        return None
    values = [value for _, ratios in rows for value in ratios.values()]
    bottom = TOP + ROW * len(rows)
    canvas = Canvas(WIDTH, bottom + 42, "Ratios to the MLP: " + "; ".join(f"{name}: {_said(r)}" for name, r in rows))
    x = axes.Scale(*axes.log_range([*values, 1.0], 2.0), LEFT, WIDTH - RIGHT)
    axes.draw_x(canvas, x, TOP, bottom, "times the MLP (log scale)")
    canvas.line((x(1), TOP - 6), (x(1), bottom), stroke="text", width=1.5)
    canvas.text(x(1), TOP - 12, "the MLP", size=11.5, anchor="middle", bold=True)
    for i, (name, ratios) in enumerate(rows):
        _draw_row(run, canvas, x, TOP + ROW * i, name, ratios)
    return Figure("paradox", "The paradox, and what becomes of it", _caption(run), [canvas], 1)


def _rows(run: Run) -> list[Row]:
    own = run.variants[0]
    base = own.baseline
    if base is None:
        return []
    rows: list[Row] = [
        (f"{metric} say", {m["name"]: r for m in own.others() if (r := ratio(m, base, METRICS[metric]))})
        for metric in ("parameters", "training MACs")
    ]
    reported = {m["name"]: a / b for m in own.others() if (a := asked(m)) and (b := asked(base))}
    if reported:
        rows.append(("the question measured", reported))
    rows.extend((f"measured here, {v.algorithm}", _measured(v)) for v in reversed(run.variants) if v.baseline)
    return rows


def _measured(variant: Variant) -> dict[str, float]:
    assert variant.baseline is not None
    return {m["name"]: step(m) / step(variant.baseline) for m in variant.others()}


def _draw_row(run: Run, canvas: Canvas, x: axes.Scale, top: float, name: str, ratios: dict[str, float]) -> None:
    middle = top + 40
    canvas.text(LEFT, top + 12, name, size=12, bold=True)
    canvas.line((LEFT, middle), (WIDTH - RIGHT, middle), stroke="line", width=1)
    for slower, low, high in ((True, x(1) + GAP, WIDTH - GAP), (False, LEFT, x(1) - GAP)):
        dots = sorted((value, network) for network, value in ratios.items() if (value >= 1) == slower)
        labels = [f"{network} {times(value)}" for value, network in dots]
        lefts = _apart([x(value) for value, _ in dots], [text_width(label, SIZE) for label in labels], low, high)
        for (value, network), label, left in zip(dots, labels, lefts, strict=True):
            colour, kind = theme.series(run.index(network))
            canvas.marker(x(value), middle, 6, colour, kind, title=label)
            canvas.text(left, middle - 12, label, size=SIZE)


def _apart(centres: list[float], widths: list[float], low: float, high: float) -> list[float]:
    """Where labels begin that stand above their dots as far as they can: between `low` and `high`, and apart."""
    lefts = []
    for centre, wide in zip(centres, widths, strict=True):
        lefts.append(max(centre - wide / 2, low))
        low = lefts[-1] + wide + GAP
    for i in reversed(range(len(lefts))):
        lefts[i] = min(lefts[i], high - widths[i])
        high = lefts[i] - GAP
    return lefts


def _said(ratios: dict[str, float]) -> str:
    return ", ".join(f"{name} {times(value)}" for name, value in ratios.items())


def _caption(run: Run) -> str:
    said = []
    for variant in run.variants:
        if variant.baseline:
            ratios = [f"the {name} takes {times(value)} as long" for name, value in _measured(variant).items()]
            said.append(f"Under {variant.algorithm}, {listed(ratios)} as the MLP.")
    missing = [name for name in ("im2col", "theano2017") if name not in [v.algorithm for v in run.variants]]
    if missing:
        said.append(f"This run did not time {listed(missing)}.")
    return " ".join(said)
