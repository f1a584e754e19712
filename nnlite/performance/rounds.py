"""Interleaved rounds: how nnlite compares times.

The candidates of a comparison (steps, algorithms, microbenchmarks) run once per round in random order, so that changes
over time (clock rate, other programs) affect all of them equally. The garbage collector is off, and each candidate is
warmed up before the first round.

NumPy's BLAS and the kernels have separate threads that must not run together (runtime/threads.py). So a round groups
the candidates by the threads they need, and starts with the group that the round before ended with. BLAS's threads spin
for about 0.1 s after their last work and take CPU time from the kernels: the kernels' turn starts when they sleep.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import inf, nan
from typing import Any, NamedTuple

import numpy as np

from nnlite.runtime import threads

#: the longest wait for BLAS's threads to sleep, seconds
LONGEST_WAIT = 1.0
_SQUARE = np.ones((256, 256), np.float32)
#: by name of the candidate: seconds in each round; NaN if it did not run in that round
Samples = dict[Hashable, list[float]]


class Team(NamedTuple):
    """The threads of a candidate: their owner, and how many (None: all that nnlite uses)."""

    owner: threads.Owner = "kernels"
    threads: int | None = None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Inside, the threads are as this team needs them."""
        with threads.using(threads.get_num_threads() if self.threads is None else self.threads):
            if self.owner == "kernels":
                yield
            else:
                with threads.owned_by(self.owner):
                    yield


#: all threads for kernels
KERNELS = Team()


@dataclass
class Candidate:
    """A benchmark case: something whose time is compared.

    `time` runs it once and returns seconds. `before` runs untimed before each sample. `around` is a context for each
    sample. It runs in the first round and in every `every`-th round after it.
    """

    name: Hashable
    time: Callable[[], float]
    team: Team = KERNELS
    before: Callable[[], object] | None = None
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    every: int = 1

    def sample(self) -> float:
        """Seconds of one run."""
        with self.around():
            if self.before is not None:
                self.before()
            return self.time()


def timed(call: Callable[[], object]) -> Callable[[], float]:
    """A function that times one call, in seconds. The result is read after the timing and freed."""

    def time_once() -> float:
        began = time.perf_counter()
        result = call()
        taken = time.perf_counter() - began
        for array in result if isinstance(result, tuple) else (result,):
            if isinstance(array, np.ndarray) and array.size:
                array.reshape(-1)[:: 4096 // array.itemsize].max()
        return taken

    return time_once


def run_rounds(
    candidates: Sequence[Candidate],
    *,
    rounds: int,
    fewest: int = 0,
    seconds: float = inf,
    seed: int = 0,
    warm: bool = True,
    samples: Samples | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Samples:
    """Time the candidates, each once per round in random order.

    Stops after `rounds`, or after `seconds` if there were at least `fewest` rounds. `samples` is extended by whole
    rounds: after an interruption it holds all completed rounds.
    """
    samples = {} if samples is None else samples
    samples.update({candidate.name: [] for candidate in candidates})
    generator = np.random.default_rng(seed)
    groups: dict[Team, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.team, []).append(candidate)
    turns = list(groups.items())
    for team, group in turns if warm else ():
        with team.at_work():
            for candidate in group:
                candidate.sample()
    end = time.perf_counter() + seconds
    with no_garbage_collection():
        for done in range(rounds):
            if done >= fewest and time.perf_counter() > end:
                break
            taken = dict.fromkeys(samples, nan)
            for team, group in turns:
                with team.at_work():
                    due = [c for c in group if done % c.every == 0]
                    if len(turns) > 1 and due:
                        if team.owner == "kernels":
                            wait_until_idle()
                        _wake(team.owner)
                    for i in generator.permutation(len(due)):
                        taken[due[i].name] = due[i].sample()
            turns.reverse()
            for name, value in taken.items():
                samples[name].append(value)
            progress()
    return samples


def _wake(owner: threads.Owner) -> None:
    """Wake all threads of an owner by a small call."""
    from nnlite.compiler import compilation

    if owner == "blas":
        np.matmul(_SQUARE, _SQUARE)
    elif compilation.ENABLED:
        from nnlite.kernels import peaks

        peaks.nothing(np.zeros(threads.kernel_parts(), np.int64))


def wait_until_idle() -> None:
    """Wait until no thread of this process uses CPU time."""
    end = time.perf_counter() + LONGEST_WAIT
    while time.perf_counter() < end:
        used, began = time.process_time(), time.perf_counter()
        time.sleep(0.01)
        if time.process_time() - used < 0.2 * (time.perf_counter() - began):
            return


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect garbage now and not inside, where it would add to a sample; nothing if it is off already."""
    enabled = gc.isenabled()
    if enabled:
        gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
