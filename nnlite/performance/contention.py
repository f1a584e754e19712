"""CPU time that other programs used during a measurement."""

from __future__ import annotations

import time

from nnlite.runtime import threads

#: a caution is printed for a larger share
TOLERATED = 0.1


class Contention:
    """Measures from its creation on: `share()` is the share of CPU time that other programs used.

    It covers the CPUs that this process may use, and includes time that a virtual machine's host withheld ("steal").
    """

    def __init__(self) -> None:
        self._busy, self._own, self._began = _busy_seconds(), time.process_time(), time.perf_counter()

    def share(self) -> float:
        """From 0 (no other program ran) to 1."""
        others = _busy_seconds() - self._busy - (time.process_time() - self._own)
        available = (time.perf_counter() - self._began) * threads.available_cpus()
        return min(1.0, max(0.0, others / available))


def caution(share: float) -> list[str]:
    """A caution of one line if the share is above TOLERATED, else nothing."""
    if share <= TOLERATED:
        return []
    return [f"Other programs used {100 * share:.0f}% of the CPU: do not trust these times."]


def _busy_seconds() -> float:
    """Busy seconds of this process's CPUs, of all programs, since the system started."""
    import os

    import psutil

    every = psutil.cpu_times(percpu=True)
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(every))
    chosen = [every[i] for i in mine if i < len(every)]
    fields = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(getattr(times, name, 0.0) for times in chosen for name in fields)
