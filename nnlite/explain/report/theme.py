"""The colours of the report, light and dark.

The series are based on Okabe and Ito's palette (2008) for colour-blind readers. A test simulates the three kinds of
colour blindness (Machado et al. 2009).
"""

from __future__ import annotations

#: role -> (light, dark); the light colours are all different, so that a figure's colours can be replaced
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
    "c0": ("#0072b2", "#4aa3e0"),
    "c1": ("#e69f00", "#f2b632"),
    "c2": ("#007a5a", "#1fae86"),
    "c3": ("#d06aa4", "#ef9fcb"),
    "c4": ("#6fc3f2", "#b4e0fa"),
    "c5": ("#5f6771", "#8b95a1"),
    "c6": ("#c44e00", "#ff8a47"),
}

#: pass of a training step -> colour, in stacking order
PASSES = {
    "forward": "c0",
    "grad_input": "c1",
    "grad_weight": "c2",
    "gradients": "c3",
    "optimizer": "c4",
    "other": "c5",
}
#: (colour, matplotlib marker) of each network; the marker distinguishes them without colour
SERIES = (("c0", "o"), ("c6", "s"), ("c2", "D"), ("c3", "^"), ("c1", "v"), ("c5", "P"))


def light(role: str) -> str:
    """The role's light colour."""
    return COLOURS[role][0]


def series(index: int) -> tuple[str, str]:
    """(light colour, marker) of the network at that index."""
    role, marker = SERIES[index % len(SERIES)]
    return light(role), marker


def variables(dark: bool) -> str:
    """The CSS custom properties of one scheme."""
    return "".join(f"--{role}:{pair[dark]};" for role, pair in COLOURS.items())


def with_variables(svg: str) -> str:
    """The figure with the page's CSS variables as colours, so that it follows light and dark mode."""
    for role, (colour, _) in COLOURS.items():
        svg = svg.replace(colour, f"var(--{role})")
    return svg
