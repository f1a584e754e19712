"""Expected results: every pass in float64, one matrix product per kernel position.

No algorithm shares this code, and it needs no compiler. Tests compare it with `naive`, the definition.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np

from nnlite import conv
from nnlite.conv import Geometry

#: the passes of an algorithm, and both gradients in one call
PASSES = (*conv.PASSES, "gradients")


class Operands(NamedTuple):
    """x (n, h, w, c), weight (kh, kw, c / groups, k) and dy (n, oh, ow, k)."""

    x: np.ndarray
    weight: np.ndarray
    dy: np.ndarray

    def astype(self, dtype: type) -> Operands:
        """Copies in another dtype."""
        return Operands(*(array.astype(dtype) for array in self))


def operands(geometry: Geometry, seed: int) -> Operands:
    """Normally distributed float64 operands that are exact in float32; the same for the same seed."""
    generator = np.random.default_rng(seed)
    shapes = (geometry.input_shape, geometry.weight_shape, geometry.output_shape)
    x, weight, dy = (generator.standard_normal(shape, np.float32).astype(np.float64) for shape in shapes)
    return Operands(x, weight, dy)


def run_pass(algorithm: conv.Algorithm, pass_name: str, given: Operands, geometry: Geometry) -> tuple[np.ndarray, ...]:
    """The results of a pass: one array, or (dx, dweight) for "gradients"."""
    if pass_name == "forward":
        return (algorithm.forward(given.x, given.weight, geometry),)
    if pass_name == "grad_input":
        return (algorithm.grad_input(given.dy, given.weight, geometry),)
    if pass_name == "grad_weight":
        return (algorithm.grad_weight(given.x, given.dy, geometry),)
    both = algorithm.backward(given.x, given.weight, given.dy, geometry, (True, True))
    return both  # type: ignore[return-value]


def result_passes(pass_name: str) -> tuple[str, ...]:
    """The single pass of each array that `run_pass` returns."""
    return ("grad_input", "grad_weight") if pass_name == "gradients" else (pass_name,)


def by_taps(geometry: Geometry, pass_name: str, given: Operands) -> np.ndarray:
    """The result of a single pass, as one matrix product per kernel position (r, s) and group."""
    (top, bottom), (left, right) = geometry.pads
    _, h, w, _ = geometry.input_shape
    n, oh, ow, k = geometry.output_shape
    kh, kw, c_group, _ = geometry.weight_shape
    k_group = k // geometry.groups
    padded = np.pad(given.x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    y, dpadded, dweight = np.zeros(geometry.output_shape), np.zeros_like(padded), np.zeros(geometry.weight_shape)
    for r, s, group in product(range(kh), range(kw), range(geometry.groups)):
        ins, outs = (slice(group * size, (group + 1) * size) for size in (c_group, k_group))
        rows, columns = (
            slice(tap * d, tap * d + (count - 1) * stride + 1, stride)
            for tap, d, count, stride in zip((r, s), geometry.dilation_rate, (oh, ow), geometry.strides, strict=True)
        )
        tap_weight = given.weight[r, s, :, outs]  # (c / groups, k / groups)
        if pass_name == "forward":
            pixels = padded[:, rows, columns, ins].reshape(-1, c_group)  # (n * oh * ow, c / groups)
            y[..., outs] += (pixels @ tap_weight).reshape(n, oh, ow, k_group)
        elif pass_name == "grad_input":
            dpixels = given.dy[..., outs].reshape(-1, k_group) @ tap_weight.T  # (n * oh * ow, c / groups)
            dpadded[:, rows, columns, ins] += dpixels.reshape(n, oh, ow, c_group)
        else:
            pixels = padded[:, rows, columns, ins].reshape(-1, c_group)
            dweight[r, s, :, outs] = pixels.T @ given.dy[..., outs].reshape(-1, k_group)
    dx = np.ascontiguousarray(dpadded[:, top : top + h, left : left + w])
    return {"forward": y, "grad_input": dx, "grad_weight": dweight}[pass_name]


class Problem:
    """A geometry with its operands in float64, and the expected results, which are computed when first needed."""

    def __init__(self, geometry: Geometry, seed: int):
        self.geometry = geometry
        self.operands = operands(geometry, seed)
        self._expected: dict[str, np.ndarray] = {}

    @cached_property
    def float32(self) -> Operands:
        return self.operands.astype(np.float32)

    def expected(self, pass_name: str) -> np.ndarray:
        """The expected result of a single pass, in float64."""
        if pass_name not in self._expected:
            self._expected[pass_name] = by_taps(self.geometry, pass_name, self.operands)
        return self._expected[pass_name]


#: the problem of a geometry and a seed, cached because every algorithm needs it
problem = lru_cache(maxsize=256)(Problem)


def rms(array: np.ndarray) -> float:
    """The root mean square; 1 if it is zero or the array is empty, so that it can be divided by."""
    return float(np.sqrt(np.mean(np.square(array)))) or 1.0 if prod(array.shape) else 1.0
