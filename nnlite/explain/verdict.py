"""Which count predicts the measured time? Decided from this run's numbers, and said in sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nnlite.cost import Cost
from nnlite.explain.measure import Measurement
from nnlite.explain.question import BASELINE, REPORTED_SECONDS

#: a prediction lands if it is within this factor of the measured ratio
WITHIN = 1.5

METRICS: dict[str, Callable[[Cost], float]] = {
    "parameters": lambda cost: cost.parameters,
    "forward MACs": lambda cost: cost.forward_macs_per_image,
    "training MACs": lambda cost: cost.training_macs_per_image,
    "unfused least bytes": lambda cost: cost.unfused_least_bytes,
}


@dataclass
class Prediction:
    """What one count says about one network's time relative to the baseline's, and what was measured."""

    metric: str
    model: str
    predicted: float
    measured: float

    @property
    def lands(self) -> bool:
        return 1 / WITHIN <= self.predicted / self.measured <= WITHIN


def predictions(measurements: Sequence[Measurement]) -> list[Prediction]:
    """Each metric's ratio to the baseline for each other network; empty without the baseline."""
    base = _baseline(measurements)
    if base is None:
        return []
    return [
        Prediction(metric, m.name, value(m.cost) / value(base.cost), m.step_ms / base.step_ms)
        for metric, value in METRICS.items()
        for m in measurements
        if m is not base
    ]


def sentences(measurements: Sequence[Measurement]) -> list[str]:
    """The verdict, made from the numbers of this run."""
    base = _baseline(measurements)
    if base is None or len(measurements) < 2:
        return [_where_time_goes(m) for m in measurements]
    said = []
    for m in measurements:
        if m is not base:
            said.append(_compare(m, base))
    table = predictions(measurements)
    for metric in METRICS:
        rows = [p for p in table if p.metric == metric]
        landed = [p.model for p in rows if p.lands]
        missed = [f"{p.model} ({_factor(p.predicted / p.measured)})" for p in rows if not p.lands]
        verdict = "predict" if len(landed) == len(rows) else "do not predict"
        detail = (
            "within a factor of 1.5 for every network" if not missed else f"they miss the {' and the '.join(missed)}"
        )
        said.append(f"{metric[0].upper()}{metric[1:]} {verdict} these times: {detail}.")
    said.extend(_where_time_goes(m) for m in measurements)
    return said


def _compare(m: Measurement, base: Measurement) -> str:
    measured = m.step_ms / base.step_ms
    text = (
        f"The {m.name} has {_times(m.cost.parameters / base.cost.parameters)} the parameters of the {base.name} and "
        f"{_times(m.cost.training_macs_per_image / base.cost.training_macs_per_image)} its training arithmetic; "
        f"its step took {_times(measured)} as long here"
    )
    if m.name in REPORTED_SECONDS and base.name in REPORTED_SECONDS:
        text += f", and {_times(REPORTED_SECONDS[m.name] / REPORTED_SECONDS[base.name])} as long in the question"
    return text + "."


def _where_time_goes(m: Measurement) -> str:
    largest = max(m.layers, key=lambda layer: layer.ms)
    return (
        f"In the {m.name}, the largest part of the step is {largest.name} ({largest.part.replace('_', ' ')}): "
        f"{largest.ms:.2f} of {m.step_ms:.2f} ms, {100 * largest.ms / m.step_ms:.0f}%."
    )


def _baseline(measurements: Sequence[Measurement]) -> Measurement | None:
    return next((m for m in measurements if m.name == BASELINE), None)


def _times(ratio: float) -> str:
    return f"{ratio:.3g} times"


def _factor(ratio: float) -> str:
    return f"{ratio:.1f}x too much" if ratio > 1 else f"{1 / ratio:.1f}x too little"
