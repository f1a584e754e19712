"""The rates of this machine that the time model needs, each measured outside of any layer.

The rate of a product is measured at exactly the shape of its matrices, or by an algorithm's own loops over an image or
a block of tiles of that size; the rate of a pass over memory by its access pattern (length and stride of the inner
loop) on a working set of the same size, up to a limit; the rate of a transform on a small image. All on arrays of no
layer: no rate is fitted to the time of a step, and no pass of a layer runs as a whole. Before each sample, other memory
evicts the arrays from cache, and the operands that another kernel has just written in a step are written again, so that
caches are as in a step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from nnlite.conv.work import IN_CACHE, INTO_WORKSPACE, WorkItem
from nnlite.performance.microbenchmarks.base import (
    KINDS,
    LAST_LEVEL,
    MOST_BYTES,
    Kind,
    power_of_two,
    prepare,
)
from nnlite.performance.rounds import timed

_LEAST_BYTES = 16 << 10
_LEAST_EVICTED = 4 << 20
#: they depend on their shapes alone
_SHAPED = ("gemm", "matmul", "tall_skinny", "tall_skinny_gradients", "numpy_call")


def kinds() -> dict[str, Kind]:
    """All kinds by name."""
    from nnlite.performance.microbenchmarks import convolution, passes, products  # noqa: F401

    return KINDS


class Rate(NamedTuple):
    """The key of a rate: kind and size (or problem) of the work, working set, bytes evicted before each sample."""

    kind: str
    size: tuple[Any, ...] = ()
    working_set: int = 0
    evicted: int = 0

    @classmethod
    def of(cls, item: WorkItem, footprint: int) -> Rate:
        """The rate at which an item should run, in a step that works in `footprint` bytes of arrays.

        If it passes over its arrays once, the step's other arrays have evicted them from cache.
        """
        if item.kind == "copy" or item.kind in INTO_WORKSPACE:
            return cls.of_bandwidth(item.working_set if item.kind == "copy" else IN_CACHE)
        working_set = 0 if item.kind in _SHAPED else min(max(item.working_set, _LEAST_BYTES), MOST_BYTES)
        once = item.working_set >= item.bytes or (kinds()[item.kind].bound == "cache" and item.moved > 0)
        return cls(
            item.kind, item.problem or item.size, working_set, _evicted(footprint, item.working_set) if once else 0
        )

    @classmethod
    def of_bandwidth(cls, nbytes: float) -> Rate:
        """The rate of a copy with a working set of `nbytes`."""
        evicted = LAST_LEVEL if nbytes > LAST_LEVEL else 0
        return cls("copy", (), min(max(power_of_two(nbytes), _LEAST_BYTES), MOST_BYTES), evicted)


class Microbenchmark:
    """A rate's work, ready to run: `sample` returns the seconds of one run, of `amount` in the unit of its kind.

    Make it, and sample it, while the threads are those of the step.
    """

    def __init__(self, rate: Rate):
        self._work = kinds()[rate.kind].make(rate.size, rate.working_set)
        if rate.working_set >= LAST_LEVEL:  # what was written just before has left the caches
            self._work = self._work._replace(mixed=(), own=())
        self.amount = self._work.amount
        self._time, self._evicted = timed(self._work.run), rate.evicted
        self._last = self._time()  # it compiles

    def sample(self) -> float:
        for _ in range(_warm_ups(self._last)):
            self._work.run()
        prepare(self._work, self._evicted)
        self._last = self._time()
        return self._last


def _warm_ups(seconds: float) -> int:
    """Runs before a sample of work that takes `seconds`: short work would find its code and its threads cold."""
    return 3 if seconds < 1e-3 else 1 if seconds < 5e-3 else 0


def _evicted(footprint: int, own: int) -> int:
    """Bytes to evict: the step's other arrays, at least _LEAST_EVICTED, at most the last-level cache."""
    return LAST_LEVEL if footprint > LAST_LEVEL else max(_LEAST_EVICTED, power_of_two(footprint - own))
