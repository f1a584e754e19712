"""Winograd's F(4x4, 3x3), against NumPy's windows in float64, and what it fuses against the passes of their own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnlite as nn
from nnlite.compiler import compilation
from nnlite.compiler.blocking import LINE
from nnlite.conv import Epilogue, Geometry
from nnlite.conv.winograd_tiles import gradient_shapes, sizes_of
from nnlite.runtime import threads

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="needs the compiler")
ORACLE = nn.conv.get("strided_view")
pads = st.tuples(st.integers(0, 3), st.integers(0, 3))


@st.composite
def geometries(draw):
    padding = draw(st.tuples(pads, pads))
    size = [draw(st.integers(max(1, 3 - sum(pad)), 14)) for pad in padding]
    c, k = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    return Geometry.of((draw(st.integers(1, 3)), *size, c), (3, 3, c, k), padding=padding)


def operands(geometry, seed=0):
    generator = np.random.default_rng(seed)
    shapes = geometry.input_shape, geometry.weight_shape, geometry.output_shape, geometry.weight_shape[3:]
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


def error(actual, expected):
    """The largest error, relative to the root mean square of what is right."""
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    assert actual.flags.c_contiguous
    return abs(actual - expected).max() / np.sqrt((expected**2).mean())


@settings(max_examples=40, deadline=None)
@given(geometries())
def test_every_pass_is_within_the_declared_bound(geometry):
    x, weight, dy, _ = operands(geometry)
    winograd = nn.conv.get("winograd")
    wide = [array.astype(np.float64) for array in (x, weight, dy)]
    results = {
        "forward": (winograd.forward(x, weight, geometry), ORACLE.forward(wide[0], wide[1], geometry)),
        "grad_input": (winograd.grad_input(dy, weight, geometry), ORACLE.grad_input(wide[2], wide[1], geometry)),
        "grad_weight": (winograd.grad_weight(x, dy, geometry), ORACLE.grad_weight(wide[0], wide[2], geometry)),
    }
    for pass_name, (actual, expected) in results.items():
        if abs(expected).max() > 1e-2:  # otherwise all of it is padding
            assert error(actual, expected) <= winograd.error_bound(geometry, pass_name)


@pytest.mark.parametrize(("c", "k"), [(128, 256), (1024, 144)])
def test_tiles_of_many_channels_lie_an_odd_number_of_cache_lines_apart(c, k):
    """So that a column of V or of M, which dU's sums read, falls on all sets of the first cache."""
    sizes = sizes_of(Geometry.of((1, 10, 10, c), (3, 3, c, k)))
    assert sizes.c_row >= sizes.c_wide
    assert sizes.k_row >= sizes.k_wide
    assert [row * 4 // LINE % 2 for row in (sizes.c_row, sizes.k_row)] == [1, 1]


@pytest.mark.parametrize("columns", [8, 64])
def test_tiles_of_two_shapes_fill_all_rows_of_du(columns):
    for rows in (1, 5, 7, 32, 33, 64, 130):
        taller, lower, tall = gradient_shapes(rows, columns)
        assert taller.rows - lower.rows in (0, 1)
        assert tall % taller.rows == 0
        assert (rows - tall) % lower.rows == 0


def test_both_gradients_at_once_are_those_of_each_pass():
    geometry = Geometry.of((2, 10, 9, 20), (3, 3, 20, 33), padding=1)
    x, weight, dy, _ = operands(geometry)
    winograd = nn.conv.get("winograd")
    dx, dweight = winograd.backward(x, weight, dy, geometry, (True, True))
    np.testing.assert_array_equal(dx, winograd.grad_input(dy, weight, geometry))
    np.testing.assert_array_equal(dweight, winograd.grad_weight(x, dy, geometry))


def pooled(y):
    """2x2 maxima of y (n, oh, ow, k), and the first place of each: (n, oh // 2, ow // 2, k)."""
    n, oh, ow, k = y.shape
    windows = y[:, : oh // 2 * 2, : ow // 2 * 2].reshape(n, oh // 2, 2, ow // 2, 2, k)
    windows = windows.transpose(0, 1, 3, 5, 2, 4).reshape(n, oh // 2, ow // 2, k, 4)
    return windows.max(axis=4), windows.argmax(axis=4)


def unpooled(d, place, shape):
    """The gradient before the pooling: each window's at its place, zero elsewhere."""
    dy = np.zeros(shape, np.float32)
    for index in np.ndindex(*d.shape):
        n, h, w, k = index
        dy[n, 2 * h + place[index] // 2, 2 * w + place[index] % 2, k] = d[index]
    return dy


@pytest.mark.parametrize(
    "epilogue", [Epilogue(True), Epilogue(True, True), Epilogue(True, False, True), Epilogue(True, True, True)]
)
@pytest.mark.parametrize("shape", [(2, 10, 10, 32, 64), (1, 9, 12, 3, 5)])
def test_what_it_fuses_equals_the_passes_of_their_own(shape, epilogue):
    n, h, w, c, k = shape
    geometry = Geometry.of((n, h, w, c), (3, 3, c, k), padding=((1, 0), (1, 1)))
    x, weight, _, bias = operands(geometry)
    winograd = nn.conv.get("winograd")
    ran = winograd.forward_fused(x, weight, bias, geometry, epilogue)
    result = ran.result
    y = winograd.forward(x, weight, geometry) + bias
    expected, place = pooled(y) if epilogue.pool else (y, None)
    np.testing.assert_array_equal(result, np.maximum(expected, 0) if epilogue.relu else expected)

    dresult = np.random.default_rng(1).standard_normal(result.shape).astype(np.float32)
    d = dresult * (result > 0) if epilogue.relu else dresult
    dy = unpooled(d, place, y.shape) if epilogue.pool else d
    dx, dweight, dbias = winograd.backward_fused(ran, dresult, geometry, epilogue, (True, True, True))
    np.testing.assert_array_equal(dx, winograd.grad_input(dy, weight, geometry))
    np.testing.assert_array_equal(dweight, winograd.grad_weight(x, dy, geometry))
    assert error(dbias, dy.astype(np.float64).sum(axis=(0, 1, 2))) < 1e-5


def test_of_equal_numbers_the_first_wins_the_pool():
    geometry, epilogue = Geometry.of((1, 6, 6, 1), (3, 3, 1, 1)), Epilogue(pool=True)
    x, weight = np.ones((1, 6, 6, 1), np.float32), np.zeros((3, 3, 1, 1), np.float32)
    winograd = nn.conv.get("winograd")
    ran = winograd.forward_fused(x, weight, None, geometry, epilogue)
    assert not ran.residuals.any()
    dresult = np.arange(1, 5, dtype=np.float32).reshape(ran.result.shape)
    _, dweight, _ = winograd.backward_fused(ran, dresult, geometry, epilogue, (False, True, False))
    np.testing.assert_allclose(dweight, 10, rtol=1e-5)


@pytest.mark.parametrize(("pixel", "window", "place"), [(0, 0, 0), (5, 1, 3)])
def test_nan_wins_the_pool_and_passes_relu(pixel, window, place):
    geometry = Geometry.of((1, 6, 6, 2), (3, 3, 2, 4))
    x, weight, _, bias = operands(geometry)
    x[0, pixel, pixel] = np.nan  # a corner, which one output alone sees: the first or the last of its window
    _, _, result, argmax = nn.conv.get("winograd").forward_fused(x, weight, bias, geometry, Epilogue(True, True, True))
    reached = np.zeros((1, 2, 2, 4), bool)
    reached[0, window, window] = True
    np.testing.assert_array_equal(np.isnan(result), reached)
    assert (argmax[reached] == place).all()


def test_thread_counts_agree_to_rounding():
    geometry = Geometry.of((3, 11, 9, 7), (3, 3, 7, 20), padding=1)
    x, weight, dy, _ = operands(geometry)
    winograd, results = nn.conv.get("winograd"), []
    for count in range(1, nn.get_num_threads() + 1):
        nn.set_num_threads(count)
        results.append(
            (winograd.forward(x, weight, geometry), *winograd.backward(x, weight, dy, geometry, (True, True)))
        )
    y, dx, dweight = results[0]
    for result in results[1:]:
        np.testing.assert_array_equal(result[0], y)
        np.testing.assert_array_equal(result[1], dx)
        # dU is added up in another order, and its rounding grows in G' dU G as all rounding does
        assert error(result[2], dweight.astype(np.float64)) <= winograd.error_bound(geometry, "grad_weight")


@pytest.mark.parametrize("parts", [2, 3, 5, 9])
@pytest.mark.parametrize("shape", [(1, 18, 11, 9), (3, 7, 21, 20), (2, 5, 4, 8)])
def test_shares_of_fewer_images_than_threads_give_the_same_gradients(monkeypatch, shape, parts):
    geometry = Geometry.of(shape, (3, 3, shape[3], 17), padding=((2, 1), (1, 2)))
    x, weight, dy, bias = operands(geometry)
    winograd, epilogue = nn.conv.get("winograd"), Epilogue(bias=True, relu=True)
    results = []
    for count in (1, parts):
        monkeypatch.setattr(threads, "kernel_parts", lambda count=count: count)
        ran = winograd.forward_fused(x, weight, bias, geometry, epilogue)
        results.append(winograd.backward_fused(ran, dy, geometry, epilogue, (True, True, True)))
    (dx, dweight, dbias), shared = results
    np.testing.assert_array_equal(shared[0], dx)  # each element is the same sum in the same order
    assert error(shared[1], dweight.astype(np.float64)) <= winograd.error_bound(geometry, "grad_weight")
    np.testing.assert_allclose(shared[2], dbias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "options", "reason"),
    [
        (5, {}, "3x3"),
        (3, {"strides": 2}, "stride"),
        (3, {"dilation_rate": 2}, "dilation"),
        (3, {"groups": 2}, "groups"),
    ],
)
def test_it_says_why_it_declines(kernel, options, reason):
    geometry = Geometry.of((1, 9, 9, 4), (kernel, kernel, 4 // options.get("groups", 1), 4), **options)
    assert reason in nn.conv.get("winograd").supports(geometry)
