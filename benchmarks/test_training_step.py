"""Whole training steps of the question's networks, and the forward pass alone.

Every convolution by `auto`, by im2col, and by the user's own algorithm (`--algorithm FILE.py:CLASS`).
"""

from contextlib import nullcontext

import pytest

import nnlite as nn
from nnlite import conv
from nnlite.runtime import threads

NETWORKS = ("mlp", "cnn", "small_cnn")


@pytest.fixture
def network(name, network_algorithm, batch_size):
    """(the compiled model, a batch of digits), with its convolutions computed by the algorithm."""
    if name == "mlp" and network_algorithm != "auto":
        pytest.skip("the mlp has no convolution")
    (images, labels), _ = nn.datasets.load("mnist5k")
    model = getattr(nn.models, name)()
    model.compile(nn.RMSprop(), "sparse_categorical_crossentropy")
    x = images[:batch_size].reshape(batch_size, *model.input_shape)
    blas = network_algorithm != "auto" and conv.get(network_algorithm).uses_blas
    with threads.owned_by("blas") if blas else nullcontext(), conv.use(network_algorithm):
        yield model, x, labels[:batch_size]


@pytest.mark.parametrize("name", NETWORKS)
def test_training_step(timed, network, name, network_algorithm, batch_size):
    model, x, y = network
    counts = model.cost(batch_size)
    timed(
        lambda: model.train_on_batch(x, y),
        f"training step of {name}",
        fewer_multiplications=True,  # of auto's choice and of a user's this is not known beforehand
        flops=2 * batch_size * counts.training_macs_per_image,
        minimum_traffic=counts.minimum_traffic,
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_inference(timed, network, name, network_algorithm, batch_size):
    model, x, _ = network
    flops = 2 * batch_size * model.cost(batch_size).forward_macs_per_image

    def infer():
        with nn.no_grad():
            return model(x)

    timed(infer, f"inference of {name}", fewer_multiplications=True, flops=flops)
