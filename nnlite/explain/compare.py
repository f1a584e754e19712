"""Comparison of a document's networks: which metric predicts their times, and where two steps differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nnlite.explain.document import Document, Network
from nnlite.lab.numbers import listed, percent
from nnlite.performance.statistics import Ratio

#: a prediction holds if it is within this factor of the measured ratio
WITHIN = 1.5
#: the metric that is no count: that of the time model
PREDICTED = "predicted time"
#: passes with a smaller share of the step are one row together
LEAST = 0.01
#: the metrics: a number of a network's step each, None where it is not known
METRICS: dict[str, Callable[[Network], float | None]] = {
    "parameters": lambda n: n.parameters,
    "forward MACs": lambda n: n.forward_macs_per_image,
    "training MACs": lambda n: n.training_macs_per_image,
    "minimum traffic": lambda n: n.unfused_least_bytes_per_step,
    "memory traffic": lambda n: n.moved_bytes_per_step,
    PREDICTED: lambda n: n.predicted_ms,
}


@dataclass(frozen=True)
class Prediction:
    """The ratio to the baseline that a metric predicts for a network, and the measured ratio."""

    metric: str
    network: Network
    base: Network
    value: float
    base_value: float
    measured: Ratio

    @property
    def predicted(self) -> float:
        return self.value / self.base_value

    @property
    def factor(self) -> float:
        """Predicted ratio / measured ratio."""
        return self.predicted / self.measured.value

    @property
    def holds(self) -> bool:
        return 1 / WITHIN <= self.factor <= WITHIN


def predictions(document: Document, algorithm: str) -> dict[str, list[Prediction]]:
    """By metric, a prediction for each network except the baseline. A metric must be known for all of them."""
    networks = document.by_algorithm[algorithm]
    found: dict[str, list[Prediction]] = {}
    for metric, value in METRICS.items():
        for network in networks:
            base, own = document.base_of(network), value(network)
            of_base = value(base) if base else None
            if base and own and of_base and network.ratio:
                found.setdefault(metric, []).append(Prediction(metric, network, base, own, of_base, network.ratio))
    return {metric: rows for metric, rows in found.items() if len(rows) == len(networks) - 1}


@dataclass(frozen=True)
class Difference:
    """The time of a pass of a layer in two networks, ms; 0 where a network has no layer of that name."""

    name: str
    part: str
    base_ms: float
    ms: float

    @property
    def more(self) -> float:
        return self.ms - self.base_ms


def differences(network: Network, base: Network, most: int = 8, least: float = LEAST) -> list[Difference]:
    """The differences from the baseline's step to the network's, the largest first. Their sum is that of the steps.

    Layers of the same name are compared. At most `most` differences are listed, each at least the share `least` of the
    longer step; the others are added up as "rest".
    """
    rows: dict[tuple[str, str], list[float]] = {}
    for side, source in enumerate((base, network)):
        for row in source.layers:
            rows.setdefault((row.name, row.part), [0.0, 0.0])[side] += row.ms
    small = least * max(network.step_ms.median, base.step_ms.median)
    large = [d for d in (Difference(*key, *ms) for key, ms in rows.items()) if abs(d.more) >= small]
    found = sorted(large, key=lambda d: -abs(d.more))[:most]
    rest = base.step_ms.median - sum(d.base_ms for d in found), network.step_ms.median - sum(d.ms for d in found)
    return [*found, Difference("rest", "other", *rest)] if len(found) < len(rows) else found


def _too(error: float) -> str:
    return f"{abs(100 * error):.{0 if abs(error) >= 0.0995 else 1}f}% too {'high' if error > 0 else 'low'}"


def worst_prediction(document: Document) -> str:
    """How steps are predicted, the largest errors, and the operations without a prediction."""
    errors = [(n.prediction_error, n) for n in document.everything if n.prediction_error]
    said = []
    if errors:
        error, worst = max(errors, key=lambda pair: abs(pair[0].value))
        within = ""
        if error.low is not None:
            within = f" (95%: {percent(error.low)} to {percent(error.high or 0)})"
        passes = (
            abs(row.predicted_ms / row.ms - 1)
            for _, n in errors
            for row in n.layers
            if row.predicted_ms and row.ms >= LEAST * n.step_ms.median
        )
        said.append(
            "Predicted: FLOPs / rate or bytes / bandwidth, whichever is longer, plus a fixed cost per call. Largest "
            f"error: {worst.name} with {worst.algorithm}, {_too(error.value)}{within}. Single passes are off by up to "
            f"{100 * max(passes, default=0.0):.0f}%."
        )
    missing = dict.fromkeys(what for n in document.everything for what in n.not_predicted)
    if missing:
        verb = "does not declare its work" if len(missing) == 1 else "do not declare their work"
        said.append(f"Not every step is predicted: {listed(list(missing))} {verb}.")
    elif not errors:
        said.append("No step is predicted in this run.")
    return " ".join(said)
