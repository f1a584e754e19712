"""The static rule by which `auto` chooses: at its edges, and the reasons it gives."""

import numpy as np
import pytest

import nnlite as nn
from nnlite.compiler import compilation
from nnlite.conv import Geometry

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="without a compiler, im2col it is")


def chosen(n, size, c, k, kernel=3, **options):
    """For `n` images whose result is size x size."""
    side = size + kernel - 1
    geometry = Geometry.of((n, side, side, c), (kernel, kernel, c // options.get("groups", 1), k), **options)
    return nn.conv.why(geometry, np.float32).name


@pytest.mark.parametrize(
    ("n", "size", "expected"),
    [
        (4, 16, "winograd"),  # 64 tiles of 4x4 outputs
        (63, 4, "direct"),
        (64, 4, "winograd"),
        (16, 7, "winograd"),  # a tile that overhangs counts
        (15, 7, "direct"),
    ],
)
def test_winograd_from_64_tiles_on(n, size, expected):
    assert chosen(n, size, 16, 16) == expected


@pytest.mark.parametrize(("size", "expected"), [(5, "direct"), (6, "winograd"), (9, "winograd")])
def test_winograd_where_tiles_overhang_little(size, expected):
    assert chosen(128, size, 64, 64) == expected


@pytest.mark.parametrize(("size", "expected"), [(6, "direct"), (7, "winograd"), (9, "direct"), (10, "winograd")])
def test_products_with_padding_are_none_that_winograd_saves(size, expected):
    geometry = Geometry.of((128, size, size, 64), (3, 3, 64, 64), padding="same")
    assert nn.conv.why(geometry, np.float32).name == expected


@pytest.mark.parametrize(("tiles", "expected"), [(127, "direct"), (128, "winograd")])
def test_winograd_from_more_tiles_on_where_there_are_more_weights(tiles, expected):
    assert chosen(tiles, 4, 512, 512) == expected


@pytest.mark.parametrize(("c", "k"), [(15, 64), (64, 15)])
def test_winograd_not_for_fewer_than_16_channels(c, k):
    assert chosen(128, 16, c, k) == "direct"


@pytest.mark.parametrize(
    ("c", "k", "expected"),
    [
        (1, 8, "lanes"),
        (64, 8, "lanes"),
        (13, 9, "direct"),
        (12, 12, "lanes"),
        (12, 13, "direct"),
        (1, 32, "direct"),  # the first layer of the question's CNN
    ],
)
def test_lanes_for_few_channels(c, k, expected):
    assert chosen(128, 14, c, k) == expected


@pytest.mark.parametrize(("groups", "expected"), [(32, "grouped"), (4, "grouped"), (2, "direct"), (1, "winograd")])
def test_grouped_for_few_channels_of_a_group(groups, expected):
    assert chosen(128, 14, 32, 32, groups=groups) == expected


@pytest.mark.parametrize(("c", "k", "expected"), [(16, 128, "grouped"), (16, 144, "direct"), (4, 4, "lanes")])
def test_grouped_for_small_multipliers_and_enough_channels_to_fill_a_vector(c, k, expected):
    assert chosen(128, 14, c, k, groups=c) == expected


def test_grouped_for_any_stride_and_few_images():
    assert chosen(1, 14, 32, 32, groups=32) == chosen(1, 14, 32, 32, groups=32, strides=2) == "grouped"


@pytest.mark.parametrize(("groups", "expected"), [(3, "lanes"), (1, "lanes")])
def test_lanes_for_few_channels_of_a_group(groups, expected):
    assert chosen(128, 14, 6, 6, groups=groups) == expected


@pytest.mark.parametrize(("n", "size", "expected"), [(31, 14, "direct"), (32, 14, "lanes"), (32, 63, "direct")])
def test_lanes_for_enough_small_images(n, size, expected):
    assert chosen(n, size, 8, 8) == expected


def test_what_the_first_choice_declines_goes_to_the_next():
    assert chosen(128, 14, 4, 4, strides=2) == "direct"  # lanes are for stride 1
    assert chosen(128, 14, 32, 32, kernel=5) == "direct"  # winograd is for 3x3


def test_float64_goes_to_what_computes_in_it():
    assert nn.conv.why(Geometry.of((128, 16, 16, 4), (3, 3, 4, 4)), np.float64).name == "numba_blocked"


def test_the_reason_is_that_of_the_rule_that_applied():
    reason = nn.conv.why(Geometry.of((4, 18, 18, 16), (3, 3, 16, 16)), np.float32).reason
    assert "64 tiles" in reason
    assert "vectorised over images" in nn.conv.why(Geometry.of((32, 16, 16, 1), (3, 3, 1, 4)), np.float32).reason
