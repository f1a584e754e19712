"""The process of one peer: answers its parent's commands, one line of JSON each, and sleeps in between.

Started as `python -m benchmarks.peers.worker PEER THREADS DATA [CHECKOUT]`; of another checkout it takes nnlite, and
what drives it from this one. Nothing but the peer's framework and NumPy is imported here. Garbage collection is off
during a burst, for every peer alike.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmarks.peers.frameworks import PEERS
from benchmarks.peers.frameworks.base import Peer
from benchmarks.peers.networks import NETWORKS, read_batches

#: threads that spin for longer after a burst count as disturbing the others
MOST_SPINNING_MS = 500
#: seconds between two bursts in which nobody else had a turn
SHORTEST_TURN = 0.05


class Worker:
    """Each public method is a command; what it returns is the answer."""

    def __init__(self, peer: Peer, data: Path):
        self._peer = peer
        self._data = data
        self._steps: Callable[[int], Any]
        self._result: Any = None
        self._burst_ended: tuple[float, float] | None = None  # (time of the clock, time of all threads' processors)

    def versions(self) -> dict[str, str]:
        """Of the peer's packages, those that are installed."""
        return {name: version for name in self._peer.packages if (version := _version(name))}

    def prepare(self, task: str, model: str, batch_size: int) -> None:
        """Get ready to train the network of that name, or to infer with it."""
        network = NETWORKS[model]
        arguments = (network, network.first_weights(), read_batches(self._data, network, batch_size))
        if task == "step":
            self._peer.prepare_training(*arguments)
            self._steps = self._peer.train
        else:
            self._peer.prepare_inference(*arguments)
            self._steps = self._peer.infer
        self._burst_ended = None

    def prepare_convolution(self, problem: dict[str, Any], pass_name: str) -> str:
        """Get ready to compute one pass of a convolution on random numbers, the same for every peer.

        Returns the name of the algorithm, if the peer names it.
        """
        generator = np.random.default_rng(0)
        arrays = [generator.standard_normal(problem[name], np.float32) for name in ("x", "weight", "dy")]
        algorithm = self._peer.prepare_convolution(problem, pass_name, arrays)
        self._steps = self._peer.convolve
        self._burst_ended = None
        return algorithm

    def burst(self, steps: int, unmeasured: int) -> dict[str, float]:
        """Time `steps` steps, after `unmeasured` ones that bring code, data and threads back from their sleep."""
        idle_share = self._idle_share()
        gc.collect()
        gc.disable()
        if unmeasured:
            self._steps(unmeasured)
        began = time.perf_counter()
        self._result = self._steps(steps)
        seconds = time.perf_counter() - began
        gc.enable()
        _sleep_until_idle()
        self._burst_ended = time.perf_counter(), time.process_time()
        return {"ms": 1e3 * seconds / steps, "idle_share": idle_share}

    def losses(self) -> list[float]:
        """Of the last burst's steps."""
        return [float(loss) for loss in self._result]

    def save_result(self, path: str) -> None:
        """Write what the last burst's last step computed."""
        np.save(path, np.asarray(self._result))

    def instruction_sets(self) -> list[str]:
        """What the peer's libraries say of the instructions that they use."""
        return self._peer.instruction_sets()

    def peak_gflops(self, threads: int) -> float:
        """The FMA peak of `threads` threads, as nnlite measures it."""
        from nnlite.performance import peaks

        return peaks.peak_gflops(threads)

    def peak_memory(self) -> int:
        """The most memory that this process ever had resident, bytes."""
        status = Path("/proc/self/status")
        if status.is_file():  # getrusage would count what the parent had when it started this process
            line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
            return int(line.split()[1]) << 10
        import psutil

        info = psutil.Process().memory_info()
        if hasattr(info, "peak_wset"):
            return info.peak_wset
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def _idle_share(self) -> float:
        """How much of a processor this process took since its last burst, when it should have slept."""
        if self._burst_ended is None:
            return 0.0
        elapsed = time.perf_counter() - self._burst_ended[0]
        return (time.process_time() - self._burst_ended[1]) / elapsed if elapsed > SHORTEST_TURN else 0.0


def _sleep_until_idle() -> None:
    """Wait until this process's threads have stopped spinning for more work, so that they disturb nobody's turn."""
    for _ in range(MOST_SPINNING_MS // 10):
        before = time.process_time()
        time.sleep(0.01)
        if time.process_time() - before < 1e-3:
            return


def _version(name: str) -> str | None:
    if name == "nnlite-conv":  # of the checkout that is timed, whichever is installed
        return import_module("nnlite").__version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def main() -> None:
    name, threads, data = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    sys.path[:0] = sys.argv[4:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints is no answer
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    worker = _answer(answers, lambda: Worker(PEERS[name].make(threads), data))
    for line in sys.stdin:
        request = json.loads(line)
        command = getattr(worker, request.pop("command"))
        _answer(answers, lambda: command(**request))  # noqa: B023


def _answer(answers: TextIO, action: Callable[[], Any]) -> Any:
    """Do it, and tell the parent what came of it."""
    try:
        result = action()
    except Exception as error:
        message = str(error).strip() or "no message"
        answers.write(json.dumps({"error": f"{type(error).__name__}: {message.splitlines()[0]}"}) + "\n")
        answers.flush()
        raise
    answers.write(json.dumps({"result": None if isinstance(result, Worker) else result}) + "\n")
    answers.flush()
    return result


if __name__ == "__main__":
    main()
