"""Every test starts from the same random numbers and leaves the threads as it found them."""

import numpy as np
import pytest

import nnlite as nn


@pytest.fixture(autouse=True)
def _same_start():
    nn.seed(0)
    before = nn.get_num_threads()
    yield
    if nn.get_num_threads() != before:
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
