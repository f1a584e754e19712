"""A picture of canvas.py as a PNG file, by matplotlib."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path as FilePath
from typing import Any

from nnlite.explain.report.canvas import Canvas, Marker, Shape, Text
from nnlite.explain.report.theme import light
from nnlite.files import write_whole

_PIXELS = 100  # of the picture, an inch
_SCALE = 2  # pixels of the file for each
_POINTS = 72 / _PIXELS  # a pixel in matplotlib's unit of line widths and fonts


def write_png(canvas: Canvas, path: FilePath) -> None:
    """Draw the picture on white, two pixels for each of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(canvas.width / _PIXELS, canvas.height / _PIXELS), dpi=_SCALE * _PIXELS)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, canvas.width)
    axes.set_ylim(canvas.height, 0)
    axes.axis("off")
    for order, shape in enumerate(canvas.shapes):
        axes.add_artist(_artist(shape, order))
    drawn = BytesIO()
    FigureCanvasAgg(figure).print_png(drawn)
    write_whole(path, drawn.getvalue())


def _artist(shape: Shape, order: int) -> Any:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle, Polygon
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text as Words

    if isinstance(shape, Text):
        (x, y) = shape.points[0]
        side = {"start": "left", "middle": "center", "end": "right"}[shape.anchor]
        words = shape.text.replace("$", r"\$")
        weight = "bold" if shape.bold else "normal"
        size = 0.92 * shape.size * _POINTS  # matplotlib's own font is wider than a browser's
        style: dict[str, Any] = {
            "color": light(shape.fill),
            "size": size,
            "ha": side,
            "va": "baseline",
            "weight": weight,
        }
        if shape.turned:
            style |= {"rotation": 90, "rotation_mode": "anchor"}
        if shape.halo:
            style["path_effects"] = [withStroke(linewidth=3 * _POINTS, foreground=light("page"))]
        return Words(x, y, words, zorder=order, **style)
    if isinstance(shape, Marker):
        corners = shape.outline()
        style = {
            "facecolor": light(shape.fill),
            "edgecolor": light(shape.stroke or "page"),
            "linewidth": _POINTS * (shape.width if shape.stroke else 1),
            "alpha": shape.opacity,
        }
        if corners:
            return Polygon(corners, closed=True, zorder=order, **style)
        return Circle(shape.points[0], shape.radius, zorder=order, **style)
    if shape.fill:
        colour = light(shape.fill)
        return Polygon(shape.points, closed=True, facecolor=colour, alpha=shape.opacity, linewidth=0, zorder=order)
    xs, ys = zip(*shape.points, strict=True)
    dash = (0, (4, 3)) if shape.dashed else "solid"
    width = shape.width * _POINTS
    return Line2D(xs, ys, color=light(shape.stroke or "text"), linewidth=width, linestyle=dash, zorder=order)
