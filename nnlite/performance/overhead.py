"""The overhead of calling operations: Python, checks, the launch of a kernel.

It is the time of an operation on the smallest possible input, gradients included. Before each call other memory is
used, as much as between two calls of a step, so that code and data are evicted from cache as in a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np

from nnlite.autograd import Tensor
from nnlite.conv import Geometry
from nnlite.performance.microbenchmarks.base import evict
from nnlite.performance.profiler import Key, StepProfile
from nnlite.performance.work import Array, Call, problem
from nnlite.runtime import scopes
from nnlite.runtime.errors import int_pair
from nnlite.runtime.replay import TRIALS, Repeated, filled, off

#: calls per sample
CALLS = 4


def trace(step: Callable[[], object]) -> list[Call]:
    """Run a step once, untimed, and return the operations it calls."""
    calls: list[Call] = []

    def record(operation: Callable, arrays: list, options: dict[str, Any], needs: tuple[bool, ...]) -> None:
        described = tuple(Array(a.shape, a.dtype) if isinstance(a, np.ndarray) else a for a in arrays)
        calls.append(Call(scopes.current_layer() or "other", operation, described, dict(options), needs))

    with scopes.tracing(record):
        step()
    return calls


@dataclass
class Overhead:
    """A profiled run of something small: a call of an operation, or a step of the smallest network."""

    run: Callable[[], object]
    evicted: int  # bytes of other memory that are used before each run
    profile: StepProfile = field(default_factory=StepProfile)

    def __post_init__(self) -> None:
        for _ in range(TRIALS):
            self.run()

    def sample(self) -> float:
        """Profile CALLS runs. Returns their total seconds."""
        total = 0.0
        for _ in range(CALLS):
            evict(self.evicted)
            total += self.profile.record(self.run)
        return total

    def seconds(self, key: Key) -> float:
        """The median seconds of one pass; 0 if it never ran."""
        return median(self.profile.parts.get(key, [0.0]))

    def by_part(self) -> dict[str, float]:
        """The median seconds of each pass of a call."""
        return {part: self.seconds((layer, part)) for layer, part in self.profile.parts}


def of_call(call: Call, is_replayed: bool) -> tuple[str, Callable[[], object]]:
    """(a key of what the overhead depends on, the call on its smallest input with gradients, replayed or not)."""
    smallest = _smallest(call)
    called = "replaying" if is_replayed else "calling"
    key = f"{called} {call.name} {smallest.arguments} {sorted(smallest.options.items())} {call.needs}"
    arguments = [
        Tensor(np.ones(a.shape, a.dtype), requires_grad=need) if isinstance(a, Array) else a
        for a, need in zip(smallest.arguments, smallest.needs, strict=True)
    ]
    leaves = [argument for argument in arguments if isinstance(argument, Tensor)]
    repeated = Repeated()

    def compute() -> list[np.ndarray | None]:
        for leaf in leaves:
            leaf.grad = None
        with scopes.scope("layer", "forward"):
            result = smallest.operation(*arguments, **smallest.options)
        if result.requires_grad:
            result.backward(filled(result.shape, result.dtype, 1))
        return [result.data, *(leaf.grad for leaf in leaves)]

    def run() -> None:
        repeated(compute)

    return key, run if is_replayed else off()(run)


def _smallest(call: Call) -> Call:
    """The call with the smallest arrays: one pixel, and the fewest channels that run the same code."""
    shapes, options = _SMALLEST.get(call.name, _all_ones)(call)
    missing = len(call.arguments) - len(shapes)
    described = tuple(
        Array(shape, a.dtype) if isinstance(a, Array) else a
        for a, shape in zip(call.arguments, [*shapes, *[()] * missing], strict=True)
    )
    others = {name: 0 if name == "seed" else value for name, value in call.options.items()}
    return replace(call, arguments=described, options=others | options)


#: (shapes of the smallest arrays for the first arguments, options that differ)
Smallest = tuple[list[tuple[int, ...]], dict[str, Any]]


def _all_ones(call: Call) -> Smallest:
    """Sizes of 1 in all shapes, labels and targets included."""
    options: dict[str, Any] = {"shape": (1,) * len(call.options["shape"])} if "shape" in call.options else {}
    for name, value in call.options.items():
        if isinstance(value, np.ndarray):
            options[name] = np.zeros((1,) * value.ndim, value.dtype)
    return [(1,) * len(a.shape) if isinstance(a, Array) else () for a in call.arguments], options


def _smallest_conv2d(call: Call) -> Smallest:
    algorithm, geometry, epilogue = problem(call)
    weight_shape = _fewest_channels(geometry)
    least = _smallest_geometry(geometry, weight_shape, 1 + epilogue.pool, 1 + epilogue.pool)
    return [least.input_shape, weight_shape, weight_shape[3:]], {"algorithm": algorithm.name}


def _smallest_pair(call: Call) -> Smallest:
    """With all channels, which are few."""
    pair = call.options["pair"]
    pixels = 1 + pair.epilogue.pool
    second = _smallest_geometry(pair.second, pair.second.weight_shape, pixels, pixels)
    first = _smallest_geometry(pair.first, pair.first.weight_shape, *second.input_shape[1:3])
    weights = [shape for g in (first, second) for shape in (g.weight_shape, g.weight_shape[3:])]
    return [first.input_shape, *weights], {"pair": replace(pair, first=first, second=second)}


def _smallest_dense(call: Call) -> Smallest:
    from nnlite.kernels.tall_skinny import WIDEST

    x, weight = call.arguments[:2]
    columns = weight.shape[1]
    columns = columns if columns <= WIDEST else max(WIDEST + 1, _fewest(columns))
    return [(1,) * len(x.shape), (1, columns), (columns,)], {}


def _smallest_pooling(call: Call) -> Smallest:
    return [(1, *int_pair("pool_size", call.arguments[1]), 1)], {}


_SMALLEST: dict[str, Callable[[Call], Smallest]] = {
    "conv2d": _smallest_conv2d,
    "conv2d_pair": _smallest_pair,
    "dense": _smallest_dense,
    "max_pool2d": _smallest_pooling,
}


def _smallest_geometry(geometry: Geometry, weight_shape: tuple[int, int, int, int], oh: int, ow: int) -> Geometry:
    """A convolution of one image with a result (oh, ow) and no padding."""
    (kh, kw, c, _), groups = weight_shape, geometry.groups
    (sh, sw), (dh, dw) = geometry.strides, geometry.dilation_rate
    h, w = (kh - 1) * dh + 1 + (oh - 1) * sh, (kw - 1) * dw + 1 + (ow - 1) * sw
    return Geometry((1, h, w, c * groups), weight_shape, (sh, sw), dilation_rate=(dh, dw), groups=groups)


def _fewest_channels(geometry: Geometry) -> tuple[int, int, int, int]:
    """The shape of weights of the fewest channels that run the same code."""
    (kh, kw, c, k), groups = geometry.weight_shape, geometry.groups
    return kh, kw, _fewest(c), groups * _fewest(k // groups)


def _fewest(columns: int) -> int:
    """The fewest columns whose products use the same register tiles as `columns`."""
    from nnlite.compiler.tile_shapes import lane_tile_shape, tile_shape

    shapes = tile_shape(columns), lane_tile_shape(columns)
    return next(n for n in range(1, columns + 1) if (tile_shape(n), lane_tile_shape(n)) == shapes)
