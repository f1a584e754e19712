"""Measured time of a training step, by layer and pass.

Layers, the tape and the convolution dispatcher announce scopes. The profiler charges all time to the innermost open
scope, and time outside of scopes to "other". So the sum of all passes is the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from nnlite.runtime import scopes

Key = tuple[str, str]  # (layer, part)
OTHER: Key = ("other", "other")


class _Recorder:
    """Listens during one step and adds up seconds by key."""

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
    """Seconds of each recorded step, and of each of its passes."""

    steps: list[float] = field(default_factory=list)
    parts: dict[Key, list[float]] = field(default_factory=dict)

    def record(self, step: Callable[[], object]) -> float:
        """Run `step` once and record its times. Returns its seconds."""
        recorder = _Recorder()
        with scopes.listening(recorder):
            step()
            recorder.stop()
        before = len(self.steps)
        self.steps.append(sum(recorder.seconds.values()))
        for key in recorder.seconds:
            self.parts.setdefault(key, [0.0] * before)
        for key, samples in self.parts.items():
            samples.append(recorder.seconds.get(key, 0.0))
        return self.steps[-1]

    def part(self, first: int, count: int) -> StepProfile:
        """The profile of `count` steps from the `first` on."""
        chosen = slice(first, first + count)
        return StepProfile(self.steps[chosen], {key: samples[chosen] for key, samples in self.parts.items()})

    def medians(self) -> dict[Key, float]:
        """The median seconds of each pass, in order of appearance, scaled so that their sum is the median step.

        The median of a sum is not the sum of medians: without scaling there would be a remainder, perhaps negative.
        """
        medians = {key: median(samples) for key, samples in self.parts.items()}
        scale = median(self.steps) / sum(medians.values())
        return {key: scale * value for key, value in medians.items()}
