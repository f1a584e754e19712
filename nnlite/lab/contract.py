"""The contract of an algorithm: shape, dtype and layout of its results, its error bounds, unchanged operands.

Of a wrong result it is said where it is wrong, and which common mistake fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from nnlite.conv import Algorithm, Geometry
from nnlite.lab import reference
from nnlite.lab.reference import Operands, Problem

#: the largest error bound that an algorithm may declare, relative to the result's RMS
LARGEST_BOUND = 1e-3
#: the names of a result's axes, by pass
AXES = {"forward": ("n", "oh", "ow", "k"), "grad_input": ("n", "h", "w", "c"), "grad_weight": ("r", "s", "c", "k")}
RESULT = {"forward": "y", "grad_input": "dx", "grad_weight": "dweight"}


class Refused(Exception):
    """An algorithm breaks its contract; the message says how."""


class Closeness(NamedTuple):
    """The largest error of a result and the algorithm's declared bound, both relative to the RMS."""

    error: float
    bound: float


@contextmanager
def asking(method: str, geometry: Geometry) -> Iterator[None]:
    """Turns an exception of the algorithm, raised inside, into Refused; a MemoryError is passed on."""
    try:
        yield
    except (MemoryError, Refused):
        raise
    except (Exception, SystemExit) as error:
        raise Refused(f"{method} raises {type(error).__name__} for {geometry}: {error}") from error


def dtypes(algorithm: Algorithm) -> list[Any]:
    """The dtypes that it computes in, of float32 and float64. Raises Refused if there is none."""
    declared = algorithm.dtypes
    try:
        found = [d for d in (np.float32, np.float64) if any(np.dtype(d) == np.dtype(known) for known in declared)]
    except TypeError:
        found = []
    if not found:
        raise Refused(f"it declares dtypes {declared!r}; expected a tuple of np.float32, np.float64 or both")
    return found


def why_not(algorithm: Algorithm, geometry: Geometry, dtype: Any) -> str | None:
    """Why it declines the geometry, or None. Raises Refused if the answer is neither None nor a string."""
    with asking("supports", geometry):
        reason = algorithm.declines(geometry, dtype)
    if reason is not None and not (isinstance(reason, str) and reason):
        raise Refused(f"supports returns {reason!r} for {geometry}; expected None, or the reason as a string")
    return reason


def declared_bound(algorithm: Algorithm, geometry: Geometry, pass_name: str, dtype: Any = np.float32) -> float:
    """The error bound that the algorithm declares. Raises Refused if it is above LARGEST_BOUND."""
    with asking("error_bound", geometry):
        bound = float(algorithm.error_bound(geometry, pass_name, dtype))
    if not 0 < bound <= LARGEST_BOUND:
        raise Refused(
            f"it declares an error bound of {bound:.2g} for {pass_name}; expected more than 0 and at most "
            f"{LARGEST_BOUND:.0e}"
        )
    return bound


def call(algorithm: Algorithm, pass_name: str, operands: Operands, geometry: Geometry) -> tuple[np.ndarray, ...]:
    """The results of a pass. Raises Refused if their kind is wrong or if an operand was changed."""
    method = method_of(pass_name)
    before = {name: array.copy() for name, array in operands._asdict().items()}
    with asking(method, geometry):
        results = reference.run_pass(algorithm, pass_name, operands, geometry)
    for name, array in operands._asdict().items():
        if not np.array_equal(array, before[name]):
            raise Refused(f"{method} writes into its input {name} for {geometry}; expected it unchanged")
    if not isinstance(results, tuple) or len(results) != len(reference.result_passes(pass_name)):
        raise Refused(f"{method} returns {type(results).__name__} for {geometry}; expected (dx, dweight)")
    for single, result in zip(reference.result_passes(pass_name), results, strict=True):
        check_kind(method, single, result, operands, geometry)
    return results


def method_of(pass_name: str) -> str:
    """The name of the method that computes the pass."""
    return "backward" if pass_name == "gradients" else pass_name


def check_kind(method: str, single: str, result: Any, operands: Operands, geometry: Geometry) -> None:
    """Raises Refused unless a result is a new C-contiguous array of the right shape and dtype."""
    if not isinstance(result, np.ndarray):
        raise Refused(f"{method} returns {type(result).__name__} for {geometry}; expected an ndarray")
    shape = geometry.result_shape(single)
    if result.shape != shape:
        axes = ", ".join(AXES[single])
        raise Refused(f"{method} returns shape {result.shape} for {geometry}; expected ({axes}) = {shape}")
    if result.dtype != operands.x.dtype:
        raise Refused(f"{method} returns {result.dtype} for {operands.x.dtype} operands; expected the operands' dtype")
    if not result.flags.c_contiguous:
        raise Refused(f"{method} returns an array that is not C-contiguous for {geometry}; try np.ascontiguousarray")
    for name, array in operands._asdict().items():
        if np.shares_memory(result, array):
            raise Refused(f"{method} returns memory of its input {name} for {geometry}; expected a new array")


def compare(
    algorithm: Algorithm, pass_name: str, results: Sequence[np.ndarray], problem: Problem, method: str | None = None
) -> list[Closeness]:
    """The error of each result of a pass, relative to its RMS. Raises Refused if one exceeds the declared bound.

    `method` is the name of the pass in the message.
    """
    method, geometry = method or method_of(pass_name), problem.geometry
    found = []
    for single, result in zip(reference.result_passes(pass_name), results, strict=True):
        bound = declared_bound(algorithm, geometry, single, result.dtype)
        wanted = problem.expected(single)
        error = float(np.abs(result - wanted).max() / reference.rms(wanted)) if wanted.size else 0.0
        if not error <= bound:
            where = _describe(result, bound, single, problem)
            raise Refused(f"{method} is wrong in {result.dtype} for {geometry}: {where}")
        found.append(Closeness(error, bound))
    return found


def spoil(results: Sequence[np.ndarray | None]) -> None:
    """Fill results with NaN, so that an algorithm that does not write its result cannot find old correct values."""
    for result in results:
        if result is not None and result.flags.writeable:
            result.fill(np.nan)


# Diagnosis of a wrong result ----------------------------------------------------------------------------------------


def _describe(got: np.ndarray, bound: float, pass_name: str, problem: Problem) -> str:
    """The first wrong element with both values, the number of wrong elements, and a hint at the cause."""
    right = problem.expected(pass_name)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(got.astype(np.float64) - right) / reference.rms(right)
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
    if np.abs(got - right).max() <= 1e-6 * reference.rms(right):
        return "It is correct to float32 precision: does a part compute in float32?"
    factor = float((got * right).sum() / np.square(right).sum()) if right.size > 1 and right.any() else 0.0
    if abs(factor) > 1e-3 and np.abs(got / factor - right).max() <= 4 * bound * reference.rms(right):
        return f"Every element is {factor:.6g} times the expected value"
    edge = _common_edge(wrong, pass_name)
    if edge:
        return edge
    x, weight, dy = problem.operands
    other = reference.by_taps(problem.geometry, pass_name, Operands(x, np.ascontiguousarray(weight[::-1, ::-1]), dy))
    other = other[::-1, ::-1] if pass_name == "grad_weight" else other
    if np.abs(got - other).max() <= 4 * bound * reference.rms(other):
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
