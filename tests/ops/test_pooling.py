"""Max pooling: which one wins, and where the gradient goes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnlite as nn
from nnlite import ops


def pooled_gradient(x, dy, **options):
    tensor = nn.Tensor(x, requires_grad=True)
    ops.max_pool2d(tensor, **options).backward(dy)
    return tensor.grad


def by_definition(x, dy_of, pool, strides, pads):
    """y and dx of max pooling, window by window: NumPy's argmax takes the first of equals, and the first NaN."""
    y_shape = [(x.shape[1 + i] + sum(pads[i]) - pool[i]) // strides[i] + 1 for i in (0, 1)]
    y = np.empty((x.shape[0], *y_shape, x.shape[3]), x.dtype)
    dy, dx = dy_of(y.shape), np.zeros_like(x)
    for n, oh, ow, c in np.ndindex(*y.shape):
        top, left = oh * strides[0] - pads[0][0], ow * strides[1] - pads[1][0]
        rows, columns = slice(max(top, 0), top + pool[0]), slice(max(left, 0), left + pool[1])
        window = x[n, rows, columns, c]
        r, s = np.unravel_index(window.argmax(), window.shape)
        y[n, oh, ow, c] = window[r, s]
        dx[n, rows, columns, c][r, s] += dy[n, oh, ow, c]
    return y, dy, dx


@st.composite
def problems(draw):
    pool = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    strides = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padded = draw(st.booleans())
    pads = tuple(tuple(draw(st.integers(0, p - 1)) if padded else 0 for _ in (0, 1)) for p in pool)
    size = tuple(draw(st.integers(p, 8)) for p in pool)
    channels = draw(st.sampled_from([1, 3, 4, 15, 16, 33]))  # with and without a rest of a vector
    dtype = draw(st.sampled_from([np.float32, np.float64]))  # vectors, and plain loops
    return (draw(st.integers(1, 3)), *size, channels), pool, strides, pads, dtype, draw(st.integers(0, 2**32))


@settings(max_examples=100, deadline=None)
@given(problems())
def test_agrees_with_its_definition_also_in_ties_and_nan(problem):
    shape, pool, strides, pads, dtype, seed = problem
    generator = np.random.default_rng(seed)
    x = generator.integers(0, 3, shape).astype(dtype)  # many ties
    x[generator.random(shape) < 0.1] = np.nan
    x[generator.random(shape) < 0.1] = -np.inf
    y, dy, dx = by_definition(x, lambda shape: generator.integers(-4, 5, shape).astype(dtype), pool, strides, pads)
    options = {"pool_size": pool, "strides": strides, "padding": pads}
    np.testing.assert_array_equal(ops.max_pool2d(nn.Tensor(x), **options).data, y)
    np.testing.assert_array_equal(pooled_gradient(x, dy, **options), dx)  # sums of small integers are exact


def test_a_window_of_more_than_256_pixels(generator):
    x = generator.standard_normal((2, 20, 40, 1))
    y, dy, dx = by_definition(x, generator.standard_normal, (18, 20), (2, 20), ((0, 0), (0, 0)))
    np.testing.assert_array_equal(ops.max_pool2d(nn.Tensor(x), pool_size=(18, 20), strides=(2, 20)).data, y)
    np.testing.assert_allclose(pooled_gradient(x, dy, pool_size=(18, 20), strides=(2, 20)), dx, rtol=1e-12)


@pytest.mark.parametrize("channels", [4, 32])
def test_any_number_of_threads_gives_the_same_bits(generator, channels):
    x = generator.standard_normal((3, 7, 7, channels)).astype(np.float32)
    dy = generator.standard_normal((3, 3, 3, channels)).astype(np.float32)
    results = []
    for threads in range(1, nn.get_num_threads() + 1):
        nn.set_num_threads(threads)
        y = ops.max_pool2d(nn.Tensor(x), pool_size=3, strides=2).data
        results.append(y.tobytes() + pooled_gradient(x, dy, pool_size=3, strides=2).tobytes())
    assert len(set(results)) == 1


def test_arrays_that_are_not_contiguous(generator):
    x = generator.standard_normal((2, 3, 6, 6)).transpose(0, 2, 3, 1)
    dy = generator.standard_normal((2, 3, 3, 3)).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(pooled_gradient(x, dy), pooled_gradient(x.copy(), dy.copy()))
    np.testing.assert_array_equal(ops.max_pool2d(nn.Tensor(x)).data, ops.max_pool2d(nn.Tensor(x.copy())).data)


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
