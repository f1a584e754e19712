"""Measuring a kind of stage: the table of kinds, and how a work is timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil
from statistics import median
from typing import NamedTuple

import numpy as np

from nnlite import memory
from nnlite.conv.stages import ITEMSIZE

REPEATS, SECONDS = 9, 0.04
#: working sets are measured up to so many bytes, and products up to twice that
MOST_BYTES = 96 << 20


class Work(NamedTuple):
    """Something to time."""

    run: Callable[[], object]
    amount: float  # in the kind's unit
    #: arrays that in a step another kernel wrote just before, on all of its threads: what one reads, others wrote
    mixed: tuple[np.ndarray, ...] = ()
    #: the same, where both kernels divide the array alike: each thread wrote what it reads
    own: tuple[np.ndarray, ...] = ()
    #: what a step does just before, if that is more than writing arrays
    before: Callable[[], object] | None = None


#: kind of stage -> a function of (size, bytes of the working set) that gives its work
KINDS: dict[str, Callable[[tuple[int, ...], int], Work]] = {}


def kind(function: Callable[[tuple[int, ...], int], Work]) -> Callable[[tuple[int, ...], int], Work]:
    """Add a kind of stage under the function's name."""
    KINDS[function.__name__] = function
    return function


def rate_of(
    name: str, size: tuple[int, ...], working_set: int, before: Callable[[Work], None], parts: int = 1
) -> float:
    """Units a second of a kind of stage; `before` gets its work before each sample, untimed.

    By one of so many `parts` of the samples.
    """
    memory.trim()  # so that what is allocated here finds room in the pool, as in a step
    work = KINDS[name](size, working_set)
    return work.amount / seconds(work.run, lambda: before(work), parts)


def seconds(work: Callable[[], object], before: Callable[[], object], parts: int = 1) -> float:
    """The median of the times of `work`, after one run that does not count; what is measured of a step is one too."""
    work()
    samples: list[float] = []
    end = time.perf_counter() + SECONDS / parts
    while len(samples) < REPEATS // parts or time.perf_counter() < end:
        before()
        began = time.perf_counter()
        work()
        samples.append(time.perf_counter() - began)
    return median(samples)


def power_of_two(nbytes: float) -> int:
    """The least that is as much, so that what is measured serves another step too."""
    return 1 << max(0, ceil(nbytes) - 1).bit_length()


def ones(shape: int | tuple[int, ...]) -> np.ndarray:
    """Ones in memory of the kind that a step's arrays have."""
    array = memory.empty((shape,) if isinstance(shape, int) else shape)
    array.fill(1)
    return array


def operands(size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, int, int, int]:
    """(a, b, m, n, k) of a product, as they lie; the longest side is cut where memory would not hold them."""
    m, n, k, layout = size
    while ITEMSIZE * (m * k + k * n + m * n) > 2 * MOST_BYTES:
        longest = max(m, n, k)
        m, n, k = (side // 2 if side == longest else side for side in (m, n, k))
    a = ones((k, m) if layout == 1 else (m, k))
    b = ones((n, k) if layout == 2 else (k, n))
    return a, b, m, n, k
