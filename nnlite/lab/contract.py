"""What an algorithm has promised: the kinds of its results, its error bounds, and to leave its operands alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from nnlite.conv import Algorithm, Geometry
from nnlite.lab import reference
from nnlite.lab.diagnose import AXES, describe
from nnlite.lab.reference import Operands

#: an algorithm may not excuse a larger error than this, relative to the result's root mean square
LARGEST_BOUND = 1e-3


class Refused(Exception):
    """An algorithm does something wrong; the message says what."""


class Closeness(NamedTuple):
    """The largest error of a result, and the one that its algorithm allows itself."""

    error: float
    bound: float


@contextmanager
def asking(method: str, geometry: Geometry) -> Iterator[None]:
    """Raises Refused for what the algorithm raises inside; a lack of memory is not its fault."""
    try:
        yield
    except (MemoryError, Refused):
        raise
    except (Exception, SystemExit) as error:
        raise Refused(f"{method} raises {type(error).__name__} for {geometry}: {error}") from error


def dtypes(algorithm: Algorithm) -> list[Any]:
    """Of float32 and float64, what it computes in. Raises Refused if that is neither."""
    declared = algorithm.dtypes
    try:
        found = [d for d in (np.float32, np.float64) if any(np.dtype(d) == np.dtype(known) for known in declared)]
    except TypeError:
        found = []
    if not found:
        raise Refused(f"it declares dtypes {declared!r}; expected a tuple of np.float32, np.float64 or both")
    return found


def why_not(algorithm: Algorithm, geometry: Geometry, dtype: Any) -> str | None:
    """Why it declines the geometry, or None. Raises Refused if it answers with something else than that."""
    with asking("supports", geometry):
        reason = algorithm.declines(geometry, dtype)
    if reason is not None and not (isinstance(reason, str) and reason):
        raise Refused(f"supports returns {reason!r} for {geometry}; expected None, or why not, in words")
    return reason


def declared_bound(algorithm: Algorithm, geometry: Geometry, pass_name: str, dtype: Any = np.float32) -> float:
    """The algorithm's own error bound. Raises Refused if it excuses more than LARGEST_BOUND."""
    with asking("error_bound", geometry):
        bound = float(algorithm.error_bound(geometry, pass_name, dtype))
    if not 0 < bound <= LARGEST_BOUND:
        raise Refused(
            f"it declares an error bound of {bound:.2g} for {pass_name}; expected more than 0 and at most "
            f"{LARGEST_BOUND:.0e}"
        )
    return bound


def call(algorithm: Algorithm, pass_name: str, operands: Operands, geometry: Geometry) -> tuple[np.ndarray, ...]:
    """What a pass returns, of the right kind, with operands left as they were. Raises Refused otherwise."""
    method = method_of(pass_name)
    before = {name: array.copy() for name, array in operands.arrays().items()}
    with asking(method, geometry):
        results = reference.run_pass(algorithm, pass_name, operands, geometry)
    for name, array in operands.arrays().items():
        if not np.array_equal(array, before[name]):
            raise Refused(f"{method} writes into its input {name} for {geometry}; expected it to stay as it was")
    if not isinstance(results, tuple) or len(results) != len(reference.result_passes(pass_name)):
        raise Refused(f"{method} returns {type(results).__name__} for {geometry}; expected (dx, dweight)")
    for single, result in zip(reference.result_passes(pass_name), results, strict=True):
        check_kind(method, single, result, operands, geometry)
    return results


def method_of(pass_name: str) -> str:
    """The method of an algorithm that computes the pass."""
    return "backward" if pass_name == "gradients" else pass_name


def check_kind(method: str, single: str, result: Any, operands: Operands, geometry: Geometry) -> None:
    """Raises Refused if a result is not an array of the right shape, dtype and layout in memory of its own."""
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
    for name, array in operands.arrays().items():
        if np.shares_memory(result, array):
            raise Refused(f"{method} returns memory of its input {name} for {geometry}; expected an array of its own")


def compare(
    algorithm: Algorithm,
    pass_name: str,
    results: Sequence[np.ndarray],
    right: Callable[[str], np.ndarray],
    given: Operands,
    geometry: Geometry,
    method: str | None = None,
) -> list[Closeness]:
    """How close each result of a pass is, relative to its rms. Raises Refused above the algorithm's own bound.

    `given` is in float64, as is what `right` says of a single pass. `method` is what the refusal calls the pass.
    """
    method = method or method_of(pass_name)
    found = []
    for single, result in zip(reference.result_passes(pass_name), results, strict=True):
        bound = declared_bound(algorithm, geometry, single, result.dtype)
        wanted = right(single)
        error = float(np.abs(result - wanted).max() / reference.rms(wanted)) if wanted.size else 0.0
        if not error <= bound:
            where = describe(result, wanted, bound, single, given, geometry)
            raise Refused(f"{method} is wrong in {result.dtype} for {geometry}: {where}")
        found.append(Closeness(error, bound))
    return found


def spoil(results: Sequence[np.ndarray | None]) -> None:
    """Fill results with NaN before their memory is used again, so that nobody finds right values in fresh memory."""
    for result in results:
        if result is not None and result.flags.writeable:
            result.fill(np.nan)
