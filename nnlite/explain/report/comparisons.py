"""The figures that compare networks: size versus time, passes, waterfalls of differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nnlite.explain.compare import METRICS, differences
from nnlite.explain.document import Document, Network
from nnlite.explain.names import pass_name
from nnlite.explain.report.drawing import (
    ABOVE,
    BESIDE,
    Panel,
    Picture,
    bar_rows,
    new,
    pass_legend,
    slug,
    style_of,
    where,
    with_names,
)
from nnlite.explain.report.theme import PASSES, light
from nnlite.explain.tables import shorten_name, signed
from nnlite.lab.numbers import milliseconds, short
from nnlite.lab.roofs import log

# Size versus time --------------------------------------------------------------------------------------------------


def size(document: Document) -> Picture:
    """Each network's size and time: with the algorithm of the run, and beside it with the slowest one."""
    sizes: dict[str, Callable[[Network], float | None]] = {
        "parameters": METRICS["parameters"],
        "training MACs per image": METRICS["training MACs"],
    }
    drawn = [document.algorithm]
    if document.comparisons:
        drawn.append(max(document.comparisons, key=lambda a: _total(document.comparisons[a])))
    panels, muted = [], light("muted")
    for what, value in sizes.items():
        figure, axes = new(4.4, 3.2)
        said = []
        for algorithm in drawn:
            for n in document.by_algorithm[algorithm]:
                colour, marker = style_of(document, n.name)
                x, y = value(n) or 0, n.step_ms.median
                face = colour if algorithm == document.algorithm else "none"
                axes.scatter([x], [y], s=70, edgecolors=colour, facecolors=face, marker=marker)
                said.append(f"{n.name}, {algorithm}: {short(x)}, {milliseconds(y)}")
                if algorithm == drawn[-1]:
                    axes.annotate(shorten_name(n.name), (x, y), ha="center", **ABOVE)
        if len(drawn) > 1:
            for algorithm, face in zip(drawn, (muted, "none"), strict=True):
                axes.scatter([], [], s=50, edgecolors=muted, facecolors=face, label=algorithm)
            figure.legend(loc="outside lower left", ncols=2)
        axes.margins(0.25)
        log(axes, x=what, y="ms per step")
        panels.append(Panel(f"size-{what.split()[0]}", figure, f"{what} against time. {'; '.join(said)}."))
    return Picture("size", _size_sentence(document, drawn), panels)


def _total(networks: Sequence[Network]) -> float:
    return sum(n.step_ms.median for n in networks)


def _size_sentence(document: Document, algorithms: Sequence[str]) -> str:
    """Whether the order of the times is that of the parameters and of the MACs, with each of the algorithms."""
    said = []
    for algorithm, dots in zip(algorithms, ("filled", "hollow"), strict=False):
        by_time = sorted(document.by_algorithm[algorithm], key=lambda n: n.step_ms.median)
        follows: list[str] = []
        not_: list[str] = []
        for metric in ("parameters", "training MACs"):
            sizes = [METRICS[metric](n) or 0 for n in by_time]
            (follows if sizes == sorted(sizes) else not_).append(metric)
        order = f"follows {' and '.join(follows)}" if follows else f"follows neither {' nor '.join(not_)}"
        if follows and not_:
            order += f", not {not_[0]}"
        shown = f" ({dots})" if len(algorithms) > 1 else ""
        said.append(f"With algorithm {algorithm}{shown}, the order of the times {order}.")
    return " ".join(said)


# Where each step's time goes ---------------------------------------------------------------------------------------


def passes(document: Document) -> Picture:
    panels, said = [], []
    for model in document.models:
        found = [n for a in document.by_algorithm if (n := document.find(model.name, a))]
        figure, axes = new(4.9, 1.35 + 0.42 * len(found))
        for place, n in enumerate(found):
            left = 0.0
            for part, ms in _by_pass(n).items():
                axes.barh(place, ms, left=left, color=light(PASSES[part]))
                left += ms
            axes.annotate(milliseconds(left), (left, place), **BESIDE)
        axes.set(title=shorten_name(model.name, 30), xlabel="ms per step")
        bar_rows(axes, [n.algorithm for n in found], 1.22 * max(n.step_ms.median for n in found))
        pass_legend(figure, {part for n in found for part in _by_pass(n)})
        words = [f"{n.algorithm}: {', '.join(f'{pass_name(p)} {milliseconds(ms)}' for p, ms in _by_pass(n).items())}"
                 for n in found]  # fmt: skip
        panels.append(Panel(f"passes-{slug(document, model.name)}", figure, f"{model.name}. {'; '.join(words)}."))
        largest = max(model.layers, key=lambda row: row.ms)
        share = 100 * largest.ms / model.step_ms.median
        said.append(f"{model.name}: {where(largest.name, largest.part)}, {share:.0f}%")
    sentence = (
        f"The time of a step by pass, with each algorithm; the scales differ. The largest part with "
        f"{document.algorithm}: {'; '.join(said)}."
    )
    return Picture("passes", with_names(sentence, document.models), panels)


def _by_pass(n: Network) -> dict[str, float]:
    """ms of each pass; the rest of the step is added to the time between the layers."""
    found = {part: sum(row.ms for row in n.layers if row.part == part) for part in PASSES}
    found["other"] += max(n.step_ms.median - sum(found.values()), 0.0)
    return {part: ms for part, ms in found.items() if ms > 0}


# The difference between networks -----------------------------------------------------------------------------------


def difference(document: Document, algorithm: str) -> Picture:
    panels, said = [], []
    for n in document.by_algorithm[algorithm]:
        if base := document.base_of(n):
            panels.append(_waterfall(document, n, base))
            more = n.step_ms.median - base.step_ms.median
            most = max(differences(n, base, most=1000, least=0), key=lambda d: d.more if more > 0 else -d.more)
            takes, change = ("longer", "increase") if more > 0 else ("less", "saving")
            said.append(
                f"A step of {n.name} takes {milliseconds(abs(more))} {takes} than one of {base.name}. "
                f"The largest {change} is {where(most.name, most.part)}: {signed(most.more, most.more)} ms."
            )
    sentence = with_names(" ".join(said), document.by_algorithm[algorithm])
    return Picture(f"difference-{algorithm}", sentence, panels, algorithm)


def _waterfall(document: Document, n: Network, base: Network) -> Panel:
    """A waterfall from the baseline's step, through the differences, to the network's step."""
    rows = [(where(d.name, d.part), d.more) for d in differences(n, base)]
    before, after = base.step_ms.median, n.step_ms.median
    figure, axes = new(5.1, 1.3 + 0.3 * len(rows))
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
    bar_rows(axes, names, 1.22 * widest)
    said = ", ".join(f"{name} {signed(more, max(before, after))}" for name, more in rows)
    alt = f"{base.name} {milliseconds(before)}; {said}; {n.name} {milliseconds(after)}."
    return Panel(f"difference-{n.algorithm}-{slug(document, n.name)}", figure, alt)
