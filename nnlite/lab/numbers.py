"""Numbers as text."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10


def short(value: float) -> str:
    """Three significant digits: 0.0089, 0.197, 4.23, 12.3, 1,240."""
    if value == 0:
        return "0"
    digits = max(0, 2 - floor(log10(abs(value))))
    return f"{value:,.{min(digits, 6)}f}"


def threads_said(count: int) -> str:
    """1 -> "1 thread", 2 -> "2 threads"."""
    return f"{count} thread{'s' if count != 1 else ''}"


def milliseconds(value: float) -> str:
    """A time with its unit."""
    return f"{short(value)} ms"


def times(ratio: float) -> str:
    """4.23×"""
    return f"{short(ratio)}×"


def of(ratio: float) -> str:
    """How much of another quantity: 20.3 -> "20.3 times", 0.166 -> "1/6 of", 0.413 -> "0.41 of"."""
    if ratio >= 1:
        return f"{short(ratio)} times"
    inverse = 1 / ratio if ratio else 0
    nearest = round(inverse)
    return f"1/{nearest:,} of" if nearest > 1 and abs(nearest / inverse - 1) < 0.03 else f"{ratio:.2g} of"


def miss(predicted: float, measured: float) -> str:
    """The factor by which a prediction is too high or too low."""
    ratio = predicted / measured
    return f"{short(ratio)}× too high" if ratio >= 1 else f"{short(1 / ratio)}× too low"


def listed(items: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def percent(part: float) -> str:
    """0.1 -> +10%, -0.042 -> -4.2%"""
    digits = 1 if abs(part) < 0.0995 else 0
    return f"{100 * part:+.{digits}f}%"
