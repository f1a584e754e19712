"""The tables of the terminal and the report, from a document."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, log10
from typing import Any

from nnlite.explain import formulas
from nnlite.explain.compare import LEAST, WITHIN, Prediction, differences, predictions
from nnlite.explain.document import Document, Network, Row
from nnlite.explain.names import layer_and_pass, pass_name, spelled_out
from nnlite.lab.numbers import milliseconds, miss, percent, short, threads_said, times
from nnlite.lab.table import MISSING, Cell, Formula, Table, without_missing
from nnlite.performance.counts import human_bytes
from nnlite.performance.statistics import Ratio

_TERMS = ("compute", "memory", "overhead")
#: the most networks that are columns of the first table; more are its rows
ABREAST = 3


def networks(document: Document) -> Table:
    """Each network's size, and its step with the algorithm of the run."""
    several = len(document.models) > 1
    columns = ["network", "parameters", "training MACs per image", "memory traffic per step", "step", "predicted"]
    columns += [f"ratio to {shorten_name(document.baseline)}"] if several else []
    rows = []
    for n in document.models:
        row = [
            Cell(n.name),
            Cell(f"{n.parameters:,}", n.parameters, formulas.parameters(n)),
            Cell(
                f"{n.training_macs_per_image:,}",
                n.training_macs_per_image,
                formulas.training_macs(n, document.batch_size),
            ),
            _bytes(n.moved_bytes_per_step),
            Cell(milliseconds(n.step_ms.median), n.step_ms.median, formulas.step(n)),
            _predicted_step(n, unit=" ms"),
        ]
        base = document.base_of(n)
        rows.append([*row, *([_ratio(n, base) if base else Cell("1", 1.0)] if several else [])])
    title = f"A training step of {document.batch_size} images, algorithm {document.algorithm}"
    note = f"Median{'s' * several} of {document.rounds} round{'s' * (document.rounds != 1)}, "
    note += threads_said(document.threads)
    if any(n.ratio and n.ratio.low is not None for n in document.models):
        note += "; ratios with 95% interval"
    table = without_missing(Table(title, columns, rows, [f"{note}."]))
    if len(rows) > ABREAST:
        return table
    turned = [[Cell(name), *cells] for name, *cells in zip(table.columns, *table.rows, strict=True)]
    return Table(title, ["", *(n.name for n in document.models)], turned[1:], table.notes)


def shorten_name(name: str, longest: int = 16) -> str:
    """A network's name, cut to at most `longest` characters."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _bytes(count: float | None, formula: Formula | None = None) -> Cell:
    return MISSING if count is None else Cell(human_bytes(count), count, formula)


def interval(measured: Ratio) -> str:
    """17.4 (17.1–17.9), or the value alone."""
    said = short(measured.value)
    return said if measured.low is None else f"{said} ({short(measured.low)}–{short(measured.high or 0)})"


def _ratio(n: Network, base: Network) -> Cell:
    if n.ratio is None:
        return MISSING
    return Cell(interval(n.ratio), n.ratio.value, formulas.step_ratio(n, base))


def _predicted_step(n: Network, unit: str = "") -> Cell:
    if n.predicted_ms is None:
        return MISSING
    terms = sum_of_terms(n)
    return Cell(short(n.predicted_ms) + unit, n.predicted_ms, formulas.predicted(n.name, terms, n.predicted_ms))


def sum_of_terms(n: Network) -> dict[str, float] | None:
    """The time model's terms of the step, ms; None if it is not predicted.

    They are scaled to the predicted step: the median of a sum is not the sum of medians.
    """
    rows = [row.terms_ms for row in n.layers if row.terms_ms]
    if n.predicted_ms is None or not rows:
        return None
    scale = n.predicted_ms / sum(sum(terms.values()) for terms in rows)
    return {term: scale * sum(terms.get(term, 0.0) for terms in rows) for term in _TERMS}


def layers(network: Network, document: Document) -> Table:
    """One row per layer and pass of at least LEAST of the step, and one for all others; their sum is the step."""
    columns = ["layer", "pass", "MFLOP", "minimum traffic", "memory traffic", "ms", "share", "predicted", "error"]
    shown = [row for row in network.layers if row.ms >= LEAST * network.step_ms.median]
    rows = [_layer(row, network, document.batch_size) for row in shown]
    if len(shown) < len(network.layers):
        ms = network.step_ms.median - sum(row.ms for row in shown)
        share = 100 * ms / network.step_ms.median
        rest = [Cell("everything else"), Cell(""), *[MISSING] * 3, Cell(short(ms), ms), Cell(f"{share:.1f}%", share)]
        rows.append([*rest, *[MISSING] * 3])
    total = [Cell("the step"), *[Cell("")] * 4, Cell(short(network.step_ms.median)), Cell("100%")]
    error = network.prediction_error
    total += [_predicted_step(network), MISSING if error is None else Cell(percent(error.value)), Cell("")]
    title = f"{network.name}, algorithm {network.algorithm}: a step of {milliseconds(network.step_ms.median)}"
    notes = [f"{c.name}: {c.algorithm} ({c.reason})." for c in network.convolutions]
    notes += [f"{said}." for said in spelled_out(row.name for row in shown)]
    return without_missing(Table(title, [*columns, "limited by"], rows, notes, total))


def _layer(row: Row, network: Network, batch: int) -> list[Cell]:
    title = f"{row.name}, {pass_name(row.part)}"
    flops = Cell("")
    if row.flops:
        flops = Cell(f"{row.flops / 1e6:,.1f}", row.flops, formulas.flops(network, row, batch))
    share = 100 * row.ms / network.step_ms.median
    predicted = MISSING
    if row.predicted_ms is not None:
        formula = formulas.predicted(title, row.terms_ms, row.predicted_ms, row)
        predicted = Cell(short(row.predicted_ms), row.predicted_ms, formula)
    return [
        *map(Cell, layer_and_pass(row.name, row.part)),
        flops,
        _bytes(row.bytes, formulas.minimum_traffic(network, row, batch)),
        _bytes(row.moved_bytes),
        Cell(short(row.ms), row.ms),
        Cell(f"{share:.1f}%", share),
        predicted,
        _error(row.predicted_ms, row.ms),
        Cell(row.bound) if row.bound else MISSING,
    ]


def _error(predicted_ms: float | None, ms: float) -> Cell:
    if predicted_ms is None or ms <= 0:
        return MISSING
    off = predicted_ms / ms - 1
    return Cell(percent(off), off)


def metrics(document: Document, algorithm: str) -> Table:
    """One row per metric: the ratio it predicts for each network, and whether it holds."""
    found = predictions(document, algorithm)
    others = [n for n in document.by_algorithm[algorithm] if document.base_of(n)]
    rows = []
    for metric, row in found.items():
        held = [p for p in row if p.holds]
        verdict = "yes" if len(held) == len(row) else f"{len(held)} of {len(row)}" if held else "no"
        role = "good" if verdict == "yes" else "bad"
        rows.append([Cell(metric), *map(_prediction, row), Cell(verdict, role=role)])
    measured = [Cell(interval(n.ratio)) if n.ratio else MISSING for n in others]
    title = f"The ratio to {document.baseline} that each metric predicts, algorithm {algorithm}"
    columns = ["metric", *(shorten_name(n.name, 24) for n in others), f"within {WITHIN:g}×"]
    return Table(title, columns, rows, [], [Cell("measured"), *measured, Cell("")])


def _prediction(p: Prediction) -> Cell:
    text = short(p.predicted) if p.holds else f"{short(p.predicted)}, {miss(p.predicted, p.measured.value)}"
    formula = formulas.ratio(p.metric, p.network, p.base, p.value, p.base_value)
    return Cell(text, p.predicted, formula, "good" if p.holds else "bad")


def difference(network: Network, base: Network) -> Table:
    """Differences between the baseline's step and the network's by layer and pass, the largest first."""
    steps = base.step_ms.median, network.step_ms.median
    rows = [
        [
            *map(Cell, layer_and_pass(d.name, d.part)),
            Cell(short(d.base_ms), d.base_ms) if d.base_ms else MISSING,
            Cell(short(d.ms), d.ms) if d.ms else MISSING,
            Cell(signed(d.more, max(steps)), d.more),
        ]
        for d in differences(network, base)
    ]
    total = [
        Cell("the step"),
        Cell(""),
        *(Cell(short(ms)) for ms in steps),
        Cell(signed(steps[1] - steps[0], max(steps))),
    ]
    title = f"From {base.name} to {network.name}, algorithm {network.algorithm}: ms per step"
    notes = [f"{said}." for said in spelled_out(d.name for d in differences(network, base))]
    return Table(title, ["layer", "pass", base.name, network.name, "difference"], rows, notes, total)


def signed(ms: float, scale: float) -> str:
    """+1.23, -0.05: with as many decimals as a time of `scale` has, at least one."""
    places = min(max(1, 2 - floor(log10(abs(scale)))), 6) if scale else 1
    return f"{ms:+,.{places}f}"


def accuracy(document: Document) -> Table:
    """One row per algorithm and network: the terms of the prediction, and its error."""
    columns = ["network, algorithm", *_TERMS, "predicted", "measured", "error"]
    rows = []
    for n in document.everything:
        terms = sum_of_terms(n)
        found = [Cell(short(terms[term]), terms[term]) for term in _TERMS] if terms else [MISSING] * len(_TERMS)
        step = n.step_ms.median
        network = Cell(f"{n.name}, {n.algorithm}")
        rows.append([network, *found, _predicted_step(n), Cell(short(step), step), _paired(n)])
    notes = [
        "compute: FLOPs / rate at that shape; memory: bytes / bandwidth; overhead: a fixed cost per call.",
    ]
    if any(n.prediction_error and n.prediction_error.low is not None for n in document.everything):
        notes.append("error: the median of predicted / measured - 1 of each round, not of the medians; 95% interval.")
    return Table("The prediction of each step, ms", columns, rows, notes)


def _paired(n: Network) -> Cell:
    error = n.prediction_error
    if error is None:
        return MISSING
    said = percent(error.value)
    if error.low is not None:
        said += f" ({percent(error.low)} to {percent(error.high or 0)})"
    return Cell(said, error.value)


def sweep(content: Mapping[str, Any]) -> Table:
    """One row per value of the property, one column per network and algorithm: ms per step."""
    points = {(p["network"], p["algorithm"], p["x"]): p["ms"] for p in content["points"]}
    keys = list(dict.fromkeys(key[:2] for key in points))
    rows = []
    for x in sorted({key[2] for key in points}):
        cells = [points.get((*key, x)) for key in keys]
        rows.append([Cell(f"{x:g}", x), *(MISSING if ms is None else Cell(short(ms), ms) for ms in cells)])
    notes = [f"{b['network']}, {b['algorithm']}: {milliseconds(b['ms'])} per step." for b in content["baselines"]]
    columns = [content["x"], *(f"{network}, {algorithm}" for network, algorithm in keys)]
    return Table(f"Sweep: {content['title']}; ms per step", columns, rows, notes)


def ladder(document: Document) -> Table:
    """One row per algorithm, the slowest first: the time of the same layer, and how it is computed."""
    rungs = document.ladder or []
    rows = [
        [
            Cell(rung["name"]),
            Cell(("about " if rung.get("scaled") else "") + milliseconds(rung["ms"]), rung["ms"]),
            Cell(times(rungs[0]["ms"] / rung["ms"]), rungs[0]["ms"] / rung["ms"]),
            Cell(rung.get("changes") or ""),
        ]
        for rung in rungs
    ]
    return Table(f"One layer ({document.ladder_layer})", ["algorithm", "time", "speedup", "what it does"], rows)
