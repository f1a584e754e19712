"""Check an algorithm: every pass against float64, on edge cases, on random geometries and on exactly the timed shapes.

An algorithm is refused at its first error, with the pass, the geometry and the first wrong element. To decline a
geometry is allowed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import inf
from typing import Any

import numpy as np

from nnlite.conv import Algorithm, Epilogue, Fused, Geometry
from nnlite.lab import reference
from nnlite.lab.contract import (
    Closeness,
    Refused,
    asking,
    call,
    check_kind,
    compare,
    declared_bound,
    dtypes,
    method_of,
    spoil,
    why_not,
)
from nnlite.lab.reference import FIXED, Operands, Problem, by_taps, random_geometries, rms

RANDOM = 30
#: on the first of the fixed geometries each pass is called again, with other operands and with the same ones
_CALLED_AGAIN = 3


@dataclass
class Report:
    """The result of a check. `errors`: the largest error of each pass in float32, relative to the result's RMS."""

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


def check(
    algorithm: Algorithm, *, seed: int = 0, seconds: float = inf, progress: Callable[[], None] = lambda: None
) -> Report:
    """Check an algorithm on the fixed geometries and on RANDOM random ones, in each dtype that it declares.

    An algorithm in plain Python (`reference_only`) is slow and is checked on the fixed ones only. No further geometry
    is begun `seconds` after the first, which compiles. `progress` is called before each geometry.
    """
    end = inf
    report = Report(algorithm.name)
    try:
        for geometry in geometries(algorithm, seed):
            if time.perf_counter() > end:
                break
            progress()
            if _check_geometry(algorithm, geometry, seed, report):
                report.checked += 1
                end = min(end, time.perf_counter() + seconds)
    except Refused as refusal:
        report.refusal = str(refusal)
    return report


def geometries(algorithm: Algorithm, seed: int) -> list[Geometry]:
    """The geometries of `check`, in order."""
    return [*FIXED, *([] if algorithm.reference_only else random_geometries(RANDOM, seed))]


def check_at(algorithm: Algorithm, pass_name: str, problem: Problem) -> Closeness:
    """The error of a pass at a timed shape, in float32; of two results, the one closer to its bound.

    Raises Refused if a result is wrong.
    """
    results = call(algorithm, pass_name, problem.operands.astype(np.float32), problem.geometry)
    found = compare(algorithm, pass_name, results, problem)
    spoil(results)
    return max(found, key=lambda closeness: closeness.error / closeness.bound)


def _check_geometry(algorithm: Algorithm, geometry: Geometry, seed: int, report: Report) -> bool:
    """Whether the algorithm accepts this geometry. Raises Refused if a result is wrong."""
    problem = reference.problem(geometry, seed)
    for dtype in dtypes(algorithm):
        reason = why_not(algorithm, geometry, dtype)
        if reason is not None:
            report.declined.append((geometry, reason))
            return False
        operands = problem.operands.astype(dtype)
        for pass_name in reference.PASSES:
            results = call(algorithm, pass_name, operands, geometry)
            found = compare(algorithm, pass_name, results, problem)
            if dtype == np.float32:
                errors = (closeness.error for closeness in found)
                report.errors[pass_name] = max(report.errors.get(pass_name, 0.0), *errors)
            if geometry in FIXED[:_CALLED_AGAIN]:
                others = reference.problem(geometry, seed + 1).operands.astype(dtype)
                _check_second_call(algorithm, pass_name, results, operands, others, geometry)
            spoil(results)
        if type(algorithm).backward is not Algorithm.backward:
            _check_needs(algorithm, operands, problem)
    check_fused(algorithm, problem, seed)
    return True


def _check_needs(algorithm: Algorithm, operands: Operands, problem: Problem) -> None:
    """A custom `backward` computes what `needs` asks for and returns None for the rest. Raises Refused if not."""
    geometry = problem.geometry
    for needs in ((True, False), (False, True), (False, False)):
        method = f"backward with needs={needs}"
        with asking(method, geometry):
            results: Any = algorithm.backward(operands.x, operands.weight, operands.dy, geometry, needs)
        if not isinstance(results, tuple) or len(results) != 2:
            raise Refused(f"{method} returns {type(results).__name__} for {geometry}; expected (dx, dweight)")
        for needed, single, result in zip(needs, reference.result_passes("gradients"), results, strict=True):
            if needed:
                check_kind(method, single, result, operands, geometry)
                compare(algorithm, single, (result,), problem, method)
            elif result is not None:
                raise Refused(f"{method} returns {type(result).__name__} for {single}; expected None")
        spoil(results)


def _check_second_call(
    algorithm: Algorithm,
    pass_name: str,
    results: Sequence[np.ndarray],
    operands: Operands,
    others: Operands,
    geometry: Geometry,
) -> None:
    """A second call must not change the first result, and must give the same result. Raises Refused if not."""
    kept = [result.copy() for result in results]
    method = method_of(pass_name)
    call(algorithm, pass_name, others, geometry)
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(results, kept, strict=True)):
        raise Refused(f"{method} overwrites its earlier result on a second call for {geometry}; expected a new array")
    again = call(algorithm, pass_name, operands, geometry)
    if not all(np.allclose(a, b, rtol=1e-3, atol=1e-3 * reference.rms(b)) for a, b in zip(again, kept, strict=True)):
        raise Refused(f"{method} returns a different result for the same operands on a second call, for {geometry}")


# Fused passes: against the same operations one by one ----------------------------------------------------------------


EPILOGUES = tuple(Epilogue(*kinds) for kinds in product((False, True), repeat=3) if any(kinds))


def check_fused(algorithm: Algorithm, problem: Problem, seed: int) -> None:
    """Check every epilogue that the algorithm fuses, in float32. Raises Refused if a result is wrong."""
    if type(algorithm).fuses is Algorithm.fuses or np.float32 not in dtypes(algorithm):
        return
    for epilogue in EPILOGUES:
        with asking("fuses", problem.geometry):
            fused = algorithm.fuses(problem.geometry, epilogue)
        if fused and 0 not in epilogue.result_shape(problem.geometry.output_shape):
            _check_epilogue(algorithm, problem, epilogue, seed)


def _check_epilogue(algorithm: Algorithm, problem: Problem, epilogue: Epilogue, seed: int) -> None:
    geometry, given, convolved = problem.geometry, problem.operands, problem.expected("forward")
    generator = np.random.default_rng(seed)
    bias = generator.standard_normal(geometry.weight_shape[3]) if epilogue.bias else None  # (k)
    y = convolved if bias is None else convolved + bias
    allowed = 4 * declared_bound(algorithm, geometry, "forward") * max(rms(convolved), 1.0)
    result, route, sure = _after(y, epilogue, allowed)
    dresult = np.where(sure, generator.standard_normal(result.shape), 0.0)
    backward = Operands(given.x, given.weight, route(dresult))
    wanted = {
        "result": result,
        "dx": by_taps(geometry, "grad_input", backward),
        "dweight": by_taps(geometry, "grad_weight", backward),
        "dbias": backward.dy.sum(axis=(0, 1, 2)),  # (k)
    }

    def compare(name: str, got: Any) -> None:
        right, where = wanted[name], f"fused {epilogue}: {name}"
        if not isinstance(got, np.ndarray) or got.shape != right.shape or got.dtype != np.float32:
            raise Refused(f"{where} for {geometry}: expected float32 of shape {right.shape}")
        wrong = ~(np.abs(got - right) / max(rms(right), 1.0) <= allowed)  # NaN is wrong too
        if wrong.any():
            first = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise Refused(
                f"{where} is wrong for {geometry}: the first wrong element is {name}{list(first)}: "
                f"expected {right[first]:.6g}, got {got[first]:.6g}"
            )

    x, weight, _ = given.astype(np.float32)
    with asking(f"fused {epilogue}", geometry):
        ran = algorithm.forward_fused(x, weight, None if bias is None else bias.astype(np.float32), geometry, epilogue)
    if not isinstance(ran, Fused):
        raise Refused(f"fused {epilogue} for {geometry}: expected nnlite.conv.Fused. Received: {type(ran).__name__}")
    compare("result", ran.result)
    for first_layer in (False, True):  # its input needs no gradient
        needs = (not first_layer, True, epilogue.bias)
        with asking(f"fused {epilogue}", geometry):
            gradients = algorithm.backward_fused(ran, dresult.astype(np.float32), geometry, epilogue, needs)
        for name, needed, value in zip(("dx", "dweight", "dbias"), needs, gradients, strict=True):
            if needed:
                compare(name, value)
            elif value is not None:
                raise Refused(f"fused {epilogue}: {name} for {geometry} is not needed: expected None")
        spoil(gradients)
    spoil((ran.result,))


def _after(y: np.ndarray, epilogue: Epilogue, margin: float) -> tuple[np.ndarray, Any, np.ndarray]:
    """(the result, a function from its gradient to dy, where an error below `margin` cannot change the routing).

    Where it can, the gradient must be 0: equal maxima would all get it.
    """
    activated = np.maximum(y, 0) if epilogue.relu else y
    slope = y > 0 if epilogue.relu else np.ones(y.shape, bool)
    if not epilogue.pool:
        return activated, lambda d: d * slope, np.abs(y) > margin if epilogue.relu else slope
    n, oh, ow, k = epilogue.result_shape(y.shape)
    windows = activated[:, : 2 * oh, : 2 * ow].reshape(n, oh, 2, ow, 2, k)
    ranked = np.sort(windows.transpose(0, 1, 3, 5, 2, 4).reshape(n, oh, ow, k, 4))
    result = ranked[..., 3]
    sure = result - ranked[..., 2] > margin
    if epilogue.relu:
        sure &= result > margin

    def route(d: np.ndarray) -> np.ndarray:
        largest = windows == result[:, :, None, :, None]
        dy = np.zeros(y.shape)
        dy[:, : 2 * oh, : 2 * ow] = (largest * d[:, :, None, :, None]).reshape(n, 2 * oh, 2 * ow, k)
        return dy * slope

    return result, route, sure
