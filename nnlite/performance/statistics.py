"""Statistics of paired samples: median ratios with an interval, and an A/A control.

Every candidate has one sample per round (nnlite.performance.rounds), so changes from round to round cancel in the ratio
of two samples of the same round. The interval of the median ratio is a percentile bootstrap over the rounds (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). The A/A control is the baseline measured a second time:
its true ratio is 1, so its interval shows the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
#: with fewer rounds there is no interval, and no difference is reported
FEWEST_ROUNDS = 5
#: the smallest difference that is reported, whatever the noise
LEAST_DIFFERENCE = 0.02


@dataclass(frozen=True)
class Ratio:
    """A median over rounds and its 95% interval. With too few rounds `low` and `high` are None."""

    value: float
    low: float | None = None
    high: float | None = None


def paired_ratio(
    samples: Sequence[float] | np.ndarray, baseline: Sequence[float] | np.ndarray, *, fewest: int = FEWEST_ROUNDS
) -> Ratio:
    """The median ratio of two candidates' samples, round by round; with an interval from `fewest` rounds on."""
    return interval(np.asarray(samples) / np.asarray(baseline), fewest=fewest)


def interval(values: Sequence[float] | np.ndarray, *, fewest: int = FEWEST_ROUNDS) -> Ratio:
    """The median of values (rounds,); with its interval from `fewest` rounds on."""
    values = np.asarray(values, np.float64)
    if len(values) < fewest:
        return Ratio(float(np.median(values)))
    picks = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    medians = np.median(values[picks], axis=1)  # (RESAMPLES,)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(medians, [tail, 100 - tail])
    return Ratio(float(np.median(values)), float(low), float(high))


def noise(control: Ratio) -> float | None:
    """The A/A noise: the largest deviation of the control's interval from 1, at least 2%. None with too few rounds."""
    if control.low is None or control.high is None:
        return None
    return max(LEAST_DIFFERENCE, abs(control.low - 1), abs(control.high - 1))


def verdict(ratio: Ratio, noise: float | None) -> str:
    """Compare a ratio with the noise: "faster", "slower", "no difference" or "too few rounds".

    A difference is reported only if the whole interval is outside of 1 +- noise.
    """
    if noise is None or ratio.low is None or ratio.high is None:
        return "too few rounds"
    if ratio.high < 1 - noise:
        return "faster"
    if ratio.low > 1 + noise:
        return "slower"
    return "no difference"
