"""Is an algorithm right? Every pass against float64, over nasty and random geometries, and at the shapes to be timed.

An algorithm is refused at its first mistake, with the pass, the geometry and the first differing element. Declining
a geometry is no mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnlite.conv import PASSES, Algorithm, Geometry
from nnlite.lab import reference
from nnlite.lab.diagnose import AXES, describe
from nnlite.lab.problems import FIXED, random_geometries
from nnlite.lab.reference import Operands

#: an algorithm may not excuse a larger error than this, relative to the result's root mean square
LARGEST_BOUND = 1e-3
RANDOM = 30


class Refused(Exception):
    """An algorithm does something wrong; the message says what."""


@dataclass
class Report:
    """What checking an algorithm found. `errors`: the largest of each pass in float32, relative to the result's rms."""

    algorithm: str
    checked: int = 0
    errors: dict[str, float] = field(default_factory=dict)
    declined: list[tuple[Geometry, str]] = field(default_factory=list)
    refusal: str | None = None

    @property
    def refused(self) -> bool:
        return self.refusal is not None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        reasons = sorted({reason for _, reason in self.declined})
        return {
            "algorithm": self.algorithm,
            "refused": self.refusal,
            "geometries_checked": self.checked,
            "geometries_declined": len(self.declined),
            "decline_reasons": reasons,
            "largest_error": self.errors,
        }


def check(algorithm: Algorithm, *, seed: int = 0, progress: Callable[[], None] = lambda: None) -> Report:
    """Check an algorithm over the fixed and RANDOM random geometries, in each dtype that it declares.

    One that is for reading only (`reference_only`) is checked over the fixed ones; plain Python takes its time.
    """
    report = Report(algorithm.name)
    try:
        for geometry in geometries(algorithm, seed):
            progress()
            if _check_geometry(algorithm, geometry, seed, report):
                report.checked += 1
    except Refused as refusal:
        report.refusal = str(refusal)
    return report


def geometries(algorithm: Algorithm, seed: int) -> list[Geometry]:
    """What `check` checks it on, in this order."""
    return [*FIXED, *([] if algorithm.reference_only else random_geometries(RANDOM, seed))]


def check_at(
    algorithm: Algorithm, pass_name: str, geometry: Geometry, given: Operands, right: Callable[[str], np.ndarray]
) -> float:
    """The error of a pass at a shape to be timed, in float32. Raises Refused where it is wrong.

    `given` is in float64, as is what `right` says of a single pass.
    """
    results = _call(algorithm, pass_name, given.astype(np.float32), geometry)
    return max(
        _compare(algorithm, pass_name, single, result, right(single), given, geometry, np.float32)
        for single, result in zip(reference.result_passes(pass_name), results, strict=True)
    )


def _check_geometry(algorithm: Algorithm, geometry: Geometry, seed: int, report: Report) -> bool:
    """Whether the algorithm computes this geometry. Raises Refused where it does so wrongly."""
    accepted = False
    for dtype in (np.float32, np.float64):
        if not any(np.dtype(dtype) == np.dtype(known) for known in algorithm.dtypes):
            continue
        try:
            reason = algorithm.declines(geometry, dtype)
        except Exception as error:
            raise Refused(f"supports raises {type(error).__name__} for {geometry}: {error}") from error
        if reason is not None:
            report.declined.append((geometry, str(reason)))
            return False
        accepted = True
        _check_passes(algorithm, geometry, seed, dtype, report)
    if not accepted:
        raise Refused(f"it declares dtypes {algorithm.dtypes!r}; expected np.float32, np.float64 or both")
    from nnlite.lab.check_fused import check_fused

    check_fused(algorithm, geometry, seed)
    return True


def _check_passes(algorithm: Algorithm, geometry: Geometry, seed: int, dtype: Any, report: Report) -> None:
    given, right = reference.small_problem(geometry, seed)
    others, _ = reference.small_problem(geometry, seed + 1) if geometry in FIXED[:3] else (None, None)
    for pass_name in reference.PASSES:
        operands = given.astype(dtype)
        results = _call(algorithm, pass_name, operands, geometry)
        for single, result in zip(reference.result_passes(pass_name), results, strict=True):
            error = _compare(algorithm, pass_name, single, result, right[single], given, geometry, dtype)
            if dtype == np.float32:
                report.errors[pass_name] = max(report.errors.get(pass_name, 0.0), error)
        if others is not None:
            _check_second_call(algorithm, pass_name, results, operands, others.astype(dtype), geometry)
    if algorithm.backward(operands.x, operands.weight, operands.dy, geometry, (False, False)) != (None, None):
        raise Refused("backward with needs=(False, False) returns something; expected (None, None)")


def _call(algorithm: Algorithm, pass_name: str, operands: Operands, geometry: Geometry) -> tuple[np.ndarray, ...]:
    """What a pass returns, of the right kind, with operands left as they were. Raises Refused otherwise."""
    method = "backward" if pass_name == "gradients" else pass_name
    before = {name: array.copy() for name, array in operands.arrays().items()}
    try:
        results = reference.run_pass(algorithm, pass_name, operands, geometry)
    except Exception as error:
        raise Refused(f"{method} raises {type(error).__name__} for {geometry}: {error}") from error
    for name, array in operands.arrays().items():
        if not np.array_equal(array, before[name]):
            raise Refused(f"{method} writes into its input {name} for {geometry}; expected it to stay as it was")
    if not isinstance(results, tuple) or len(results) != len(reference.result_passes(pass_name)):
        raise Refused(f"{method} returns {type(results).__name__} for {geometry}; expected (dx, dweight)")
    for single, result in zip(reference.result_passes(pass_name), results, strict=True):
        _check_kind(method, single, result, operands, geometry)
    return results


def _check_kind(method: str, single: str, result: Any, operands: Operands, geometry: Geometry) -> None:
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


def _compare(
    algorithm: Algorithm,
    pass_name: str,
    single: str,
    result: np.ndarray,
    right: np.ndarray,
    given: Operands,
    geometry: Geometry,
    dtype: Any,
) -> float:
    """The largest error relative to the rms. Raises Refused above the algorithm's own bound."""
    bound = declared_bound(algorithm, geometry, single, dtype)
    if not right.size:
        return 0.0
    error = float(np.abs(result - right).max() / reference.rms(right))
    if not error <= bound:
        method = "backward" if pass_name == "gradients" else pass_name
        found = describe(result, right, bound, single, given, geometry)
        raise Refused(f"{method} is wrong in {np.dtype(dtype)} for {geometry}: {found}")
    return error


def declared_bound(algorithm: Algorithm, geometry: Geometry, pass_name: str, dtype: Any = np.float32) -> float:
    """The algorithm's own error bound. Raises Refused if it excuses more than LARGEST_BOUND."""
    bound = algorithm.error_bound(geometry, pass_name, dtype)
    if not bound <= LARGEST_BOUND:
        raise Refused(
            f"it declares an error bound of {bound:.2g} for {pass_name}; at most {LARGEST_BOUND:.0e} is accepted"
        )
    return bound


def _check_second_call(
    algorithm: Algorithm,
    pass_name: str,
    results: Sequence[np.ndarray],
    operands: Operands,
    others: Operands,
    geometry: Geometry,
) -> None:
    """A later call may neither change an earlier result nor be changed by it. Raises Refused otherwise."""
    kept = [result.copy() for result in results]
    method = "backward" if pass_name == "gradients" else pass_name
    _call(algorithm, pass_name, others, geometry)
    if not _equal(results, kept):
        raise Refused(f"{method} overwrites its earlier result on a second call, for {geometry}; expected new memory")
    again = _call(algorithm, pass_name, operands, geometry)
    if not all(np.allclose(a, b, rtol=1e-3, atol=1e-3 * reference.rms(b)) for a, b in zip(again, kept, strict=True)):
        raise Refused(f"{method} gives another result for the same operands on a second call, for {geometry}")


def _equal(results: Iterable[np.ndarray], kept: Iterable[np.ndarray]) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(results, kept, strict=True))


__all__ = ["LARGEST_BOUND", "PASSES", "Refused", "Report", "check", "check_at", "declared_bound"]
