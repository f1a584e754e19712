"""Which colour is which pass of a training step."""

from __future__ import annotations

from collections.abc import Sequence

from nnlite.explain.numbers import listed
from nnlite.explain.report import theme
from nnlite.explain.report.canvas import Canvas, text_width
from nnlite.scopes import PART_NAMES

WIDTH = 370.0  # two rows at most, so that it can be read on a narrow screen


def legend(parts: Sequence[str]) -> Canvas:
    """A patch and a name for each pass."""
    names = [PART_NAMES[part] for part in parts]
    canvas = Canvas(WIDTH, 28.0, f"Colours: {listed(names)}")
    left, top = 14.0, 8.0
    for part, name in zip(parts, names, strict=True):
        wide = 18 + text_width(name) + 14
        if left + wide > WIDTH:
            left, top = 14.0, top + 22
        canvas.rect(left, top, 12, 12, theme.PASS_ROLES[part])
        canvas.text(left + 18, top + 10.5, name)
        left += wide
    canvas.height = top + 20
    return canvas
