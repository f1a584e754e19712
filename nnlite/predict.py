"""The time of a training step, predicted from what it does and what this machine's rates are.

    time of a stage = max(FLOPs / rate at that shape, bytes / bandwidth of the level that holds its working set)
                      + further calls x cost of a call + fresh memory touched
    time of a part of the step = its stages + the cost of calling its operations

The stages come from the operations and algorithms themselves (nnlite.conv.stages), the rates from nnlite.rates. The
cost of calling an operation is the time it takes on the smallest input there is, with the processor's caches and branch
predictors filled by other memory and by a usual training step. A step is run once, untimed, to see which operations it
calls; nothing in here knows how long a step or a layer took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np

from nnlite import scopes
from nnlite.autograd import Tensor
from nnlite.conv import Geometry
from nnlite.conv import stages as conv_stages
from nnlite.conv.stages import ITEMSIZE, Stage
from nnlite.ops.stages import Array, Call, Undeclared, problem
from nnlite.optimizers import Optimizer
from nnlite.profiler import OTHER, Key, StepProfile
from nnlite.rates import IN_CACHE, PRODUCTS, Rates

#: samples of an operation's cost of calling
CALL_SAMPLES = 15
#: bytes that are touched between them, at least: what the first two caches hold
LEAST_FLUSHED = 4 << 20
#: of the smallest network: a weight and a bias
_LEAST_PARAMETERS = 2


@dataclass(frozen=True)
class Terms:
    """The terms of the model for one stage or sum of stages, in seconds."""

    compute: float = 0.0  # FLOPs / rate, where that is the larger
    memory: float = 0.0  # bytes / bandwidth, where that is the larger
    calls: float = 0.0
    fresh: float = 0.0

    def __add__(self, other: Terms) -> Terms:
        return Terms(
            self.compute + other.compute, self.memory + other.memory, self.calls + other.calls, self.fresh + other.fresh
        )

    @property
    def seconds(self) -> float:
        return self.compute + self.memory + self.calls + self.fresh

    @property
    def bound(self) -> str:
        """What most of the time goes to: "compute", "memory" or "overhead"."""
        named = {"compute": self.compute, "memory": self.memory, "overhead": self.calls + self.fresh}
        return max(named, key=lambda name: named[name])


@dataclass
class PartPrediction:
    """What is predicted for one part of the step. `missing` names what does not say what it does."""

    stages: list[tuple[Stage, float, Terms]] = field(default_factory=list)  # with the rate that each should run at
    calls: float = 0.0  # seconds: calling the operations
    missing: str | None = None

    def add(self, stages: Iterable[Stage], rates: Rates, flushed: int) -> None:
        for stage in stages:
            rate = rates.rate(stage, flushed)
            self.stages.append((stage, rate, stage_terms(stage, rate, rates)))

    @property
    def terms(self) -> Terms:
        return sum((terms for _, _, terms in self.stages), Terms(calls=self.calls))

    @property
    def moved_bytes(self) -> int:
        return conv_stages.moved_bytes(stage for stage, _, _ in self.stages)

    @property
    def flops(self) -> int:
        return sum(stage.flops for stage, _, _ in self.stages)


@dataclass
class StepPrediction:
    """A step, predicted part by part."""

    parts: dict[Key, PartPrediction]
    #: rates that were measured while the processors were in another state
    borrowed: int = 0
    #: rates that were measured while other programs used the processors
    disturbed: int = 0

    @property
    def seconds(self) -> float:
        return sum(part.terms.seconds for part in self.parts.values())

    @property
    def moved_bytes(self) -> int:
        return sum(part.moved_bytes for part in self.parts.values())

    @property
    def missing(self) -> list[str]:
        """What does not say what it does, so that its time is not in the prediction."""
        return sorted({part.missing for part in self.parts.values() if part.missing})


def trace(step: Callable[[], object]) -> list[Call]:
    """Run a step once, untimed, and list the operations it calls."""
    calls: list[Call] = []

    def record(operation: Callable, arrays: list, options: dict[str, Any], needs: tuple[bool, ...]) -> None:
        described = tuple(Array(a.shape, a.dtype) if isinstance(a, np.ndarray) else a for a in arrays)
        calls.append(Call(scopes.current_layer() or "other", operation, described, dict(options), needs))

    with scopes.tracing(record):
        step()
    return calls


def predict(
    calls: Sequence[Call],
    optimizer: Optimizer,
    rates: Rates,
    least_step: Callable[[], object],
    usual_step: Callable[[], object],
    held: int,
) -> StepPrediction:
    """The time of a step that makes these calls and then updates the optimizer's parameters.

    `held` are the bytes of its arrays, each once however often it goes through it. `least_step` is a training step of
    the smallest network, whose "other" time is that of every step; `usual_step` keeps the processor busy as one does.
    To be called under the algorithm and the threads that the step will be run with.
    """
    parts: dict[Key, PartPrediction] = {}
    declared: list[tuple[PartPrediction, list[Stage]]] = []
    known: list[Call] = []

    def part(layer: str, name: str) -> PartPrediction:
        return parts.setdefault((layer, name), PartPrediction())

    for call in calls:
        try:
            said = call.parts()
        except Undeclared as reason:
            part(call.layer, "forward").missing = str(reason)
            continue
        known.append(call)
        declared += [
            (part(call.layer, name), stages) for name, stages in said.items() if name == "forward" or any(call.needs)
        ]
    updates = part(optimizer.name, "optimizer")
    declared.append((updates, _updates(optimizer)))
    flushed = _flushed(held, rates)
    between = Between(rates, flushed, usual_step)
    for where, stages in declared:
        where.add(stages, rates, flushed)
    for call in known:
        for name, cost in calling_cost(call, between).items():
            key = OTHER if name == "other" else (call.layer, name)
            part(*key).calls += cost
    around = _around(least_step, optimizer.name, between)
    part(*OTHER).calls += around["other"]
    further = len(optimizer.parameters or ()) - _LEAST_PARAMETERS
    updates.calls += around["update"] + 1e-6 * rates.machine.numba_call_us * max(0, further)
    return StepPrediction(parts, len(rates.borrowed), len(rates.disturbed))


def stage_terms(stage: Stage, rate: float, rates: Rates) -> Terms:
    """The terms of the model for one stage that runs at `rate`."""
    at_rate = stage.amount / rate
    calls = (stage.calls - 1) * rates.machine.numpy_call_us * 1e-6
    fresh = stage.fresh / (1e9 * rates.machine.fresh_gbs)
    if stage.kind not in PRODUCTS and stage.kind not in IN_CACHE:
        return Terms(memory=at_rate, calls=calls, fresh=fresh)
    needed = stage.moved / rates.bandwidth(stage.working_set)
    if needed > at_rate:
        return Terms(memory=needed, calls=calls, fresh=fresh)
    return Terms(compute=at_rate, calls=calls, fresh=fresh)


def _updates(optimizer: Optimizer) -> list[Stage]:
    """The optimizer's pass over all of its parameters: it reads each, its gradient and its mean, and writes two.

    The rate depends on the columns of the largest, from which follows which kernels had it before.
    """
    parameters = optimizer.parameters or ()
    size = sum(parameter.size for parameter in parameters)
    columns = max(parameters, key=lambda parameter: parameter.size).shape[-1] if size else 1
    moved, held = (3 + 2) * ITEMSIZE * size, 3 * ITEMSIZE * size
    return [conv_stages.move("update", optimizer.name, (columns,), touched=moved, arrays=held, moved=moved)]


# The cost of calling -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Between:
    """What happens between two samples, as the rest of a step happens between two calls."""

    rates: Rates
    flushed: int  # bytes of other memory that are touched
    step: Callable[[], object]

    def __call__(self) -> None:
        self.rates.touch(self.flushed)
        self.step()
        self.rates.stir()


def calling_cost(call: Call, between: Between) -> dict[str, float]:
    """Seconds by part that an operation takes on its smallest input, gradients included."""
    smallest = _smallest(call)
    key = f"calling {call.name} {smallest.arguments} {sorted(smallest.options.items())} {call.needs} {between.flushed}"
    if call.name == "conv2d":
        key += f" {problem(call)[0].name}"
    parts = ("forward", "grad_input", "grad_weight", "gradients", "other")
    costs = _known_parts(between.rates, key, parts, lambda: _measure_call(smallest, between))
    return {name: value for name, value in costs.items() if value}


def _known_parts(
    rates: Rates, key: str, parts: Sequence[str], measure: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """What is known of the parts of a step, by their names; measured together if it is not."""

    def measured() -> dict[str, float]:
        return {f"{key} {name}": value for name, value in measure().items()}

    found = rates.all_known([f"{key} {name}" for name in parts], measured)
    return {name: found[f"{key} {name}"] for name in parts}


def _smallest(call: Call) -> Call:
    """The call with arrays as small as they can be: one pixel, and channels for which the same code is compiled."""
    arrays = list(call.arguments)
    options = dict(call.options)
    options.pop("seed", None)
    if call.name == "conv2d":
        algorithm, geometry, epilogue = problem(call)
        least = _smallest_geometry(geometry, 1 + epilogue.pool, 1 + epilogue.pool)
        shapes = [least.input_shape, least.weight_shape, least.weight_shape[3:]]
        options["algorithm"] = algorithm.name
    elif call.name == "conv2d_stem":
        stem = options["stem"]
        kept = stem.first.groups != stem.second.groups  # else what one gives might not be what the other takes
        second = _smallest_geometry(stem.second, 1 + stem.epilogue.pool, 1 + stem.epilogue.pool, keep_channels=kept)
        first = _smallest_geometry(stem.first, *second.input_shape[1:3], keep_channels=kept)
        shapes = [first.input_shape, *(s for g in (first, second) for s in (g.weight_shape, g.weight_shape[3:]))]
        options["stem"] = replace(stem, first=first, second=second)
    elif call.name == "dense":
        from nnlite.kernels.narrow import WIDEST

        columns = arrays[1].shape[1]
        columns = columns if columns <= WIDEST else max(WIDEST + 1, _fewest(columns))
        shapes = [(1,) * len(arrays[0].shape), (1, columns), (columns,)]
    elif call.name == "max_pool2d":
        pool = call.arguments[1]
        shapes = [(1, *((pool, pool) if isinstance(pool, int) else pool), 1)]
    elif call.name.endswith("crossentropy"):
        shapes = [(1, 2)]
        options = {k: (np.zeros(1, np.int64) if k == "labels" else v) for k, v in options.items()}
        options = {k: (np.ones((1, 2), np.float32) if k == "targets" else v) for k, v in options.items()}
    else:
        shapes = [(1,) * len(a.shape) if isinstance(a, Array) else () for a in arrays]
        if "shape" in options:
            options["shape"] = (1,) * len(options["shape"])
    described = tuple(
        Array(shape, a.dtype) if isinstance(a, Array) else a
        for a, shape in zip(arrays, [*shapes, *[()] * (len(arrays) - len(shapes))], strict=True)
    )
    return replace(call, arguments=described, options=options)


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
    from nnlite.tiles import lane_tile_shape, tile_shape

    shapes = tile_shape(columns), lane_tile_shape(columns)
    return next(n for n in range(1, columns + 1) if (tile_shape(n), lane_tile_shape(n)) == shapes)


def _measure_call(call: Call, between: Between) -> dict[str, float]:
    """Medians of the parts of one forward and backward of a call, in seconds."""
    arguments = [
        Tensor(np.ones(a.shape, a.dtype), requires_grad=need) if isinstance(a, Array) else a
        for a, need in zip(call.arguments, call.needs, strict=True)
    ]

    def run() -> None:
        with scopes.scope("layer", "forward"):
            result = call.operation(*arguments, **call.options)
        if result.requires_grad:
            result.backward(np.ones(result.shape, result.dtype))

    parts = _profile(run, between).parts
    return {name: median(samples) * 1e-3 for (_, name), samples in parts.items()}


def _around(least_step: Callable[[], object], optimizer: str, between: Between) -> dict[str, float]:
    """Seconds of a smallest step: "other", which belongs to no operation, and "update", of its parameters."""

    def measure() -> dict[str, float]:
        calls = trace(least_step)
        parts = _profile(least_step, between).parts
        tape = sum(calling_cost(call, between).get("other", 0.0) for call in calls)
        other, update = (median(parts[key]) * 1e-3 for key in (OTHER, (optimizer, "optimizer")))
        return {"other": max(0.0, other - tape), "update": update}

    return _known_parts(between.rates, f"around {optimizer} {between.flushed}", ("other", "update"), measure)


def _profile(step: Callable[[], object], between: Between) -> StepProfile:
    """Samples of a step."""
    profile = StepProfile()
    step()
    for _ in range(CALL_SAMPLES):
        between()
        profile.record(step)
    return profile


def _flushed(held: int, rates: Rates) -> int:
    """How much memory to touch between two samples, as a step with so many bytes of arrays does: all caches, or two."""
    last = rates.machine.caches["L3"]
    return 2 * last if held > last else LEAST_FLUSHED
