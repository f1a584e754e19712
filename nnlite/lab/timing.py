"""The part of a problem that is timed (a slice if the whole takes too long), and the memory that a call needs.

The time of a slice is scaled by the ratio of MACs.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnlite.conv import Algorithm, Geometry
from nnlite.lab import reference
from nnlite.lab.shapes import slice_of
from nnlite.performance.rounds import Team, timed
from nnlite.runtime import memory

#: rounds of a comparison, and the fewest if time is short
ROUNDS, LEAST_ROUNDS = 20, 5
#: the fewest rounds in which versions of an algorithm are compared
COMPARED_ROUNDS = 15
#: a longer call (seconds) is replaced by a slice that takes at least SLICE_SECONDS
LONGEST_CALL, SLICE_SECONDS = 0.25, 0.05
#: the name of the A/A control, the baseline a second time; no algorithm can have it
CONTROL = None
#: MACs of the first slice that is tried
_FIRST_SLICE_MACS = 100_000


class Slice(NamedTuple):
    """The timed part of a problem, and the ratio of the whole to it."""

    geometry: Geometry
    scale: float


def team(algorithm: Algorithm, pass_name: str) -> Team:
    """The threads that this pass needs."""
    return Team("blas" if algorithm.may_use_blas(pass_name) else "kernels")


def call_of(algorithm: Algorithm, pass_name: str, geometry: Geometry, seed: int) -> Callable[[], object]:
    """A call of the pass with float32 operands."""
    return partial(reference.run_pass, algorithm, pass_name, reference.problem(geometry, seed).float32, geometry)


def plan(algorithm: Algorithm, pass_name: str, geometry: Geometry, seed: int) -> Slice:
    """The whole problem if a call takes less than LONGEST_CALL seconds, else a slice of it."""
    share = min(1.0, _FIRST_SLICE_MACS / max(1, geometry.macs))
    while True:
        part = geometry if share == 1 else slice_of(geometry, share)
        scale = geometry.macs / max(1, part.macs)
        call = call_of(algorithm, pass_name, part, seed)
        call()  # compiles
        seconds = timed(call)()
        if seconds * scale > LONGEST_CALL:  # try again: another program may have used the CPU
            seconds = min(seconds, timed(call)(), timed(call)())
        if scale == 1 or (seconds >= SLICE_SECONDS and seconds * scale > LONGEST_CALL):
            return Slice(part, scale)
        if seconds * scale <= LONGEST_CALL:
            share = 1.0
        else:
            share = min(1.0, share * min(30.0, max(2.0, 1.5 * SLICE_SECONDS / seconds)))


def extra_bytes(call: Callable[[], object]) -> int | None:
    """Bytes that a call needs besides its operands and results: the growth of the process while it ran.

    None if the system does not report it (Linux does, in pages). Idle memory is released first.
    """
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        gc.collect()
        memory.trim()
        ctypes.CDLL(None).malloc_trim(0)
        reset.write_text("5")  # resets VmHWM, the peak of resident memory (man 5 proc)
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
