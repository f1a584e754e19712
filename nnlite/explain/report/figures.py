"""The figures of the report, drawn by matplotlib. Each comes with the sentence that it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnlite.explain.compare import METRICS, WITHIN, differences, predictions
from nnlite.explain.document import Document, Network, Row
from nnlite.explain.names import layer_and_pass, pass_name, shorten, spelled_out
from nnlite.explain.report.theme import PASSES, light, series
from nnlite.explain.tables import shorten_name, signed
from nnlite.lab.numbers import listed, milliseconds, short, threads_said, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: number of labelled dots in a roofline: those with the largest share of the step
NAMED = 6
#: annotation style of a number at the right of its bar
BESIDE: dict[str, Any] = {
    "xytext": (4, 0),
    "textcoords": "offset points",
    "va": "center",
    "fontsize": 9,
    "in_layout": False,  # it fits into the margins, and layout is most of a figure's time
}
#: matplotlib settings, for drawing and for saving
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nnlite",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": light("muted"),
    "axes.labelcolor": light("muted"),
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlecolor": light("text"),
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.facecolor": light("page"),
    "figure.facecolor": light("page"),
    "grid.color": light("grid"),
    "text.color": light("text"),
    "xtick.color": light("muted"),
    "ytick.color": light("muted"),
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass
class Panel:
    """One drawing, and its description in words for screen readers. `svg`: its markup on the page, once it is saved."""

    name: str
    figure: Figure
    alt: str
    svg: str = ""


@dataclass
class Picture:
    """One or more panels, and the sentence that they show. `algorithm` is "" if it is about all algorithms."""

    name: str
    sentence: str
    panels: list[Panel]
    algorithm: str = ""


def draw(document: Document) -> dict[str, list[Picture]]:
    """The figures of each section for which the document has data."""
    several = len(document.models) > 1
    each = document.by_algorithm
    return {
        "size": [_size(document)] if several else [],
        "passes": [_passes(document)],
        "difference": [_difference(document, a) for a in each] if several else [],
        "metrics": [_metrics(document, a) for a in each if predictions(document, a)],
        "roofline": [picture for a in each if (picture := _roofline(document, a))],
        "sweeps": [_sweep(document, sweep) for sweep in document.sweeps],
        "ladder": [_ladder(document)] if document.ladder else [],
    }


def _new(width: float = 4.9, height: float = 3.3) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _log(axes: Axes, **labels: str) -> None:
    """Make axes logarithmic, with these labels; ticks at 1, 2 and 5, or at powers of ten over a wide range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for name, label in labels.items():
        axes.set(**{f"{name}scale": "log", f"{name}label": f"{label} (log scale)"})
        axis = getattr(axes, f"{name}axis")
        low, high = getattr(axes, f"get_{name}lim")()
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 60 * low else (1.0,)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _rows(axes: Axes, names: Sequence[str], right: float) -> None:
    """One horizontal bar per name, the first on top, on an axis from 0 to `right`."""
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, right)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)


def _style(document: Document, name: str) -> tuple[str, str]:
    """(colour, marker) of a network, the same in every figure. Networks of sweeps come last."""
    swept = [p["network"] for sweep in document.sweeps for p in [*sweep["baselines"], *sweep["points"]]]
    return series(list(dict.fromkeys([*(n.name for n in document.models), *swept])).index(name))


# Size versus time --------------------------------------------------------------------------------------------------


def _size(document: Document) -> Picture:
    sizes: dict[str, Callable[[Network], float | None]] = {
        "parameters": METRICS["parameters"],
        "training MACs per image": METRICS["training MACs"],
    }
    panels = []
    for what, value in sizes.items():
        figure, axes = _new(4.4, 3.2)
        for n in document.models:
            colour, marker = _style(document, n.name)
            axes.scatter(
                [value(n) or 0], [n.step_ms.median], s=70, color=colour, marker=marker, label=shorten_name(n.name, 24)
            )
        axes.margins(0.2)
        _log(axes, x=what, y="ms per step")
        figure.legend(loc="outside lower left", ncols=3)
        said = "; ".join(f"{n.name}: {short(value(n) or 0)}, {milliseconds(n.step_ms.median)}" for n in document.models)
        panels.append(Panel(f"size-{what.split()[0]}", figure, f"{what} against time. {said}."))
    return Picture("size", _size_sentence(document), panels)


def _size_sentence(document: Document) -> str:
    """Whether the order of the times is that of the parameters and of the MACs, with this run's algorithm."""
    by_time = sorted(document.models, key=lambda n: n.step_ms.median)
    follows: list[str] = []
    not_: list[str] = []
    for metric in ("parameters", "training MACs"):
        sizes = [METRICS[metric](n) or 0 for n in by_time]
        (follows if sizes == sorted(sizes) else not_).append(metric)
    said = f"follows {' and '.join(follows)}" if follows else f"follows neither {' nor '.join(not_)}"
    if follows and not_:
        said += f", not {not_[0]}"
    return f"With algorithm {document.algorithm}, the order of the times {said}."


# Where each step's time goes ---------------------------------------------------------------------------------------


def _passes(document: Document) -> Picture:
    panels, said = [], []
    for model in document.models:
        found = [n for a in document.by_algorithm if (n := document.find(model.name, a))]
        figure, axes = _new(4.9, 1.35 + 0.42 * len(found))
        for place, n in enumerate(found):
            left = 0.0
            for part, ms in _by_pass(n).items():
                axes.barh(place, ms, left=left, color=light(PASSES[part]), label=pass_name(part) if not place else None)
                left += ms
            axes.annotate(milliseconds(left), (left, place), **BESIDE)
        axes.set(title=shorten_name(model.name, 30), xlabel="ms per step")
        _rows(axes, [n.algorithm for n in found], 1.22 * max(n.step_ms.median for n in found))
        handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=3)
        words = [f"{n.algorithm}: {', '.join(f'{pass_name(p)} {milliseconds(ms)}' for p, ms in _by_pass(n).items())}"
                 for n in found]  # fmt: skip
        panels.append(Panel(f"passes-{_slug(document, model.name)}", figure, f"{model.name}. {'; '.join(words)}."))
        largest = max(model.layers, key=lambda row: row.ms)
        said.append(f"{model.name}: {_row(largest)}, {_share(largest, model)}")
    sentence = (
        f"The time of a step by pass, with each algorithm; the scales differ. The largest part with "
        f"{document.algorithm}: {'; '.join(said)}."
    )
    return Picture("passes", _with_names(sentence, document.models), panels)


def _by_pass(n: Network) -> dict[str, float]:
    """ms of each pass; the rest of the step is added to the time between the layers."""
    found = {part: sum(row.ms for row in n.layers if row.part == part) for part in PASSES}
    found["other"] += max(n.step_ms.median - sum(found.values()), 0.0)
    return {part: ms for part, ms in found.items() if ms > 0}


def _with_names(sentence: str, networks: Sequence[Network]) -> str:
    """The sentence, and which layers the short names of fused layers in it stand for."""
    names = spelled_out(row.name for n in networks for row in n.layers if shorten(row.name) in sentence)
    return " ".join([sentence, *(f"{name}." for name in names)])


def _row(row: Row) -> str:
    return _where(row.name, row.part)


def _share(row: Row, n: Network) -> str:
    return f"{100 * row.ms / n.step_ms.median:.0f}%"


def _slug(document: Document, name: str) -> str:
    """A network's name for a file name: itself if it is short and an identifier, else a number."""
    if name.isidentifier() and len(name) <= 40:
        return name
    return f"network{1 + [n.name for n in document.models].index(name)}"


# The difference between networks -----------------------------------------------------------------------------------


def _difference(document: Document, algorithm: str) -> Picture:
    panels, said = [], []
    for n in document.by_algorithm[algorithm]:
        if base := document.base_of(n):
            panels.append(_waterfall(document, n, base))
            more = n.step_ms.median - base.step_ms.median
            most = max(differences(n, base, most=1000, least=0), key=lambda d: d.more if more > 0 else -d.more)
            takes = f"{milliseconds(abs(more))} {'longer' if more > 0 else 'less'}"
            said.append(
                f"A step of {n.name} takes {takes} than one of {base.name}. "
                f"The largest difference is {_where(most.name, most.part)}: {signed(most.more, most.more)} ms."
            )
    return Picture(f"difference-{algorithm}", " ".join(said), panels, algorithm)


def _waterfall(document: Document, n: Network, base: Network) -> Panel:
    """A waterfall from the baseline's step, through the differences, to the network's step."""
    rows = [(_where(d.name, d.part), d.more) for d in differences(n, base)]
    before, after = base.step_ms.median, n.step_ms.median
    figure, axes = _new(5.1, 1.3 + 0.3 * len(rows))
    names = [shorten_name(base.name), *(name for name, _ in rows), shorten_name(n.name)]
    reached = widest = before
    for place, (begin, more) in enumerate([(0.0, before), *((None, more) for _, more in rows), (0.0, after)]):
        left = reached if begin is None else begin
        colour = light("c5") if begin is not None else light("c6" if more > 0 else "c0")
        axes.barh(place, more, left=left, color=colour, height=0.66)
        reached = left + more
        text = signed(more, max(before, after)) if begin is None else milliseconds(more)
        end = max(left, reached)
        widest = max(widest, end)
        axes.annotate(text, (end, place), **BESIDE)
        if place <= len(rows):
            axes.plot([reached, reached], [place, place + 1], color=light("muted"), linewidth=0.8, linestyle=":")
    axes.set(title=shorten_name(n.name, 30), xlabel="ms per step")
    _rows(axes, names, 1.22 * widest)
    said = ", ".join(f"{name} {signed(more, max(before, after))}" for name, more in rows)
    alt = f"{base.name} {milliseconds(before)}; {said}; {n.name} {milliseconds(after)}."
    return Panel(f"difference-{n.algorithm}-{_slug(document, n.name)}", figure, alt)


def _where(name: str, part: str) -> str:
    return " ".join(layer_and_pass(name, part)).strip()


# Which metric predicts the time ------------------------------------------------------------------------------------


def _metrics(document: Document, algorithm: str) -> Picture:
    found = predictions(document, algorithm)
    figure, axes = _new(6.4, 1.2 + 0.38 * len(found))
    axes.axvspan(1 / WITHIN, WITHIN, color=light("band"), zorder=0)
    axes.axvline(1, color=light("muted"), linewidth=1)
    for place, rows in enumerate(found.values()):
        for p in rows:
            colour, marker = _style(document, p.network.name)
            label = shorten_name(p.network.name, 24) if not place else None
            axes.scatter([p.factor], [place], s=60, color=colour, marker=marker, label=label)
    axes.set_yticks(range(len(found)), list(found))
    axes.margins(0.1, 0.12)
    _log(axes, x=f"predicted ratio / measured ratio; shaded: within {WITHIN:g}×")
    axes.invert_yaxis()
    figure.legend(loc="outside lower left", ncols=3)
    holding = [metric for metric, rows in found.items() if all(p.holds for p in rows)]
    sentence = f"With algorithm {algorithm}, no metric is within {WITHIN:g}× of every measured ratio."
    if holding:
        holding = ["the time model" if metric == "time model" else metric for metric in holding]
        others = "" if len(holding) == len(found) else " The other metrics do not."
        verb = "predicts" if len(holding) == 1 else "predict"
        sentence = f"With algorithm {algorithm}, {listed(holding)} {verb} every ratio within {WITHIN:g}×."
        sentence += others
    said = [f"{m}: {', '.join(f'{p.network.name} {times(p.factor)}' for p in rows)}" for m, rows in found.items()]
    panel = Panel(f"metrics-{algorithm}", figure, f"Predicted over measured ratio. {'; '.join(said)}.")
    return Picture(f"metrics-{algorithm}", sentence, [panel], algorithm)


# Rooflines (Williams et al. 2009) ----------------------------------------------------------------------------------


def _roofline(document: Document, algorithm: str) -> Picture | None:
    """Without peak rates there is no roof; None if no pass has FLOPs and bytes."""
    networks = [n for n in document.by_algorithm[algorithm] if _dots(n)]
    if not networks:
        return None
    n_threads = networks[0].threads
    peak, slopes = document.peak_rates(n_threads)
    panels = [_roofline_panel(document, n, peak, slopes) for n in networks]
    sentence = (
        f"Each dot is a pass of a layer with algorithm {algorithm}; its area is its share of the step. The "
        "lines are the limits of this machine; a dot below them does not reach its limit."
    )
    if document.machine:
        n_threads = 1 if n_threads == 1 else document.machine["threads"]
        best = max((dot[2] / peak, _row(dot[0]), n.name) for n in networks for dot in _dots(n))
        sentence += (
            f" The peak of {threads_said(n_threads)} is {short(peak)} GFLOP/s; the highest share of it is "
            f"{100 * best[0]:.0f}%, {best[1]} of {best[2]}."
        )
        if best[0] > 1:
            sentence += " FLOPs are those of direct convolution: an algorithm that does fewer may exceed the peak."
    else:
        sentence += " This run has no measured peak rates, so no roof is drawn."
    return Picture(f"roofline-{algorithm}", _with_names(sentence, networks), panels, algorithm)


def _dots(n: Network) -> list[tuple[Row, float, float]]:
    """(row, FLOPs per byte of memory traffic, or else of the minimum traffic, GFLOP/s), the longest first."""
    rows = sorted((row for row in n.layers if row.flops and row.bytes and row.ms > 0), key=lambda row: -row.ms)
    return [(r, r.flops / (r.moved_bytes or r.bytes), r.flops / r.ms / 1e6) for r in rows if r.flops and r.bytes]


def _roofline_panel(document: Document, n: Network, peak: float, slopes: dict[str, float]) -> Panel:
    figure, axes = _new(5.1, 3.7)
    dots = _dots(n)
    for row, x, y in dots:
        size = max(1500 * row.ms / n.step_ms.median, 14)
        axes.scatter([x], [y], s=size, color=light(PASSES[row.part]), alpha=0.85, edgecolors=light("page"))
    axes.set(xscale="log", yscale="log")
    axes.margins(0.15, 0.3)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    if peak:
        top = max(top, 1.6 * peak)
        for level, gbs in slopes.items():
            ends = [left, min(right, peak / gbs)]
            if ends[1] > ends[0]:
                axes.plot(ends, [gbs * x for x in ends], color=light("muted"), linewidth=1)
                at = max(ends[0], bottom / gbs)
                axes.annotate(f" {level}", (at, gbs * at), color=light("muted"), fontsize=8, va="top")
        axes.axhline(peak, color=light("muted"), linewidth=1)
        axes.annotate(f"peak {short(peak)} GFLOP/s", (right, peak), (0, 3), textcoords="offset points", ha="right",
                      fontsize=8, color=light("muted"))  # fmt: skip
    axes.set(xlim=(left, right), ylim=(bottom, top), title=shorten_name(n.name, 30))
    traffic = "memory traffic" if any(row.moved_bytes for row, *_ in dots) else "minimum traffic"
    _log(axes, x=f"FLOPs per byte of {traffic}", y="GFLOP/s")
    _name_dots(axes, dots[:NAMED])
    said = "; ".join(f"{_row(row)} {short(y)} GFLOP/s at {short(x)} FLOPs per byte" for row, x, y in dots)
    return Panel(f"roofline-{n.algorithm}-{_slug(document, n.name)}", figure, f"{n.name}. {said}.")


def _name_dots(axes: Axes, dots: Sequence[tuple[Row, float, float]]) -> None:
    """Labels at the right of the axes in the vertical order of their dots, each with a thin line to its dot."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    ordered = sorted(dots, key=lambda dot: -dot[2])
    for place, (row, x, y) in enumerate(ordered):
        height = bottom * (top / bottom) ** (0.96 - 0.92 * (place + 0.5) / len(ordered))
        axes.plot([x, right * (right / left) ** 0.03], [y, height], color=light("muted"), linewidth=0.6, clip_on=False)
        axes.annotate(_row(row), (right, height), (9, 0), textcoords="offset points", fontsize=8.5, va="center")


# Sweeps and the ladder ---------------------------------------------------------------------------------------------


def _sweep(document: Document, sweep: dict[str, Any]) -> Picture:
    figure, axes = _new(6.4, 3.9)
    first = (sweep["baselines"] or sweep["points"])[0]["algorithm"]
    for network, algorithm in dict.fromkeys((p["network"], p["algorithm"]) for p in sweep["points"]):
        points = [p for p in sweep["points"] if (p["network"], p["algorithm"]) == (network, algorithm)]
        colour, marker = _style(document, network)
        is_first = algorithm == first
        axes.plot([p["x"] for p in points], [p["ms"] for p in points], color=colour, marker=marker, markersize=5,
                  linestyle="-" if is_first else "--", markerfacecolor=colour if is_first else light("page"),
                  label=f"{network}, {algorithm}")  # fmt: skip
    for b in sweep["baselines"]:
        style = "-" if b["algorithm"] == first else "--"
        colour, _ = _style(document, b["network"])
        axes.axhline(b["ms"], color=colour, linestyle=style, linewidth=1, label=f"{b['network']}, {b['algorithm']}")
    for crossing in sweep["crossings"]:
        axes.plot(crossing["x"], crossing["ms"], "o", color=light("text"), markersize=4)
        axes.annotate(
            short(crossing["x"]), (crossing["x"], crossing["ms"]), (5, -11), textcoords="offset points", fontsize=9
        )
    ticks = sorted({p["x"] for p in sweep["points"]})
    _log(axes, x=sweep["x"], y="ms per step")
    axes.set_xticks(ticks[:: 1 + len(ticks) // 10])
    figure.legend(loc="outside lower left", ncols=3)
    panel = Panel(f"sweep-{sweep['name']}", figure, f"{sweep['title']}: ms per step. {' '.join(sweep['findings'])}")
    return Picture(f"sweep-{sweep['name']}", " ".join(sweep["findings"]), [panel])


def _ladder(document: Document) -> Picture:
    rungs = document.ladder or []
    figure, axes = _new(6.4, 1.0 + 0.34 * len(rungs))
    axes.barh([rung["name"] for rung in rungs], [rung["ms"] for rung in rungs], color=light("c0"))
    for place, rung in enumerate(rungs):
        text = ("about " if rung.get("scaled") else "") + milliseconds(rung["ms"])
        axes.annotate(text, (rung["ms"], place), **BESIDE)
    _log(axes, x="ms")
    least, most = (select(rung["ms"] for rung in rungs) for select in (min, max))
    axes.set_xlim(least / 2, 2 * most * (most / least) ** 0.4)  # space for the numbers
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    fastest = min(rungs, key=lambda rung: rung["ms"])
    sentence = (
        f"The same layer with {len(rungs)} algorithms: {fastest['name']} is {times(rungs[0]['ms'] / fastest['ms'])} "
        f"as fast as {rungs[0]['name']}."
    )
    said = "; ".join(f"{rung['name']} {milliseconds(rung['ms'])}" for rung in rungs)
    return Picture("ladder", sentence, [Panel("ladder", figure, f"Times: {said}.")])


def panels(pictures: dict[str, list[Picture]]) -> Iterator[Panel]:
    """Every panel of every figure."""
    for found in pictures.values():
        for picture in found:
            yield from picture.panels
