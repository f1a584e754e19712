"""The share of the processors that this process gets, by clocks that a test sets."""

import pytest

import nnlite as nn
from nnlite import contention, jit
from nnlite.threads import available_cpus


@pytest.fixture
def clocks(monkeypatch):
    """Each millisecond that passes, this process computes for so many of them in all of its threads together."""
    wall, computed = [0.0], [0.0]

    def work(at_once):
        def compute():
            wall[0] += 1e-3
            computed[0] += 1e-3 * at_once

        return compute

    monkeypatch.setattr(contention.time, "perf_counter", lambda: wall[0])
    monkeypatch.setattr(contention.time, "process_time", lambda: computed[0])
    return work


@pytest.mark.parametrize(
    ("at_once", "threads", "cpus", "share"), [(2.0, 2, 2, 1.0), (1.5, 2, 2, 0.75), (1.0, 1, 2, 1.0), (2.0, 4, 2, 1.0)]
)
def test_a_share_is_of_the_processors_that_the_threads_can_have(clocks, monkeypatch, at_once, threads, cpus, share):
    monkeypatch.setattr(contention, "available_cpus", lambda: cpus)
    assert contention._share(clocks(at_once), threads) == pytest.approx(share)


@pytest.mark.skipif(not jit.ENABLED, reason="nothing computes on several threads")
@pytest.mark.parametrize(("blas", "threads"), [(False, 1), (False, 2), (True, 1)])
def test_it_asks_with_work_for_the_threads_of_their_owner(monkeypatch, blas, threads):
    asked = []
    monkeypatch.setattr(contention.ceilings, "multiply_adds", lambda threads: ("multiply-adds", threads))
    monkeypatch.setattr(contention, "_products", lambda: "products")
    own = nn.get_num_threads()
    monkeypatch.setattr(
        contention, "_share", lambda work, threads: asked.append((work, threads, nn.get_num_threads())) or 0.5
    )
    if threads > available_cpus():
        pytest.skip("there are fewer processors")
    assert contention.share_of_processors(threads, blas=blas) == 0.5
    assert asked == [("products", threads, own) if blas else (("multiply-adds", threads), threads, threads)]


@pytest.mark.skipif(not jit.ENABLED, reason="nothing computes on several threads")
def test_products_of_blas_are_a_work(monkeypatch):
    multiplied = []
    monkeypatch.setattr(contention.np, "matmul", lambda a, b, out: multiplied.append((a.shape, b.shape, out.shape)))
    contention._products()()
    assert multiplied == [((contention._SIDE, contention._SIDE),) * 3]


def test_where_nothing_is_compiled_it_is_alone(monkeypatch):
    monkeypatch.setattr(jit, "ENABLED", False)
    assert contention.share_of_processors(2) == 1.0
