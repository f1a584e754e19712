"""The time model: the time of a training step, predicted from its work items and this machine's rates.

    time of a work item = max(work / rate at that shape, traffic / bandwidth of the level that holds its working set)
    time of a pass      = its work items + its further calls x cost of a call + the overhead of calling its operations

Operations and algorithms declare the work items (nnlite.performance.work, nnlite.conv.work). The rates are
microbenchmarks, sampled in the same rounds as the step, so that drift of the machine meets both; each round gives a
prediction. Nothing in here knows how long a step or a layer took, and no factor is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from nnlite import conv
from nnlite.autograd import Tensor
from nnlite.conv import work as conv_work
from nnlite.conv.work import ITEMSIZE, WorkItem
from nnlite.performance import overhead
from nnlite.performance.microbenchmarks import Microbenchmark, Rate, kinds
from nnlite.performance.microbenchmarks.base import LAST_LEVEL, power_of_two
from nnlite.performance.overhead import Overhead
from nnlite.performance.profiler import OTHER, Key
from nnlite.performance.rounds import Candidate, Samples, Team
from nnlite.performance.work import Call, Undeclared
from nnlite.runtime.replay import off

#: the rates of this share of a step are sampled in every round, the others in every SELDOM-th round
SHARE, SELDOM = 0.9, 4
#: the backward passes of a layer
_BACKWARD = ("grad_input", "grad_weight", "gradients")
#: what a pass's time consists of
TERMS = ("compute", "memory", "overhead")

#: of a microbenchmark: its threads, the algorithm in use, and what it measures
Name = tuple[Team, str, Rate | str]


@dataclass
class WorkTime:
    """A work item, its median rate in units per second, its predicted seconds in each round, and what bounds it."""

    item: WorkItem
    rate: float
    seconds: np.ndarray  # (rounds,)
    bound: str  # "compute", "memory" or "overhead"


@dataclass
class PassTime:
    """The prediction of one pass of a layer."""

    work: list[WorkTime] = field(default_factory=list)
    overhead: float = 0.0  # seconds, of calling the operations
    missing: str | None = None  # the operation or algorithm that does not declare its work

    @property
    def seconds(self) -> np.ndarray:
        """(rounds,), or () if there is only overhead."""
        return np.asarray(self.overhead + sum(work.seconds for work in self.work))

    @property
    def terms(self) -> dict[str, float]:
        """Median seconds of compute, memory and overhead."""
        terms = dict.fromkeys(TERMS, 0.0) | {"overhead": self.overhead}
        for work in self.work:
            terms[work.bound] += float(np.median(work.seconds))
        return terms

    @property
    def moved_bytes(self) -> int:
        return conv_work.moved_bytes(w.item for w in self.work)


class Microbenchmarks:
    """The microbenchmarks of several steps, each once."""

    def __init__(self) -> None:
        self._found: dict[Name, Any] = {}  # a Microbenchmark or an Overhead
        self._candidates: dict[Name, Candidate] = {}

    def add_rate(self, team: Team, rate: Rate) -> Name:
        """Add a rate. Call it while the team has the threads."""
        return self._add((team, "auto", rate), lambda: Microbenchmark(rate))

    def add_overhead(self, team: Team, algorithm: str, key: str, run: Callable[[], object], evicted: int) -> Name:
        """Add the overhead of `run`, after `evicted` bytes of other memory were used."""
        return self._add((team, algorithm, f"{key} {evicted}"), lambda: Overhead(run, evicted))

    def _add(self, name: Name, make: Callable[[], Microbenchmark | Overhead]) -> Name:
        if name not in self._found:
            found = self._found[name] = make()
            around = partial(conv.use, name[1])
            self._candidates[name] = Candidate(name, found.sample, name[0], around=around, every=SELDOM)
        return name

    def candidates(self) -> list[Candidate]:
        """The candidates of all microbenchmarks."""
        return list(self._candidates.values())

    def often(self, names: Sequence[Name]) -> None:
        """Sample these in every round from now on."""
        for name in names:
            self._candidates[name].every = 1

    def seconds_per_unit(self, name: Name, samples: Samples) -> np.ndarray:
        """(rounds,) seconds per unit of work; a round without a sample takes the one before."""
        seconds = np.asarray(samples[name])
        latest = np.maximum.accumulate(np.where(np.isnan(seconds), 0, np.arange(len(seconds))))
        return seconds[latest] / self._found[name].amount

    def overhead(self, name: Name) -> Overhead:
        return self._found[name]


class Declared(NamedTuple):
    """A work item of a pass, and the names of its rate and of its bandwidth."""

    key: Key
    item: WorkItem
    rate: Name
    bandwidth: Name | None = None


class StepModel:
    """The work items of a step and the rates they need. `predict` returns the time of each pass."""

    def __init__(
        self,
        calls: Sequence[Call],
        optimizer: str,
        parameters: Sequence[Tensor],
        least_step: Callable[[], object],
        footprint: int,
        team: Team,
        algorithm: str,
        benchmarks: Microbenchmarks,
        is_replayed: bool,
    ):
        """A step of these calls, followed by an update of the parameters by the optimizer of that name.

        `footprint` is the size of all its arrays in bytes. `least_step` is a step of the smallest network: its time
        outside of operations is added to every step. `is_replayed`: whether the step is, and they are to be. Create the
        model with the algorithm and threads of the step.
        """
        self._benchmarks = benchmarks
        self._work: list[Declared] = []
        self._calls: list[tuple[Call, Name]] = []
        self._missing: dict[Key, str] = {}
        self._optimizer = optimizer
        evicted = power_of_two(min(footprint / (2 * max(1, len(calls))), LAST_LEVEL))
        for call in calls:
            try:
                declared = call.parts()
            except Undeclared as reason:
                for name in ("forward", *_BACKWARD) if any(call.needs) else ("forward",):
                    self._missing[call.layer, name] = str(reason)
                continue
            smallest = overhead.of_call(call, is_replayed)
            self._calls.append((call, benchmarks.add_overhead(team, algorithm, *smallest, evicted)))
            for name, items in declared.items():
                if name == "forward" or any(call.needs):
                    self._declare((call.layer, name), items, team, footprint)
        self._declare((optimizer, "optimizer"), [_update(optimizer, parameters)], team, footprint)
        key = f"least step {optimizer} {is_replayed}"
        self._least = benchmarks.add_overhead(
            team, algorithm, key, least_step if is_replayed else off()(least_step), evicted
        )
        self._least_calls = [
            benchmarks.add_overhead(team, algorithm, *overhead.of_call(call, is_replayed), evicted)
            for call in overhead.trace(least_step)
        ]

    def _declare(self, key: Key, items: Sequence[WorkItem], team: Team, footprint: int) -> None:
        add = self._benchmarks.add_rate
        for item in items:
            bounded = item.moved and kinds()[item.kind].bound in ("product", "cache")
            bandwidth = add(team, Rate.of_bandwidth(item.working_set)) if bounded else None
            self._work.append(Declared(key, item, add(team, Rate.of(item, footprint)), bandwidth))
            if item.calls > 1:
                calls = WorkItem("further calls", "numpy_call", (), item.calls - 1, 0, 0, 0)
                self._work.append(Declared(key, calls, add(team, Rate("numpy_call"))))

    @property
    def missing(self) -> list[str]:
        """Operations and algorithms that do not declare their work; if there is one, the step is not predicted."""
        return sorted(set(self._missing.values()))

    @property
    def moved_bytes(self) -> int | None:
        """The memory traffic of a step; None if a part of it does not declare its own."""
        return None if self._missing else conv_work.moved_bytes(declared.item for declared in self._work)

    def predict(self, samples: Samples) -> dict[Key, PassTime]:
        """The predicted passes of the step, from the samples of the rates."""
        parts: dict[Key, PassTime] = {key: PassTime(missing=reason) for key, reason in self._missing.items()}
        for declared in self._work:
            parts.setdefault(declared.key, PassTime()).work.append(self._work_time(samples, declared))
        for call, name in self._calls:
            for part, seconds in self._benchmarks.overhead(name).by_part().items():
                key = OTHER if part == "other" else (call.layer, part)
                if seconds:
                    parts.setdefault(key, PassTime()).overhead += seconds
        least = self._benchmarks.overhead(self._least)
        tape = sum(self._benchmarks.overhead(name).by_part().get("other", 0.0) for name in self._least_calls)
        parts.setdefault(OTHER, PassTime()).overhead += max(0.0, least.seconds(OTHER) - tape)
        parts[self._optimizer, "optimizer"].overhead += least.seconds((self._optimizer, "optimizer"))
        return parts

    def _work_time(self, samples: Samples, declared: Declared) -> WorkTime:
        _, item, rate, bandwidth = declared
        per_unit = self._benchmarks.seconds_per_unit(rate, samples)
        seconds, bound = item.amount * per_unit, kinds()[item.kind].bound
        term = "compute" if bound in ("product", "cache") else bound
        if bandwidth:
            traffic = item.moved * self._benchmarks.seconds_per_unit(bandwidth, samples)
            term = "memory" if np.median(traffic) > np.median(seconds) else term
            seconds = np.maximum(seconds, traffic)
        return WorkTime(item, 1 / float(np.median(per_unit)), seconds, term)

    def dominant(self, samples: Samples) -> list[Name]:
        """The rates and overheads of SHARE of the predicted time, according to these samples."""
        taking: dict[Name, float] = {}
        for declared in self._work:
            time = self._work_time(samples, declared)
            chosen = declared.bandwidth if declared.bandwidth and time.bound == "memory" else declared.rate
            taking[chosen] = taking.get(chosen, 0.0) + float(time.seconds[-1])
        for _, name in self._calls:
            taking[name] = taking.get(name, 0.0) + sum(self._benchmarks.overhead(name).by_part().values())
        return list(_largest(taking, SHARE))


def _largest(taking: Mapping[Name, float], share: float) -> Iterator[Name]:
    """The names with the largest times, until they make up that share of the sum."""
    so_far, enough = 0.0, share * sum(taking.values())
    for name in sorted(taking, key=lambda name: -taking[name]):
        if so_far < enough:
            yield name
        so_far += taking[name]


def _update(optimizer: str, parameters: Sequence[Tensor]) -> WorkItem:
    """The optimizer's pass over all of its parameters: it reads each, its gradient and its mean, and writes two."""
    size = ITEMSIZE * sum(parameter.size for parameter in parameters)
    return conv_work.move("update", optimizer, (), touched=5 * size, arrays=3 * size, moved=5 * size)
