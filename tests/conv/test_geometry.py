"""Shapes of convolutions, and what is said about those that do not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnlite as nn
from nnlite.runtime import memory

Geometry = nn.conv.Geometry


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "pads", "out"),
    [
        (28, 3, 1, 1, (1, 1), 28),
        (7, 3, 2, 1, (1, 1), 4),
        (6, 3, 2, 1, (0, 1), 3),
        (5, 2, 1, 2, (1, 1), 5),
        (5, 1, 3, 1, (0, 0), 2),
    ],
)
def test_same_padding_is_tensorflows(size, kernel, stride, dilation, pads, out):
    geometry = Geometry.of(
        (1, size, size, 1), (kernel, kernel, 1, 1), strides=stride, padding="same", dilation_rate=dilation
    )
    assert geometry.pads == (pads, pads)
    assert geometry.output_shape == (1, out, out, 1)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    size=st.integers(1, 12),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    pad=st.integers(0, 3),
    d=st.integers(1, 3),
)
def test_output_size_is_pytorchs(size, kernel, stride, pad, d):
    torch = pytest.importorskip("torch")
    if (kernel - 1) * d + 1 > size + 2 * pad:
        return
    geometry = Geometry.of((1, size, size, 1), (kernel, kernel, 1, 1), strides=stride, padding=pad, dilation_rate=d)
    expected = torch.nn.functional.conv2d(
        torch.zeros(1, 1, size, size), torch.zeros(1, 1, kernel, kernel), stride=stride, padding=pad, dilation=d
    )
    assert geometry.output_shape[1:3] == tuple(expected.shape[2:])


@pytest.mark.parametrize(
    ("x", "weight", "options", "message"),
    [
        ((5, 5, 1), (3, 3, 1, 1), {}, r"x: expected 4 dimensions.*\(5, 5, 1\)"),
        ((1, 5, 5, 1), (3, 3, 1), {}, r"weight: expected 4 dimensions.*\(3, 3, 1\)"),
        ((1, 5, 5, 3), (3, 3, 2, 1), {}, r"weight: expected 3 / 1 input channels.*\(3, 3, 2, 1\)"),
        ((1, 5, 5, 1), (6, 3, 1, 1), {}, "kernel no larger than the padded input. Received: kernel 6x3.*5x5"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"dilation_rate": 3}, "kernel 7x7"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"strides": 0}, "strides: expected an integer of at least 1. Received: 0"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"strides": (1, 2, 3)}, "strides: expected an integer or two"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"padding": "full"}, "padding: expected.*'full'"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"padding": -1}, "padding: expected"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"padding": [[1], 2]}, "padding"),
        ((1, 5, 5, 4), (3, 3, 2, 3), {"groups": 2}, "groups: expected a divisor of the 3 output channels"),
        ((1, 5, 5, 1), (3, 3, 1, 0), {}, "weight: expected no empty dimension"),
        ((1, 0, 5, 1), (3, 3, 1, 1), {"padding": 2}, "x's shape: expected an integer of at least 1. Received: 0"),
    ],
)
def test_errors_name_the_argument(x, weight, options, message):
    with pytest.raises(ValueError, match=message):
        Geometry.of(x, weight, **options)


def test_is_hashable_and_knows_each_result():
    geometry = Geometry.of((2, 5, 5, 1), (3, 3, 1, 4))
    assert {geometry: 1}[Geometry((2, 5, 5, 1), (3, 3, 1, 4))] == 1
    assert [geometry.result_shape(p) for p in nn.conv.PASSES] == [(2, 3, 3, 4), (2, 5, 5, 1), (3, 3, 1, 4)]


@pytest.mark.parametrize("algorithm", ["auto", "im2col", "numba"])
@pytest.mark.parametrize("size", [10**9, 10**12, 10**30])
@pytest.mark.parametrize("argument", ["padding", "strides", "dilation_rate"])
def test_a_number_that_no_kernel_takes_is_refused_by_the_name_of_its_argument(argument, size, algorithm):
    x, weight = np.ones((1, 5, 5, 1), np.float32), np.ones((1, 1, 1, 1), np.float32)
    if argument != "padding" and size < 2**63:  # then only the first pixel counts
        assert nn.ops.conv2d(x, weight, algorithm=algorithm, **{argument: size}).shape[0] == 1
        return
    with pytest.raises(ValueError, match=f"^{argument[:3]}.*: expected"):
        nn.ops.conv2d(x, weight, algorithm=algorithm, **{argument: size})


@pytest.mark.parametrize(
    "options", [{"strides": 10**30}, {"pool_size": 10**30}, {"pool_size": 10**12, "strides": 1, "padding": 10**12 - 1}]
)
def test_a_number_that_no_kernel_of_pooling_takes_is_refused_by_the_name_of_its_argument(options):
    with pytest.raises(ValueError, match=r"^(strides|pool_size|padding): expected"):
        nn.ops.max_pool2d(np.ones((1, 5, 5, 1), np.float32), **options)


def test_memory_that_the_system_refuses_is_a_memory_error():
    for count in (2**60, 2**70):  # as mmap refuses it, and as it cannot even be asked
        with pytest.raises(MemoryError, match="expected .* bytes of memory"):
            memory.empty((count,))
