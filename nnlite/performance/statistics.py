"""Is one candidate faster than another? Ratios of paired samples, with an interval and a control.

Samples are taken in rounds, every candidate once a round (nnlite.performance.rounds), so the ratio of the two samples
of a round is free of whatever changed from round to round. The interval of the median ratio is a percentile bootstrap
over the rounds (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). The control is the baseline
measured a second time under another name (A/A): its true ratio is 1, so what it shows is noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
#: with fewer rounds there is no interval, and nothing is called faster or slower
FEWEST_ROUNDS = 5
#: a difference below this share is not reported, however quiet the machine
LEAST_DIFFERENCE = 0.02


@dataclass(frozen=True)
class Ratio:
    """A median over rounds and its 95% interval; `low` and `high` are None with too few rounds."""

    value: float
    low: float | None = None
    high: float | None = None


def paired_ratio(
    samples: Sequence[float] | np.ndarray, baseline: Sequence[float] | np.ndarray, *, fewest: int = FEWEST_ROUNDS
) -> Ratio:
    """The median ratio of two candidates' samples of the same rounds; an interval if there are `fewest` rounds."""
    return interval(np.asarray(samples) / np.asarray(baseline), fewest=fewest)


def interval(values: Sequence[float] | np.ndarray, *, fewest: int = FEWEST_ROUNDS) -> Ratio:
    """The median of values (rounds,), and the interval of that median if there are `fewest`."""
    values = np.asarray(values, np.float64)
    if len(values) < fewest:
        return Ratio(float(np.median(values)))
    picks = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    medians = np.median(values[picks], axis=1)  # (RESAMPLES,)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(medians, [tail, 100 - tail])
    return Ratio(float(np.median(values)), float(low), float(high))


def noise(control: Ratio) -> float | None:
    """The smallest difference that means anything: 2%, or what the A/A control shows; None with too few rounds."""
    if control.low is None or control.high is None:
        return None
    return max(LEAST_DIFFERENCE, abs(control.low - 1), abs(control.high - 1))


def verdict(ratio: Ratio, noise: float | None) -> str:
    """Faster or slower if the whole interval lies outside of 1 +- noise, else no difference; or too few rounds."""
    if noise is None or ratio.low is None or ratio.high is None:
        return "too few rounds"
    if ratio.high < 1 - noise:
        return "faster"
    if ratio.low > 1 + noise:
        return "slower"
    return "no difference"
