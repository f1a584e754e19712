"""What every roofline plot shares (Williams et al. 2009): logarithmic axes, the roofs, and dots named at the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nnlite.lab.numbers import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: name, FLOPs per byte, GFLOP/s
Dot = tuple[str, float, float]


def log(axes: Axes, **labels: str) -> None:
    """Make axes logarithmic, with these labels; ticks at 1, 2 and 5, or at powers of ten over a wide range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for name, label in labels.items():
        axes.set(**{f"{name}scale": "log", f"{name}label": f"{label} (log scale)"})
        axis = getattr(axes, f"{name}axis")
        low, high = getattr(axes, f"get_{name}lim")()
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 200 * low else (1.0,)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def draw_roofs(axes: Axes, peak: float, slopes: Mapping[str, float], *, traffic: str, colour: str) -> None:
    """Around dots that are drawn: the peak (GFLOP/s) and the bandwidth of each level (GB/s); no roof if peak is 0."""
    axes.set(xscale="log", yscale="log")
    axes.margins(0.15, 0.3)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    if peak:
        top = max(top, 1.6 * peak)
        bottom *= (bottom / top) ** 0.05  # dots are large: none touches the edge
        for level, gbs in slopes.items():
            ends = [left, min(right, peak / gbs)]
            if ends[1] > ends[0]:
                axes.plot(ends, [gbs * x for x in ends], color=colour, linewidth=1)
                at = max(ends[0], bottom / gbs)
                below = "top" if at == ends[0] else "bottom"  # of the line at the left edge; above the lower edge
                axes.annotate(f" {level}", (at, gbs * at), color=colour, fontsize=8, va=below)
        axes.axhline(peak, color=colour, linewidth=1)
        axes.annotate(f"peak {short(peak)} GFLOP/s", (left, peak), (4, 3), textcoords="offset points", fontsize=8,
                      color=colour)  # fmt: skip
    axes.set(xlim=(left, right), ylim=(bottom, top))
    log(axes, x=f"FLOPs per byte of {traffic}", y="GFLOP/s")


def name_dots(axes: Axes, dots: Sequence[Dot], colour: str) -> None:
    """Labels at the right of the axes in the vertical order of their dots, each with a thin line to its dot."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    ordered = sorted(dots, key=lambda dot: -dot[2])
    for place, (name, x, y) in enumerate(ordered):
        height = bottom * (top / bottom) ** (0.96 - 0.92 * (place + 0.5) / len(ordered))
        axes.plot([x, right * (right / left) ** 0.03], [y, height], color=colour, linewidth=0.6, clip_on=False)
        axes.annotate(name, (right, height), (9, 0), textcoords="offset points", fontsize=8.5, va="center")
