"""The time of a training step, predicted from what it does and what this machine's rates are.

    time of a stage = max(FLOPs / rate at that shape, bytes / bandwidth of the level that holds its working set)
                      + further calls x cost of a call + fresh memory touched
    time of a part of the step = its stages + the cost of calling its operations

The stages come from the operations and algorithms themselves (nnlite.conv.stages), the rates from nnlite.rates, the
costs of calling from nnlite.calls. A step is run once, untimed, to see which operations it calls; nothing in here knows
how long a step or a layer took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from nnlite.autograd import Tensor
from nnlite.calls import Between, around, calling_cost
from nnlite.conv import stages as conv_stages
from nnlite.conv.stages import ITEMSIZE, Stage
from nnlite.ops.stages import Call, Undeclared
from nnlite.optimizers import Optimizer
from nnlite.profiler import OTHER, Key
from nnlite.rates import IN_CACHE, PRODUCTS, Rates

#: of the smallest network: a weight and a bias
_LEAST_PARAMETERS = 2
#: parts of a layer's step in which an operation may compute what is needed of its gradients
_BACKWARD = ("grad_input", "grad_weight", "gradients")


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

    def add(self, stages: Iterable[Stage], rates: Rates, held: int) -> None:
        for stage in stages:
            rate = rates.rate(stage, held)
            self.stages.append((stage, rate, stage_terms(stage, rate, rates)))

    @property
    def terms(self) -> Terms:
        return sum((terms for _, _, terms in self.stages), Terms(calls=self.calls))

    @property
    def moved_bytes(self) -> int:
        return conv_stages.moved_bytes(stage for stage, _, _ in self.stages)


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


def predict(
    calls: Sequence[Call],
    optimizer: Optimizer,
    between: Between,
    least_step: Callable[[], object],
    held: int,
) -> StepPrediction:
    """The time of a step that makes these calls and then updates the optimizer's parameters.

    `held` are the bytes of its arrays, each once however often it goes through it. `least_step` is a training step of
    the smallest network, whose "other" time is that of every step. To be called under the algorithm and the threads
    that the step will be run with.
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
            for name in ("forward", *_BACKWARD) if any(call.needs) else ("forward",):
                part(call.layer, name).missing = str(reason)
            continue
        known.append(call)
        declared += [
            (part(call.layer, name), stages) for name, stages in said.items() if name == "forward" or any(call.needs)
        ]
    updates = part(optimizer.name, "optimizer")
    declared.append((updates, _updates(optimizer)))
    rates = between.rates
    for where, stages in declared:
        where.add(stages, rates, held)
    for call in known:
        for name, cost in calling_cost(call, between).items():
            key = OTHER if name == "other" else (call.layer, name)
            part(*key).calls += cost
    least = around(least_step, optimizer.name, between)
    part(*OTHER).calls += least["other"]
    further = len(_trained(optimizer)) - _LEAST_PARAMETERS
    updates.calls += least["update"] + 1e-6 * rates.machine.numba_call_us * max(0, further)
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


def _trained(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for parameter in optimizer.parameters or () if parameter.requires_grad]


def _updates(optimizer: Optimizer) -> list[Stage]:
    """The optimizer's pass over all of its parameters: it reads each, its gradient and its mean, and writes two.

    The rate depends on the columns of the largest, from which follows which kernels had it before.
    """
    parameters = _trained(optimizer)
    size = sum(parameter.size for parameter in parameters)
    columns = max(parameters, key=lambda parameter: parameter.size).shape[-1] if size else 1
    moved, held = (3 + 2) * ITEMSIZE * size, 3 * ITEMSIZE * size
    return [conv_stages.move("update", optimizer.name, (columns,), touched=moved, arrays=held, moved=moved)]
