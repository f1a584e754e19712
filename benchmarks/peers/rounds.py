"""Interleaved rounds: in each, every peer has one burst of steps while all others sleep, in random order.

So whatever the machine does meanwhile, it does to all of them, and ratios are taken between bursts of one round.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.peers.process import PeerFailed, PeerProcess

#: a burst is so long, but for networks of which a few steps take longer
BURST_SECONDS = 0.2
STEPS = (3, 500)  # a burst's, least and most
#: at the beginning of each burst; one where a step takes long
UNMEASURED_STEPS = 2
LONG_STEP_MS = 30


@dataclass
class Samples:
    """What one peer's bursts took, ms a step, in the order of the rounds."""

    steps: int  # of a burst
    unmeasured: int  # before them
    ms: list[float] = field(default_factory=list)
    idle_shares: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return float(np.median(self.ms))

    @property
    def quartiles(self) -> tuple[float, float]:
        low, high = np.percentile(self.ms, [25, 75])
        return float(low), float(high)

    @property
    def idle_share(self) -> float:
        """The share of a processor that it took while others had their turn."""
        return float(np.median(self.idle_shares)) if self.idle_shares else 0.0


def interleave(
    processes: Sequence[PeerProcess], rounds: int, advance: Callable[[], object]
) -> tuple[dict[str, Samples], dict[str, str]]:
    """({peer: its samples}, {peer: why it failed}) over `rounds` rounds; `advance` is called after each burst."""
    samples: dict[str, Samples] = {}
    failed: dict[str, str] = {}
    for process in processes:
        try:
            samples[process.name] = _plan(process)
        except PeerFailed as failure:
            failed[process.name] = str(failure)
    shuffled = [process for process in processes if process.name in samples]
    order = random.Random(0)
    for _ in range(rounds):
        order.shuffle(shuffled)
        for process in list(shuffled):
            mine = samples[process.name]
            try:
                answer = process.ask("burst", steps=mine.steps, unmeasured=mine.unmeasured)
            except PeerFailed as failure:
                failed[process.name] = str(failure)
                shuffled.remove(process)
                del samples[process.name]
                continue
            mine.ms.append(answer["ms"])
            mine.idle_shares.append(answer["idle_share"])
            advance()
    return samples, failed


def _plan(process: PeerProcess) -> Samples:
    """How many steps make a burst, after a first one that compiles what there is to compile."""
    process.ask("burst", steps=1, unmeasured=1)
    ms = process.ask("burst", steps=STEPS[0], unmeasured=0)["ms"]
    steps = max(STEPS[0], min(STEPS[1], math.ceil(1e3 * BURST_SECONDS / ms)))
    return Samples(steps, 1 if ms > LONG_STEP_MS else UNMEASURED_STEPS)
