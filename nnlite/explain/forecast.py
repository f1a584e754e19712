"""The time of a step of each network, predicted before any is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from nnlite import layers, memory, models
from nnlite.calls import trace
from nnlite.conv.stages import ITEMSIZE
from nnlite.explain.contestant import Contestant, training_step
from nnlite.machine import Machine
from nnlite.model import Sequential
from nnlite.predict import StepPrediction, predict
from nnlite.rates import Need, Rates

#: arrays that are kept of each parameter: itself, its gradient and its mean square
_KEPT = 3
#: images of a usual step
_FEW = 32
#: times that what takes longest of each step is measured again, in turn, so that drift meets all alike
FOLLOWED = 3


@dataclass
class Forecast:
    """The predictions for a step, one for each state of the processors (nnlite.rates.state)."""

    predictions: list[StepPrediction]
    #: the state in which this run measured the rates
    first: int
    #: tells the state, where the step runs
    where: Callable[[], int]

    def knows(self, state: object) -> bool:
        """Whether all rates that the step needs were measured in that state."""
        return self.has(state) and not self.at(state).borrowed

    def at(self, state: object) -> StepPrediction:
        """The prediction for the state that a step ran in; for the first of this run if rates of that are unknown."""
        return self.predictions[state if self.has(state) else self.first]

    def has(self, state: object) -> TypeGuard[int]:
        """Whether it was seen, and predicted for, before the steps were timed."""
        return isinstance(state, int) and state < len(self.predictions)


def forecast(
    contestants: Sequence[Contestant], steps: Sequence[Callable[[], object]], machine: Machine, batch_size: int
) -> list[Forecast]:
    """Measure the rates that the steps need, or take those that are kept, and predict each step.

    What was kept of what takes longest is measured again, in several turns.
    A step is run twice, untimed, to see what it calls and how much memory it works in.
    """
    known: dict[tuple[int, int], Rates] = {}
    firsts: dict[tuple[int, int], int] = {}
    computed: list[Callable[[], StepPrediction]] = []
    slowest: list[list[Need]] = []
    for c, step in zip(contestants, steps, strict=True):
        with c.surroundings():
            if c.thread_counts not in known:
                known[c.thread_counts] = Rates(machine, *c.thread_counts)
            its = known[c.thread_counts]
            computed.append(_prediction(c, step, its, batch_size))
            slowest.append(its.complete(computed[-1]))
            firsts.setdefault(c.thread_counts, its.state)
            its.save()
    for _ in range(FOLLOWED):
        for c, needs in zip(contestants, slowest, strict=True):
            with c.surroundings():
                known[c.thread_counts].follow(needs, FOLLOWED)
    for its in known.values():
        its.settle()
        its.save()
    result = []
    for c, compute in zip(contestants, computed, strict=True):
        with c.surroundings():
            its, first = known[c.thread_counts], firsts[c.thread_counts]
            result.append(Forecast(its.everywhere(compute), first, its.where))
    return result


def _prediction(
    c: Contestant, step: Callable[[], object], known: Rates, batch_size: int
) -> Callable[[], StepPrediction]:
    """A function that predicts a step with the rates as they are known."""
    step()  # so that what is kept between steps is there
    memory.trim()
    calls = trace(step)
    held = memory.idle_bytes() + _KEPT * ITEMSIZE * c.model.count_params()
    optimizer = c.model.optimizer
    assert optimizer is not None
    least, usual = _least_step(batch_size), _usual_step(c.fuse)
    return lambda: predict(calls, optimizer, known, least, usual, held)


def _least_step(batch_size: int) -> Callable[[], object]:
    """A training step of the smallest network for digits: one number in, ten classes out."""
    model = Sequential([layers.Input((1,)), layers.Dense(10, activation="softmax")], name="least")
    images, labels = np.zeros((batch_size, 1), np.float32), np.zeros(batch_size, np.int64)
    return training_step(model, images, labels, batch_size, fuse=True)


def _usual_step(fuse: bool) -> Callable[[], object]:
    """A training step with all kinds of layers, on few images so that it is short."""
    images = np.zeros((_FEW, 28, 28, 1), np.float32)
    return training_step(models.small_cnn(), images, np.zeros(_FEW, np.int64), _FEW, fuse)
