"""How far predictions are off: one measure of it for the terminal, the sentences and the report."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

#: the median error of a step's rows, a layer's pass each, that the time model aims for at the most
AIM = 0.3


def off(predicted: float, measured: float) -> float:
    """By what part of what was measured a prediction is off: 0.1 if it is 10% too much."""
    return predicted / measured - 1


def median_error(rows: Iterable[tuple[float | None, float]]) -> float | None:
    """The median error, in either direction, of (predicted, measured) rows; None if none was predicted."""
    errors = [abs(off(predicted, measured)) for predicted, measured in rows if predicted and measured > 0]
    return median(errors) if errors else None


def quality(error: float | None) -> str:
    """What is said below the rows of a step."""
    if error is None:
        return ""
    said = f"Median error of a row: {100 * error:.0f}%"
    return said + (f", above the {100 * AIM:.0f}% that the time model aims for." if error > AIM else ".")
