"""Dropout: the statistics of its mask, what determines it, and that backward uses the same one."""

import numpy as np
import pytest

import nnlite as nn
from nnlite import ops
from nnlite.compiler import compilation
from nnlite.compiler.simd import pointer
from nnlite.kernels.dropout import Mask, apply_mask, drop, drop_in_place


def mask(seed, size=200_000, rate=0.25):
    return ops.dropout(nn.Tensor(np.ones(size, np.float32)), rate=rate, seed=seed).data != 0


def lowbias32(bits):
    """The hash, in Python's integers."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = (bits ^ bits >> shift) * factor & 0xFFFFFFFF
    return bits ^ bits >> 16


@pytest.mark.parametrize("seed", [0, 12345, 2**62 + 77])
def test_the_mask_is_two_rounds_of_the_documented_hash(seed):
    low, high = seed & 0xFFFFFFFF, seed >> 32
    bits = np.array([lowbias32((lowbias32(i ^ low) + high) & 0xFFFFFFFF) for i in range(512)])
    # the low halves of 32 hashes decide about 32 elements, their high halves about the next 32
    halves = np.stack([bits.reshape(-1, 32) & 0xFFFF, bits.reshape(-1, 32) >> 16], axis=1).reshape(-1)
    np.testing.assert_array_equal(mask(seed, 1000, rate=0.3), halves[:1000] >= round(0.3 * 2**16))


def test_drops_the_rate_asked_for_and_keeps_the_mean():
    y = ops.dropout(nn.Tensor(np.ones(200_000, np.float32)), rate=0.25, seed=1).data
    assert abs((y == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 200_000)
    assert np.unique(y).tolist() == [0, np.float32(1 / 0.75)]


@pytest.mark.parametrize("lag", [1, 2, 16, 64, 1024])
def test_neighbours_are_independent(lag):
    kept = mask(3) - 0.75
    correlation = (kept[lag:] * kept[:-lag]).mean() / kept.var()
    assert abs(correlation) < 5 / np.sqrt(len(kept))


@pytest.mark.parametrize("other", [4, 3 + 2**32, 3 + 2**20])
def test_seeds_are_independent(other):
    a, b = mask(3) - 0.75, mask(other) - 0.75
    assert abs((a * b).mean() / a.var()) < 5 / np.sqrt(len(a))


def test_the_same_seed_gives_the_same_mask_on_any_number_of_threads():
    masks = []
    for threads in range(1, nn.get_num_threads() + 1):
        nn.set_num_threads(threads)
        masks.append(mask(5))
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
        masks.append(mask(None))
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
@pytest.mark.parametrize("first", [0, 1, 31, 63, 64, 100])
@pytest.mark.parametrize("size", [0, 1, 40, 64, 200])
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


@pytest.mark.parametrize(("size", "position"), [(64, 63), (64, 5), (65, 64)])
def test_a_position_whose_bits_are_the_threshold_survives(size, position):
    """Bits of 0 to 2**16 - 1, of which `threshold` values are below the threshold."""
    seed = 5
    word = lowbias32(lowbias32((position // 64 * 32 + position % 32) ^ seed))
    bits = word >> 16 if position % 64 >= 32 else word & 0xFFFF
    for rate, survives in ((bits / 2**16, True), ((bits + 1) / 2**16, False)):
        assert bool(apply_mask(np.ones(size, np.float32), rate, seed)[position]) is survives
