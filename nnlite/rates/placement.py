"""Where the processors lie, told from what it costs to hand work from one to another.

The processors of a virtual machine are moved by their host, every few seconds at times. Two that shared a last-level
cache have one each for a while, or share a core: handing over work takes 3.7 or 3.1 microseconds, not 2.4, what one
thread wrote reaches the other later, and a step of many short kernels takes up to half as long again, while copies
between two caches and memory become faster. Each placement is a machine of its own: rates are kept for the one that
they were measured in, and a step is compared with those of the one that it ran in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import quantiles

import numpy as np

#: of handing over work, in a sample
TIMES, UNTIMED = 150, 15
#: two costs of handing over that are within this factor are of one placement
SAME = 1.13
_SIZE = 256


@dataclass
class Placement:
    """The rates that were measured in one placement, by key; `handing_us` tells it from others."""

    handing_us: float
    known: dict[str, float] = field(default_factory=dict)

    def fits(self, handing_us: float) -> bool:
        return self.handing_us / SAME <= handing_us <= self.handing_us * SAME


def handing_us(blas_threads: int, kernel_threads: int) -> float:
    """Microseconds that work takes which is as good as none, on the threads of their owner; 0 if there is but one."""
    if kernel_threads > 1:
        from nnlite.kernels import ceilings

        places = np.zeros(kernel_threads, np.int64)
        return _usual_us(lambda: ceilings.nothing(places))
    if blas_threads > 1:
        matrix, vector, out = (np.ones(shape, np.float32) for shape in ((_SIZE, _SIZE), _SIZE, _SIZE))
        return _usual_us(lambda: np.dot(matrix, vector, out=out))
    return 0.0


def _usual_us(work: Callable[[], object]) -> float:
    """The lower quartile: what other programs take is not in it."""
    for _ in range(UNTIMED):
        work()
    samples = []
    for _ in range(TIMES):
        began = time.perf_counter()
        work()
        samples.append(time.perf_counter() - began)
    return 1e6 * quantiles(samples, n=4)[0]
