"""The question in two layers: a Dense layer with 22 times the parameters of a Conv2D layer, on the same batch.

A Dense weight is used once per image, a Conv2D weight at each of 576 positions. `extra_info` has both counts.
"""

import numpy as np
import pytest

import nnlite as nn

GROUP = "401,920 parameters (dense) beside 18,496 (conv2d)"
LAYERS = {
    "dense": ((784,), lambda: nn.Dense(512)),
    "conv2d": ((26, 26, 32), lambda: nn.Conv2D(64, 3)),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("direction", ["forward", "gradients"])
def test_dense_vs_conv(timed, batch_size, direction, kind):
    shape, make = LAYERS[kind]
    layer = make()
    generator = np.random.default_rng(0)
    x = nn.Tensor(generator.standard_normal((batch_size, *shape), np.float32), requires_grad=True)
    y = layer(x)
    dy = generator.standard_normal(y.shape, np.float32)

    def forward():
        return layer(x)

    def gradients():
        for leaf in (x, *layer.parameters()):
            leaf.grad = None  # not added to
        y.backward(dy, retain_graph=True)

    macs = layer.operations(batch_size)[0].macs * (1 if direction == "forward" else 2)
    timed(
        forward if direction == "forward" else gradients,
        f"{direction}: {GROUP}",
        fewer_multiplications=kind == "conv2d",
        flops=2 * macs,
        parameters=layer.count_params(),
        macs=macs,
    )
