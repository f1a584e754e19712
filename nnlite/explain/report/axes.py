"""Scales and axes: from values to pixels, ticks at round numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from nnlite.explain.report.canvas import Canvas, text_width


@dataclass(frozen=True)
class Scale:
    """Maps values low..high to pixels start..end, on a logarithmic or a linear scale."""

    low: float
    high: float
    start: float
    end: float
    log: bool = True

    def __call__(self, value: float) -> float:
        low, high, v = (log10(self.low), log10(self.high), log10(value)) if self.log else (self.low, self.high, value)
        return self.start + (v - low) / (high - low) * (self.end - self.start)

    def inside(self, value: float) -> float:
        """The nearest value on the scale."""
        return min(max(value, self.low), self.high)

    def ticks(self) -> list[float]:
        """Round values within the scale: decades, and 2 and 5 between if they are few; or about five equal steps."""
        return _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)


def log_range(values: Sequence[float], room: float = 1.6) -> tuple[float, float]:
    """From a little below the least to a little above the greatest value; a decade at least."""
    low, high = min(values) / room, max(values) * room
    while high / low < 10:
        low, high = low / 1.5, high * 1.5
    return low, high


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    span = log10(high / low)
    steps = (1, 2, 5) if span <= 2.2 else (1, 3) if span <= 3.2 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    ticks = [tick for tick in ticks if low <= tick * 1.0001 and tick <= high * 1.0001]
    return ticks if len(ticks) <= 8 else ticks[:: ceil(len(ticks) / 8)]


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    power = 10.0 ** floor(log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough)
    return [i * step for i in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def tick_text(value: float) -> str:
    """0.001, 0.5, 20, 1,000, 10k, 5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):g}{unit}"
    return f"{value:,.10g}"


def draw_x(
    canvas: Canvas, x: Scale, top: float, bottom: float, label: str, ticks: Sequence[float] | None = None
) -> None:
    """Grid lines from top to bottom, their values below them, and what they mean."""
    for tick in x.ticks() if ticks is None else ticks:
        canvas.line((x(tick), top), (x(tick), bottom), stroke="grid", width=1)
        text = tick_text(tick)
        inside = min(x(tick), canvas.width - text_width(text, 11) / 2 - 2)
        canvas.text(inside, bottom + 15, text, fill="muted", size=11, anchor="middle")
    canvas.text((x.start + x.end) / 2, bottom + 32, label, fill="muted", size=11.5, anchor="middle")


def draw_y(canvas: Canvas, y: Scale, left: float, right: float, label: str) -> None:
    """Grid lines from left to right, their values beside them, and what they mean."""
    for tick in y.ticks():
        canvas.line((left, y(tick)), (right, y(tick)), stroke="grid", width=1)
        canvas.text(left - 6, y(tick) + 4, tick_text(tick), fill="muted", size=11, anchor="end")
    canvas.text(13, (y.start + y.end) / 2, label, fill="muted", size=11.5, anchor="middle", turned=True)
