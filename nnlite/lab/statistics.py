"""Is one algorithm faster than another? Ratios of paired samples, with an interval and a control.

Samples are taken in rounds, every contestant once a round, so the ratio of the two samples of a round is free of
whatever changed from round to round. The interval of the median ratio is a percentile bootstrap over the rounds
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). The control is the baseline measured a
second time under another name (A/A): the truth about it is a ratio of 1, so what it shows is noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
#: differences below this share are not called differences, however quiet the machine
LEAST_DIFFERENCE = 0.02


@dataclass(frozen=True)
class Ratio:
    """Time relative to the baseline's: the median over rounds, and its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """How far the interval reaches from 1."""
        return max(abs(self.low - 1), abs(self.high - 1))


def paired_ratio(samples: np.ndarray, baseline: np.ndarray, seed: int = 0) -> Ratio:
    """The ratio of two contestants' samples (rounds), taken in the same rounds."""
    ratios = np.asarray(samples) / np.asarray(baseline)  # (rounds)
    picks = np.random.default_rng(seed).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    medians = np.median(ratios[picks], axis=1)  # (RESAMPLES)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(medians, [tail, 100 - tail])
    return Ratio(float(np.median(ratios)), float(low), float(high))


def noise_floor(control: Ratio) -> float:
    """The smallest difference that means anything in this run: 2%, or what the A/A control shows."""
    return max(LEAST_DIFFERENCE, control.spread)


def verdict(ratio: Ratio, floor: float) -> str:
    """ "faster" or "slower" if the whole interval lies outside of 1 +- floor, else "no difference"."""
    if ratio.high < 1 - floor:
        return "faster"
    if ratio.low > 1 + floor:
        return "slower"
    return "no difference"
