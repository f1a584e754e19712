"""Which count predicts the measured time? Decided from this run's numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nnlite.explain.measure import Measurement
from nnlite.explain.question import BASELINE
from nnlite.lab.statistics import Ratio, paired_ratio

#: what is said, by topic; explain.json's "verdict"
Verdict = dict[str, list[str]]
#: its topic of what makes the numbers worth less
CAUTIONS = "Cautions"

#: a prediction lands if it is within this factor of the measured ratio
WITHIN = 1.5


def within(factor: float) -> bool:
    """Whether a prediction that is `factor` times what was measured lands."""
    return 1 / WITHIN <= factor <= WITHIN


#: what may predict the time: a number of a network's step, None where it is not known
METRICS: dict[str, Callable[[Measurement], float | None]] = {
    "parameters": lambda m: m.cost.parameters,
    "forward MACs": lambda m: m.cost.forward_macs_per_image,
    "training MACs": lambda m: m.cost.training_macs_per_image,
    "unfused least bytes": lambda m: m.cost.unfused_least_bytes,
    "moved bytes": lambda m: m.moved_bytes,
    "the time model": lambda m: m.predicted_ms,
}


@dataclass
class Prediction:
    """What one count says about one network's time relative to the baseline's, and what was measured."""

    metric: str
    model: str
    predicted: float
    measured: Ratio

    @property
    def factor(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.measured.value

    @property
    def lands(self) -> bool:
        return within(self.factor)


def predictions(measurements: Sequence[Measurement]) -> list[Prediction]:
    """Each metric's ratio to the baseline for each other network; empty without the baseline."""
    base = baseline(measurements)
    if base is None:
        return []
    measured = [(m, measured_ratio(m, base)) for m in measurements if m is not base]
    result = []
    for metric, value in METRICS.items():
        of_base = value(base)
        for m, ratio in measured:
            of_model = value(m)
            if of_base and of_model is not None:
                result.append(Prediction(metric, m.name, of_model / of_base, ratio))
    return result


def measured_ratio(m: Measurement, base: Measurement) -> Ratio:
    """The ratio of the median steps, with a 95% interval from the rounds of this run."""
    if m is base:
        return Ratio(1.0, 1.0, 1.0)
    return ratio_of_steps(m.profile.steps, base.profile.steps, m.step_ms / base.step_ms)


def ratio_of_steps(steps: Sequence[float], base: Sequence[float], value: float) -> Ratio:
    """`value`, a ratio of two medians, with the 95% interval that the steps of the same rounds give it."""
    paired = paired_ratio(np.array(steps), np.array(base))
    return Ratio(value, min(paired.low, value), max(paired.high, value))


def baseline(measurements: Sequence[Measurement]) -> Measurement | None:
    """The network that the others are compared with."""
    return next((m for m in measurements if m.name == BASELINE), None)


def step_of(measurements: Sequence[Measurement], algorithm: str, name: str) -> Measurement | None:
    """The measurement of a network under an algorithm."""
    return next((m for m in measurements if m.algorithm == algorithm and m.name == name), None)
