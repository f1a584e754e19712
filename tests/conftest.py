"""Every test starts from the same random numbers, and leaves the threads as it found them.

There are two threads, however many processors: what a test computes, and how long it takes, do not depend on those.
"""

import os

os.environ.setdefault("NUMBA_NUM_THREADS", "2")  # read when Numba is imported, by programs that tests start as well

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import nnlite as nn
from nnlite.runtime import threads

# the same examples in each run, and none too slow: other programs may have the processors
settings.register_profile("nnlite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nnlite")


@pytest.fixture(autouse=True)
def _same_start():
    nn.seed(0)
    before = nn.get_num_threads()
    yield
    if nn.get_num_threads() != before:
        nn.set_num_threads(before)


@pytest.fixture
def two_threads(monkeypatch):
    """Two threads are asked for, which one processor may share."""
    monkeypatch.setattr(threads, "available_cpus", lambda: 2)
    before = nn.get_num_threads()
    nn.set_num_threads(2)
    yield
    nn.set_num_threads(before)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def torch():
    """PyTorch as an oracle, where it is installed."""
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def digits():
    """The 5,000 digits: ((x_train, y_train), (x_test, y_test))."""
    return nn.datasets.load("mnist5k")


@pytest.fixture
def measured_before(monkeypatch):
    """`nnlite explain` measures no networks: it shows a sample document, whatever it is asked for."""
    import documents

    def instead(networks, data, *, rounds, **options):
        return documents.single(rounds=rounds)

    monkeypatch.setattr("nnlite.explain.command.explain_networks", instead)
