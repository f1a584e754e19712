"""What is right: every pass in float64.

Small problems are computed by `naive`, which is the definition. Where that would take hours, `numba_blocked` computes
in float64; tests compare it with `naive`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from nnlite import conv
from nnlite.conv import Geometry

#: problems with more multiply-accumulates than this are not computed by plain Python
_MOST_NAIVE_MACS = 300_000

#: what one can ask of an algorithm: the passes, and both gradients at once
PASSES = (*conv.PASSES, "gradients")


@dataclass(frozen=True)
class Operands:
    """x (n, h, w, c), weight (kh, kw, c / groups, k) and dy (n, oh, ow, k)."""

    x: np.ndarray
    weight: np.ndarray
    dy: np.ndarray

    def astype(self, dtype: type) -> Operands:
        """Fresh copies."""
        return Operands(self.x.astype(dtype), self.weight.astype(dtype), self.dy.astype(dtype))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"x": self.x, "weight": self.weight, "dy": self.dy}


def operands(geometry: Geometry, seed: int) -> Operands:
    """Normally distributed float64 operands whose values float32 holds exactly, always the same for a seed."""
    generator = np.random.default_rng(seed)
    shapes = (geometry.input_shape, geometry.weight_shape, geometry.output_shape)
    x, weight, dy = (generator.standard_normal(shape, np.float32).astype(np.float64) for shape in shapes)
    return Operands(x, weight, dy)


def run_pass(algorithm: conv.Algorithm, pass_name: str, given: Operands, geometry: Geometry) -> tuple[np.ndarray, ...]:
    """What a pass returns: one array, or (dx, dweight) of "gradients"."""
    if pass_name == "forward":
        return (algorithm.forward(given.x, given.weight, geometry),)
    if pass_name == "grad_input":
        return (algorithm.grad_input(given.dy, given.weight, geometry),)
    if pass_name == "grad_weight":
        return (algorithm.grad_weight(given.x, given.dy, geometry),)
    both = algorithm.backward(given.x, given.weight, given.dy, geometry, (True, True))
    return both  # type: ignore[return-value]


def result_passes(pass_name: str) -> tuple[str, ...]:
    """Which single pass each array that `run_pass` returns belongs to."""
    return ("grad_input", "grad_weight") if pass_name == "gradients" else (pass_name,)


def expected(geometry: Geometry, pass_name: str, given: Operands) -> np.ndarray:
    """The right result of a single pass, in float64, of float64 operands."""
    name = "naive" if geometry.macs <= _MOST_NAIVE_MACS else "numba_blocked"
    return run_pass(conv.get(name), pass_name, given, geometry)[0]


@lru_cache(maxsize=256)
def small_problem(geometry: Geometry, seed: int) -> tuple[Operands, dict[str, np.ndarray]]:
    """Operands in float64 and what is right for each single pass, kept because every algorithm is asked for it."""
    given = operands(geometry, seed)
    return given, {name: expected(geometry, name, given) for name in conv.PASSES}


def rms(array: np.ndarray) -> float:
    """The root of the mean square; 1 where that is zero or there is nothing, so that errors stay comparable."""
    return float(np.sqrt(np.mean(np.square(array)))) or 1.0 if prod(array.shape) else 1.0
