"""Max pooling: which one wins, and where the gradient goes."""

import numpy as np
import pytest

import nnlite as nn
from nnlite import ops


def pooled_gradient(x, dy, **options):
    tensor = nn.Tensor(x, requires_grad=True)
    ops.max_pool2d(tensor, **options).backward(dy)
    return tensor.grad


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("pool", "strides", "pad"), [(2, 2, 0), (3, 2, 1), ((2, 3), (1, 2), 0), (3, 1, 1), (2, 3, 0), ((1, 4), (2, 1), 0)]
)
def test_agrees_with_pytorch(torch, generator, pool, strides, pad, dtype):
    x = generator.standard_normal((2, 9, 8, 5)).astype(dtype)
    x[0, 2:6] = 0  # ties
    reference = torch.tensor(x.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    expected = torch.nn.functional.max_pool2d(reference, pool, strides, pad)
    dy = generator.standard_normal(expected.shape).astype(dtype)
    expected.backward(torch.tensor(dy))

    y = ops.max_pool2d(nn.Tensor(x), pool_size=pool, strides=strides, padding=pad)
    np.testing.assert_array_equal(y.data, expected.detach().numpy().transpose(0, 2, 3, 1))
    dx = pooled_gradient(x, dy.transpose(0, 2, 3, 1), pool_size=pool, strides=strides, padding=pad)
    np.testing.assert_allclose(dx, reference.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-6)


def test_the_first_of_equals_wins():
    dx = pooled_gradient(np.zeros((1, 2, 2, 1), np.float32), np.full((1, 1, 1, 1), 5))
    assert dx[0, :, :, 0].tolist() == [[5, 0], [0, 0]]


def test_padding_never_wins():
    y = ops.max_pool2d(nn.Tensor(np.full((1, 3, 3, 1), -7.0)), pool_size=2, padding="same")
    assert (y.data == -7).all()


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_nan_wins(place):
    x = np.array([[1.0, np.inf], [-np.inf, 2.0]]).reshape(1, 2, 2, 1)
    x[0, place[0], place[1], 0] = np.nan
    assert np.isnan(ops.max_pool2d(nn.Tensor(x)).data).all()
    assert pooled_gradient(x, np.full((1, 1, 1, 1), 3.0))[0, place[0], place[1], 0] == 3


def test_an_odd_last_row_is_dropped_and_gets_no_gradient(generator):
    x = generator.standard_normal((1, 5, 5, 2))
    dx = pooled_gradient(x, np.ones((1, 2, 2, 2)))
    assert dx[:, :4, :4].sum() == 8
    assert not dx[:, 4].any()
    assert not dx[:, :, 4].any()


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"x: expected 4 dimensions.*shape \(2, 2\)"):
        ops.max_pool2d(nn.Tensor(np.zeros((2, 2))))
    with pytest.raises(ValueError, match="pool_size: expected a window no larger"):
        ops.max_pool2d(nn.Tensor(np.zeros((1, 2, 2, 1))), pool_size=3)
    with pytest.raises(ValueError, match="padding: expected less than the window"):
        ops.max_pool2d(nn.Tensor(np.zeros((1, 4, 4, 1))), pool_size=2, padding=2)
