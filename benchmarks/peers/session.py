"""One run: the processes of all peers, what they are measured at, and the checks that they do the same work."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import isa
from benchmarks.peers.busy import busy_programs
from benchmarks.peers.frameworks import PEERS
from benchmarks.peers.networks import IMAGES, write_data
from benchmarks.peers.process import PeerFailed, PeerProcess
from benchmarks.peers.rounds import Samples, interleave
from nnlite.conv import Geometry

#: steps at most of the check that losses fall alike; an epoch of mnist5k is less, unless batches are small
MOST_LOSS_STEPS = 1000
#: the first loss that is compared is the mean over this number of images, or one batch; the last is that of a third of
#: the steps
FIRST_IMAGES = 128
#: how far a peer's loss may be from the median of all, as a share: dropout's random numbers differ
LOSS_TOLERANCE = 0.2
#: how far a probability, or a convolution's result relative to its rms, may be from the median of all
RESULT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Conditions:
    """What is the same for all peers of a run."""

    threads: int
    batch_size: int
    isa: str
    busy: int  # programs that run beside during the measured rounds

    def __str__(self) -> str:
        held = ", AVX2 only" if self.isa == isa.AVX2 else ""
        beside = f", {_count(self.busy, 'busy program')} beside" if self.busy else ""
        return _count(self.threads, "thread") + held + beside


@dataclass
class Outcome:
    """What one task gave: samples by peer, and what the checks saw."""

    samples: dict[str, Samples]
    failed: dict[str, str] = field(default_factory=dict)
    #: training: (first loss, mean of the last losses) by peer; otherwise the distance from the median of all
    seen: dict[str, Any] = field(default_factory=dict)
    #: peers that do not do the same work as the others, and how that shows
    differing: dict[str, str] = field(default_factory=dict)
    #: single passes: what nnlite's `auto` chose
    algorithm: str = ""
    #: how many CPUs the busy programs took during the rounds
    busy_cpus: float = 0.0


class Session:
    """Starts the peers and keeps them, asleep, until it is closed."""

    def __init__(self, names: Sequence[str], conditions: Conditions, folder: Path, say: Callable[[str], object]):
        self.conditions = conditions
        self.data = folder / "data.npz"
        self.skipped: dict[str, str] = {}
        #: with --isa avx2: what each peer's libraries say of the instructions that they use
        self.instructions: dict[str, list[str]] = {}
        self.processes: list[PeerProcess] = []
        write_data(self.data)
        for name in names:
            missing = PEERS[name].missing()
            unheld = isa.why_unheld(name, conditions.isa)
            if missing or unheld:
                self.skipped[name] = f"not installed: {', '.join(missing)}" if missing else unheld
                continue
            say(f"starting {name}")
            try:
                if conditions.isa != isa.NATIVE:
                    self.instructions[name] = isa.witness(name, conditions.threads, self.data, conditions.isa)
                self.processes.append(self._start(name))
            except PeerFailed as failure:
                self.skipped[name] = str(failure)

    def close(self) -> None:
        for process in self.processes:
            process.close()

    def peak_gflops(self) -> float:
        """The FMA peak of the peers' threads, measured by nnlite in a separate process, held as the peers are."""
        process = self._start("nnlite")
        try:
            return process.ask("peak_gflops", threads=self.conditions.threads)
        finally:
            process.close()

    def step(self, model: str, rounds: int, say: Callable[[str], object]) -> Outcome:
        """Training steps of a network, after an epoch in which the losses are seen to fall alike."""
        trainers = [process for process in self.processes if PEERS[process.name].trains]
        batch_size = self.conditions.batch_size

        def check(process: PeerProcess) -> tuple[float, float]:
            process.ask("prepare", task="step", model=model, batch_size=batch_size)
            process.ask("burst", steps=loss_steps(batch_size), unmeasured=0)
            losses = process.ask("losses")
            first = -(-FIRST_IMAGES // batch_size)
            return float(np.mean(losses[:first])), float(np.mean(losses[-(len(losses) // 3) :]))

        outcome = self._measure(trainers, check, rounds, f"{model}, training", say)
        outcome.differing = differing_losses(outcome.seen)
        return outcome

    def inference(self, model: str, rounds: int, say: Callable[[str], object]) -> Outcome:
        """The network without dropout, after its probabilities for a batch are seen to be the same."""

        def check(process: PeerProcess) -> np.ndarray:
            process.ask("prepare", task="inference", model=model, batch_size=self.conditions.batch_size)
            process.ask("burst", steps=1, unmeasured=0)
            return self._result_of(process)

        outcome = self._measure(self.processes, check, rounds, f"{model}, inference", say)
        outcome.seen, outcome.differing = distances(outcome.seen)
        return outcome

    def convolution(self, geometry: Geometry, pass_name: str, rounds: int, say: Callable[[str], object]) -> Outcome:
        """One pass of one convolution, by those peers that offer it, after its results are seen to be the same."""
        problem = {
            "x": geometry.input_shape,
            "weight": geometry.weight_shape,
            "dy": geometry.output_shape,
            "stride": geometry.strides[0],
            "padding": geometry.pads[0][0],
            "groups": geometry.groups,
        }

        algorithms = []

        def check(process: PeerProcess) -> np.ndarray:
            algorithms.append(process.ask("prepare_convolution", problem=problem, pass_name=pass_name))
            process.ask("burst", steps=1, unmeasured=0)
            return self._result_of(process)

        able = [process for process in self.processes if PEERS[process.name].convolves]
        outcome = self._measure(able, check, rounds, f"{geometry}, {pass_name}", say)
        outcome.algorithm = ", ".join(dict.fromkeys(filter(None, algorithms)))  # only nnlite's has a name
        outcome.seen, outcome.differing = distances(outcome.seen)
        return outcome

    def memory(self, model: str, say: Callable[[str], object]) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
        """({peer: bytes resident at most, after its start and after an epoch of training}, {peer: why it failed}).

        Each is measured in a separate process. Compiled code that a peer stores on disk is there already.
        """
        peaks, failed = {}, {}
        for name in (process.name for process in self.processes if PEERS[process.name].trains):
            say(f"{model}, memory: {name}")
            try:
                if PEERS[name].caches:
                    self._peaks(name, model, steps=1)
                peaks[name] = self._peaks(name, model, steps=loss_steps(self.conditions.batch_size))
            except PeerFailed as failure:
                failed[name] = str(failure)
        return peaks, failed

    def _peaks(self, name: str, model: str, steps: int) -> dict[str, int]:
        process = self._start(name)
        try:
            started = process.ask("peak_memory")
            process.ask("prepare", task="step", model=model, batch_size=self.conditions.batch_size)
            process.ask("burst", steps=steps, unmeasured=0)
            return {"started": started, "trained": process.ask("peak_memory")}
        finally:
            process.close()

    def _measure(
        self,
        processes: Sequence[PeerProcess],
        check: Callable[[PeerProcess], Any],
        rounds: int,
        title: str,
        say: Callable[[str], object],
    ) -> Outcome:
        """`check` for each peer, then rounds over those that passed through it, with the busy programs beside."""
        outcome = Outcome({})
        ready = []
        for process in processes:
            say(f"{title}: preparing {process.name}")
            try:
                outcome.seen[process.name] = check(process)
                ready.append(process)
            except PeerFailed as failure:
                outcome.failed[process.name] = str(failure)
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            say(f"{title}: round {done // len(ready) + 1 if done < rounds * len(ready) else rounds} of {rounds}")

        with busy_programs(self.conditions.busy) as cpus:
            outcome.samples, failed = interleave(ready, rounds, advance)
            outcome.busy_cpus = cpus()
        outcome.failed |= failed
        return outcome

    def _start(self, name: str) -> PeerProcess:
        held = isa.environment(name, self.conditions.isa)
        return PeerProcess(name, self.conditions.threads, self.data, held)

    def _result_of(self, process: PeerProcess) -> np.ndarray:
        path = self.data.with_name("result.npy")
        process.ask("save_result", path=str(path))
        return np.load(path)


@contextmanager
def open_session(names: Sequence[str], conditions: Conditions, say: Callable[[str], object]) -> Iterator[Session]:
    """A session whose processes and files are gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        session = Session(names, conditions, Path(folder), say)
        try:
            yield session
        finally:
            session.close()


def loss_steps(batch_size: int) -> int:
    """How many steps the check of the losses has: an epoch of whole batches, if that is not too long."""
    return min(MOST_LOSS_STEPS, IMAGES // batch_size)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def differing_losses(seen: dict[str, tuple[float, float]]) -> dict[str, str]:
    """{peer: how} for those whose (first, last) losses do not fall, or are far from the median of all."""
    differing: dict[str, str] = {}
    if not seen:
        return differing
    middle = np.nanmedian(np.array(list(seen.values())).reshape(-1, 2), axis=0)  # (2)
    for name, pair in seen.items():
        off = np.abs(np.array(pair) / middle - 1)  # (2)
        if not off.max() <= LOSS_TOLERANCE or not pair[1] < pair[0]:
            differing[name] = f"loss {pair[0]:.3f} to {pair[1]:.3f}, the others' {middle[0]:.3f} to {middle[1]:.3f}"
    return differing


def distances(results: dict[str, np.ndarray]) -> tuple[dict[str, float], dict[str, str]]:
    """({peer: its result's largest distance from the median of all, in the rms}, {peer: how} for the distant)."""
    if not results:
        return {}, {}
    middle = np.median(np.stack(list(results.values())), axis=0)
    scale = float(np.sqrt(np.mean(middle**2)))
    found = {name: float(np.abs(array - middle).max()) / scale for name, array in results.items()}
    distant = {name: value for name, value in found.items() if not value <= RESULT_TOLERANCE}
    return found, {name: f"results {value:.1e} of their rms away from the others'" for name, value in distant.items()}
