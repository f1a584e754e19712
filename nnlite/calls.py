"""The calls of operations that a step makes, and what calling costs: Python, checks, the launch of a kernel.

The cost is the time that the operation takes on the smallest input there is, with the processor's caches and branch
predictors filled by a usual training step and then by other memory, as much as lies between two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from nnlite import scopes
from nnlite.autograd import Tensor
from nnlite.conv import Geometry
from nnlite.errors import int_pair
from nnlite.ops.stages import Array, Call, problem
from nnlite.profiler import OTHER, Key, StepProfile
from nnlite.rates import Rates
from nnlite.rates.measure import power_of_two

#: samples of an operation's cost of calling
CALL_SAMPLES = 15


def trace(step: Callable[[], object]) -> list[Call]:
    """Run a step once, untimed, and list the operations it calls."""
    calls: list[Call] = []

    def record(operation: Callable, arrays: list, options: dict[str, Any], needs: tuple[bool, ...]) -> None:
        described = tuple(Array(a.shape, a.dtype) if isinstance(a, np.ndarray) else a for a in arrays)
        calls.append(Call(scopes.current_layer() or "other", operation, described, dict(options), needs))

    with scopes.tracing(record):
        step()
    return calls


@dataclass(frozen=True)
class Between:
    """What happens between two samples, as the rest of a step happens between two calls."""

    rates: Rates
    algorithm: str  # of the usual step
    step: Callable[[], object]
    touched: int  # bytes of other memory, as by the kernel that a step ran before

    @classmethod
    def of(cls, rates: Rates, algorithm: str, usual_step: Callable[[], object], held: int, calls: int) -> Between:
        """In a step that makes so many calls, forward and back, and shares its arrays' bytes out among them."""
        share = held / (2 * max(1, calls))
        return cls(rates, algorithm, usual_step, power_of_two(min(share, 2 * rates.machine.caches["L3"])))

    def __call__(self) -> None:
        self.step()
        self.rates.within_step.touch(self.touched)
        self.rates.within_step.stir()

    def costs(self, key: str, parts: Sequence[str], measure: Callable[[int], dict[str, float]]) -> dict[str, float]:
        """Seconds of the parts of a step, by their names; measured together, by one of so many parts of the samples."""
        key = f"{key} {self.algorithm} {self.touched}"

        def measured(n: int) -> dict[str, float]:
            return {f"{key} {name}": value for name, value in measure(n).items()}

        found = self.rates.costs([f"{key} {name}" for name in parts], measured)
        return {name: found[f"{key} {name}"] for name in parts}


def calling_cost(call: Call, between: Between) -> dict[str, float]:
    """Seconds by part that an operation takes on its smallest input, gradients included."""
    smallest = _smallest(call)
    key = f"calling {call.name} {smallest.arguments} {sorted(smallest.options.items())} {call.needs}"
    parts = ("forward", "grad_input", "grad_weight", "gradients", "other")
    costs = between.costs(key, parts, lambda n: _measure_call(smallest, between, n))
    return {name: value for name, value in costs.items() if value}


def _smallest(call: Call) -> Call:
    """The call with arrays as small as they can be: one pixel, and channels for which the same code is compiled."""
    shapes, options = _SMALLEST.get(call.name, _all_ones)(call)
    missing = len(call.arguments) - len(shapes)
    described = tuple(
        Array(shape, a.dtype) if isinstance(a, Array) else a
        for a, shape in zip(call.arguments, [*shapes, *[()] * missing], strict=True)
    )
    kept = {name: value for name, value in call.options.items() if name != "seed"}
    return replace(call, arguments=described, options=kept | options)


#: the shapes of the smallest arrays of a call, its first arguments, and what of its options differs
Smallest = tuple[list[tuple[int, ...]], dict[str, Any]]


def _all_ones(call: Call) -> Smallest:
    options = {"shape": (1,) * len(call.options["shape"])} if "shape" in call.options else {}
    return [(1,) * len(a.shape) if isinstance(a, Array) else () for a in call.arguments], options


def _smallest_conv2d(call: Call) -> Smallest:
    algorithm, geometry, epilogue = problem(call)
    least = _smallest_geometry(geometry, 1 + epilogue.pool, 1 + epilogue.pool)
    return [least.input_shape, least.weight_shape, least.weight_shape[3:]], {"algorithm": algorithm.name}


def _smallest_stem(call: Call) -> Smallest:
    stem = call.options["stem"]
    kept = stem.first.groups != stem.second.groups  # else what one gives might not be what the other takes
    second = _smallest_geometry(stem.second, 1 + stem.epilogue.pool, 1 + stem.epilogue.pool, keep_channels=kept)
    first = _smallest_geometry(stem.first, *second.input_shape[1:3], keep_channels=kept)
    shapes: list[tuple[int, ...]] = [first.input_shape]
    shapes += [shape for g in (first, second) for shape in (g.weight_shape, g.weight_shape[3:])]
    return shapes, {"stem": replace(stem, first=first, second=second)}


def _smallest_dense(call: Call) -> Smallest:
    from nnlite.kernels.narrow import WIDEST

    x, weight = call.arguments[:2]
    columns = weight.shape[1]
    columns = columns if columns <= WIDEST else max(WIDEST + 1, _fewest(columns))
    return [(1,) * len(x.shape), (1, columns), (columns,)], {}


def _smallest_pooling(call: Call) -> Smallest:
    return [(1, *int_pair("pool_size", call.arguments[1]), 1)], {}


def _smallest_loss(call: Call) -> Smallest:
    targets = {"labels": np.zeros(1, np.int64), "targets": np.ones((1, 2), np.float32)}
    return [(1, 2)], {name: value for name, value in targets.items() if name in call.options}


_SMALLEST: dict[str, Callable[[Call], Smallest]] = {
    "conv2d": _smallest_conv2d,
    "conv2d_stem": _smallest_stem,
    "dense": _smallest_dense,
    "max_pool2d": _smallest_pooling,
    "sparse_categorical_crossentropy": _smallest_loss,
    "categorical_crossentropy": _smallest_loss,
}


def _smallest_geometry(geometry: Geometry, oh: int, ow: int, *, keep_channels: bool = False) -> Geometry:
    """The convolution of one image with a result of (oh, ow), no padding, and as few channels as run the same code."""
    (kh, kw, c, k), groups = geometry.weight_shape, geometry.groups
    (sh, sw), (dh, dw) = geometry.strides, geometry.dilation_rate
    h, w = (kh - 1) * dh + 1 + (oh - 1) * sh, (kw - 1) * dw + 1 + (ow - 1) * sw
    if not keep_channels:
        c, k = _fewest(c), groups * _fewest(k // groups)
    return Geometry((1, h, w, c * groups), (kh, kw, c, k), (sh, sw), dilation_rate=(dh, dw), groups=groups)


def _fewest(columns: int) -> int:
    """The fewest columns whose products run on the same register tiles as so many."""
    from nnlite.tile_shapes import lane_tile_shape, tile_shape

    shapes = tile_shape(columns), lane_tile_shape(columns)
    return next(n for n in range(1, columns + 1) if (tile_shape(n), lane_tile_shape(n)) == shapes)


def _measure_call(call: Call, between: Callable[[], object], parts: int) -> dict[str, float]:
    """Medians of the parts of one forward and backward of a call, in seconds; by a part of the samples."""
    arguments = [
        Tensor(np.ones(a.shape, a.dtype), requires_grad=need) if isinstance(a, Array) else a
        for a, need in zip(call.arguments, call.needs, strict=True)
    ]

    def run() -> None:
        with scopes.scope("layer", "forward"):
            result = call.operation(*arguments, **call.options)
        if result.requires_grad:
            result.backward(np.ones(result.shape, result.dtype))

    return {name: seconds for (_, name), seconds in _profile(run, between, parts).items()}


def around(least_step: Callable[[], object], optimizer: str, between: Between) -> dict[str, float]:
    """Seconds of a smallest step: "other", which belongs to no operation, and "update", of its parameters."""
    calls = trace(least_step)

    def measure(parts: int) -> dict[str, float]:
        seconds = _profile(least_step, between, parts)
        return {"other": seconds[OTHER], "update": seconds[optimizer, "optimizer"]}

    costs = between.costs(f"around {optimizer} {[call.arguments for call in calls]}", ("other", "update"), measure)
    tape = sum(calling_cost(call, between).get("other", 0.0) for call in calls)
    return costs | {"other": max(0.0, costs["other"] - tape)}


def _profile(step: Callable[[], object], between: Callable[[], object], parts: int) -> dict[Key, float]:
    """The median seconds of each part of a step; by one of so many parts of the samples."""
    profile = StepProfile()
    step()
    for _ in range(CALL_SAMPLES // parts):
        between()
        profile.record(step)
    return {key: 1e-3 * median(samples) for key, samples in profile.parts.items()}
