"""Dropout: the statistics of its mask, what determines it, and that backward uses the same one."""

from functools import cache

import numpy as np
import pytest

import nnlite as nn
from nnlite import ops
from nnlite.compiler import compilation
from nnlite.compiler.simd import pointer
from nnlite.kernels.dropout import Mask, apply_mask, drop, drop_in_place


@cache
def mask(seed, size=200_000, rate=0.25):
    return ops.dropout(nn.Tensor(np.ones(size, np.float32)), rate=rate, seed=seed).data != 0


def lowbias32(bits):
    """The hash, in Python's integers."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = (bits ^ bits >> shift) * factor & 0xFFFFFFFF
    return bits ^ bits >> 16


#: seed -> the first number of SplitMix64, by others (Java's SplittableRandom; rosettacode.org)
KEYS = {0: 0xE220A8397B1DCDAF, 1234567: 6457827717110365317}


def words(key, count):
    """The hashes of the first counters: two rounds, with half of the key mixed in before each."""
    low, high = key & 0xFFFFFFFF, key >> 32
    return np.array([lowbias32((lowbias32(i ^ low) + high) & 0xFFFFFFFF) for i in range(count)])


@pytest.mark.parametrize("seed", KEYS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_mask_is_two_rounds_of_the_documented_hash(seed, dtype):
    bits = words(KEYS[seed], 501)
    # its halves decide about two neighbours; as signed numbers, those below the threshold are dropped
    halves = np.stack([bits & 0xFFFF, bits >> 16], axis=1).reshape(-1).astype(np.uint16).view(np.int16)
    kept = apply_mask(np.ones(1001, dtype), 0.3, seed) != 0
    np.testing.assert_array_equal(kept, halves[:1001] >= round(0.3 * 2**16) - 2**15)


def test_drops_the_rate_asked_for_and_keeps_the_mean():
    y = ops.dropout(nn.Tensor(np.ones(200_000, np.float32)), rate=0.25, seed=1).data
    assert abs((y == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 200_000)
    assert np.unique(y).tolist() == [0, np.float32(1 / 0.75)]


@pytest.mark.parametrize("lag", [1, 2, 3, 16, 64, 512, 1024])
@pytest.mark.parametrize("seed", [0, 3, 2**40 + 1])
def test_neighbours_are_independent(lag, seed):
    kept = mask(seed) - 0.75
    correlation = (kept[lag:] * kept[:-lag]).mean() / kept.var()
    assert abs(correlation) < 5 / np.sqrt(len(kept))


@pytest.mark.parametrize("other", [4, 3 + 2**32, 3 + 2**20])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_seeds_are_independent(other, shift):
    a, b = mask(3) - 0.75, np.roll(mask(other) - 0.75, shift)
    assert abs((a * b).mean() / a.var()) < 5 / np.sqrt(len(a))


def test_runs_of_neighbours_are_as_frequent_as_of_a_fair_coin():
    """All 256 patterns of 8 neighbours at rate 1/2, by a chi-squared test of 255 degrees of freedom."""
    patterns = np.packbits(mask(8, rate=0.5))
    found, expected = np.bincount(patterns, minlength=256), len(patterns) / 256
    chi_squared = ((found - expected) ** 2 / expected).sum()
    assert abs(chi_squared - 255) < 5 * np.sqrt(2 * 255)


def test_the_same_seed_gives_the_same_mask_on_any_number_of_threads():
    masks = []
    for threads in range(1, nn.get_num_threads() + 1):
        nn.set_num_threads(threads)
        masks.append(apply_mask(np.ones(40_001, np.float32), 0.25, 5))
    assert all((m == masks[0]).all() for m in masks)


def test_backward_uses_the_mask_of_forward(generator):
    x = nn.Tensor(generator.standard_normal((50, 60)).astype(np.float32), requires_grad=True)
    y = ops.dropout(x, rate=0.5)
    dy = generator.standard_normal(y.shape).astype(np.float32)
    y.backward(dy)
    np.testing.assert_allclose(x.grad, np.where(y.data != 0, 2 * dy, 0))


def test_rate_0_is_the_identity(generator):
    x = generator.standard_normal(5)
    assert (ops.dropout(nn.Tensor(x), rate=0.0).data == x).all()


def test_nn_seed_determines_drawn_masks():
    masks = []
    for _ in range(2):
        nn.seed(9)
        masks.append(ops.dropout(nn.Tensor(np.ones(1000, np.float32)), rate=0.25).data)
    assert (masks[0] == masks[1]).all()


@pytest.mark.parametrize("rate", [-0.1, 1.0, "half", True])
def test_a_rate_outside_of_0_to_1(rate):
    with pytest.raises(ValueError, match="rate: expected a number in"):
        ops.dropout(nn.Tensor(np.ones(3)), rate=rate)


@pytest.mark.parametrize("seed", [1.5, -1, "one", 2**64])
def test_a_seed_that_is_no_integer_of_64_bits(seed):
    with pytest.raises(ValueError, match="seed: expected an integer"):
        ops.dropout(nn.Tensor(np.ones(3)), rate=0.5, seed=seed)
    with pytest.raises(ValueError, match="seed: expected an integer"):
        nn.Dropout(0.5, seed=seed)


def test_the_layer_acts_in_training_alone_and_anew_each_call():
    layer = nn.Dropout(0.5)
    x = np.ones((4, 100), np.float32)
    assert (layer(x).data == x).all()
    first, second = layer(x, training=True).data, layer(x, training=True).data
    assert (first == 0).any()
    assert (first != second).any()


@pytest.mark.skipif(not compilation.ENABLED, reason="for use in kernels")
@pytest.mark.parametrize("first", [0, 1, 31, 32, 63, 64, 100])
@pytest.mark.parametrize("size", [0, 1, 2, 40, 64, 65, 200])
def test_a_piece_of_an_array_gets_its_piece_of_the_mask(first, size, generator):
    x = generator.standard_normal(400).astype(np.float32)
    expected = apply_mask(x, 0.4, 11)[first : first + size]
    copied, in_place = np.zeros(size + 1, np.float32), x.copy()
    _drop_both_ways(x, copied, in_place, first, size, Mask.of(0.4, 11))
    np.testing.assert_array_equal(copied[:size], expected)
    np.testing.assert_array_equal(in_place[first : first + size], expected)
    in_place[first : first + size] = x[first : first + size]
    np.testing.assert_array_equal(in_place, x)
    assert copied[size] == 0


@compilation.jit
def _drop_both_ways(x, copied, in_place, first, size, mask):
    drop(pointer(x, first), pointer(copied, 0), first, size, mask)
    drop_in_place(pointer(in_place, first), first, size, mask)


@pytest.mark.parametrize(("size", "position"), [(64, 62), (64, 5), (65, 64)])
def test_a_position_whose_bits_are_the_threshold_survives(size, position):
    """Bits of -2**15 to 2**15 - 1, of which `rate * 2**16` values are below the threshold."""
    word = int(words(KEYS[0], position // 2 + 1)[-1])
    bits = (word >> 16 * (position % 2) & 0xFFFF) ^ 2**15  # how many values are below
    for rate, survives in ((bits / 2**16, True), ((bits + 1) / 2**16, False)):
        assert bool(apply_mask(np.ones(size, np.float32), rate, 0)[position]) is survives


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_rate_next_to_1_drops_all(dtype):
    assert (apply_mask(np.ones(1001, dtype), 1 - 2**-20, 1) == 0).all()
