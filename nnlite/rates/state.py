"""In which state the processors are, told from what it costs to hand work from one to another.

The processors of a virtual machine are moved by their host, every few seconds at times. Two that shared a last-level
cache have one each for a while: handing over work takes 3.5 microseconds, not 2.4, what one thread wrote reaches the
other later, and a step of many short kernels takes up to half as long again, while copies between two caches and
memory become faster. Each state is a machine of its own: rates are kept for the one that they were measured in, and a
step is compared with those of the one that it ran in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from nnlite import ceilings

#: two costs within this factor are of one state
SAME = 1.18
_SIDE = 128  # of the matrices of a product for all threads of BLAS


@dataclass
class State:
    """The rates that were measured in one state, by key; the cost of handing over work tells it from others."""

    handing_us: float
    known: dict[str, float] = field(default_factory=dict)

    def distance(self, handing_us: float) -> float:
        """By what factor the costs differ."""
        return max(self.handing_us, handing_us) / min(self.handing_us, handing_us)


def states_of(content: Any) -> list[State]:
    """The states that a file was to keep; none if something else wrote it."""
    try:
        states = [State(float(s["handing_us"]), {str(k): float(v) for k, v in s["known"].items()}) for s in content]
    except (ValueError, AttributeError, TypeError, KeyError):
        return []
    sound = all(s.handing_us > 0 and isfinite(sum((s.handing_us, *map(abs, s.known.values())))) for s in states)
    return states if sound else []


def handing_us(blas_threads: int, kernel_threads: int) -> float:
    """Microseconds of a small work for all threads of their owner, most of which is handing it over.

    Of one thread there is but one state, and the number is 1.
    """
    if kernel_threads > 1:
        return ceilings.launch_us(kernel_threads)
    if blas_threads > 1:
        square, out = (np.ones((_SIDE, _SIDE), np.float32) for _ in range(2))
        return ceilings.usual_us(lambda: np.matmul(square, square, out=out))
    return 1.0
