"""Whether other programs use the processors now: what is measured meanwhile is worth less."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from nnlite import ceilings
from nnlite.threads import available_cpus, using

#: a process that gets this part of the processors is as good as alone
UNDISTURBED = 0.9
#: it is asked for so long; a system may count processor time in ticks of 4 ms
SHARE_SECONDS = 0.02
_SIDE = 512  # of the matrices of a product for all threads of BLAS: a millisecond as well


def share_of_processors(threads: int, *, blas: bool = False) -> float:
    """The part of the processors' time that this process gets while all of its threads compute; 1 if it is alone.

    `blas`: they are those of NumPy's BLAS, which has to own them. Where nothing is compiled nothing asks, and it is 1.
    """
    from nnlite import jit

    if not jit.ENABLED:
        return 1.0
    if blas:
        return _share(_products(), threads)
    with using(threads):
        return _share(ceilings.multiply_adds(threads), threads)


def _share(work: Callable[[], object], threads: int) -> float:
    work()
    wall, processor = time.perf_counter(), time.process_time()
    while time.perf_counter() < wall + SHARE_SECONDS:
        work()
    return (time.process_time() - processor) / (time.perf_counter() - wall) / min(threads, available_cpus())


def _products() -> Callable[[], object]:
    square, out = (np.ones((_SIDE, _SIDE), np.float32) for _ in range(2))
    return lambda: np.matmul(square, square, out=out)
