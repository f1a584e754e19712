"""Direct convolution on register tiles, against NumPy's windows in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnlite as nn
from nnlite.compiler import compilation
from nnlite.compiler.blocking import LINE
from nnlite.compiler.tile_shapes import TileShape
from nnlite.conv import Epilogue, Fused, Geometry, direct_plan, direct_weight_plan
from nnlite.conv.direct_plan import shares_of
from nnlite.conv.direct_regions import ROW_TERMS
from nnlite.conv.work import touched_taps
from nnlite.runtime.processor import cache_sizes

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="needs the compiler")
ORACLE = nn.conv.get("strided_view")
SMALL_PANEL = 8 << 10
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


def agrees_with_the_oracle(geometry):
    x, weight, dy, _ = operands(geometry)
    direct = nn.conv.get("direct")
    wide = [array.astype(np.float64) for array in (x, weight, dy)]
    close(direct.forward(x, weight, geometry), ORACLE.forward(wide[0], wide[1], geometry), 2e-5)
    close(direct.grad_input(dy, weight, geometry), ORACLE.grad_input(wide[2], wide[1], geometry), 2e-5)
    close(direct.grad_weight(x, dy, geometry), ORACLE.grad_weight(wide[0], wide[2], geometry), 2e-5)


@settings(max_examples=40, deadline=None)
@given(geometries())
def test_every_pass_of_any_geometry_is_the_definitions(geometry):
    agrees_with_the_oracle(geometry)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(2, 9, 8, 1, 32), (1, 7, 7, 5, 19), (3, 6, 6, 20, 64)])
def test_fused_bias_and_relu_equal_the_passes_of_their_own(shape, relu):
    n, h, w, c, k = shape
    geometry, epilogue = Geometry.of((n, h, w, c), (3, 3, c, k), padding=1), Epilogue(bias=True, relu=relu)
    x, weight, dy, bias = operands(geometry)
    direct = nn.conv.get("direct")
    ran = direct.forward_fused(x, weight, bias, geometry, epilogue)
    result = ran.result
    y = direct.forward(x, weight, geometry) + bias
    close(result, np.maximum(y, 0) if relu else y, 2e-6)
    masked = dy * (result > 0) if relu else dy
    dx, dweight, dbias = direct.backward_fused(ran, dy, geometry, epilogue, (True, True, True))
    close(dx, direct.grad_input(masked, weight, geometry), 1e-6)
    close(dweight, direct.grad_weight(x, masked, geometry), 1e-6)
    close(dbias, masked.astype(np.float64).sum(axis=(0, 1, 2)), 1e-5)


@pytest.mark.parametrize(
    "epilogue", [Epilogue(), Epilogue(bias=True), Epilogue(relu=True), Epilogue(True, True)], ids=str
)
@pytest.mark.parametrize("strides", [1, 2, (1, 3)])
@pytest.mark.parametrize("threads", sorted({1, nn.get_num_threads()}))
def test_the_weight_gradient_of_one_tap_is_a_product_of_the_pixels_it_reads(threads, strides, epilogue):
    nn.set_num_threads(threads)
    geometry = Geometry.of((3, 7, 8, 13), (1, 1, 13, 256 * threads + 5), strides=strides)
    assert direct_weight_plan.is_product(geometry, threads)
    x, weight, dy, _ = operands(geometry)
    result = operands(geometry, seed=1)[2]
    ran, needs = Fused(x, weight, result), (False, True, epilogue.bias)
    _, dweight, dbias = nn.conv.get("direct").backward_fused(ran, dy, geometry, epilogue, needs)
    gradient = (dy * (result > 0) if epilogue.relu else dy).astype(np.float64)
    close(dweight, ORACLE.grad_weight(x.astype(np.float64), gradient, geometry), 2e-5)
    assert (dbias is not None) == epilogue.bias
    if epilogue.bias:
        close(dbias, gradient.sum(axis=(0, 1, 2)), 1e-5)


@pytest.mark.parametrize(
    ("kernel", "k", "options"),
    [(3, 512, {}), (1, 512, {"padding": 1}), (1, 512, {"groups": 2}), (1, 16, {})],
)
def test_other_weight_gradients_are_no_product(kernel, k, options):
    geometry = Geometry.of((1, 8, 8, 16), (kernel, kernel, 16 // options.get("groups", 1), k), **options)
    assert not direct_weight_plan.is_product(geometry, 2)


@pytest.fixture
def small_panels(monkeypatch):
    """Few terms of a reduction are summed at a time, whatever this processor's caches."""
    monkeypatch.setattr(nn.conv.get("direct"), "panel_bytes", SMALL_PANEL)
    direct_plan.batches.cache_clear()
    yield
    direct_plan.batches.cache_clear()


def test_a_reduction_in_several_blocks_keeps_bias_and_relu(small_panels):
    geometry = Geometry.of((1, 4, 5, 100), (3, 3, 100, 20), padding=1)
    assert len(direct_plan.forward(geometry, False, SMALL_PANEL).nest.blocks) > 2
    x, weight, _, bias = operands(geometry)
    expected = ORACLE.forward(x.astype(np.float64), weight.astype(np.float64), geometry) + bias
    result = nn.conv.get("direct").forward_fused(x, weight, bias, geometry, Epilogue(bias=True, relu=True)).result
    close(result, np.maximum(expected, 0), 2e-5)


@pytest.mark.parametrize("threads", sorted({1, nn.get_num_threads()}))
def test_several_panels_of_several_joined_images(monkeypatch, small_panels, threads):
    """Two batches of three images and one of one, each read once a panel, forward and back."""
    geometry = Geometry.of((7, 9, 8, 90), (3, 3, 90, 130), padding="same")
    monkeypatch.setattr(direct_plan, "JOINED_POSITIONS", 3 * 9 * 8)
    nn.set_num_threads(threads)
    assert [(first, last, one.input_shape[0]) for first, last, one in direct_plan.batches(geometry)] == [
        (0, 6, 3),
        (6, 7, 1),
    ]
    batch = geometry.with_batch(3), False, SMALL_PANEL
    for plan in (direct_plan.forward(*batch), *direct_plan.grad_input(*batch)):
        assert plan.nest.panels > 1
        assert len(plan.nest.blocks) > 2
    agrees_with_the_oracle(geometry)
    x, weight, dy, result = (*operands(geometry)[:3], operands(geometry, seed=1)[2])
    epilogue, needs = Epilogue(relu=True), (True, True, False)  # its gradient needs a copy of dY, for each batch anew
    dx, dweight, _ = nn.conv.get("direct").backward_fused(Fused(x, weight, result), dy, geometry, epilogue, needs)
    masked = (dy * (result > 0)).astype(np.float64)
    close(dx, ORACLE.grad_input(masked, weight.astype(np.float64), geometry), 2e-5)
    close(dweight, ORACLE.grad_weight(x.astype(np.float64), masked, geometry), 2e-5)


def test_batches_are_equal_where_they_can_be():
    def joined(n):
        return [one.input_shape[0] for *_, one in direct_plan.batches(Geometry.of((n, 26, 26, 32), (3, 3, 32, 64)))]

    most = joined(1000)[0]
    assert most > 3
    assert joined(0) == []
    assert joined(1) == [1]
    assert joined(most) == [most]
    assert joined(2 * (most - 1)) == [most - 1]  # none is left over
    assert all(sum(joined(n)) <= n for n in range(1, 30))


@pytest.mark.parametrize(
    ("n", "size", "kernel", "padded"),
    [(4, 14, 3, False), (4, 7, 3, False), (1, 5, 9, True)],  # the last: no two pixels have the same taps
)
def test_products_with_padding_are_left_out_where_that_is_worth_it(n, size, kernel, padded):
    geometry = Geometry.of((n, size, size, 64), (kernel, kernel, 64, 64), padding="same")
    for plan in (direct_plan.forward(geometry), *direct_plan.grad_input(geometry)):
        assert plan.is_padded == padded
        if not padded:
            useful, with_padding = n * touched_taps(geometry) * 64, n * size**2 * kernel**2 * 64
            assert useful <= plan.terms.sum() * plan.shape.rows < (useful + with_padding) / 2


def test_positions_with_no_tap_inside_have_no_terms():
    geometry = Geometry.of((1, 2, 2, 3), (3, 3, 3, 4), padding=((4, 3), (5, 3)))
    assert direct_plan.forward(geometry).terms.min() >= 0
    agrees_with_the_oracle(geometry)


@pytest.mark.parametrize(("c", "stride"), [(1, 1), (2, 1), (4, 1), (4, 2)])
def test_the_input_gradient_of_few_channels_takes_the_block_of_pixels_with_fewest_products(monkeypatch, c, stride):
    geometry = Geometry.of((1, 24, 24, c), (3, 3, c, 32), strides=stride)

    def products():
        plans = direct_plan.grad_input.__wrapped__(geometry)
        return sum(plan.terms.sum() * plan.shape.rows * plan.width * plan.nest.panels for plan in plans)

    chosen, each = products(), []
    for block in (1, 2, 3, 4, 6, 8, 12):
        if block % stride == 0 or block == 1:
            monkeypatch.setattr(direct_plan, "_best_block", lambda _, block=block: block)
            each.append(products())
    assert chosen == min(each) < max(each) / 1.5


def test_the_weight_gradient_leaves_lines_of_padding_out():
    geometry = Geometry.of((1, 7, 9, 48), (3, 3, 48, 64), padding="same")
    plan = direct_weight_plan.grad_weight(geometry)
    assert 48 % plan.shape.rows == 0  # each tile is of one tap here
    top, bottom = plan.nest.inside.T
    assert (bottom - top).sum() * plan.shape.rows == (3 * 7 - 2) * 3 * 48  # of 7 lines, 3 rows of the kernel read 19


@pytest.mark.parametrize(
    ("c", "rows"),
    # 32 and 48 channels: 6 rows divide the neighbours, the channels of 3 taps; 1 channel, 9 taps: 5 + 5 rows take less
    # time than 3 + 3 + 3
    [(48, 6), (32, 6), (1, 5)],
)
def test_tiles_of_a_weight_gradient_divide_the_neighbouring_weights_if_that_is_no_slower(c, rows):
    assert direct_weight_plan.fastest(TileShape(6, 2), 9 * c, 3 * c) == TileShape(rows, 2)


@pytest.mark.parametrize(
    ("options", "run"),
    [({}, 3 * 32), ({"dilation_rate": (1, 2)}, 32), ({"groups": 2}, 16), ({"dilation_rate": (2, 1)}, 3 * 32)],
)
def test_a_tile_of_neighbouring_weights_reads_neighbouring_numbers(options, run):
    geometry = Geometry.of((1, 9, 9, 32), (3, 3, 32 // options.get("groups", 1), 64), padding="same", **options)
    nest = direct_weight_plan.grad_weight(geometry).nest
    rows = nest.rows.reshape(-1, run)
    assert (np.diff(rows, axis=1) == 1).all()
    assert (nest.packed > 0) == (run % direct_weight_plan.grad_weight(geometry).shape.rows == 0)


@pytest.mark.parametrize(
    ("options", "rows"),
    [({}, 3), ({"padding": 3}, 3), ({"dilation_rate": (2, 1), "padding": 2}, 3), ({"dilation_rate": (1, 2)}, 3),
     ({"groups": 2, "padding": 1}, 3), ({"strides": (2, 1), "padding": 1}, 1), ({"strides": (1, 3), "padding": 2}, 3)],
)  # fmt: skip
def test_tiles_of_all_kernel_rows_share_packed_lines_unless_lines_are_skipped(monkeypatch, options, rows):
    """Bands of few lines, so that lines of padding begin and end some; the first and last pixels read padding too."""
    geometry = Geometry.of((2, 13, 11, 24), (3, 3, 24 // options.get("groups", 1), 40), **options)
    monkeypatch.setattr(nn.conv.get("direct"), "line_bytes", 32 * LINE)
    nest = direct_weight_plan.grad_weight(geometry, line_bytes=32 * LINE).nest
    assert nest.packed > 0
    assert nest.kernel_rows == rows
    assert nest.bands > 1
    agrees_with_the_oracle(geometry)


def test_a_band_of_a_weight_gradient_stays_in_the_caches():
    plan = direct_weight_plan.grad_weight(Geometry.of((8, 56, 56, 64), (3, 3, 64, 64), padding=1))
    pixels = plan.nest.band // plan.shape.width
    assert pixels * 64 <= cache_sizes()["L1"]  # a line of x for each
    assert plan.nest.band * 4 <= cache_sizes()["L2"]


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_threads_have_equal_shares_of_the_products(parts):
    plan = direct_plan.forward(Geometry.of((2, 7, 7, 16), (3, 3, 16, 80), padding="same"))
    shares = shares_of(plan, 6, parts)
    units = 3 * plan.nest.panels
    cost = plan.terms + ROW_TERMS
    places = [unit * cost.sum() + cost[:tile].sum() for unit, tile in shares]
    assert places[0] == 0
    assert places[-1] == units * cost.sum()
    assert np.abs(np.diff(places) - places[-1] / parts).max() <= 2 * cost.max()


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("n", "k"), [(8, 64), (1, 300)])  # threads share the pixels, or the weights
def test_the_weight_gradient_reads_dy_as_it_lies_or_copied(n, k, biased):
    geometry = Geometry.of((n, 10, 10, 70), (3, 3, 70, k))
    x, weight, dy, _ = operands(geometry)
    needs = (False, True, biased)
    given = nn.conv.get("direct").backward_fused(Fused(x, weight, dy), dy, geometry, Epilogue(bias=biased), needs)
    wide = dy.astype(np.float64)
    close(given[1], ORACLE.grad_weight(x.astype(np.float64), wide, geometry), 2e-5)
    if biased:
        close(given[2], wide.sum(axis=(0, 1, 2)), 2e-5)
    else:
        assert given[2] is None


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
