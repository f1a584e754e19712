"""The rates of this machine that the time model needs, each measured outside of any layer.

A product's rate is measured at the very shape of its matrices, on numbers that belong to no layer. A pass over memory
is measured by its pattern (how long its inner loop is, how far apart its steps lie) on a working set of the same size
up to a limit; a transform on a small problem that stays in cache. No rate is fitted to a step's time, and no algorithm
runs on a layer's geometry. What goes through its arrays once finds the caches as a step leaves them: other memory is
evicted before each sample, and then the operands are written that another kernel wrote just before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from nnlite.conv.work import WorkItem
from nnlite.performance.microbenchmarks.base import KINDS, MOST_BYTES, Work, power_of_two, prepare
from nnlite.performance.rounds import timed
from nnlite.runtime.processor import cache_sizes

_LEAST_BYTES = 16 << 10
_LEAST_EVICTED = 4 << 20
#: products are bounded by arithmetic, or by the bandwidth that their operands need
PRODUCTS = ("gemm", "matmul", "tall_skinny", "tall_skinny_gradients", "tiles", "lane_tiles", "vector_tiles")
#: what compiled algorithms do with data that stay in cache: bounded by that work, or by the bandwidth that bringing the
#: data in and taking them out needs
IN_CACHE = (
    "pad", "pack_dy", "to_lanes", "from_lanes", "lanes_max_pool", "lanes_unpool", "lanes_bias", "drop",
    "winograd_weight", "winograd_input", "winograd_output", "winograd_dy", "winograd_dx",
)  # fmt: skip
#: they depend on their shapes alone
_SHAPED = ("gemm", "matmul", "tall_skinny", "tall_skinny_gradients", "numpy_call")


class Rate(NamedTuple):
    """What a rate depends on: the kind and size of the work, its working set, and the bytes evicted before."""

    kind: str
    size: tuple[int, ...] = ()
    working_set: int = 0
    evicted: int = 0

    @classmethod
    def of(cls, item: WorkItem, footprint: int) -> Rate:
        """The rate at which an item should run, in a step that works in `footprint` bytes of arrays.

        If it goes through its own arrays once, the others were touched since.
        """
        working_set = 0 if item.kind in _SHAPED else min(max(item.working_set, _LEAST_BYTES), MOST_BYTES)
        once = item.working_set >= item.bytes or (item.kind in IN_CACHE and item.moved > 0)
        return cls(item.kind, item.size, working_set, _evicted(footprint, item.working_set) if once else 0)

    @classmethod
    def of_bandwidth(cls, nbytes: float) -> Rate:
        """The rate of copying within so many bytes."""
        return cls("copy", (), min(max(power_of_two(nbytes), _LEAST_BYTES), MOST_BYTES))


@dataclass
class Microbenchmark:
    """A rate's work, ready to run: `sample` gives seconds of one run, of `amount` in the unit of its kind."""

    amount: float
    sample: Callable[[], float]
    prepare: Callable[[], object]

    @classmethod
    def of(cls, rate: Rate) -> Microbenchmark:
        """To be made, and sampled, while the threads are those of the step."""
        from nnlite.performance.microbenchmarks import conv_passes, kernel_passes, numpy_passes  # noqa: F401

        work: Work = KINDS[rate.kind](rate.size, rate.working_set)
        return cls(work.amount, timed(work.run), lambda: prepare(work, rate.evicted))


def _evicted(footprint: int, own: int) -> int:
    """Bytes of a step's other arrays, no less than two caches hold; the last cache twice, if it needs more of them."""
    last = cache_sizes()["L3"]
    return 2 * last if footprint > last else max(_LEAST_EVICTED, power_of_two(footprint - own))
