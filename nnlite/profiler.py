"""Measured time of a training step, by layer and part.

The profiler listens to the scopes that layers, the tape and the convolution dispatcher announce, and gives every
moment to the innermost open scope; what runs outside of all scopes is "other". So the parts add up to the step.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from nnlite import scopes

Key = tuple[str, str]  # (layer, part)
OTHER: Key = ("other", "other")
#: seconds
LONG, WARMING = 0.05, 0.03
#: rounds that make a profile, and how many times as long to wait for them
FEWEST, PATIENCE = 5, 1.3
#: instead of a state: it was another one after the step than before
CHANGED = object()


class _Recorder:
    """Listens during one step and sums up seconds by key."""

    def __init__(self) -> None:
        self.seconds: dict[Key, float] = {}
        self._open: list[Key] = [OTHER]
        self._since = time.perf_counter()

    def _charge(self) -> None:
        now = time.perf_counter()
        key = self._open[-1]
        self.seconds[key] = self.seconds.get(key, 0.0) + now - self._since
        self._since = now

    def enter(self, layer: str | None, part: str) -> int:
        self._charge()
        self._open.append((layer or "other", part))
        return len(self._open) - 1

    def leave(self, depth: int) -> None:
        self._charge()
        del self._open[depth:]

    def stop(self) -> None:
        self._charge()


@dataclass
class StepProfile:
    """Milliseconds of each measured step, and of each of its parts."""

    steps: list[float] = field(default_factory=list)
    parts: dict[Key, list[float]] = field(default_factory=dict)
    #: of the machine, in all of these steps, and how many steps in another state are left out
    state: object = None
    left_out: int = 0

    def record(self, step: Callable[[], object]) -> None:
        """Run `step` once and keep its times."""
        recorder = _Recorder()
        with scopes.listening(recorder):
            step()
            recorder.stop()
        before = len(self.steps)
        self.steps.append(1e3 * sum(recorder.seconds.values()))
        for key in recorder.seconds:
            self.parts.setdefault(key, [0.0] * before)
        for key, samples in self.parts.items():
            samples.append(1e3 * recorder.seconds.get(key, 0.0))

    @property
    def step_ms(self) -> float:
        """The median step."""
        return median(self.steps)

    def keep(self, chosen: Sequence[int], state: object) -> None:
        """Leave out all steps but the chosen ones, in which the machine was in `state`."""
        self.left_out, self.state = len(self.steps) - len(chosen), state
        self.steps = [self.steps[i] for i in chosen]
        self.parts = {key: [samples[i] for i in chosen] for key, samples in self.parts.items()}

    def medians(self) -> dict[Key, float]:
        """The median of each part in order of appearance; "other" is what is left of the median step."""
        result = {key: median(samples) for key, samples in self.parts.items() if key != OTHER}
        result[OTHER] = self.step_ms - sum(result.values())
        return result


def profile(
    steps: Sequence[Callable[[], object]],
    *,
    surroundings: Sequence[Callable[[], AbstractContextManager[Any]]] = (),
    states: Sequence[Callable[[], object]] = (),
    preferred: Sequence[Callable[[object], bool]] = (),
    warmup: int = 3,
    rounds: int = 20,
    seconds: float = 30.0,
) -> list[StepProfile]:
    """Profiles of several kinds of step, taken in turn (A B C A B C ...) so that drift meets all alike.

    In its turn a step first runs for WARMING seconds that are not recorded, so that it finds the processor (caches,
    branch predictors, clock) as a step that follows its like does; one of more than LONG seconds warms it itself.
    `surroundings` gives each step a context that its turn runs in, whose beginning and end are not timed. `states`
    tells for each the state of the machine, in its context. Of steps that are told it by the same function, rounds in
    the same states are kept: the most there are in `preferred` ones if those are FEWEST or half of all, in any
    otherwise. A round in which one of their states changed is kept only if that was so in all. Stops after `rounds`
    rounds, or after `seconds` once all have FEWEST preferred ones, or after PATIENCE times as many.
    """
    around = surroundings or [nullcontext] * len(steps)
    tell = states or [lambda: None] * len(steps)
    alike = [[i for i, other in enumerate(tell) if other == own] for own in tell]
    for step, surrounding in zip(steps, around, strict=True):
        with surrounding():
            for _ in range(warmup):
                step()
    profiles = [StepProfile() for _ in steps]
    seen: list[list[object]] = []
    began = time.perf_counter()
    with no_garbage_collection():
        for _ in range(rounds):
            took = time.perf_counter() - began
            enough = all(len(_most_common(seen, i, preferred)) >= FEWEST for i in alike)
            if (took > seconds and enough) or took > PATIENCE * seconds:
                break
            turns = zip(steps, around, tell, profiles, strict=True)
            seen.append([_turn(*turn) for turn in turns])
    for i, result in enumerate(profiles):
        chosen = _most_common(seen, alike[i], preferred)
        if len(chosen) < min(FEWEST, -(-len(seen) // 2)):
            chosen = _most_common(seen, alike[i])
        if chosen:
            result.keep(chosen, seen[chosen[0]][i])
        else:
            result.state = CHANGED
    return profiles


def _turn(
    step: Callable[[], object],
    surrounding: Callable[[], AbstractContextManager[Any]],
    state: Callable[[], object],
    result: StepProfile,
) -> object:
    """Warm a step and record it. Gives the state of the machine, or CHANGED."""
    with surrounding():
        before = state()
        if not result.steps or result.steps[-1] < 1e3 * LONG:
            _warm(step)
        result.record(step)
        return before if state() == before else CHANGED


def _most_common(
    seen: Sequence[Sequence[object]], steps: Sequence[int], preferred: Sequence[Callable[[object], bool]] = ()
) -> list[int]:
    """The indices of the rounds in the states of `steps` that there are most of, all preferred and none changed."""
    of_steps = [tuple(states[i] for i in steps) for states in seen]
    fit = (s for s in of_steps if CHANGED not in s)
    if preferred:
        fit = (s for s in fit if all(preferred[i](state) for i, state in zip(steps, s, strict=True)))
    counts = Counter(fit).most_common(1)
    return [i for i, states in enumerate(of_steps) if counts and states == counts[0][0]]


def _warm(step: Callable[[], object]) -> None:
    end = time.perf_counter() + WARMING
    step()
    while time.perf_counter() < end:
        step()


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect what there is, and nothing inside: collecting would take some sample's time."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
