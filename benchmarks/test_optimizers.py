"""One update of all parameters of a network."""

import numpy as np
import pytest

import nnlite as nn
from nnlite.network import optimizers
from nnlite.performance import counts as cost


@pytest.mark.parametrize("optimizer", ["rmsprop", "sgd", "adam", "adadelta"])
@pytest.mark.parametrize("network", ["mlp", "cnn", "small_cnn"])
def test_update(timed, network, optimizer):
    parameters = getattr(nn.models, network)().parameters()
    generator = np.random.default_rng(0)
    for parameter in parameters:
        parameter.grad = generator.standard_normal(parameter.shape, np.float32)
    chosen = optimizers.get(optimizer)
    chosen.build(parameters)
    remembered = sum(chosen.remembers(slot) for slot in chosen.slots)  # each read and written, as the parameter is
    passes = 3 + 2 * remembered
    moved = cost.ITEMSIZE * passes * sum(parameter.size for parameter in parameters)
    timed(chosen.step, f"update of {network}", least_bytes=moved)
