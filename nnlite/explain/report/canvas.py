"""A picture as a list of shapes, which becomes SVG for the page and, by raster.py, PNG.

Coordinates are pixels, y downwards. A shape's colours are roles of theme.py, so that one picture serves light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

from nnlite.explain.report import theme

Point = tuple[float, float]
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"
GAP = 18.0  # between the panels of one file


@dataclass(frozen=True)
class Path:
    """A line through points, or a polygon if closed."""

    points: tuple[Point, ...]
    stroke: str | None = None
    fill: str | None = None
    width: float = 1.5
    dashed: bool = False
    opacity: float = 1.0
    title: str = ""


@dataclass(frozen=True)
class Marker:
    """A dot of a series. `kind`: circle, square, diamond or triangle, all of the area of a circle of `radius`.

    With a `stroke` it has that outline.
    """

    points: tuple[Point]
    radius: float
    fill: str
    kind: str = "circle"
    opacity: float = 1.0
    title: str = ""
    stroke: str | None = None
    width: float = 1.8  # of the outline

    def outline(self) -> tuple[Point, ...]:
        """The corners; none for a circle."""
        (x, y), r = self.points[0], self.radius
        s, d, t = 0.886 * r, 1.253 * r, 1.1 * r  # half a square's side, half a diagonal, a triangle's reach
        return {
            "square": ((x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s)),
            "diamond": ((x, y - d), (x + d, y), (x, y + d), (x - d, y)),
            "triangle": ((x, y - 1.3 * t), (x + 1.2 * t, y + 0.8 * t), (x - 1.2 * t, y + 0.8 * t)),
        }.get(self.kind, ())


@dataclass(frozen=True)
class Text:
    """One line of text, on a halo of the page's colour unless it stands in a bar. `anchor`: start, middle or end."""

    points: tuple[Point]
    text: str
    fill: str = "text"
    size: float = 12.0
    anchor: str = "start"
    bold: bool = False
    turned: bool = False  # reads upwards

    @property
    def halo(self) -> bool:
        return not self.fill.startswith("on-")


Shape = Path | Marker | Text


@dataclass
class Canvas:
    """A picture of width x height pixels; `label` says in words what it shows."""

    width: float
    height: float
    label: str = ""
    shapes: list[Shape] = field(default_factory=list)

    def line(
        self, *points: Point, stroke: str = "text", width: float = 1.5, dashed: bool = False, title: str = ""
    ) -> None:
        self.shapes.append(Path(points, stroke=stroke, width=width, dashed=dashed, title=title))

    def polygon(self, points: Iterable[Point], fill: str, opacity: float = 1.0, title: str = "") -> None:
        self.shapes.append(Path(tuple(points), fill=fill, opacity=opacity, title=title))

    def rect(self, x: float, y: float, w: float, h: float, fill: str, title: str = "") -> None:
        self.polygon(((x, y), (x + w, y), (x + w, y + h), (x, y + h)), fill, title=title)

    def marker(self, x: float, y: float, radius: float, fill: str, kind: str = "circle", **options: Any) -> None:
        self.shapes.append(Marker(((x, y),), radius, fill, kind, **options))

    def text(self, x: float, y: float, text: str, **options: Any) -> None:
        self.shapes.append(Text(((x, y),), text, **options))

    def arrow(self, start: Point, end: Point, stroke: str = "muted", title: str = "") -> None:
        """A line with a head at its end."""
        (x0, y0), (x1, y1) = start, end
        length = max(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 1e-9)
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        self.line(start, end, stroke=stroke, width=1.2, title=title)
        back = (x1 - 6 * ux, y1 - 6 * uy)
        self.polygon((end, (back[0] - 3 * uy, back[1] + 3 * ux), (back[0] + 3 * uy, back[1] - 3 * ux)), stroke)


def text_width(text: str, size: float = 12.0) -> float:
    """About how wide a line is."""
    return 0.56 * size * len(text)


def wrap(text: str, width: float, size: float = 12.0) -> list[str]:
    """The words of `text` in lines of about that width."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def compose(panels: Sequence[Canvas], columns: int, title: str, legend: Canvas | None = None) -> Canvas:
    """Panels side by side in one picture under a title and a legend, for a file."""
    rows: list[Sequence[Canvas]] = [[legend]] if legend else []
    rows += [panels[i : i + columns] for i in range(0, len(panels), columns)]
    width = max((sum(p.width for p in row) + GAP * (len(row) - 1) for row in rows), default=300) + 2 * GAP
    heading = wrap(title, width - 2 * GAP, 17)
    whole = Canvas(width, 0, title)
    for i, line in enumerate(heading):
        whole.text(GAP, 30 + 22 * i, line, size=17, bold=True)
    top = 22.0 + 22 * len(heading)
    for row in rows:
        left = GAP
        for panel in row:
            whole.shapes.extend(_moved(shape, left, top) for shape in panel.shapes)
            left += panel.width + GAP
        top += max(p.height for p in row) + GAP
    whole.height = top
    return whole


def _moved(shape: Shape, dx: float, dy: float) -> Shape:
    return replace(shape, points=tuple((x + dx, y + dy) for x, y in shape.points))  # type: ignore[arg-type]


# SVG ---------------------------------------------------------------------------------------------------------------


def svg(canvas: Canvas, *, alone: bool = False) -> str:
    """The picture as SVG: for a page that has theme's CSS, or `alone` with its own, on white."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg"' if alone else "<svg"  # noqa: F541
    size = f'viewBox="0 0 {_n(canvas.width)} {_n(canvas.height)}"'
    if alone:
        size += f' width="{_n(canvas.width)}" height="{_n(canvas.height)}"'
    parts = [f'{head} {size} role="img" aria-label="{escape(canvas.label)}" font-family="{FONT}">']
    if alone:
        used = {role for s in canvas.shapes for role in (s.fill, getattr(s, "stroke", None)) if role}
        rules = "".join(
            f".fill-{r}{{fill:{theme.light(r)}}}.stroke-{r}{{stroke:{theme.light(r)}}}" for r in sorted(used)
        )
        rules += f".halo{{paint-order:stroke;stroke:{theme.light('page')};stroke-width:3px;stroke-linejoin:round}}"
        parts.append(f'<style>{rules}</style><rect width="100%" height="100%" fill="{theme.light("page")}"/>')
    parts.extend(_element(shape) for shape in canvas.shapes)
    return "".join(parts) + "</svg>"


def _element(shape: Shape) -> str:
    if isinstance(shape, Text):
        return _text_element(shape)
    title = f"<title>{escape(shape.title)}</title>" if shape.title else ""
    opacity = f' opacity="{shape.opacity:g}"' if shape.opacity != 1 else ""
    if isinstance(shape, Marker):
        (x, y) = shape.points[0]
        corners = shape.outline()
        what = (
            f'<polygon points="{_points(corners)}"'
            if corners
            else f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(shape.radius)}"'
        )
        name = "polygon" if corners else "circle"
        edge = f'stroke-{shape.stroke}" stroke-width="{shape.width:g}"' if shape.stroke else 'dot"'
        return f'{what} class="fill-{shape.fill} {edge}{opacity}>{title}</{name}>'
    if shape.fill:
        return f'<polygon points="{_points(shape.points)}" class="fill-{shape.fill}"{opacity}>{title}</polygon>'
    dash = ' stroke-dasharray="5 4"' if shape.dashed else ""
    return (
        f'<polyline points="{_points(shape.points)}" fill="none" class="stroke-{shape.stroke}" '
        f'stroke-width="{shape.width:g}"{dash}{opacity}>{title}</polyline>'
    )


def _text_element(shape: Text) -> str:
    x, y = shape.points[0]
    anchor = f' text-anchor="{shape.anchor}"' if shape.anchor != "start" else ""
    weight = ' font-weight="600"' if shape.bold else ""
    turn = f' transform="rotate(-90 {_n(x)} {_n(y)})"' if shape.turned else ""
    place = f'x="{_n(x)}" y="{_n(y)}" font-size="{shape.size:g}"'
    halo = " halo" if shape.halo else ""
    return f'<text {place} class="fill-{shape.fill}{halo}"{anchor}{weight}{turn}>{escape(shape.text)}</text>'


def _points(points: Iterable[Point]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
