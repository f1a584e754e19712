"""The contract of an algorithm: shape, dtype and layout of its results, its error bounds, unchanged operands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from nnlite.conv import Algorithm, Geometry
from nnlite.lab import reference
from nnlite.lab.diagnose import AXES, describe
from nnlite.lab.reference import Operands, Problem

#: the largest error bound that an algorithm may declare, relative to the result's RMS
LARGEST_BOUND = 1e-3


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
            where = describe(result, bound, single, problem)
            raise Refused(f"{method} is wrong in {result.dtype} for {geometry}: {where}")
        found.append(Closeness(error, bound))
    return found


def spoil(results: Sequence[np.ndarray | None]) -> None:
    """Fill results with NaN, so that an algorithm that does not write its result cannot find old correct values."""
    for result in results:
        if result is not None and result.flags.writeable:
            result.fill(np.nan)
