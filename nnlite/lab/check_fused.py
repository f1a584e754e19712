"""Check an algorithm's fused passes against the same operations one by one, in float64."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from nnlite.conv import Algorithm, Epilogue, Fused
from nnlite.lab.contract import Refused, asking, declared_bound, dtypes, spoil
from nnlite.lab.reference import Operands, Problem, by_taps, rms

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
