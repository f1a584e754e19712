"""The caches and the threads as a step leaves them: what is done before each sample of a rate."""

import numpy as np
import pytest

from nnlite import jit
from nnlite.kernels import ceilings
from nnlite.rates.measure import Work
from nnlite.rates.within_step import WithinStep

pytestmark = pytest.mark.skipif(not jit.ENABLED, reason="rates are measured with compiled kernels")

L3 = 32 << 20


@pytest.mark.parametrize(
    ("held", "own", "touched"),
    [(11 << 20, 0, 16 << 20), (11 << 20, 3 << 20, 8 << 20), (11 << 20, 11 << 20, 4 << 20), (L3 + 1, 0, 2 * L3)],
)
def test_a_steps_other_arrays_are_touched(held, own, touched):
    """All less its own, at least what two caches hold; and all caches where they hold less than a step."""
    assert WithinStep(L3, 1, 2).others(held, own) == touched


@pytest.fixture
def done(monkeypatch):
    """What is done before a sample, in its order: the kernel and how many bytes it goes through."""
    said = []
    for name in ("rewrite", "rewrite_own", "nothing"):
        monkeypatch.setattr(ceilings, name, lambda array, *zero, name=name: said.append((name, array.nbytes)))
    monkeypatch.setattr(np, "matmul", lambda *operands: said.append(("matmul", operands[0].nbytes)))
    return said


@pytest.mark.parametrize(
    ("blas_threads", "kernel_threads", "then"),
    [
        (1, 2, [("nothing", 16), "before", ("rewrite", 4), ("rewrite", 8), ("rewrite_own", 12)]),
        (2, 1, [("matmul", 4 << 16), "before"]),
        (1, 1, []),
    ],
)
def test_what_is_worked_on_is_written_last_after_the_threads_are_awake(done, blas_threads, kernel_threads, then):
    one, two, three = (np.zeros((1, n), np.float32) for n in (1, 2, 3))
    work = Work(lambda: None, 1.0, mixed=(one, two), own=(three,), before=lambda: done.append("before"))
    WithinStep(L3, blas_threads, kernel_threads).prepare(1 << 20, work)
    assert done == [("rewrite", 1 << 20), *then]


def test_as_much_is_touched_as_is_asked_for_however_much_was_before(done):
    within = WithinStep(L3, 1, 2)
    for nbytes in (1 << 20, 1 << 22, 1 << 20, 0):
        within.touch(nbytes)
    assert done == [("rewrite", 1 << 20), ("rewrite", 1 << 22), ("rewrite", 1 << 20), ("rewrite", 0)]
