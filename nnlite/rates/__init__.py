"""At what rate this machine runs each kind of stage (nnlite.conv.stages), measured outside of any layer.

A product's rate is measured at the very shape of its matrices, on numbers that belong to no layer. A pass over memory
is measured by its pattern (how long its inner loop is, how far apart its steps lie) on a working set of the same size
up to a limit, a transform on a small problem that stays in cache. No rate is fitted to a measured step, and no
algorithm runs on a layer's geometry.

A rate is the lower quartile of its samples: typical, and deaf to other programs that use the processor meanwhile. Rates
are kept on disk under the machine's processor and versions, the kernels' sources and the threads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nnlite import machine
from nnlite.conv.stages import Stage
from nnlite.rates.measure import MOST_BYTES, rate_of, seconds

SCHEMA = 1
#: so many times as long as it can take to start the threads says that they are not to be had
DISTURBED = 20
_LEAST_BYTES = 16 << 10
#: products are bounded by arithmetic, or by the bandwidth that their operands need
PRODUCTS = ("gemm", "matmul", "narrow", "narrow_gradients", "tiles", "lane_tiles", "vector_tiles")
#: what compiled algorithms do with data that stay in cache: bounded by that work, or by the bandwidth that bringing the
#: data in and taking them out needs
IN_CACHE = (
    "pad", "spread", "to_lanes", "from_lanes", "lanes_max_pool", "lanes_unpool", "lanes_bias",
    "winograd_weight", "winograd_input", "winograd_output", "winograd_dy", "winograd_dx",
)  # fmt: skip

#: what is measured on one thread and scales with them
ONE_THREAD = ("tiles", "lane_tiles", "vector_tiles", *(kind for kind in IN_CACHE if kind != "winograd_weight"))


class Rates:
    """The rates for one number of threads and one owner of them; measured when first asked for, kept by `save`."""

    def __init__(self, ceilings: machine.Machine, blas_threads: int, kernel_threads: int):
        self.machine = ceilings
        self.blas_threads = blas_threads
        self.kernel_threads = kernel_threads
        self._path = _kept_path(ceilings, blas_threads, kernel_threads)
        self._known: dict[str, float] = _read(self._path)
        self._measured = False
        self._places = np.zeros(kernel_threads, np.int64)
        self._square = np.ones((256, 256), np.float32)

    def rate(self, stage: Stage) -> float:
        """Units a second (FLOPs for products, bytes for what moves numbers) at which the stage should run."""
        working_set = min(max(stage.working_set, _LEAST_BYTES), MOST_BYTES)
        if stage.kind in PRODUCTS or stage.kind in IN_CACHE:
            working_set = 0  # it does not depend on it
        key = f"{stage.kind} {stage.size} {working_set}"
        rate = self.known(key, lambda: _measured(stage.kind, stage.size, working_set, self.stir))
        return rate * self._speedup if stage.kind in ONE_THREAD else rate

    def _disturbed(self) -> bool:
        """Whether waking the threads takes far longer than it can."""
        from nnlite.kernels import ceilings

        launch = seconds(lambda: ceilings.nothing(self._places), lambda: None)
        return self.kernel_threads > 1 and launch > DISTURBED * 1e-6 * self.machine.parallel_region_us

    def stir(self, *operands: np.ndarray) -> None:
        """Leave threads and operands as they are within a step, where another call was just before.

        The threads are awake; what each reads of the operands was written by all of them in equal shares, so that it
        lies in the caches of all.
        """
        from nnlite.kernels import ceilings

        if self.kernel_threads > 1:
            ceilings.nothing(self._places)
            for array in operands:
                ceilings.rewrite(array.reshape(-1))
        if self.blas_threads > 1:
            np.matmul(self._square, self._square)

    @property
    def _speedup(self) -> float:
        """How many times as fast kernels on their threads do what stays in each thread's registers and caches."""
        ceilings = self.machine
        return ceilings.fma_gflops_all / ceilings.fma_gflops_one if self.kernel_threads > 1 else 1.0

    def known(self, key: str, measure: Callable[[], float]) -> float:
        """The number kept under a key; measured if there is none."""
        if key not in self._known:
            self._known[key] = measure()
            self._measured = True
        return self._known[key]

    def bandwidth(self, nbytes: float) -> float:
        """Bytes a second, counted both ways, that kernels can copy within a working set of so many bytes."""
        ceilings = self.machine
        mine = [b for b in ceilings.bandwidths if b.threads == min(self.kernel_threads, ceilings.threads)]
        chosen = next((b for b in mine if nbytes <= b.bytes), mine[-1])
        return 1e9 * chosen.copy_gbs

    def save(self) -> None:
        """Keep what was measured for the next run, unless other programs use the processor."""
        if self._measured and self._path is not None and not self._disturbed():
            self._path.write_text(json.dumps(self._known, indent=1) + "\n")


def _kept_path(ceilings: machine.Machine, blas_threads: int, kernel_threads: int) -> Path | None:
    from nnlite import jit_cache

    root = jit_cache.cache_root()
    key = (SCHEMA, ceilings.processor, ceilings.cpus, sorted(ceilings.versions.items()), jit_cache.sources_hash())
    name = hashlib.sha256(repr((*key, blas_threads, kernel_threads)).encode()).hexdigest()[:16]
    return root / f"rates-{name}.json" if root else None


def _read(path: Path | None) -> dict[str, float]:
    if path is None or not path.is_file():
        return {}
    try:
        return {str(key): float(value) for key, value in json.loads(path.read_text()).items()}
    except (ValueError, AttributeError, TypeError):
        return {}  # written by something else


def _measured(kind: str, size: tuple[int, ...], working_set: int, before: Callable[..., None]) -> float:
    from nnlite.rates import conv_passes, kernel_passes, numpy_passes  # noqa: F401, which fill the table of kinds

    return rate_of(kind, size, working_set, before)
