"""Who has the threads while a network is measured under an algorithm."""

import numpy as np
import pytest

import nnlite as nn
from nnlite import conv, threads
from nnlite.explain.contestant import Contestant


class ForwardAlone(conv.Algorithm):
    """With im2col's gradients, which are inherited and call BLAS."""

    name = "forward_alone"

    def forward(self, x, weight, geometry):
        return np.zeros(geometry.output_shape, x.dtype)


class OneThread(ForwardAlone):
    name = "one_thread"
    one_thread = True


@pytest.fixture
def registered():
    algorithms = [ForwardAlone(), OneThread()]
    for algorithm in algorithms:
        conv.register(algorithm)
    yield
    for algorithm in algorithms:
        conv.unregister(algorithm.name)


@pytest.mark.parametrize(
    ("algorithm", "counts"),
    [("auto", (1, 2)), ("winograd", (1, 2)), ("im2col", (2, 1)), ("forward_alone", (2, 1)), ("one_thread", (1, 1))],
)
@pytest.mark.usefixtures("registered", "two_threads")
def test_blas_has_the_threads_if_a_pass_may_call_it(algorithm, counts):
    contestant = Contestant(nn.models.small_cnn(), algorithm)
    assert contestant.thread_counts == counts
    with contestant.surroundings():
        assert threads.kernel_parts() == counts[1]
        assert threads.get_num_threads() == max(counts)
    assert threads.kernel_parts() == 2
    assert contestant.fuse == (algorithm != "one_thread")
