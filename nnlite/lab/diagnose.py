"""What a wrong result looks like: where it is wrong, and which usual mistake would give it."""

from __future__ import annotations

import numpy as np

from nnlite.conv import Geometry
from nnlite.lab.reference import Operands, expected, rms

#: the names of a result's axes, by pass
AXES = {"forward": ("n", "oh", "ow", "k"), "grad_input": ("n", "h", "w", "c"), "grad_weight": ("r", "s", "c", "k")}
RESULT = {"forward": "y", "grad_input": "dx", "grad_weight": "dweight"}


def describe(
    got: np.ndarray, right: np.ndarray, bound: float, pass_name: str, given: Operands, geometry: Geometry
) -> str:
    """The first differing element with both values, how many differ, and what they have in common."""
    scale = rms(right)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(got.astype(np.float64) - right) / scale
    wrong = ~(difference <= bound)  # NaN is wrong too
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    place = ", ".join(f"{axis}={i}" for axis, i in zip(AXES[pass_name], first, strict=True))
    largest = "not finite" if not np.isfinite(difference).all() else f"{difference.max():.2g} of the rms"
    text = (
        f"the first differing element is {RESULT[pass_name]}[{place}]: expected {right[first]:.6g}, "
        f"got {got[first]:.6g}; {int(wrong.sum())} of {wrong.size} differ, by up to {largest} (allowed: {bound:.2g})"
    )
    hint = _hint(got, right, wrong, bound, pass_name, given, geometry)
    return f"{text}. {hint}" if hint else text


def _hint(
    got: np.ndarray,
    right: np.ndarray,
    wrong: np.ndarray,
    bound: float,
    pass_name: str,
    given: Operands,
    geometry: Geometry,
) -> str | None:
    if not np.isfinite(got).all():
        return "Some elements are NaN or infinite: is memory used that was never written?"
    if np.abs(got - right).max() <= 1e-6 * rms(right):
        return "It is right to float32's precision: does something compute in float32?"
    factor = float((got * right).sum() / np.square(right).sum()) if right.size > 1 and right.any() else 0.0
    if abs(factor) > 1e-3 and np.abs(got / factor - right).max() <= 4 * bound * rms(right):
        return f"Everything is {factor:.6g} times what it should be"
    edge = _common_edge(wrong, pass_name)
    if edge:
        return edge
    flipped = Operands(given.x, np.ascontiguousarray(given.weight[::-1, ::-1]), given.dy)
    other = expected(geometry, pass_name, flipped)
    other = other[::-1, ::-1] if pass_name == "grad_weight" else other
    if np.abs(got - other).max() <= 4 * bound * rms(other):
        return "It is what comes out if the taps were flipped: this is cross-correlation, not convolution"
    return None


def _common_edge(wrong: np.ndarray, pass_name: str) -> str | None:
    """Whether all wrong elements lie at the first or the last index of one axis, and others than these are right."""
    places = np.argwhere(wrong)
    for axis, name in enumerate(AXES[pass_name]):
        size = wrong.shape[axis]
        if size > 1 and (places[:, axis] == size - 1).all():
            return f"All that are wrong are at {name}={size - 1}, the last"
        if size > 1 and (places[:, axis] == 0).all():
            return f"All that are wrong are at {name}=0, the first"
    return None
