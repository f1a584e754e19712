"""How many times as long as the MLP each network takes: as counted, as asked, and under each algorithm."""

from __future__ import annotations

from nnlite.explain.report import axes, theme
from nnlite.explain.report.canvas import Canvas, text_width
from nnlite.explain.report.numbers import listed, times
from nnlite.explain.report.run import METRICS, Figure, Run, Variant, asked, ratio, step

WIDTH, LEFT, RIGHT, TOP, ROW = 470.0, 14.0, 40.0, 34.0, 50.0

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
    middle = top + 36
    canvas.text(LEFT, top + 12, name, size=12, fill="text")
    canvas.line((LEFT, middle), (WIDTH - RIGHT, middle), stroke="line", width=1)
    taken: list[tuple[float, float]] = []
    for network, value in sorted(ratios.items(), key=lambda item: -item[1]):
        colour, kind = theme.series(run.index(network))
        label = f"{network} {times(value)}"
        canvas.marker(x(value), middle, 6, colour, kind, title=label)
        width = text_width(label, 11.5)
        left = x(value) + 10
        if left + width > WIDTH or any(left < end and begin < left + width for begin, end in taken):
            left = x(value) - 10 - width
        left = max(left, LEFT)
        taken.append((min(left, x(value) - 8), left + width))
        canvas.text(left, middle - 8 if left < x(value) else middle + 4, label, size=11.5)


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
