"""The terminal's tables: at most 100 columns, plain when piped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nnlite.cost import human_bytes
from nnlite.explain.measure import Measurement
from nnlite.explain.question import BASELINE, EPOCH_IMAGES, REPORTED_SECONDS
from nnlite.explain.verdict import predictions
from nnlite.lab.terminal import console as console

if TYPE_CHECKING:
    from rich.table import Table

PART_NAMES = {"grad_input": "input gradient", "grad_weight": "weight gradient", "gradients": "both gradients"}


def _table(title: str, columns: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def overview(measurements: Sequence[Measurement], batch_size: int) -> Table:
    """One row a network: exact counts, measured step, and the question's own seconds."""
    columns = ("network", "parameters", "forward MACs", "training MACs", "least bytes*", "step", "epoch", "asked")
    table = _table(f"Counted and measured: a training step of {batch_size} images", columns)
    for m in measurements:
        reported = REPORTED_SECONDS.get(m.name)
        table.add_row(
            m.name,
            f"{m.cost.parameters:,}",
            f"{m.cost.forward_macs_per_image:,}",
            f"{m.cost.training_macs_per_image:,}",
            human_bytes(m.cost.unfused_least_bytes),
            f"{m.step_ms:.2f} ms",
            f"{m.step_ms / 1e3 * -(-EPOCH_IMAGES // batch_size):.1f} s",
            f"{reported:.0f} s" if reported else "",
        )
    table.caption = "MACs: an image. *unfused, a step. epoch: 60,000 images. asked: seconds an epoch in the question."
    return table


def ratios(measurements: Sequence[Measurement]) -> Table:
    """One row a network and count: the ratio to the baseline that it predicts, and the measured one."""
    table = _table(
        f"Which count predicts the time? Ratios to the {BASELINE}",
        ("count", "network", "predicted", "measured", "within 1.5x"),
    )
    for p in predictions(measurements):
        table.add_row(p.metric, p.model, f"{p.predicted:.2f}", f"{p.measured:.2f}", "yes" if p.lands else "no")
    return table


def algorithms(m: Measurement) -> list[str]:
    """One line a convolution: how it was computed, and why so."""
    return [f"{layer}: {algorithm} ({reason})" for layer, (algorithm, reason) in m.algorithms.items()]


def layers(m: Measurement) -> Table:
    """One row a layer and pass; the rows add up to the step."""
    table = _table(
        f"{m.name}: where a step of {m.step_ms:.2f} ms goes",
        ("layer", "pass", "MFLOP", "unfused bytes", "ms", "share", "GFLOP/s"),
    )
    for layer in m.layers:
        table.add_row(
            layer.name,
            PART_NAMES.get(layer.part, layer.part),
            f"{layer.flops / 1e6:,.1f}" if layer.flops else "",
            human_bytes(layer.bytes) if layer.bytes else "",
            f"{layer.ms:.3f}",
            f"{100 * layer.ms / m.step_ms:.1f}%",
            f"{layer.gflops:.1f}" if layer.gflops else "",
        )
    table.add_section()
    table.add_row("the step", "", "", "", f"{sum(layer.ms for layer in m.layers):.3f}", "100%", "")
    return table


def sweep(content: dict[str, Any]) -> Table:
    """One row a value of what varies, one column a network and algorithm: ms a step."""
    keys = list(dict.fromkeys((p["network"], p["algorithm"]) for p in content["points"]))
    table = _table(f"Sweep: {content['title']}; ms a step", (content["x"], *(f"{n}, {a}" for n, a in keys)))
    found = {(p["network"], p["algorithm"], p["x"]): p["ms"] for p in content["points"]}
    for x in sorted({p["x"] for p in content["points"]}):
        table.add_row(f"{x:g}", *(f"{found[*key, x]:.3f}" for key in keys))
    for base in content["baselines"]:
        table.caption = f"the {base['network']}: {base['ms']:.3f} ms"
    return table
