"""Every operation passes gradcheck: float64, random direction, random cotangent."""

import numpy as np
import pytest

import nnlite as nn
from nnlite import ops


def array(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def positive(*shape):
    return np.abs(array(*shape)) + 0.5


def distinct(*shape):
    """Values far enough apart that a small step changes no maximum."""
    size = int(np.prod(shape))
    return np.random.default_rng(size).permutation(size).reshape(shape) / 10 - size / 20 + 0.01


CASES = {
    "add": (lambda x, y: x + y, [array(3, 4), array(4)]),
    "add a number": (lambda x: 2 + x, [array(3)]),
    "subtract": (lambda x, y: x - y, [array(4), array(3, 4)]),
    "subtract from a number": (lambda x: 2 - x, [array(3)]),
    "multiply": (lambda x, y: x * y, [array(3, 1), array(1, 4)]),
    "divide": (lambda x, y: x / y, [array(3, 4), positive(3, 1)]),
    "divide a number": (lambda x: 2 / x, [positive(3)]),
    "negative": (lambda x: -x, [array(3)]),
    "power": (lambda x: x**3, [array(3)]),
    "matmul": (lambda x, y: x @ y, [array(3, 4), array(4, 2)]),
    "matmul of batches": (lambda x, y: x @ y, [array(5, 3, 4), array(4, 2)]),
    "matmul vector matrix": (lambda x, y: x @ y, [array(4), array(4, 2)]),
    "matmul matrix vector": (lambda x, y: x @ y, [array(3, 4), array(4)]),
    "matmul vectors": (lambda x, y: x @ y, [array(4), array(4, seed=1)]),
    "array @ tensor": (lambda x: array(2, 3) @ x, [array(3, 4)]),
    "exp": (lambda x: x.exp(), [array(3)]),
    "log": (lambda x: x.log(), [positive(3)]),
    "sqrt": (lambda x: x.sqrt(), [positive(3)]),
    "sum": (lambda x: x.sum(), [array(3, 4)]),
    "sum over an axis": (lambda x: x.sum(axis=1), [array(3, 4)]),
    "sum over axes, kept": (lambda x: x.sum(axis=(0, 2), keepdims=True), [array(3, 4, 2)]),
    "mean": (lambda x: x.mean(axis=0), [array(3, 4)]),
    "max": (lambda x: x.max(axis=-1), [distinct(3, 4)]),
    "max of all": (lambda x: x.max(), [distinct(3, 4)]),
    "reshape": (lambda x: x.reshape(2, -1), [array(3, 4)]),
    "transpose": (lambda x: x.transpose(2, 0, 1), [array(2, 3, 4)]),
    "transpose, axes from the end": (lambda x: x.transpose(-1, 0, -2), [array(2, 3, 4)]),
    "power 0": (lambda x: x**0 * x, [array(3)]),
    "T": (lambda x: x.T, [array(2, 3)]),
    "slice": (lambda x: x[1:, ::2], [array(3, 4)]),
    "rows, one twice": (lambda x: x[[0, 2, 0]], [array(3, 4)]),
    "flatten": (ops.flatten, [array(2, 3, 4)]),
    "relu": (ops.relu, [distinct(3, 4)]),
    "sigmoid": (ops.sigmoid, [array(3, 4)]),
    "tanh": (ops.tanh, [array(3, 4)]),
    "softmax": (ops.softmax, [array(3, 4)]),
    "linear": (ops.linear, [array(3)]),
    "dense": (ops.dense, [array(5, 3), array(3, 4), array(4)]),
    "dense, relu": (lambda x, w, b: ops.dense(x, w, b, relu=True), [array(5, 3), array(3, 4), array(4)]),
    "dense, no bias, 3 axes": (ops.dense, [array(2, 5, 3), array(3, 4)]),
    "conv2d": (ops.conv2d, [array(2, 5, 6, 3), array(3, 2, 3, 4), array(4)]),
    "conv2d, no bias, everything": (
        lambda x, w: ops.conv2d(x, w, strides=2, padding="same", dilation_rate=2, groups=2),
        [array(1, 7, 6, 4), array(3, 2, 2, 6)],
    ),
    "conv2d, relu": (lambda x, w, b: ops.conv2d(x, w, b, relu=True), [array(1, 5, 5, 2), array(3, 3, 2, 3), array(3)]),
    "max_pool2d": (ops.max_pool2d, [distinct(2, 4, 6, 3)]),
    "max_pool2d, overlapping, same": (
        lambda x: ops.max_pool2d(x, pool_size=3, strides=2, padding="same"),
        [distinct(2, 5, 6, 2)],
    ),
    "dropout": (lambda x: ops.dropout(x, rate=0.4, seed=7), [array(5, 6)]),
    "sparse crossentropy, logits": (
        lambda x: ops.sparse_categorical_crossentropy(x, labels=np.array([2, 0, 1]), from_logits=True),
        [array(3, 4)],
    ),
    "sparse crossentropy, probabilities": (
        lambda x: ops.sparse_categorical_crossentropy(x, labels=np.array([2, 0, 1])),
        [positive(3, 4)],
    ),
    "crossentropy, logits": (
        lambda x: ops.categorical_crossentropy(x, targets=positive(3, 4), from_logits=True),
        [array(3, 4)],
    ),
    "crossentropy, probabilities": (
        lambda x: ops.categorical_crossentropy(x, targets=np.eye(4)[:3]),
        [positive(3, 4)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gradient(name):
    nn.gradcheck(*CASES[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_is_the_logistic_function_however_large_its_argument_is(dtype):
    x = np.array([-np.inf, -1000, -88, -30, -1, -0.0, 0.5, 30, 1000, np.inf, np.nan])
    wide = x.astype(np.longdouble)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.where(wide < 0, np.exp(wide) / (1 + np.exp(wide)), 1 / (1 + np.exp(-wide)))
    with np.errstate(all="raise", under="ignore"):
        y = ops.sigmoid(nn.Tensor(x.astype(dtype))).numpy()
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected.astype(np.float64), rtol=10 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


@pytest.mark.parametrize("operation", [ops.sigmoid, ops.tanh])
def test_an_activation_leaves_its_argument_and_its_result_as_they_are(operation):
    given = array(40, 500)
    x = nn.Tensor(given.copy(), requires_grad=True)
    y = operation(x)
    before = y.numpy().copy()
    dy = np.ones(y.shape, y.dtype)
    y.backward(dy)
    np.testing.assert_array_equal(x.data, given)
    np.testing.assert_array_equal(y.numpy(), before)
    np.testing.assert_array_equal(dy, 1)


@pytest.mark.parametrize("algorithm", nn.conv.names())
def test_gradient_of_conv2d_under_each_algorithm(algorithm):
    if nn.conv.get(algorithm).declines(nn.conv.Geometry.of((1, 4, 4, 2), (3, 3, 2, 2)), np.float64):
        pytest.skip("it does not compute in float64")
    nn.gradcheck(lambda x, w: ops.conv2d(x, w, algorithm=algorithm), [array(1, 4, 4, 2), array(3, 3, 2, 2)])


def test_the_gradient_of_a_constant_power_is_0_at_0():
    x = nn.Tensor(np.zeros(2), requires_grad=True)
    (x**0).sum().backward()
    assert x.grad.tolist() == [0, 0]


def test_the_gradient_of_a_square_transposed_from_the_end():
    x = nn.Tensor(np.zeros((2, 2)), requires_grad=True)
    x.transpose(-1, 0).backward([[1, 2], [3, 4]])
    assert x.grad.tolist() == [[1, 3], [2, 4]]
