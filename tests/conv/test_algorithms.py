"""Every algorithm, every pass: within its declared error bound of the naive one in float64."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnlite as nn
from nnlite.conv import PASSES, Geometry

NAIVE = nn.conv.get("naive")
OTHERS = [name for name in nn.conv.names() if name != "naive"]
DTYPES = [np.float32, np.float64]

CORNERS = [
    Geometry.of((1, 1, 1, 1), (1, 1, 1, 1)),
    Geometry.of((2, 1, 1, 3), (3, 3, 3, 2), padding="same"),
    Geometry.of((1, 2, 2, 1), (4, 4, 1, 2), padding=1),  # a kernel larger than the input, as large as with its padding
    Geometry.of((1, 2, 2, 1), (1, 1, 1, 2), strides=3, padding=4),  # outputs that see padding alone
    Geometry.of((2, 7, 5, 4), (3, 2, 2, 6), strides=(2, 3), padding="same", dilation_rate=2, groups=2),
    Geometry.of((1, 6, 6, 4), (2, 2, 1, 8), groups=4),
    Geometry.of((1, 6, 7, 2), (3, 3, 2, 3), padding=((0, 2), (1, 0))),
    Geometry.of((0, 5, 5, 2), (3, 3, 2, 3)),
    Geometry.of((2, 10, 9, 5), (3, 3, 5, 33)),
    Geometry.of((1, 9, 10, 17), (3, 3, 17, 7), padding=1),
    Geometry.of((1, 7, 11, 18), (2, 3, 9, 22), strides=(2, 1), padding="same", groups=2),
]


@st.composite
def geometries(draw):
    """Small problems of every kind that fit."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pad = st.tuples(st.integers(0, 3), st.integers(0, 3))
    padding = draw(st.one_of(st.sampled_from(["valid", "same"]), st.integers(0, 3), st.tuples(pad, pad)))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    total = {"valid": (0, 0), "same": spans}.get(padding) if isinstance(padding, str) else None
    if total is None:
        total = (2 * padding,) * 2 if isinstance(padding, int) else (sum(padding[0]), sum(padding[1]))
    size = [draw(st.integers(max(1, span - room), span + 4)) for span, room in zip(spans, total, strict=True)]
    c, k = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return Geometry.of(
        (draw(st.integers(1, 2)), *size, c * groups),
        (*kernel, c, k * groups),
        strides=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        padding=padding,
        dilation_rate=dilation,
        groups=groups,
    )


@lru_cache(maxsize=512)
def problem(geometry):
    """Read-only operands in float64, and what the naive algorithm makes of them."""
    generator = np.random.default_rng(hash(geometry) % 2**32)
    shapes = (geometry.input_shape, geometry.weight_shape, geometry.output_shape)
    x, weight, dy = (generator.standard_normal(shape) for shape in shapes)
    for array in (x, weight, dy):
        array.flags.writeable = False
    return (x, weight, dy), run(NAIVE, (x, weight, dy), geometry)


def run(algorithm, operands, geometry):
    x, weight, dy = operands
    return {
        "forward": algorithm.forward(x, weight, geometry),
        "grad_input": algorithm.grad_input(dy, weight, geometry),
        "grad_weight": algorithm.grad_weight(x, dy, geometry),
    }


def cast(operands, dtype):
    """Copies in `dtype`; writeable, because kernels are compiled anew for arrays that are not."""
    return [array.astype(dtype) for array in operands]


def check(name, geometry, dtype):
    algorithm = nn.conv.get(name)
    if algorithm.declines(geometry, dtype):
        return
    operands, expected = problem(geometry)
    operands = cast(operands, dtype)
    results = run(algorithm, operands, geometry)
    for pass_name in PASSES:
        result = results[pass_name]
        assert result.shape == geometry.result_shape(pass_name)
        assert result.dtype == dtype
        assert result.flags.c_contiguous
        assert not any(np.shares_memory(result, operand) for operand in operands)
        if result.size:
            rms = np.sqrt(np.mean(expected[pass_name] ** 2)) or 1.0
            error = np.abs(result - expected[pass_name]).max() / rms
            assert error <= algorithm.error_bound(geometry, pass_name, dtype), (pass_name, geometry)
    dx, dweight = algorithm.backward(*operands, geometry, (True, True))
    for both, alone in ((dx, results["grad_input"]), (dweight, results["grad_weight"])):
        np.testing.assert_allclose(both, alone, rtol=1e-4, atol=1e-4)
    assert algorithm.backward(*operands, geometry, (False, False)) == (None, None)
    for operand, before in zip(operands, cast(problem(geometry)[0], dtype), strict=True):
        np.testing.assert_array_equal(operand, before)  # nothing was written to


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("geometry", CORNERS, ids=str)
@pytest.mark.parametrize("name", OTHERS)
def test_corners(name, geometry, dtype):
    check(name, geometry, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OTHERS)
@settings(deadline=None, derandomize=True, max_examples=40)
@given(geometry=geometries())
def test_random_geometries(name, geometry, dtype):
    check(name, geometry, dtype)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(geometry=geometries())
def test_naive_agrees_with_pytorch(geometry):
    torch = pytest.importorskip("torch")
    (x, weight, dy), ours = problem(geometry)
    (top, bottom), (left, right) = geometry.pads
    tx = torch.tensor(x.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    tw = torch.tensor(weight.transpose(3, 2, 0, 1).copy(), requires_grad=True)
    ty = torch.nn.functional.conv2d(
        torch.nn.functional.pad(tx, (left, right, top, bottom)),
        tw,
        stride=geometry.strides,
        dilation=geometry.dilation_rate,
        groups=geometry.groups,
    )
    ty.backward(torch.tensor(dy.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(ours["forward"], ty.detach().numpy().transpose(0, 2, 3, 1), atol=1e-12)
    np.testing.assert_allclose(ours["grad_input"], tx.grad.numpy().transpose(0, 2, 3, 1), atol=1e-12)
    np.testing.assert_allclose(ours["grad_weight"], tw.grad.numpy().transpose(2, 3, 1, 0), atol=1e-12)


@pytest.mark.parametrize("name", OTHERS)
def test_agrees_with_pytorch_at_the_layer_of_the_question(torch, generator, name):
    geometry = Geometry.of((2, 26, 26, 32), (3, 3, 32, 64))
    algorithm = nn.conv.get(name)
    x = generator.standard_normal(geometry.input_shape).astype(np.float32)
    weight = generator.standard_normal(geometry.weight_shape).astype(np.float32)
    expected = torch.nn.functional.conv2d(
        torch.tensor(x.transpose(0, 3, 1, 2)).double(), torch.tensor(weight.transpose(3, 2, 0, 1)).double()
    )
    expected = expected.numpy().transpose(0, 2, 3, 1)
    error = np.abs(algorithm.forward(x, weight, geometry) - expected).max() / expected.std()
    assert error <= algorithm.error_bound(geometry, "forward")


@pytest.mark.parametrize("name", OTHERS)
def test_the_same_bits_again(name):
    geometry = Geometry.of((5, 12, 11, 6), (3, 3, 6, 10), padding=1)
    (x, weight, dy), algorithm = cast(problem(geometry)[0], np.float32), nn.conv.get(name)
    first, second = (run(algorithm, (x, weight, dy), geometry) for _ in range(2))
    for pass_name in PASSES:
        np.testing.assert_array_equal(first[pass_name], second[pass_name])


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("geometry", CORNERS, ids=str)
def test_no_algorithm_claims_to_move_less_than_the_least(name, geometry):
    for pass_name in PASSES:
        assert nn.conv.get(name).moved_bytes(geometry, pass_name) >= geometry.least_bytes(pass_name)


def test_im2col_moves_its_patches_twice():
    geometry = Geometry.of((2, 5, 6, 3), (3, 3, 3, 4))
    patches = (2 * 3 * 4) * (3 * 3 * 3) * 4
    for pass_name in PASSES:
        assert nn.conv.get("im2col").moved_bytes(geometry, pass_name) == geometry.least_bytes(pass_name) + 2 * patches
    pointwise = Geometry.of((2, 5, 6, 3), (1, 1, 3, 4))
    assert nn.conv.get("im2col").moved_bytes(pointwise, "forward") == pointwise.least_bytes("forward")


def test_fft_declines_spectra_that_would_not_fit():
    wide = Geometry.of((4, 28, 28, 1024), (3, 3, 1024, 1024), padding=1)
    with pytest.raises(nn.conv.Unsupported, match=r"'fft' declines.*its spectra would take 3\.8 GiB"):
        nn.conv.select(wide, np.float32, "fft")


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("geometry", [Geometry.of((128, 26, 26, 32), (3, 3, 32, 64))], ids=str)
def test_no_bound_is_loose_at_the_layer_of_the_question(name, geometry):
    assert all(nn.conv.get(name).error_bound(geometry, pass_name) < 1e-3 for pass_name in PASSES)


# The registry ----------------------------------------------------------------------------------------------------


class Mine(nn.conv.Algorithm):
    """Only a forward pass, which counts its calls."""

    name = "mine"
    calls = 0

    def supports(self, geometry):
        return None if geometry.strides == (1, 1) else "strides other than 1 are not written yet"

    def forward(self, x, weight, geometry):
        self.calls += 1
        return nn.conv.get("im2col").forward(x, weight, geometry)


@pytest.fixture
def mine():
    yield nn.conv.register(Mine())
    nn.conv.unregister("mine")


X, W = np.ones((1, 5, 5, 1), np.float32), np.ones((3, 3, 1, 1), np.float32)


def test_a_registered_algorithm_is_used_by_name_and_inherits_gradients(mine):
    nn.gradcheck(lambda x, w: nn.ops.conv2d(x, w, algorithm="mine"), [X, W])
    assert mine.calls > 0


def test_use_beats_auto_and_an_explicit_one_beats_use(mine):
    with nn.conv.use("mine"):
        nn.ops.conv2d(nn.Tensor(X), W)
        assert mine.calls == 1
        nn.ops.conv2d(nn.Tensor(X), W, algorithm="im2col")
        assert mine.calls == 1
    nn.ops.conv2d(nn.Tensor(X), W)
    assert mine.calls == 1


def test_one_that_declines_says_why_and_auto_passes_over_it(mine):
    with pytest.raises(nn.conv.Unsupported, match="'mine' declines.*strides other than 1 are not written yet"):
        nn.ops.conv2d(nn.Tensor(X), W, strides=2, algorithm="mine")
    assert nn.ops.conv2d(nn.Tensor(X), W, strides=2).shape == (1, 2, 2, 1)


def test_an_unknown_one_lists_the_known():
    with pytest.raises(
        ValueError, match=r"unknown algorithm 'im2cow'.*naive, strided_view, theano2017, im2col.*Did you mean 'im2col'"
    ):
        nn.ops.conv2d(nn.Tensor(X), W, algorithm="im2cow")
    with pytest.raises(ValueError, match="unknown algorithm"):
        nn.Conv2D(1, 3, algorithm="im2cow")


def test_a_name_is_registered_once(mine):
    with pytest.raises(ValueError, match="'mine' is registered already"):
        nn.conv.register(Mine())
    assert nn.conv.register(Mine(), replace=True) is nn.conv.get("mine")


def test_a_built_in_one_that_was_replaced_comes_back():
    class Better(Mine):
        name = "strided_view"

    better = nn.conv.register(Better(), replace=True)
    assert nn.conv.get("strided_view") is better
    nn.conv.unregister("strided_view")
    assert type(nn.conv.get("strided_view")).__module__ == "nnlite.conv.strided_view"


def test_auto_forgets_its_choice_when_an_algorithm_is_replaced():
    geometry = Geometry.of(X.shape, W.shape)
    chosen = nn.conv.select(geometry, np.float32)

    class Never(Mine):
        name = chosen.name

        def supports(self, geometry):
            return "never"

    nn.conv.register(Never(), replace=True)
    assert nn.conv.select(geometry, np.float32).name != chosen.name
    nn.conv.unregister(chosen.name)
    assert nn.conv.select(geometry, np.float32) is chosen


def test_unregistering_an_unknown_one_lists_the_registered(mine):
    with pytest.raises(ValueError, match="unknown registered algorithm 'yours'.*mine"):
        nn.conv.unregister("yours")


@pytest.mark.parametrize("used", [False, True])
def test_a_built_in_one_stays_whether_it_was_used_or_not(used, monkeypatch):
    monkeypatch.setattr("nnlite.conv.registry._loaded", {})
    if used:
        nn.ops.conv2d(nn.Tensor(X), W, algorithm="strided_view")
    with pytest.raises(ValueError, match="name: expected an algorithm that was registered. Received: 'strided_view'"):
        nn.conv.unregister("strided_view")
    assert nn.conv.get("strided_view").name == "strided_view"


def test_replacing_one_and_back_gives_the_same_object_as_before():
    before = nn.conv.get("strided_view")

    class Better(Mine):
        name = "strided_view"

    nn.conv.register(Better(), replace=True)
    nn.conv.unregister("strided_view")
    assert nn.conv.get("strided_view") is before


def test_use_ends_with_its_block_even_after_an_error(mine):
    with pytest.raises(KeyError), nn.conv.use("mine"):
        raise KeyError
    nn.ops.conv2d(nn.Tensor(X), W)
    assert mine.calls == 0


def test_what_can_not_be_registered():
    class NoForward(nn.conv.Algorithm):
        name = "no_forward"

    with pytest.raises(ValueError, match="'no_forward' to define forward"):
        nn.conv.register(NoForward())
    with pytest.raises(TypeError, match="instance of nn.conv.Algorithm"):
        nn.conv.register(Mine)


@pytest.mark.parametrize("result", [np.zeros((1, 3, 3, 1)), np.zeros((1, 3, 3), np.float32), None])
def test_a_result_of_another_shape_or_dtype_is_refused(mine, result):
    mine.forward = lambda x, weight, geometry: result
    with pytest.raises(ValueError, match=r"forward of algorithm 'mine': expected float32 of shape \(1, 3, 3, 1\)"):
        nn.ops.conv2d(nn.Tensor(X), W, algorithm="mine")


@pytest.mark.parametrize("name", nn.conv.names())
@pytest.mark.parametrize("bias", [np.arange(128, dtype=np.float32)[::2], np.broadcast_to(np.float32(3), 64)])
def test_a_bias_may_lie_anyhow(name, bias, generator):
    x, weight = (generator.standard_normal(shape).astype(np.float32) for shape in ((1, 6, 6, 2), (3, 3, 2, 64)))
    given = nn.ops.conv2d(x, weight, bias, algorithm=name).data
    np.testing.assert_array_equal(given, nn.ops.conv2d(x, weight, bias.copy(), algorithm=name).data)
