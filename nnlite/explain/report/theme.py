"""The colours of the report, for light and for dark.

The series keep apart for readers who do not tell red from green: they start from Okabe and Ito's palette (2008), and a
test simulates the three kinds of colour blindness (Machado et al. 2009).
"""

from __future__ import annotations

#: role -> (light, dark); the light colours differ, so that a picture's can be told apart and replaced
COLOURS: dict[str, tuple[str, str]] = {
    "page": ("#ffffff", "#14171c"),
    "panel": ("#f6f7f9", "#1c2027"),
    "line": ("#d5dae1", "#343b46"),
    "grid": ("#e4e8ed", "#2b313b"),
    "text": ("#16202c", "#e8ebef"),
    "muted": ("#566270", "#a3adba"),
    "accent": ("#005f99", "#6db9ef"),
    "good": ("#006b4f", "#3fcf9f"),
    "bad": ("#a63c00", "#ff9a5c"),
    "band": ("#e3eef6", "#22303d"),
    "c0": ("#0072b2", "#4aa3e0"),
    "c1": ("#e69f00", "#f2b632"),
    "c2": ("#007a5a", "#1fae86"),
    "c3": ("#d06aa4", "#ef9fcb"),
    "c4": ("#6fc3f2", "#b4e0fa"),
    "c5": ("#5f6771", "#8b95a1"),
    "c6": ("#c44e00", "#ff8a47"),
}

#: the passes of a training step, in the order in which they are stacked
PASSES = {
    "forward": "c0",
    "grad_input": "c1",
    "grad_weight": "c2",
    "gradients": "c3",
    "optimizer": "c4",
    "other": "c5",
}
#: networks in the order of the run: (colour, matplotlib's marker); the marker tells them apart without colour
SERIES = (("c0", "o"), ("c6", "s"), ("c2", "D"), ("c3", "^"), ("c1", "v"), ("c5", "P"))


def light(role: str) -> str:
    """The role's colour on paper."""
    return COLOURS[role][0]


def series(index: int) -> tuple[str, str]:
    """(colour on paper, marker) of the network at that place."""
    role, marker = SERIES[index % len(SERIES)]
    return light(role), marker


def variables(dark: bool) -> str:
    """The CSS custom properties of one scheme."""
    return "".join(f"--{role}:{pair[dark]};" for role, pair in COLOURS.items())


def with_variables(svg: str) -> str:
    """The picture with the page's variables for its colours, so that it is dark where the page is."""
    for role, (colour, _) in COLOURS.items():
        svg = svg.replace(colour, f"var(--{role})")
    return svg
