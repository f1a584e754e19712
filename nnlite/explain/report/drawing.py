"""What all figures share: panels with their sentence, axes, the look of a network, names of passes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnlite.explain.document import Document, Network
from nnlite.explain.names import layer_and_pass, pass_name, spelled_out
from nnlite.explain.report.theme import PASSES, light, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: annotation style of a number at the right of its bar
BESIDE: dict[str, Any] = {
    "xytext": (4, 0),
    "textcoords": "offset points",
    "va": "center",
    "fontsize": 9,
    "in_layout": False,  # it fits into the margins, and layout is most of a figure's time
}
#: annotation style of a name above its dot
ABOVE: dict[str, Any] = {**BESIDE, "xytext": (0, 7), "va": "bottom"}
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


def new(width: float = 4.9, height: float = 3.3) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def bar_rows(axes: Axes, names: Sequence[str], right: float) -> None:
    """One horizontal bar per name, the first on top, on an axis from 0 to `right`."""
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, right)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)


def pass_legend(figure: Figure, parts: Collection[str]) -> None:
    """A legend of the colours of these passes."""
    from matplotlib.patches import Patch

    handles = [Patch(color=light(role), label=pass_name(part)) for part, role in PASSES.items() if part in parts]
    figure.legend(handles=handles, loc="outside lower left", ncols=4)


def style_of(document: Document, name: str) -> tuple[str, str]:
    """(colour, marker) of a network, the same in every figure. Networks of sweeps come last."""
    swept = [p["network"] for sweep in document.sweeps for p in [*sweep["baselines"], *sweep["points"]]]
    return series(list(dict.fromkeys([*(n.name for n in document.models), *swept])).index(name))


def with_names(sentence: str, networks: Sequence[Network]) -> str:
    """The sentence, and which layers the short names of these networks' fused layers stand for."""
    names = spelled_out(row.name for n in networks for row in n.layers)
    return " ".join([sentence, *(f"{name}." for name in names)])


def slug(document: Document, name: str) -> str:
    """A network's name for a file name: itself if it is short and an identifier, else a number."""
    if name.isidentifier() and len(name) <= 40:
        return name
    return f"network{1 + [n.name for n in document.models].index(name)}"


def where(name: str, part: str) -> str:
    return " ".join(layer_and_pass(name, part)).strip()


def panels(pictures: dict[str, list[Picture]]) -> Iterator[Panel]:
    """Every panel of every figure."""
    for found in pictures.values():
        for picture in found:
            yield from picture.panels
