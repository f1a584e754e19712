"""float32 products on register tiles against NumPy in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnlite as nn
from nnlite.compiler import compilation
from nnlite.kernels.dropout import Mask, apply_mask
from nnlite.runtime import threads

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="needs the compiler")
sizes = st.tuples(st.integers(1, 70), st.integers(1, 140), st.integers(1, 90))


@pytest.fixture(scope="module")
def products():
    from nnlite.kernels import matmul

    return matmul


def operands(m, n, k, seed=0):
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n), (n,)))


def close(actual, expected, k):
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    assert actual.flags.c_contiguous
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * np.sqrt(k) * 8)


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_the_three_products_are_numpys(products, size):
    m, n, k = size
    a, b, bias = operands(m, n, k)
    expected = a.astype(np.float64) @ b
    close(products.matmul(a, b), expected, k)
    close(products.matmul(a, b, bias, relu=True), np.maximum(expected + bias, 0), k)
    close(products.matmul_nt(a, np.ascontiguousarray(b.T)), expected, k)
    close(products.matmul_tn(np.ascontiguousarray(a.T), b), expected, k)


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize(("n", "k"), [(40, 17), (33, 9), (64, 8), (7, 1), (513, 70)])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_the_products_of_a_small_batch_are_numpys(products, rows, n, k, num_threads):
    x, weight, bias = operands(rows, n, k)
    dy = np.random.default_rng(1).standard_normal((rows, n)).astype(np.float32)
    exact = x.astype(np.float64), weight.astype(np.float64), dy.astype(np.float64)
    with threads.using(min(num_threads, nn.get_num_threads())):
        close(products.matmul(x, weight), exact[0] @ exact[1], k)
        close(products.matmul(x, weight, bias, relu=True), np.maximum(exact[0] @ exact[1] + bias, 0), k)
        close(products.matmul_nt(dy, weight), exact[2] @ exact[1].T, n)
        close(products.matmul_tn(x, dy), exact[0].T @ exact[2], rows)


def test_a_small_batch_is_dropped_by_the_mask_of_its_indices(products):
    x, weight, bias = operands(3, 45, 20)
    mask = Mask.of(0.4, 7)
    whole = products.matmul(x, weight, bias, relu=True)
    np.testing.assert_array_equal(products.matmul(x, weight, bias, True, mask), apply_mask(whole, 0.4, 7))


def test_a_small_batch_reads_nothing_beyond_its_arrays(products):
    """NaN lies behind each operand, as it would in a larger array."""
    inside = {}
    for name, shape in (("x", (2, 19)), ("weight", (19, 21)), ("dy", (2, 21))):
        memory = np.full(np.prod(shape) + 64, np.nan, np.float32)
        inside[name] = memory[: np.prod(shape)].reshape(shape)
        inside[name][...] = 1
    assert (products.matmul(inside["x"], inside["weight"]) == 19).all()
    assert (products.matmul_nt(inside["dy"], inside["weight"]) == 21).all()
    assert (products.matmul_tn(inside["x"], inside["dy"]) == 2).all()


@pytest.fixture
def small_blocks(products, monkeypatch):
    """Little of the operands is packed at a time, whatever this processor's caches."""
    monkeypatch.setattr(products, "PANEL_BYTES", 4 << 10)
    monkeypatch.setattr(products, "BLOCK_BYTES", 4 << 10)
    products._plan.cache_clear()
    yield
    products._plan.cache_clear()


def test_long_reductions_and_many_rows_are_summed_in_blocks(products, small_blocks):
    a, b, bias = operands(61, 70, 300)
    expected, a_transposed = a.astype(np.float64) @ b, np.ascontiguousarray(a.T)
    sizes = products._plan(61, 70, 300, is_a_transposed=True).sizes
    assert sizes.kc < 300
    assert sizes.block * products._shape(70).rows < 61
    close(products.matmul(a, b, bias, relu=True), np.maximum(expected + bias, 0), 300)
    close(products.matmul_nt(a, np.ascontiguousarray(b.T)), expected, 300)
    close(products.matmul_tn(a_transposed, b), expected, 300)


def test_shares_of_one_panel_or_less_pack_rows_of_their_own(products, small_blocks):
    """The columns are one panel or two, of which three threads have parts."""
    a, b, _ = operands(61, 16, 40)
    plan = products._plan(61, 16, 40, is_a_transposed=True)
    c, work = np.full((61, 16), np.nan, np.float32), np.zeros((3, plan.packed_size), np.float32)
    transposed = np.ascontiguousarray(a.T)
    products._gemm.run(3, plan.shape, plan.sizes, transposed, b, plan.no_bias, c, False, products._NO_MASK, work)
    close(c, a.astype(np.float64) @ b, 40)


def test_relu_lets_nan_through(products):
    a, b, _ = operands(3, 5, 4)
    a[1, 2] = np.nan
    c = products.matmul(a, b, relu=True)
    assert np.isnan(c[1]).all()
    assert (c[[0, 2]] >= 0).all()


@pytest.mark.parametrize("size", [(0, 5, 4), (5, 0, 4), (5, 4, 0)])
def test_empty_operands(products, size):
    m, n, k = size
    a, b, bias = operands(m, n, k)
    np.testing.assert_array_equal(products.matmul(a, b, bias), a @ b + bias)


def test_threads_do_not_change_the_bits(products):
    a, b, _ = operands(37, 150, 50)
    results = []
    for num_threads in range(1, nn.get_num_threads() + 1):
        nn.set_num_threads(num_threads)
        results.append((products.matmul(a, b), products.matmul_tn(a, a)))
    for result in results[1:]:
        np.testing.assert_array_equal(result[0], results[0][0])
        np.testing.assert_array_equal(result[1], results[0][1])
