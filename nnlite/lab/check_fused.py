"""Check an algorithm's fused passes against the same operations one by one, in float64."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from nnlite.conv import Algorithm, Epilogue, Fused, Geometry
from nnlite.lab import reference
from nnlite.lab.contract import Refused, asking, declared_bound, dtypes, spoil

EPILOGUES = tuple(Epilogue(*kinds) for kinds in product((False, True), repeat=3) if any(kinds))


def check_fused(algorithm: Algorithm, geometry: Geometry, seed: int) -> None:
    """Check every epilogue that the algorithm fuses, in float32. Raises Refused if a result is wrong."""
    if type(algorithm).fuses is Algorithm.fuses or np.float32 not in dtypes(algorithm):
        return
    for epilogue in EPILOGUES:
        with asking("fuses", geometry):
            fused = algorithm.fuses(geometry, epilogue)
        if fused and 0 not in epilogue.result_shape(geometry.output_shape):
            _check_epilogue(algorithm, geometry, epilogue, seed)


def _check_epilogue(algorithm: Algorithm, geometry: Geometry, epilogue: Epilogue, seed: int) -> None:
    given, right = reference.small_problem(geometry, seed)
    generator = np.random.default_rng(seed)
    bias = generator.standard_normal(geometry.weight_shape[3]) if epilogue.bias else None  # (k)
    y = right["forward"] if bias is None else right["forward"] + bias
    allowed = 4 * declared_bound(algorithm, geometry, "forward") * max(reference.rms(right["forward"]), 1.0)
    result, route, sure = _after(y, epilogue, allowed)
    dresult = np.where(sure, generator.standard_normal(result.shape), 0.0)
    dy = route(dresult)
    wanted = {
        "result": result,
        "dx": reference.expected(geometry, "grad_input", reference.Operands(given.x, given.weight, dy)),
        "dweight": reference.expected(geometry, "grad_weight", reference.Operands(given.x, given.weight, dy)),
    }
    if bias is not None:
        wanted["dbias"] = dy.sum(axis=(0, 1, 2))  # (k)
    x, weight = given.x.astype(np.float32), given.weight.astype(np.float32)
    bias32 = None if bias is None else bias.astype(np.float32)
    with asking(f"fused {epilogue}", geometry):
        ran = algorithm.forward_fused(x, weight, bias32, geometry, epilogue)
    if not isinstance(ran, Fused):
        raise Refused(f"fused {epilogue} for {geometry}: expected nnlite.conv.Fused. Received: {type(ran).__name__}")
    _compare("result", ran.result, wanted["result"], allowed, epilogue, geometry)
    for first_layer in (False, True):  # its input needs no gradient
        needs = (not first_layer, True, epilogue.bias)
        with asking(f"fused {epilogue}", geometry):
            gradients = algorithm.backward_fused(ran, dresult.astype(np.float32), geometry, epilogue, needs)
        for name, needed, value in zip(("dx", "dweight", "dbias"), needs, gradients, strict=True):
            if needed:
                _compare(name, value, wanted[name], allowed, epilogue, geometry)
            elif value is not None:
                raise Refused(f"fused {epilogue}: {name} for {geometry} is not needed: expected None")
        spoil(gradients)
    spoil((ran.result,))


def _compare(name: str, got: Any, right: np.ndarray, allowed: float, epilogue: Epilogue, geometry: Geometry) -> None:
    if not isinstance(got, np.ndarray) or got.shape != right.shape or got.dtype != np.float32:
        raise Refused(f"fused {epilogue}: {name} for {geometry}: expected float32 of shape {right.shape}")
    error = np.abs(got - right) / max(reference.rms(right), 1.0)
    if not (error <= allowed).all():
        first = tuple(int(i) for i in np.argwhere(~(error <= allowed))[0])
        raise Refused(
            f"fused {epilogue}: {name} is wrong for {geometry}: the first wrong element is {name}{list(first)}: "
            f"expected {right[first]:.6g}, got {got[first]:.6g}"
        )


def _after(y: np.ndarray, epilogue: Epilogue, margin: float) -> tuple[np.ndarray, Any, np.ndarray]:
    """(the result, a function from its gradient to dy, where an error below `margin` cannot change the routing)."""
    activated = np.maximum(y, 0) if epilogue.relu else y
    slope = (y > 0).astype(np.float64) if epilogue.relu else np.ones_like(y)
    if not epilogue.pool:
        return activated, lambda d: d * slope, np.abs(y) > margin if epilogue.relu else np.ones(y.shape, bool)
    n, oh, ow, k = epilogue.result_shape(y.shape)
    # (n, oh, 2, ow, 2, k) -> (n, oh, ow, k, 4): the windows, row by row
    windows = (
        activated[:, : 2 * oh, : 2 * ow]
        .reshape(n, oh, 2, ow, 2, k)
        .transpose(0, 1, 3, 5, 2, 4)
        .reshape(n, oh, ow, k, 4)
    )
    largest = windows.argmax(axis=4)
    ranked = np.sort(windows, axis=4)
    sure = ranked[..., 3] - ranked[..., 2] > margin
    if epilogue.relu:
        sure &= ranked[..., 3] > margin

    def route(d: np.ndarray) -> np.ndarray:
        spread = np.zeros(windows.shape)
        np.put_along_axis(spread, largest[..., None], d[..., None], axis=4)
        dy = np.zeros(y.shape)
        back = spread.reshape(n, oh, ow, k, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(n, 2 * oh, 2 * ow, k)
        dy[:, : 2 * oh, : 2 * ow] = back
        return dy * slope

    return ranked[..., 3], route, sure
