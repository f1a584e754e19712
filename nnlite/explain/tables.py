"""The terminal's tables: at most 100 columns, plain when piped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnlite.explain.accuracy import median_error, off_said, quality, why_not
from nnlite.explain.measure import LayerTime, Measurement
from nnlite.explain.names import shorten, spelled_out
from nnlite.explain.question import BASELINE, REPORTED_SECONDS
from nnlite.explain.verdict import METRICS, WITHIN, Prediction, measured_ratio, predictions, step_of
from nnlite.lab.statistics import Ratio
from nnlite.lab.terminal import console as console
from nnlite.performance.counts import human_bytes

if TYPE_CHECKING:
    from rich.table import Table

#: where a column is too narrow for scopes.PART_NAMES
SHORT_NAMES = {"grad_input": "d input", "grad_weight": "d weight", "gradients": "d both"}


def _table(title: str, columns: Sequence[str], left: int = 1) -> Table:
    """A table with lines above and below its head alone; the first `left` columns are words."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right")
    return table


def overview(measurements: Sequence[Measurement], batch_size: int) -> Table:
    """One row a network: exact counts, measured step, and the question's own seconds."""
    columns = ("network", "parameters", "forward MACs", "training MACs", "least*", "moved", "step", "epoch", "asked")
    table = _table(f"Counted and measured: a training step of {batch_size} images", columns)
    for m in measurements:
        reported = REPORTED_SECONDS.get(m.name)
        table.add_row(
            m.name,
            f"{m.cost.parameters:,}",
            f"{m.cost.forward_macs_per_image:,}",
            f"{m.cost.training_macs_per_image:,}",
            human_bytes(m.cost.unfused_least_bytes),
            human_bytes(m.moved_bytes) if m.moved_bytes is not None else "not said",
            f"{m.step_ms:.2f} ms",
            f"{m.epoch_s:.1f} s",
            f"{reported:.0f} s" if reported else "",
        )
    table.caption = "MACs: an image. *bytes, unfused. epoch: 60,000 images. asked: seconds an epoch in the question."
    return table


def side_by_side(measurements: Sequence[Measurement]) -> Table:
    """One row an algorithm and network: the step, its ratio to the baseline's, and the question's ratio."""
    columns = ("algorithm", "network", "step", "predicted", "off", f"ratio to {BASELINE} (95%)", "in the question")
    table = _table("The same networks under three ways of computing a convolution", columns, left=2)
    for m in measurements:
        base = step_of(measurements, m.algorithm, BASELINE)
        ratio = measured_ratio(m, base) if base else None
        table.add_row(
            m.algorithm,
            m.name,
            f"{m.step_ms:.2f} ms",
            f"{m.predicted_ms:.2f} ms" if m.predicted_ms is not None else "",
            off_said(m.predicted_ms, m.step_ms),
            _interval(ratio) if ratio else "",
            f"{REPORTED_SECONDS[m.name] / REPORTED_SECONDS[BASELINE]:.3g}" if m.name in REPORTED_SECONDS else "",
        )
        if m.name == "small_cnn":
            table.add_section()
    return table


def algorithms(m: Measurement) -> list[str]:
    """One line a convolution: how it was computed, and why so; and one for layers that one kernel computed."""
    return [
        *(f"{layer}: {algorithm} ({reason})" for layer, (algorithm, reason) in m.algorithms.items()),
        *spelled_out(layer.name for layer in m.layers),
    ]


def layers(m: Measurement) -> Table:
    """One row a layer and pass: the rows add up to the step, measured and predicted, each term of the model shown."""
    table = _table(
        f"{m.name} under {m.algorithm}: where a step of {m.step_ms:.2f} ms goes (milliseconds)",
        ("layer", "pass", "MFLOP", "moved", "measured", "share", "predicted", "off", "compute", "memory", "calls"),
        left=2,
    )
    for layer in m.layers:
        table.add_row(*_layer_row(layer, m))
    table.add_section()
    predicted = m.predicted_ms
    table.add_row(
        "the step", "", "", "", f"{m.step_ms:.3f}", "100%", f"{predicted:.3f}" if predicted else "",
        off_said(predicted, m.step_ms), "", "", "",
    )  # fmt: skip
    table.caption = _quality(m)
    return table


def _layer_row(layer: LayerTime, m: Measurement) -> list[str]:
    row = [
        shorten(layer.name),
        SHORT_NAMES.get(layer.part, layer.part),
        f"{layer.flops / 1e6:,.1f}" if layer.flops else "",
        "",
        f"{layer.ms:.3f}",
        f"{100 * layer.ms / m.step_ms:.1f}%",
    ]
    if layer.predicted_ms is None:
        return row
    assert layer.prediction is not None
    terms = layer.prediction.terms
    row[3] = human_bytes(layer.prediction.moved_bytes) if layer.prediction.moved_bytes else ""
    row += [f"{layer.predicted_ms:.3f}", off_said(layer.predicted_ms, layer.ms)]
    return row + [f"{1e3 * value:.3f}" for value in (terms.compute, terms.memory, terms.calls + terms.fresh)]


def _quality(m: Measurement) -> str:
    """How far the prediction is off, and where it is not good enough."""
    if m.predicted_ms is None:
        return f"Not predicted: {why_not(m.prediction.missing if m.prediction else [])}."
    return quality(median_error(m.rows()))


def terms(measurements: Sequence[Measurement]) -> Table:
    """One row an algorithm and network: the model's terms, and what it leaves unexplained."""
    columns = ("algorithm", "network", "compute", "memory", "calls", "predicted", "measured", "residual")
    table = _table("The time model: sums of its terms over a step (milliseconds)", columns, left=2)
    for m in measurements:
        if m.prediction is None or m.predicted_ms is None:
            continue
        parts = [part.terms for part in m.prediction.parts.values()]
        sums = [sum(getattr(t, name) for t in parts) for name in ("compute", "memory", "calls", "fresh")]
        values = (sums[0], sums[1], sums[2] + sums[3])
        table.add_row(
            m.algorithm,
            m.name,
            *(f"{1e3 * value:.2f}" for value in values),
            f"{m.predicted_ms:.2f}",
            f"{m.step_ms:.2f}",
            f"{m.step_ms - m.predicted_ms:+.2f}",
        )
    table.caption = (
        "compute: FLOPs / rate at that shape, and work in cache; memory: bytes / bandwidth, where that is more. "
        "residual: measured less predicted."
    )
    return table


def ratios(by_algorithm: Mapping[str, Sequence[Measurement]]) -> list[Table]:
    """A table an algorithm: each count's predicted ratio to the baseline beside the measured one, and yes or no."""
    result = []
    for algorithm, measurements in by_algorithm.items():
        rows = predictions(measurements)
        if not rows:
            continue
        networks = list(dict.fromkeys(p.model for p in rows))
        table = _table(
            f"Which count predicts the time? Under {algorithm}, ratios to the {BASELINE}",
            ("count", *(name for network in networks for name in (f"{network}: predicted", f"within {WITHIN:g}x"))),
        )
        for metric in METRICS:
            row = {p.model: p for p in rows if p.metric == metric}
            if row:
                table.add_row(metric, *_cells(row, networks))
        measured = {p.model: p.measured for p in rows}
        table.add_section()
        table.add_row("measured (95%)", *(cell for n in networks for cell in (_interval(measured[n]), "")))
        result.append(table)
    return result


def _cells(row: Mapping[str, Prediction], networks: Sequence[str]) -> list[str]:
    cells = []
    for p in map(row.get, networks):
        cells += [f"{p.predicted:.3g}", "yes" if p.lands else "no"] if p else ["", ""]
    return cells


def _interval(measured: Ratio) -> str:
    return f"{measured.value:.3g} ({measured.low:.3g} to {measured.high:.3g})"


def sweep(content: dict[str, Any]) -> Table:
    """One row a value of what varies, one column a network and algorithm: ms a step."""
    keys = list(dict.fromkeys((p["network"], p["algorithm"]) for p in content["points"]))
    table = _table(f"Sweep: {content['title']}; ms a step", (content["x"], *(f"{n}, {a}" for n, a in keys)))
    found = {(p["network"], p["algorithm"], p["x"]): p["ms"] for p in content["points"]}
    for x in sorted({p["x"] for p in content["points"]}):
        table.add_row(f"{x:g}", *(f"{found[*key, x]:.3f}" for key in keys))
    bases = [f"the {b['network']} under {b['algorithm']}: {b['ms']:.3f} ms" for b in content["baselines"]]
    table.caption = "; ".join(bases) or None
    return table
