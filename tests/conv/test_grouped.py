"""Channels of several groups in a vector: every kind of grouping, against im2col in float64."""

import numpy as np
import pytest

import nnlite as nn
from nnlite.compiler import compilation
from nnlite.compiler.target import LANES
from nnlite.conv import PASSES, Epilogue, Geometry, grouped_plan

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="the kernels are compiled ones")

GROUPED, EXACT = nn.conv.get("grouped"), nn.conv.get("im2col")
#: input channels of a group, output channels of a group, groups
GROUPINGS = [(1, 1, 40), (1, 1, 19), (1, 2, 20), (2, 1, 20), (4, 4, 10), (3, 5, 7), (8, 8, 3), (1, 16, 4), (12, 12, 2)]
OPTIONS = [
    {"padding": "same"},
    {"padding": 1, "strides": 2},
    {"padding": ((2, 0), (3, 1)), "strides": (3, 2), "dilation_rate": (1, 2)},
]


def problem(grouping, options, n=2, size=(9, 19), kernel=(3, 3)):
    group_in, group_out, groups = grouping
    geometry = Geometry.of(
        (n, *size, group_in * groups), (*kernel, group_in, group_out * groups), groups=groups, **options
    )
    generator = np.random.default_rng(0)
    shapes = geometry.input_shape, geometry.weight_shape, geometry.output_shape
    return geometry, [generator.standard_normal(shape, np.float32) for shape in shapes]


def passes(algorithm, x, weight, dy, geometry):
    return (
        algorithm.forward(x, weight, geometry),
        algorithm.grad_input(dy, weight, geometry),
        algorithm.grad_weight(x, dy, geometry),
    )


def check(geometry, operands):
    expected = passes(EXACT, *(array.astype(np.float64) for array in operands), geometry)
    for name, result, right in zip(PASSES, passes(GROUPED, *operands, geometry), expected, strict=True):
        allowed = GROUPED.error_bound(geometry, name) * np.sqrt(np.mean(right**2))
        np.testing.assert_allclose(result, right, rtol=0, atol=allowed, err_msg=name)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("grouping", GROUPINGS, ids=str)
def test_all_passes_are_right(grouping, options):
    check(*problem(grouping, options))


@pytest.mark.parametrize("kernel", [(1, 1), (1, 7), (5, 2), (4, 4)], ids=str)
def test_any_kernel_size(kernel):
    check(*problem((1, 1, 24), {"padding": 2}, kernel=kernel))


def test_channels_in_several_chunks(monkeypatch):
    """As where the lines of all channels do not fit into the second-level cache."""
    monkeypatch.setattr(grouped_plan, "cache_sizes", lambda: {"L2": 1})
    geometry, operands = problem((1, 1, 43), {"padding": "same"})
    for plan in (grouped_plan.forward, grouped_plan.grad_input):
        plan.cache_clear()
    try:
        assert grouped_plan.forward(geometry, 1).nest.chunk == 2
        check(geometry, operands)
    finally:
        for plan in (grouped_plan.forward, grouped_plan.grad_input):
            plan.cache_clear()


@pytest.mark.parametrize("strides", [1, 2])
def test_two_threads_share_one_image(two_threads, strides):
    geometry, operands = problem((4, 4, 10), {"padding": 1, "strides": strides}, n=1)
    assert grouped_plan.forward(geometry, 2).nest.bands == 2
    check(geometry, operands)


def test_results_do_not_depend_on_the_number_of_threads(two_threads):
    geometry, (x, weight, dy) = problem((4, 4, 10), {"padding": 1}, n=3)
    y, dx = GROUPED.forward(x, weight, geometry), GROUPED.grad_input(dy, weight, geometry)
    nn.set_num_threads(1)
    np.testing.assert_array_equal(GROUPED.forward(x, weight, geometry), y)
    np.testing.assert_array_equal(GROUPED.grad_input(dy, weight, geometry), dx)


@pytest.mark.parametrize("grouping", [(1, 1, 40), (1, 1, 19), (4, 4, 10), (2, 1, 20)], ids=str)
def test_bias_and_relu_are_those_of_separate_steps(grouping):
    geometry, (x, weight, dresult) = problem(grouping, {"padding": "same"})
    bias = np.linspace(-1, 1, geometry.weight_shape[3], dtype=np.float32)
    epilogue = Epilogue(bias=True, relu=True)
    ran = GROUPED.forward_fused(x, weight, bias, geometry, epilogue)
    y = EXACT.forward(x.astype(np.float64), weight.astype(np.float64), geometry) + bias
    np.testing.assert_allclose(ran.result, np.maximum(y, 0), atol=1e-5)
    dx, dweight, dbias = GROUPED.backward_fused(ran, dresult, geometry, epilogue, (True, True, True))
    dy = np.where(ran.result > 0, dresult, 0).astype(np.float64)
    np.testing.assert_allclose(dx, EXACT.grad_input(dy, weight.astype(np.float64), geometry), atol=1e-5)
    np.testing.assert_allclose(dweight, EXACT.grad_weight(x.astype(np.float64), dy, geometry), atol=1e-3)
    np.testing.assert_allclose(dbias, dy.sum((0, 1, 2)), atol=1e-3)


def test_the_line_itself_is_the_only_copy_for_depthwise():
    nest = grouped_plan.forward(Geometry.of((1, 8, 8, 2 * LANES), (3, 3, 1, 2 * LANES), groups=2 * LANES), 1).nest
    assert (nest.terms, nest.is_plain) == (1, True)
