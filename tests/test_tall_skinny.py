"""float32 products with few output columns against NumPy in float64."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import nnlite as nn
from nnlite.compiler import compilation

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="needs the compiler")
#: rows, terms and columns; the compiler makes code for each number of columns
sizes = st.tuples(st.integers(1, 40), st.integers(1, 150), st.sampled_from([1, 5, 10, 12]))


@pytest.fixture(scope="module")
def tall_skinny():
    from nnlite.kernels import tall_skinny

    return tall_skinny


def operands(m, k, n):
    generator = np.random.default_rng(0)
    return (generator.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n), (n,), (m, n)))


def close(actual, expected, terms):
    assert actual.dtype == np.float32
    assert actual.flags.c_contiguous
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * np.sqrt(terms) * 8)


@settings(max_examples=40, deadline=None)
@given(sizes)
@example((128, 576, 10))
@example((3, 16, 10))
@example((3, 33, 12))
def test_the_three_products_are_numpys(tall_skinny, size):
    m, k, n = size
    x, weight, bias, dy = operands(m, k, n)
    expected = x.astype(np.float64) @ weight + bias
    close(tall_skinny.matmul(x, weight, bias, relu=False), expected, k)
    close(tall_skinny.matmul(x, weight, bias, relu=True), np.maximum(expected, 0), k)
    dx, dweight = tall_skinny.gradients(x, weight, dy, (True, True))
    close(dx, dy.astype(np.float64) @ weight.T, n)
    close(dweight, x.T.astype(np.float64) @ dy, m)


def test_only_the_gradients_that_are_needed(tall_skinny):
    x, weight, _, dy = operands(5, 40, 3)
    dx, nothing = tall_skinny.gradients(x, weight, dy, (True, False))
    assert nothing is None
    close(dx, dy.astype(np.float64) @ weight.T, 3)
    nothing, dweight = tall_skinny.gradients(x, weight, dy, (False, True))
    assert nothing is None
    close(dweight, x.T.astype(np.float64) @ dy, 5)


def test_nothing_beside_the_results_is_written(tall_skinny, monkeypatch):
    arrays = []

    def framed(shape, dtype=np.float32):
        whole = np.full(np.prod(shape) + 200, 7, dtype)
        arrays.append(whole)
        return whole[100:-100].reshape(shape)

    x, weight, bias, dy = operands(7, 50, 10)
    monkeypatch.setattr(tall_skinny.memory, "empty", framed)
    tall_skinny.matmul(x, weight, bias, relu=False)
    tall_skinny.gradients(x, weight, dy, (True, True))
    assert len(arrays) == 5
    for array in arrays:
        np.testing.assert_array_equal(np.concatenate([array[:100], array[-100:]]), 7)


def test_threads_do_not_change_the_bits(tall_skinny):
    x, weight, bias, dy = operands(37, 150, 10)
    results = []
    for threads in range(1, nn.get_num_threads() + 1):
        nn.set_num_threads(threads)
        results.append(
            (tall_skinny.matmul(x, weight, bias, relu=True), *tall_skinny.gradients(x, weight, dy, (True, True)))
        )
    for result in results[1:]:
        for array, first in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(array, first)
