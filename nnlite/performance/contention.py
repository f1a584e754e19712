"""How much of the processors other programs took while something was measured."""

from __future__ import annotations

import time

from nnlite.runtime import threads

#: with a larger share, a caution is printed
TOLERATED = 0.1


class Contention:
    """Watches from its creation on: `share()` is the part of the processors' time that other programs took.

    Counted are the processors that this process may use, and what a virtual machine's host withheld ("steal").
    """

    def __init__(self) -> None:
        self._busy, self._own, self._began = _busy_seconds(), time.process_time(), time.perf_counter()

    def share(self) -> float:
        """0 if this process was alone, 1 if it got nothing."""
        others = _busy_seconds() - self._busy - (time.process_time() - self._own)
        available = (time.perf_counter() - self._began) * threads.available_cpus()
        return min(1.0, max(0.0, others / available))


def caution(share: float) -> list[str]:
    """One line if other programs took more than is tolerated, else nothing."""
    if share <= TOLERATED:
        return []
    return [f"Other programs used {100 * share:.0f}% of the CPU: do not trust these times."]


def _busy_seconds() -> float:
    """Seconds that the processors of this process were busy, for whomever, since the system started."""
    import os

    import psutil

    every = psutil.cpu_times(percpu=True)
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(every))
    chosen = [every[i] for i in mine if i < len(every)]
    fields = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(getattr(times, name, 0.0) for times in chosen for name in fields)
