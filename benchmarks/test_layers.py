"""The other layers of the question's networks, each pass: dense products, max pooling, dropout."""

import numpy as np
import pytest

import nnlite as nn
from nnlite.performance import counts

#: inputs x outputs of the mlp, the cnn's last layer and the small one's
DENSE = ("784x512", "512x512", "512x10", "9216x10", "576x10")
#: height x width x channels, as the cnn's pool sees them
POOLED = ("24x24x64", "24x24x4")
DROPPED = ("512", "12x12x64")


@pytest.mark.parametrize("pass_name", ["forward", "grad_input", "grad_weight"])
@pytest.mark.parametrize("size", DENSE)
def test_dense(timed, batch_size, size, pass_name):
    inputs, outputs = map(int, size.split("x"))
    x = _tensor((batch_size, inputs), pass_name == "grad_input")
    weight = _tensor((inputs, outputs), pass_name == "grad_weight")
    bias = _tensor((outputs,), False)
    product = counts.dense(batch_size, inputs, outputs)
    work = _pass(lambda: nn.ops.dense(x, weight, bias), x if pass_name == "grad_input" else weight, pass_name)
    moved = counts.ITEMSIZE * getattr(product, pass_name)
    timed(work, f"dense {size}, {pass_name}", flops=2 * product.macs, least_bytes=moved)


@pytest.mark.parametrize("pass_name", ["forward", "grad_input"])
@pytest.mark.parametrize("size", POOLED)
def test_max_pool2d(timed, batch_size, size, pass_name):
    x = _tensor((batch_size, *map(int, size.split("x"))), pass_name == "grad_input")
    work = _pass(lambda: nn.ops.max_pool2d(x, 2), x, pass_name)
    timed(work, f"max_pool2d {size}, {pass_name}", least_bytes=counts.ITEMSIZE * (x.size + x.size // 4))


@pytest.mark.parametrize("pass_name", ["forward", "grad_input"])
@pytest.mark.parametrize("size", DROPPED)
def test_dropout(timed, batch_size, size, pass_name):
    x = _tensor((batch_size, *map(int, size.split("x"))), pass_name == "grad_input")
    work = _pass(lambda: nn.ops.dropout(x, rate=0.25, seed=1), x, pass_name)
    timed(work, f"dropout {size}, {pass_name}", least_bytes=counts.ITEMSIZE * 2 * x.size)


def _tensor(shape, requires_grad):
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    return nn.Tensor(values, requires_grad=requires_grad)


def _pass(operation, leaf, pass_name):
    """The operation; or its gradient for `leaf`."""
    if pass_name == "forward":
        return operation
    y = operation()
    dy = np.random.default_rng(1).standard_normal(y.shape, np.float32)

    def backward():
        leaf.grad = None  # not added to
        y.backward(dy, retain_graph=True)

    return backward
