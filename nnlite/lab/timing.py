"""How long a call takes, when several are to be compared.

The calls of a comparison are run in rounds, each once a round in random order, so that whatever changes with time
(clock rate, other programs) falls on all of them alike; the garbage collector is off, kernels are compiled and pools
filled beforehand. NumPy's BLAS and the kernels have threads of their own that must not meet (nnlite.threads), so a
round has two halves: in one the threads belong to BLAS and the calls that use it are run, in the other to the kernels.
Each round begins with the half that the one before ended with. BLAS's threads stay awake for some 0.1 s after their
last work and take the processor from the kernels, so before the kernels' half we wait until they sleep.

What would take too long is run on a slice of its work, and its time is scaled by the multiply-accumulates.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from nnlite import memory, threads
from nnlite.conv import Algorithm, Geometry
from nnlite.lab import reference
from nnlite.lab.reference import Operands
from nnlite.lab.shapes import slice_of
from nnlite.performance.profiler import no_garbage_collection

#: rounds of a comparison, and how few will do where time is short
ROUNDS, LEAST_ROUNDS = 20, 5
#: a call that takes longer (seconds) is run on a slice that takes at least the second
LONGEST_CALL, SLICE_SECONDS = 0.25, 0.05
#: about how long BLAS's threads stay awake (seconds), and the longest that we wait for them
AWAKE_SECONDS, _LONGEST_WAIT = 0.1, 1.0
#: what the control, the baseline a second time, has instead of a name: no algorithm can be called so
CONTROL = None
#: seconds, one a round, by the contestant's name
Samples = dict[str | None, list[float]]
#: multiply-accumulates of the first slice that is tried
_FIRST_SLICE_MACS = 100_000


@dataclass(frozen=True)
class Contestant:
    """A call to be timed. `scale`: how many times its work the whole work is."""

    name: str | None
    call: Callable[[], object]
    owner: threads.Owner = "kernels"
    scale: float = 1.0


@dataclass(frozen=True)
class Slice:
    """The part of a problem that is run, how many times it the problem is, and about how long it takes (seconds)."""

    geometry: Geometry
    scale: float
    seconds: float


def thread_owner(algorithm: Algorithm, pass_name: str) -> threads.Owner:
    """Who should have the threads while this pass runs."""
    return "blas" if algorithm.may_use_blas(pass_name) else "kernels"


@contextmanager
def owned_by(owner: threads.Owner) -> Iterator[None]:
    """As threads.owned_by, but only where it changes anything: giving threads away costs."""
    if owner == "kernels":
        yield
    else:
        with threads.owned_by(owner):
            yield


def plan(algorithm: Algorithm, pass_name: str, geometry: Geometry, given: Callable[[Geometry], Operands]) -> Slice:
    """The whole problem if a call takes less than LONGEST_CALL seconds, else a slice of it.

    `given` makes the operands of a geometry, in float32.
    """
    share = min(1.0, _FIRST_SLICE_MACS / max(1, geometry.macs))
    while True:
        part = geometry if share == 1 else slice_of(geometry, share)
        scale = geometry.macs / max(1, part.macs)
        call = partial(reference.run_pass, algorithm, pass_name, given(part), part)
        call()  # compiles
        seconds = _seconds(call)
        if seconds * scale > LONGEST_CALL:  # unless another program had the processor just then
            seconds = min(seconds, _seconds(call), _seconds(call))
        if scale == 1 or (seconds >= SLICE_SECONDS and seconds * scale > LONGEST_CALL):
            return Slice(part, scale, seconds)
        if seconds * scale <= LONGEST_CALL:
            share = 1.0
        else:
            share = min(1.0, share * min(30.0, max(2.0, 1.5 * SLICE_SECONDS / seconds)))


def run_rounds(
    contestants: Sequence[Contestant],
    *,
    rounds: int = ROUNDS,
    seconds: float = float("inf"),
    seed: int = 0,
    samples: Samples | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Samples:
    """Seconds of each contestant's whole work in each round.

    Stops after `rounds`, or after `seconds` if there were LEAST_ROUNDS. `samples` is filled a whole round at a time,
    so that who interrupts this has all rounds until then.
    """
    samples = {} if samples is None else samples
    samples.update({contestant.name: [] for contestant in contestants})
    generator = np.random.default_rng(seed)
    owned = ([c for c in contestants if c.owner == owner] for owner in ("kernels", "blas"))
    halves = [half for half in owned if half]
    for half in halves:
        with owned_by(half[0].owner):
            for contestant in half:
                contestant.call()
    end = time.perf_counter() + seconds
    with no_garbage_collection():
        for done in range(rounds):
            if done >= min(LEAST_ROUNDS, rounds) and time.perf_counter() > end:
                break
            order = halves if done % 2 == 0 else halves[::-1]
            for name, value in _round(order, generator).items():
                samples[name].append(value)
            progress()
    return samples


def _round(halves: Sequence[Sequence[Contestant]], generator: np.random.Generator) -> dict[str | None, float]:
    taken: dict[str | None, float] = {}
    for half in halves:
        order = generator.permutation(len(half))
        with owned_by(half[0].owner):
            if half is not halves[0]:
                wait_until_idle()
                half[order[0]].call()  # wakes this half's threads
            for j in order:
                taken[half[j].name] = _seconds(half[j].call) * half[j].scale
    return taken


def wait_until_idle() -> None:
    """Wait until no thread of this process uses the processor, as its CPU time tells."""
    end = time.perf_counter() + _LONGEST_WAIT
    while time.perf_counter() < end:
        used, began = time.process_time(), time.perf_counter()
        time.sleep(0.01)
        if time.process_time() - used < 0.2 * (time.perf_counter() - began):
            return


def _seconds(call: Callable[[], object]) -> float:
    """Wall time of a call. What it returns is read afterwards, and dies before the next call."""
    began = time.perf_counter()
    result = call()
    taken = time.perf_counter() - began
    for array in result if isinstance(result, tuple) else (result,):
        if isinstance(array, np.ndarray) and array.size:
            array.reshape(-1)[:: 4096 // array.itemsize].max()
    return taken


def extra_bytes(call: Callable[[], object]) -> int | None:
    """Memory that a call needs beside its operands and results: how far the process grew while it ran.

    None where the system does not tell (Linux does, in pages). Memory that lay idle is given back first.
    """
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        gc.collect()
        memory.trim()
        ctypes.CDLL(None).malloc_trim(0)
        reset.write_text("5")  # VmHWM, the most there ever was, begins anew (man 5 proc)
        before = _kilobytes(status, "VmRSS")
        result = call()
        grown = _kilobytes(status, "VmHWM") - before
    except (OSError, AttributeError, KeyError):
        return None
    arrays = result if isinstance(result, tuple) else (result,)
    return max(0, grown * 1024 - sum(array.nbytes for array in arrays if isinstance(array, np.ndarray)))


def _kilobytes(status: Path, name: str) -> int:
    values = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(values[name].split()[0])
