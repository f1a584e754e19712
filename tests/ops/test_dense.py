"""The dense layer in float32, on register tiles, against NumPy in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnlite as nn
from nnlite import ops
from nnlite.compiler import compilation

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
        ((2, 4), (4, 5), (4,), r"bias: expected float32 of shape \(5,\)"),
        ((2, 4), (4,), None, "x: expected shape"),
    ],
)
def test_shapes_that_do_not_fit(x, weight, bias, message):
    arrays = [np.ones(shape, np.float32) if shape else None for shape in (x, weight, bias)]
    with pytest.raises(ValueError, match=message):
        ops.dense(*arrays)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 3, 5), (33, 70, 100), (128, 40, 512), (7, 12, 64)])
def test_dropout_in_the_product_is_the_operation_after_it_to_the_bit(m, k, n, dtype, generator):
    x, weight, bias = (generator.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (n,)))
    dy = generator.standard_normal((m, n)).astype(dtype)
    results = []
    for together in (True, False):
        operands = [nn.Tensor(a.copy(), requires_grad=True) for a in (x, weight, bias)]
        if together:
            y = ops.dense(*operands, relu=True, dropout=0.3, seed=9)
        else:
            y = ops.dropout(ops.dense(*operands, relu=True), rate=0.3, seed=9)
        y.backward(dy)
        results.append([y.data, *[operand.grad for operand in operands]])
    assert 0 < np.count_nonzero(results[0][0]) < m * n or m * n < 10
    for fused, apart in zip(*results, strict=True):
        np.testing.assert_array_equal(fused, apart)


def test_dropout_without_relu_is_refused():
    x = nn.Tensor(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="dropout: expected relu=True"):
        ops.dense(x, nn.Tensor(np.ones((3, 4), np.float32)), dropout=0.5)


@pytest.mark.skipif(not compilation.ENABLED, reason="for kernels")
def test_a_model_fuses_dense_layers_with_their_dropout():
    nn.seed(3)
    model = nn.models.mlp()
    assert [run.name for run in model.fused(128)] == ["dense+dropout", "dense_1+dropout_1"]
    x, y = np.random.default_rng(0).standard_normal((50, 784), dtype=np.float32), np.arange(50) % 10
    weights = []
    for fuse in (True, False):
        nn.seed(3)
        model = nn.models.mlp()
        model.compile(optimizer="sgd", fuse=fuse)
        model.train_on_batch(x, y)
        model.train_on_batch(x, y)
        weights.append(model.get_weights())
    for fused, apart in zip(*weights, strict=True):
        np.testing.assert_allclose(fused, apart, rtol=0, atol=1e-6)


class _Own(nn.layers.Dense):
    def call(self, x, training):
        return super().call(x, training) * 2


class _OwnProduct(nn.layers.Dense):
    def product(self, x):
        return super().product(x) * 2


class _OwnDropout(nn.layers.Dropout):
    def call(self, x, training):
        return x


@pytest.mark.parametrize(
    ("dense", "dropout"),
    [
        (nn.layers.Dense(40), nn.layers.Dropout(0.5)),
        (nn.layers.Dense(40, activation="tanh"), nn.layers.Dropout(0.5)),
        (nn.layers.Dense(40, activation="relu"), nn.layers.Dropout(0)),
        (nn.layers.Dense(10, activation="relu"), nn.layers.Dropout(0.5)),
        (_Own(40, activation="relu"), nn.layers.Dropout(0.5)),
        (_OwnProduct(40, activation="relu"), nn.layers.Dropout(0.5)),
        (nn.layers.Dense(40, activation="relu"), _OwnDropout(0.5)),
    ],
    ids=["linear", "tanh", "rate 0", "tall_skinny", "own dense", "own product", "own dropout"],
)
def test_what_is_not_fused_with_its_dropout(dense, dropout):
    model = nn.Sequential([nn.layers.Input((30,)), dense, dropout])
    assert model.fused(8) == []
    x = np.random.default_rng(0).standard_normal((8, 30), dtype=np.float32)
    received = model(x, training=True).data
    dropout._calls = 0  # the same mask again
    np.testing.assert_array_equal(received, dropout(dense(x, training=True), training=True).data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, "dropout: expected"),
        ({"dropout": -0.5}, "dropout: expected"),
        ({"dropout": "a"}, "dropout: expected"),
        ({"dropout": 0.5, "seed": -1}, "seed: expected"),
        ({"dropout": 0.5, "seed": 2**64}, "seed: expected"),
    ],
)
def test_a_rate_or_seed_that_is_none(options, message):
    with pytest.raises(ValueError, match=message):
        ops.dense(np.ones((2, 3), np.float32), np.ones((3, 40), np.float32), relu=True, **options)
