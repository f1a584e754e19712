"""The time of a step of each network, predicted before any is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from nnlite import layers, memory, models
from nnlite.calls import Between, trace
from nnlite.conv.stages import ITEMSIZE
from nnlite.explain.contestant import Contestant, training_step
from nnlite.machine import Machine
from nnlite.model import Sequential
from nnlite.predict import StepPrediction, predict
from nnlite.rates import Rates

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
    #: by the threads, in whose surroundings the rates are measured
    known: dict[tuple[int, int], tuple[Contestant, Rates]] = {}
    steps_seen: list[_Step] = []
    for c, run in zip(contestants, steps, strict=True):
        with c.surroundings():
            if c.thread_counts not in known:
                known[c.thread_counts] = c, Rates(machine, *c.thread_counts)
            _, rates = known[c.thread_counts]
            steps_seen.append(_Step(c, run, rates, batch_size))
    for turn in range(FOLLOWED):
        for step in steps_seen:
            with step.contestant.surroundings():
                step.rates.follow(step.slowest, turn, FOLLOWED)
    for c, rates in known.values():
        with c.surroundings():
            rates.settle()
            rates.save()
    return [step.forecast() for step in steps_seen]


class _Step:
    """A step whose rates are measured, or taken from those that are kept, as it is made; in its surroundings."""

    def __init__(self, contestant: Contestant, run: Callable[[], object], rates: Rates, batch_size: int):
        run()  # so that what is kept between steps is there
        memory.trim()
        self.contestant = contestant
        self.rates = rates
        self._calls = trace(run)
        self._held = memory.idle_bytes() + _KEPT * ITEMSIZE * contestant.model.count_params()
        usual = _usual_step(contestant.fuse)
        self._between = Between.of(rates, contestant.algorithm, usual, self._held, len(self._calls))
        self._least = _least_step(batch_size)
        #: what takes longest, and was kept
        self.slowest = rates.complete(self._predict)
        self._first = rates.state
        rates.save()

    def _predict(self) -> StepPrediction:
        optimizer = self.contestant.model.optimizer
        assert optimizer is not None
        return predict(self._calls, optimizer, self._between, self._least, self._held)

    def forecast(self) -> Forecast:
        with self.contestant.surroundings():
            return Forecast(self.rates.everywhere(self._predict), self._first, self.rates.where)


def _least_step(batch_size: int) -> Callable[[], object]:
    """A training step of the smallest network for digits: one number in, ten classes out."""
    model = Sequential([layers.Input((1,)), layers.Dense(10, activation="softmax")], name="least")
    images, labels = np.zeros((batch_size, 1), np.float32), np.zeros(batch_size, np.int64)
    return training_step(model, images, labels, batch_size, fuse=True)


def _usual_step(fuse: bool) -> Callable[[], object]:
    """A training step with all kinds of layers, on few images so that it is short."""
    images = np.zeros((_FEW, 28, 28, 1), np.float32)
    return training_step(models.small_cnn(), images, np.zeros(_FEW, np.int64), _FEW, fuse)
