"""The geometries that every algorithm is checked on, and the expected results: every pass in float64.

A result is one matrix product per kernel position. No algorithm shares this code, and it needs no compiler. Tests
compare it with `naive`, the definition.

The geometries are simple ones, then edge cases, then random ones. Checking takes long because register tiles are
compiled for each tile shape, which depends on the channel counts. So most geometries have 1 input channel or at least
3, and at least 3 output channels (a vector holds up to 16). A few have 1 -> 1 or 2 -> 2 channels, and a few have one
channel more than one or more vectors hold.
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


# The geometries that every algorithm is checked on -------------------------------------------------------------------


#: the simplest first, so that the first failure is easy to understand
FIXED = (
    Geometry.of((1, 5, 6, 1), (3, 3, 1, 1)),
    Geometry.of((2, 6, 7, 3), (3, 3, 3, 4)),
    Geometry.of((2, 5, 4, 3), (1, 1, 3, 5)),
    Geometry.of((1, 1, 1, 1), (1, 1, 1, 1)),
    Geometry.of((2, 7, 8, 3), (2, 3, 3, 5)),
    Geometry.of((2, 9, 8, 2), (3, 3, 2, 3), strides=2),
    Geometry.of((1, 9, 11, 2), (3, 2, 2, 3), strides=(1, 3)),
    Geometry.of((2, 6, 5, 2), (3, 3, 2, 2), padding="same"),
    Geometry.of((1, 6, 7, 3), (3, 3, 3, 4), padding=((0, 2), (1, 0))),
    Geometry.of((1, 8, 9, 3), (3, 3, 3, 5), dilation_rate=2),
    Geometry.of((1, 6, 6, 4), (2, 2, 1, 12), groups=4),
    Geometry.of((2, 10, 9, 5), (3, 3, 5, 33)),  # one channel more than two vectors
    Geometry.of((1, 7, 6, 3), (3, 3, 3, 17), padding=((2, 0), (0, 1))),  # one more than a vector
    Geometry.of((1, 9, 10, 17), (3, 3, 17, 49), padding=1),  # one more than a vector, than three vectors
    Geometry.of((2, 7, 5, 4), (3, 2, 2, 6), strides=(2, 3), padding="same", dilation_rate=2, groups=2),
    Geometry.of((1, 5, 12, 2), (1, 5, 2, 3), strides=(1, 2), padding=2),
    Geometry.of((1, 12, 12, 2), (5, 5, 2, 3), strides=3),  # the last rows and columns are not used
    Geometry.of((2, 1, 1, 3), (3, 3, 3, 4), padding="same"),  # most kernel positions are on padding
    Geometry.of((1, 2, 2, 1), (4, 4, 1, 3), padding=1),  # a kernel larger than the image
    Geometry.of((1, 2, 2, 1), (1, 1, 1, 3), strides=3, padding=4),  # some outputs depend on padding only
    Geometry.of((0, 5, 5, 3), (3, 3, 3, 4)),  # no image
)


def random_geometries(count: int, seed: int) -> list[Geometry]:
    """`count` small problems, the same for the same seed: general ones and 3x3 ones with stride 1 in turn."""
    generator = np.random.default_rng(seed)
    return [_random_geometry(generator) if i % 2 else _random_plain(generator) for i in range(count)]


def _random_plain(generator: np.random.Generator) -> Geometry:
    """A 3x3 kernel with stride 1, which most specialised algorithms are for."""
    n, pad = _pair(generator, 1, 2)
    h, w = _pair(generator, 3, 14)
    c, k = _channels(generator, 16)
    return Geometry.of((n, h, w, c), (3, 3, c, k), padding=pad)


def _random_geometry(generator: np.random.Generator) -> Geometry:
    kernel, dilation, strides = (_pair(generator, 1, most) for most in (4, 2, 3))
    pads = (_pair(generator, 0, 2), _pair(generator, 0, 2))
    groups = int(generator.choice([1, 1, 1, 2, 3]))
    spans = [(k - 1) * d + 1 - sum(p) for k, d, p in zip(kernel, dilation, pads, strict=True)]
    h, w = (max(1, span) + int(generator.integers(0, 6)) for span in spans)
    c, k = _channels(generator, 5)
    return Geometry.of(
        (int(generator.integers(1, 3)), h, w, c * groups),
        (*kernel, c, k * groups),
        strides=strides,
        padding=pads,
        dilation_rate=dilation,
        groups=groups,
    )


def _channels(generator: np.random.Generator, most: int) -> tuple[int, int]:
    """From 3 to `most` channels; in one of four problems a single input channel."""
    c, k = _pair(generator, 3, most)
    return (1 if generator.random() < 0.25 else c), k


def _pair(generator: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    """Two integers from low to high, both included."""
    return int(generator.integers(low, high + 1)), int(generator.integers(low, high + 1))
