"""The dense layer in float32, on register tiles, against NumPy in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnlite as nn
from nnlite import ops

SIZES = st.sampled_from([1, 2, 3, 7, 10, 15, 16, 17, 33, 64, 100])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(m=SIZES, k=SIZES, n=SIZES, relu=st.booleans(), use_bias=st.booleans())
def test_result_and_gradients(m, k, n, relu, use_bias):
    generator = np.random.default_rng((m, k, n))
    shapes = [(m, k), (k, n), (n,)][: 3 if use_bias else 2]
    exact = [nn.Tensor(generator.standard_normal(shape), requires_grad=True) for shape in shapes]
    dy = generator.standard_normal((m, n))
    expected = exact[0] @ exact[1]
    expected = expected + exact[2] if use_bias else expected
    expected = ops.relu(expected) if relu else expected
    expected.backward(dy)

    ours = [nn.Tensor(t.data.astype(np.float32), requires_grad=True) for t in exact]
    y = ops.dense(*ours, relu=relu)
    y.backward(dy)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.data, expected.data, atol=1e-5 * np.sqrt(k) * 4)
    for tensor, reference in zip(ours, exact, strict=True):
        np.testing.assert_allclose(tensor.grad, reference.grad, atol=1e-4)


def test_the_same_bits_on_any_number_of_threads(generator):
    x = generator.standard_normal((130, 70)).astype(np.float32)
    weight = generator.standard_normal((70, 90)).astype(np.float32)
    results = []
    for threads in range(1, nn.get_num_threads() + 1):
        nn.set_num_threads(threads)
        results.append(ops.dense(x, weight).data)
    assert all((result == results[0]).all() for result in results)


def test_relu_keeps_nan(generator):
    y = ops.dense(np.full((2, 3), np.nan, np.float32), np.ones((3, 20), np.float32), relu=True)
    assert np.isnan(y.data).all()


def test_arrays_in_any_order_of_memory(generator):
    x, weight = generator.standard_normal((2, 6, 8)).astype(np.float32)
    expected = x @ weight.T
    np.testing.assert_allclose(ops.dense(np.asfortranarray(x), weight.T).data, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "message"),
    [
        ((2, 3), (4, 5), (5,), r"x: expected shape \(..., 4\).*\(2, 3\)"),
        ((2, 4), (4, 5), (4,), r"bias: expected shape \(5,\)"),
        ((2, 4), (4,), None, "x: expected shape"),
    ],
)
def test_shapes_that_do_not_fit(x, weight, bias, message):
    arrays = [np.ones(shape, np.float32) if shape else None for shape in (x, weight, bias)]
    with pytest.raises(ValueError, match=message):
        ops.dense(*arrays)
