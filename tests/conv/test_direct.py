"""Direct convolution on register tiles, against NumPy's windows in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnlite as nn
from nnlite import jit
from nnlite.conv import Epilogue, Geometry

pytestmark = pytest.mark.skipif(not jit.ENABLED, reason="needs the compiler")
ORACLE = nn.conv.get("windows")
pads = st.tuples(st.integers(0, 3), st.integers(0, 3))


@st.composite
def geometries(draw):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel, dilation = (draw(st.tuples(st.integers(1, 4), st.integers(1, 3))) for _ in range(2))
    padding = draw(st.tuples(pads, pads))
    size = [
        draw(st.integers(max(1, (k - 1) * d + 1 - sum(pad)), 14))
        for k, d, pad in zip(kernel, dilation, padding, strict=True)
    ]
    c, k = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return Geometry.of(
        (draw(st.integers(1, 3)), *size, c * groups),
        (*kernel, c, k * groups),
        strides=strides,
        padding=padding,
        dilation_rate=dilation,
        groups=groups,
    )


def operands(geometry, seed=0):
    generator = np.random.default_rng(seed)
    shapes = geometry.input_shape, geometry.weight_shape, geometry.output_shape, geometry.weight_shape[3:]
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


def close(actual, expected, bound):
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    assert actual.flags.c_contiguous
    if expected.size:
        assert abs(actual - expected).max() <= bound * max(np.sqrt((expected**2).mean()), 1e-3)


@settings(max_examples=40, deadline=None)
@given(geometries())
def test_every_pass_of_any_geometry_is_the_definitions(geometry):
    x, weight, dy, _ = operands(geometry)
    direct = nn.conv.get("direct")
    wide = [array.astype(np.float64) for array in (x, weight, dy)]
    close(direct.forward(x, weight, geometry), ORACLE.forward(wide[0], wide[1], geometry), 2e-5)
    close(direct.grad_input(dy, weight, geometry), ORACLE.grad_input(wide[2], wide[1], geometry), 2e-5)
    close(direct.grad_weight(x, dy, geometry), ORACLE.grad_weight(wide[0], wide[2], geometry), 2e-5)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(2, 9, 8, 1, 32), (1, 7, 7, 5, 19), (3, 6, 6, 20, 64)])
def test_fused_bias_and_relu_equal_the_passes_of_their_own(shape, relu):
    n, h, w, c, k = shape
    geometry, epilogue = Geometry.of((n, h, w, c), (3, 3, c, k), padding=1), Epilogue(bias=True, relu=relu)
    x, weight, dy, bias = operands(geometry)
    direct = nn.conv.get("direct")
    result, saved = direct.forward_fused(x, weight, bias, geometry, epilogue)
    y = direct.forward(x, weight, geometry) + bias
    close(result, np.maximum(y, 0) if relu else y, 2e-6)
    masked = dy * (result > 0) if relu else dy
    dx, dweight, dbias = direct.backward_fused(x, weight, result, saved, dy, geometry, epilogue, (True, True, True))
    close(dx, direct.grad_input(masked, weight, geometry), 1e-6)
    close(dweight, direct.grad_weight(x, masked, geometry), 1e-6)
    close(dbias, masked.astype(np.float64).sum(axis=(0, 1, 2)), 1e-5)


def test_a_reduction_in_several_blocks_keeps_bias_and_relu():
    geometry = Geometry.of((1, 4, 5, 300), (3, 3, 300, 20), padding=1)
    x, weight, _, bias = operands(geometry)
    expected = ORACLE.forward(x.astype(np.float64), weight.astype(np.float64), geometry) + bias
    result, _ = nn.conv.get("direct").forward_fused(x, weight, bias, geometry, Epilogue(bias=True, relu=True))
    close(result, np.maximum(expected, 0), 2e-5)


def test_thread_counts_agree_to_rounding():
    geometry = Geometry.of((3, 11, 9, 7), (3, 3, 7, 20), padding=1, strides=2)
    x, weight, dy, _ = operands(geometry)
    direct, results = nn.conv.get("direct"), []
    for threads in range(1, nn.get_num_threads() + 1):
        nn.set_num_threads(threads)
        results.append(
            (
                direct.forward(x, weight, geometry),
                direct.grad_input(dy, weight, geometry),
                direct.grad_weight(x, dy, geometry),
            )
        )
    for result in results[1:]:
        for actual, expected in zip(result, results[0], strict=True):
            close(actual, expected.astype(np.float64), 2e-6)


def test_it_declines_float64():
    assert "float64" in nn.conv.get("direct").declines(Geometry.of((1, 5, 5, 1), (3, 3, 1, 1)), np.float64)


def test_it_saves_the_multiplications_with_padding():
    direct = nn.conv.get("direct")
    assert not direct.saves_multiplications(Geometry.of((1, 5, 5, 1), (3, 3, 1, 1)))
    assert not direct.saves_multiplications(Geometry.of((1, 5, 5, 1), (3, 3, 1, 1), strides=2))
    assert direct.saves_multiplications(Geometry.of((1, 5, 5, 1), (3, 3, 1, 1), padding="same"))
