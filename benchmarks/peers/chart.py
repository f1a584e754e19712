"""The figure: one panel per network and task, one bar per peer, the shortest on top."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.peers.report import OURS

_OURS_COLOUR, _OTHERS_COLOUR, _THIRD_COLOUR = "#d55e00", "#9aa5b1", "#0072b2"  # told apart by the colour-blind
_COLUMNS = 3
#: explained once, in text, not in a legend for each panel
_NOTE = "bars: medians of interleaved bursts; lines: their middle half"

#: the peer in the picture of single passes
_SHAPES_PEER = "torch-channels-last"

Bars = dict[str, tuple[float, float, float]]  # peer -> (value, low, high)


def write(document: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the document as PNG and SVG. Returns the paths written."""
    import matplotlib

    matplotlib.use("Agg")
    written = []
    panels = _panels(document)
    if panels:
        written += _save(_draw_panels(panels, document), folder / "peers")
    for task in ("shapes", "grouped"):
        rows = [row for row in document.get(task, []) if {OURS, _SHAPES_PEER} <= set(row["peers"])]
        if rows:
            written += _save(_draw_shapes(rows, document), folder / task)
    return written


def _panels(document: dict[str, Any]) -> list[tuple[str, str, Bars]]:
    """(title, unit, bars) of each panel."""
    panels = []
    for task, verb in (("step", "training step"), ("inference", "inference")):
        for model, outcome in document.get(task, {}).items():
            bars = {name: (peer["median_ms"], *peer["quartiles_ms"]) for name, peer in outcome["peers"].items()}
            panels.append((f"{model}, {verb}", "ms", bars))
    for model, outcome in document.get("memory", {}).items():
        bars = {name: (peak["trained"] / 1e6,) * 3 for name, peak in outcome["peers"].items()}
        panels.append((f"{model}, peak memory of training", "MB", bars))
    return [panel for panel in panels if panel[2]]


def _draw_panels(panels: list[tuple[str, str, Bars]], document: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure

    rows = -(-len(panels) // _COLUMNS)
    columns = min(len(panels), _COLUMNS)
    figure = Figure(figsize=(4.6 * columns, 2.6 * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, unit, bars) in zip(axes, panels, strict=False):
        _draw_bars(axis, title, unit, bars)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(f"Batch {document['batch_size']}, {document['conditions']}, {document['machine']}", fontsize=12)
    figure.supxlabel(f"{_NOTE}; {document['date'][:10]}", fontsize=8, color="#555555")
    return figure


def _draw_bars(axis: Any, title: str, unit: str, bars: Bars) -> None:
    names = sorted(bars, key=lambda name: bars[name][0], reverse=True)
    for place, name in enumerate(names):
        value, low, high = bars[name]
        axis.barh(place, value, color=_OURS_COLOUR if name == OURS else _OTHERS_COLOUR, height=0.7)
        if high > low:
            axis.plot([low, high], [place, place], color="black", linewidth=1.2)
        axis.annotate(
            f"{value:.3g}" if value < 100 else f"{value:.0f}",
            (max(value, high), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlim(0, 1.15 * max(max(bar) for bar in bars.values()))
    axis.set_title(f"{title}, {unit}", fontsize=10, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="x", labelsize=8)


def _draw_shapes(rows: list[dict[str, Any]], document: dict[str, Any]) -> Any:
    """PyTorch's time / nnlite's time for each layer, one mark per pass; the line is ratio 1.

    A ratio of few rounds has no interval, and none is drawn.
    """
    from matplotlib.figure import Figure

    layers = list(dict.fromkeys((row["layer"], row["geometry"]) for row in rows))
    figure = Figure(figsize=(9, 0.5 * len(layers) + 1.8), layout="constrained")
    axis = figure.subplots()
    styles = {"forward": (_OURS_COLOUR, "o"), "grad_input": (_OTHERS_COLOUR, "s"), "grad_weight": (_THIRD_COLOUR, "^")}
    for i, (pass_name, (colour, marker)) in enumerate(styles.items()):
        mine = [row for row in rows if row["pass"] == pass_name]
        ratios = [row["peers"][_SHAPES_PEER]["times_nnlite"] for row in mine]
        places = [layers.index((row["layer"], row["geometry"])) + 0.2 * (i - 1) for row in mine]
        values = [ratio["value"] for ratio in ratios]
        lows, highs = ([r["value"] if r[end] is None else r[end] for r in ratios] for end in ("low", "high"))
        axis.hlines(places, lows, highs, color=colour)
        axis.plot(values, places, marker, color=colour, label=pass_name)
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xscale("log")
    ticks = [tick for tick in (0.25, 0.5, 0.7, 1, 1.5, 2, 3, 5, 8) if axis.get_xlim()[0] < tick < axis.get_xlim()[1]]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(layers)), [f"{layer}: {geometry}" for layer, geometry in layers], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("PyTorch's time (channels last) in nnlite's; right of the line nnlite is faster", fontsize=9)
    axis.set_title(f"Single passes, {document['conditions']}, {document['machine']}", fontsize=11, loc="left")
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _save(figure: Any, stem: Path) -> list[Path]:
    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths
