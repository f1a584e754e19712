"""Interleaved rounds: in each, every peer has one burst of steps while all others sleep, in random order.

So whatever the machine does meanwhile, it does to all of them, and ratios are taken between bursts of one round.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.peers.process import PeerFailed, PeerProcess

#: a burst is so long, but for networks of which a few steps take longer
BURST_SECONDS = 0.2
STEPS = (3, 500)  # a burst's, least and most
#: at the beginning of each burst
UNMEASURED_STEPS = 2
#: between two bursts, so that the last peer's threads have gone to sleep
PAUSE_SECONDS = 0.02


@dataclass
class Samples:
    """What one peer's bursts took, ms a step, in the order of the rounds."""

    steps: int
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
            samples[process.name] = Samples(_burst_length(process))
        except PeerFailed as failure:
            failed[process.name] = str(failure)
    shuffled = [process for process in processes if process.name in samples]
    order = random.Random(0)
    for _ in range(rounds):
        order.shuffle(shuffled)
        for process in list(shuffled):
            time.sleep(PAUSE_SECONDS)
            mine = samples[process.name]
            try:
                answer = process.ask("burst", steps=mine.steps, unmeasured=UNMEASURED_STEPS)
            except PeerFailed as failure:
                failed[process.name] = str(failure)
                shuffled.remove(process)
                del samples[process.name]
                continue
            mine.ms.append(answer["ms"])
            mine.idle_shares.append(answer["idle_share"])
            advance()
    return samples, failed


def _burst_length(process: PeerProcess) -> int:
    """How many steps make a burst, after a first one that compiles what there is to compile."""
    process.ask("burst", steps=STEPS[0], unmeasured=1)
    ms = process.ask("burst", steps=STEPS[0], unmeasured=0)["ms"]
    return max(STEPS[0], min(STEPS[1], math.ceil(1e3 * BURST_SECONDS / ms)))
