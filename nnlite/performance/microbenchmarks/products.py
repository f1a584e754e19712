"""The rates of matrix products, of copies, and of calls. A product is measured at exactly its shape."""

from __future__ import annotations

import numpy as np

from nnlite.conv.work import INTO_WORKSPACE, ITEMSIZE
from nnlite.kernels import matmul as tiled
from nnlite.kernels import peaks
from nnlite.kernels import tall_skinny as skinny
from nnlite.performance.microbenchmarks.base import (
    KINDS,
    LEAST_COPIED,
    MOST_BYTES,
    Kind,
    Work,
    aligned_rows,
    kind,
    ones,
    without_python,
)
from nnlite.runtime import memory, threads


def _operands(size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, int, int, int]:
    """(a, b, m, n, k) of a product in its layout. The longest side is halved while the arrays exceed 2 * MOST_BYTES."""
    m, n, k, layout = size
    while ITEMSIZE * (m * k + k * n + m * n) > 2 * MOST_BYTES:
        longest = max(m, n, k)
        m, n, k = (side // 2 if side == longest else side for side in (m, n, k))
    a = ones((k, m) if layout == 1 else (m, k))
    b = ones((n, k) if layout == 2 else (k, n))
    return a, b, m, n, k


@kind("product")
def gemm(size: tuple[int, ...], working_set: int) -> Work:
    """NumPy's matrix product, by BLAS; NumPy, on one thread, has written the operands."""
    a, b, m, n, k = _operands(size)
    a, b, out = a.T if size[3] == 1 else a, b.T if size[3] == 2 else b, memory.empty((m, n))

    def write() -> None:
        np.multiply(a, 1, out=a)
        np.multiply(b, 1, out=b)

    return Work(lambda: np.matmul(a, b, out=out), 2.0 * m * n * k, before=write)


@kind("product")
def matmul(size: tuple[int, ...], working_set: int) -> Work:
    """The register tiles' matrix product."""
    a, b, m, n, k = _operands(size)
    function = (tiled.matmul, tiled.matmul_tn, tiled.matmul_nt)[size[3]]
    return Work(without_python(lambda: function(a, b)), 2.0 * m * n * k, mixed=(a, b))


@kind("product")
def tall_skinny(size: tuple[int, ...], working_set: int) -> Work:
    """The product of a layer with few columns."""
    a, b, m, n, k = _operands(size)
    return Work(without_python(lambda: skinny.matmul(a, b, None, False)), 2.0 * m * n * k, own=(a, b))


@kind("product")
def tall_skinny_gradients(size: tuple[int, ...], working_set: int) -> Work:
    """Its gradients at once: `layout` says how many of the two."""
    m, n, k, both = size
    x, weight, dy = ones((m, k)), ones((k, n)), ones((m, n))
    needs = (both == 2, True)
    run = without_python(lambda: skinny.gradients(x, weight, dy, needs))
    return Work(run, 2.0 * both * m * n * k, own=(x, weight, dy))


@kind("memory")
def copy(size: tuple[int, ...], working_set: int) -> Work:
    """A copy on all threads: the bandwidth of the level that holds the working set; reads and writes count."""
    x, y = (aligned_rows(threads.kernel_parts(), working_set // 2) for _ in range(2))
    rounds = max(1, LEAST_COPIED // (2 * x.nbytes))
    return Work(lambda: peaks.copy(rounds, x, y), 2.0 * rounds * x.nbytes)


#: copies into a workspace run at the rate of a copy in cache, or at the bandwidth of what they read
KINDS.update(dict.fromkeys(INTO_WORKSPACE, Kind(copy, "cache")))


@kind("overhead")
def numpy_call(size: tuple[int, ...], working_set: int) -> Work:
    """Calls of a NumPy function on one number."""
    a, b, count = np.ones(1, np.float32), np.ones(1, np.float32), 200

    def calls() -> None:
        for _ in range(count):
            np.add(a, b, a)

    return Work(calls, count)
