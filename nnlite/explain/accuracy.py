"""How far predictions are off: one measure of it for the terminal, the sentences and the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from nnlite.explain.numbers import listed

#: the median error of a step's rows, a layer's pass each, that the time model aims for at the most
AIM = 0.3


def off(predicted: float, measured: float) -> float:
    """By what part of what was measured a prediction is off: 0.1 if it is 10% too much."""
    return predicted / measured - 1


def off_said(predicted: float | None, measured: float) -> str:
    """The same in words: +10%; nothing where there is no prediction."""
    return f"{100 * off(predicted, measured):+.0f}%" if predicted is not None and measured > 0 else ""


def median_error(rows: Iterable[tuple[float | None, float]]) -> float | None:
    """The median error, in either direction, of (predicted, measured) rows; None if none was predicted."""
    errors = [abs(off(predicted, measured)) for predicted, measured in rows if predicted and measured > 0]
    return median(errors) if errors else None


def beyond_aim(error: float) -> bool:
    """Whether it is more than the aim, in whole percent, as it is printed."""
    return round(100 * error) > 100 * AIM


def why_not(missing: Sequence[str]) -> str:
    """Why a step is not predicted, that has something in it that does not declare its stages."""
    if not missing:
        return "nothing is compiled here"
    verb = "does not declare what it does" if len(missing) == 1 else "do not declare what they do"
    return f"{listed(missing)} {verb}, so that its moved bytes are not known either"


def quality(error: float | None) -> str:
    """What is said below the rows of a step."""
    if error is None:
        return ""
    said = f"Median error of a row: {100 * error:.0f}%"
    return said + (f", above the {100 * AIM:.0f}% that the time model aims for." if beyond_aim(error) else ".")
