"""Diagnosis of a wrong result: where it is wrong, and which common mistake fits."""

from __future__ import annotations

import numpy as np

from nnlite.lab.reference import Operands, Problem, expected, rms

#: the names of a result's axes, by pass
AXES = {"forward": ("n", "oh", "ow", "k"), "grad_input": ("n", "h", "w", "c"), "grad_weight": ("r", "s", "c", "k")}
RESULT = {"forward": "y", "grad_input": "dx", "grad_weight": "dweight"}


def describe(got: np.ndarray, bound: float, pass_name: str, problem: Problem) -> str:
    """The first wrong element with both values, the number of wrong elements, and a hint at the cause."""
    right = problem.expected(pass_name)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(got.astype(np.float64) - right) / rms(right)
    wrong = ~(difference <= bound)  # NaN is wrong too
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    place = ", ".join(f"{axis}={i}" for axis, i in zip(AXES[pass_name], first, strict=True))
    largest = "not finite" if not np.isfinite(difference).all() else f"{difference.max():.2g} of the RMS"
    text = (
        f"the first wrong element is {RESULT[pass_name]}[{place}]: expected {right[first]:.6g}, "
        f"got {got[first]:.6g}; {int(wrong.sum())} of {wrong.size} are wrong, by up to {largest} (allowed: {bound:.2g})"
    )
    hint = _hint(got, wrong, bound, pass_name, problem)
    return f"{text}. {hint}" if hint else text


def _hint(got: np.ndarray, wrong: np.ndarray, bound: float, pass_name: str, problem: Problem) -> str | None:
    right = problem.expected(pass_name)
    if not np.isfinite(got).all():
        return "Some elements are NaN or infinite: does it use memory that was never written?"
    if np.abs(got - right).max() <= 1e-6 * rms(right):
        return "It is correct to float32 precision: does a part compute in float32?"
    factor = float((got * right).sum() / np.square(right).sum()) if right.size > 1 and right.any() else 0.0
    if abs(factor) > 1e-3 and np.abs(got / factor - right).max() <= 4 * bound * rms(right):
        return f"Every element is {factor:.6g} times the expected value"
    edge = _common_edge(wrong, pass_name)
    if edge:
        return edge
    x, weight, dy = problem.operands
    other = expected(problem.geometry, pass_name, Operands(x, np.ascontiguousarray(weight[::-1, ::-1]), dy))
    other = other[::-1, ::-1] if pass_name == "grad_weight" else other
    if np.abs(got - other).max() <= 4 * bound * rms(other):
        return "The result is that of a flipped kernel: expected cross-correlation, as in all neural-network libraries"
    return None


def _common_edge(wrong: np.ndarray, pass_name: str) -> str | None:
    """A hint if all wrong elements are at the first or last index of one axis."""
    places = np.argwhere(wrong)
    for axis, name in enumerate(AXES[pass_name]):
        size = wrong.shape[axis]
        if size > 1 and (places[:, axis] == size - 1).all():
            return f"All wrong elements are at {name}={size - 1}, the last index"
        if size > 1 and (places[:, axis] == 0).all():
            return f"All wrong elements are at {name}=0, the first index"
    return None
