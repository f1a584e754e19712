"""The report's tables: sortable by script, whole without one; a number that has a formula shows it when clicked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from nnlite.cost import human_bytes
from nnlite.explain.accuracy import median_error, off, off_said, quality, why_not
from nnlite.explain.names import shorten, spelled_out
from nnlite.explain.numbers import miss, short, times
from nnlite.explain.report import formulas
from nnlite.explain.report.formulas import Formula
from nnlite.explain.report.run import METRICS, Model, Run, Variant, asked, moved, rows, step, terms
from nnlite.explain.verdict import WITHIN
from nnlite.lab.statistics import Ratio
from nnlite.scopes import PART_NAMES


@dataclass(frozen=True)
class Cell:
    """What a cell says, the number by which it is sorted, and where that comes from."""

    text: str
    value: float | None = None
    formula: Formula | None = None
    role: str = ""


MISSING = Cell("–", role="missing")


@dataclass
class Popovers:
    """The formulas of the page, each once; cells refer to them."""

    known: dict[Formula, str] = field(default_factory=dict)

    def button(self, text: str, formula: Formula) -> str:
        name = self.known.setdefault(formula, f"f{len(self.known)}")
        return f'<button class="number" type="button" popovertarget="{name}">{escape(text)}</button>'

    def html(self) -> str:
        """What the buttons open."""
        return "\n".join(
            f'<div popover class="formula" id="{name}"><b>{escape(f.title)}</b>'
            f"<code>{escape(f.arithmetic)}</code><small>{escape(f.meaning)}</small></div>"
            for f, name in self.known.items()
        )


def table(
    caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], popovers: Popovers, last: str = ""
) -> str:
    """An HTML table; the first column names the row. `last`: rows that stay below, as they are."""
    words = [all(row[i].value is None and row[i] is not MISSING for row in rows) for i in range(len(columns))]
    head = "".join(f'<th scope="col"{_css(words[i])}>{escape(c)}</th>' for i, c in enumerate(columns))
    body = "\n".join(_row(row, words, popovers) for row in rows)
    foot = f"<tfoot>{last}</tfoot>" if last else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="sortable">'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table></div>"
    )


def _css(words: bool, role: str = "") -> str:
    names = " ".join(name for name in ("words" if words else "", role) if name)
    return f' class="{names}"' if names else ""


def _row(row: Sequence[Cell], words: Sequence[bool], popovers: Popovers) -> str:
    cells = []
    for i, cell in enumerate(row):
        text = popovers.button(cell.text, cell.formula) if cell.formula else escape(cell.text)
        value = "" if cell.value is None else f' data-value="{cell.value:.9g}"'
        css = _css(words[i], cell.role)
        cells.append(f'<th scope="row">{text}</th>' if i == 0 else f"<td{value}{css}>{text}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def networks(run: Run, popovers: Popovers) -> str:
    """One row a network: its counts, and its step under each algorithm."""
    batch = run.document["batch_size"]
    steps = [f"step, {v.algorithm}, ms" for v in run.variants]
    columns = [
        "network",
        "parameters",
        "forward MACs",
        "training MACs",
        "unfused least bytes",
        *steps,
        "epoch, s",
        "asked, s",
    ]
    rows = []
    for model in run.variants[0].models:
        measured = [_step(v.find(model["name"])) for v in run.variants]
        epoch = model["epoch_s_60000"]
        seconds = asked(model)
        rows.append(
            [
                Cell(model["name"]),
                _count(model["parameters"], formulas.parameters(model)),
                _count(model["forward_macs_per_image"], formulas.macs(model, batch, training=False)),
                _count(model["training_macs_per_image"], formulas.macs(model, batch, training=True)),
                Cell(human_bytes(model["unfused_least_bytes_per_step"]), model["unfused_least_bytes_per_step"]),
                *measured,
                Cell(short(epoch), epoch, formulas.epoch(model, batch)),
                Cell(f"{seconds:g}", seconds) if seconds else MISSING,
            ]
        )
    return table("The networks: MACs an image; bytes a step", columns, rows, popovers)


#: columns of a step's prediction, and the terms that each shows
_TERMS = {
    "arithmetic, ms": ("compute",),
    "bytes, ms": ("memory",),
    "calls, ms": ("calls", "fresh"),
}


def accuracy(run: Run, popovers: Popovers) -> str:
    """One row an algorithm and network: the time model's terms, its prediction and what was measured after it."""
    columns = ["algorithm", "network", "moved bytes", *_TERMS, "predicted, ms", "measured, ms", "off"]
    base = run.variants[0].baseline
    columns += [f"ratio to {base['name']} (95%)"] if base else []
    found = [_accuracy(variant, model) for variant in run.variants for model in variant.models]
    return table("Each step, predicted before it was timed", columns, found, popovers)


def _accuracy(variant: Variant, model: Model) -> list[Cell]:
    carried, sums = model.get("moved_bytes_per_step"), terms(model)
    row = [Cell(variant.algorithm), Cell(model["name"])]
    row.append(Cell(human_bytes(carried), carried) if carried else MISSING)
    if sums is None:
        row += [MISSING] * (len(_TERMS) + 1)
    else:
        values = [sum(sums[name] for name in names) for names in _TERMS.values()]
        row += [Cell(short(value), value) for value in values]
        row.append(Cell(short(model["predicted_ms"]), model["predicted_ms"], formulas.predicted_step(model, sums)))
    row += [_step(model), _off(model["name"], model.get("predicted_ms"), step(model))]
    if variant.baseline:
        ratio = variant.ratios.get(model["name"])
        row.append(_interval(ratio) if ratio else Cell(""))
    return row


def _off(name: str, predicted: float | None, ms: float) -> Cell:
    """By how many percent the prediction is off; sorted by how far."""
    if predicted is None or ms <= 0:
        return MISSING
    return Cell(off_said(predicted, ms), abs(off(predicted, ms)), formulas.error(name, predicted, ms))


def _interval(ratio: Ratio, formula: Formula | None = None) -> Cell:
    said = f"{short(ratio.value)} ({short(ratio.low)} to {short(ratio.high)})"
    return Cell(said, ratio.value, formula)


def _step(model: Model | None) -> Cell:
    return Cell(short(step(model)), step(model), formulas.median(model)) if model else MISSING


def _count(value: int, formula: Formula | None) -> Cell:
    return Cell(f"{value:,}", value, formula)


def predictions(variant: Variant, popovers: Popovers) -> str:
    """One row a count and network: the ratio to the baseline that it predicts beside the measured one."""
    base = variant.baseline
    assert base is not None
    rows = []
    for metric, key in METRICS.items():
        for c in variant.comparisons(metric):
            model = c.model
            timed = formulas.ratio(model, base, "measured time, ms", step(model), step(base))
            row = [Cell(metric), Cell(model["name"])]
            measured = _interval(variant.ratios[model["name"]], timed)
            if c.predicted is None:
                rows.append([*row, MISSING, measured, MISSING, MISSING])
                continue
            counted = formulas.ratio(model, base, metric, model[key], base[key])
            factor = max(c.predicted / c.measured, c.measured / c.predicted)
            verdict = Cell("✓ yes" if c.lands else "✗ no", float(bool(c.lands)), role="good" if c.lands else "bad")
            said = [Cell(times(c.predicted), c.predicted, counted), measured]
            rows.append([*row, *said, Cell(miss(c.predicted, c.measured), factor), verdict])
    columns = ["count", "network", "predicted", "measured (95%)", "misses by", f"within {WITHIN:g}×"]
    landed = [metric for metric in METRICS if variant.lands(metric)]
    caption = f"Ratios to the {base['name']} under {variant.algorithm}: "
    caption += f"{', '.join(landed)} within {WITHIN:g}× for every network" if landed else "no count predicts all"
    return table(caption, columns, rows, popovers)


def layers(model: Model, variant: Variant, run: Run, popovers: Popovers) -> str:
    """One row a layer and pass, which add up to the step."""
    columns = [
        "layer",
        "pass",
        "MFLOP",
        "least bytes",
        "moved bytes",
        "ms",
        "share",
        "GFLOP/s",
        "predicted, ms",
        "off",
        "bound",
    ]
    shown = [_layer(model, layer, run.document["batch_size"]) for layer in model["layers"]]
    total = sum(layer["ms"] for layer in model["layers"])
    said = model.get("predicted_ms")
    predicted, missed = (short(said), off_said(said, step(model))) if said else ("–", "–")
    last = (
        f'<tr><th scope="row">the step</th><td></td><td></td><td></td><td></td><td>{short(total)}</td><td>100%</td>'
        f"<td></td><td>{predicted}</td><td>{missed}</td><td></td></tr>"
    )
    caption = f"{model['name']} under {variant.algorithm}: a step of {short(step(model))} ms. "
    caption += "".join(f"{sentence}. " for sentence in spelled_out(layer["name"] for layer in model["layers"]))
    missing = model.get("not_predicted") or []
    caption += quality(median_error(rows(model))) if said else f"Not predicted: {why_not(missing)}."
    return table(caption, columns, shown, popovers, last)


def _layer(model: Model, layer: dict, batch: int) -> list[Cell]:
    percent = 100 * layer["ms"] / step(model)
    rate = layer["flops"] / layer["ms"] / 1e6 if layer["flops"] and layer["ms"] > 0 else None
    carried = moved(layer)
    predicted = layer.get("predicted_ms")
    count, least = layer["flops"], layer["bytes"]
    return [
        Cell(shorten(layer["name"])),
        Cell(PART_NAMES.get(layer["pass"], layer["pass"])),
        Cell(f"{count / 1e6:,.1f}", count, formulas.flops(model, layer, batch)) if count else Cell(""),
        Cell(human_bytes(least), least, formulas.least_bytes(model, layer, batch)) if least else Cell(""),
        Cell(human_bytes(carried), carried) if carried is not None else MISSING,
        Cell(short(layer["ms"]), layer["ms"]),
        Cell(f"{percent:.1f}%", percent, formulas.share(model, layer)),
        Cell(short(rate), rate, formulas.speed(layer)) if rate else Cell(""),
        Cell(short(predicted), predicted, formulas.predicted(layer)) if predicted is not None else MISSING,
        _off(f"{layer['name']}, {PART_NAMES.get(layer['pass'], layer['pass'])}", predicted, layer["ms"]),
        Cell(layer["bound"]) if layer.get("bound") else MISSING,
    ]
