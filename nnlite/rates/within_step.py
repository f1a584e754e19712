"""The caches and the threads, left as they are within a step: what is measured finds them like that."""

from __future__ import annotations

import numpy as np

from nnlite.rates.measure import Work, power_of_two

_LEAST_TOUCHED = 4 << 20
_ZERO = np.float32(0)


class WithinStep:
    """Does untimed what a step does before a stage, with threads of BLAS or of the kernels."""

    def __init__(self, last_cache: int, blas_threads: int, kernel_threads: int):
        self._last_cache = last_cache
        self._blas_threads = blas_threads
        self._kernel_threads = kernel_threads
        self._other = np.zeros(0, np.float32)
        self._places = np.zeros(kernel_threads, np.int64)
        self._square = np.ones((256, 256), np.float32)

    def others(self, held: int, own: int) -> int:
        """Bytes of a step's other arrays, no less than two caches hold; all caches twice, if it needs more of them."""
        last = self._last_cache
        return 2 * last if held > last else max(_LEAST_TOUCHED, power_of_two(held - own))

    def prepare(self, touched: int, work: Work) -> None:
        """Leave the caches as a step does that touched so many bytes since, and then what is worked on."""
        self.touch(touched)
        self.stir()
        if work.before is not None and max(self._blas_threads, self._kernel_threads) > 1:
            work.before()
        if self._kernel_threads > 1:
            from nnlite.kernels import ceilings

            for array in work.mixed:
                ceilings.rewrite(array.reshape(-1), _ZERO)
            for array in work.own:
                ceilings.rewrite_own(array.reshape(-1), _ZERO)

    def touch(self, nbytes: int) -> None:
        """Read and write so many bytes of other memory, on all threads."""
        from nnlite.kernels import ceilings

        if self._other.nbytes < nbytes:
            self._other = np.zeros(nbytes // 4, np.float32)
        ceilings.rewrite(self._other[: nbytes // 4], _ZERO)

    def stir(self) -> None:
        """Leave the threads awake, as they are within a step, where another call was just before."""
        from nnlite.kernels import ceilings

        if self._kernel_threads > 1:
            ceilings.nothing(self._places)
        if self._blas_threads > 1:
            np.matmul(self._square, self._square)
