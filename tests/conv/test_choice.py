"""What `auto` takes: the least estimated time, on any processor; and that the estimates follow the work."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import nnlite as nn
from nnlite.compiler import compilation
from nnlite.conv import Epilogue, Geometry, choice

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="without a compiler, im2col it is")

FLOAT32 = np.dtype(np.float32)


def layer(n, size, c, k, kernel=3, **options):
    """For `n` images of size x size, padded so that the result is as large."""
    shape = (kernel, kernel, c // options.get("groups", 1), k)
    return Geometry.of((n, size, size, c), shape, padding="same", **options)


def chosen(geometry, pass_name="forward"):
    return nn.conv.why(geometry, FLOAT32, pass_name=pass_name).name


def estimate(name, geometry, pass_name="forward", num_threads=1):
    from nnlite.conv.estimate import cycles

    return cycles(nn.conv.get(name), geometry, pass_name, num_threads)


ALL = (*nn.conv.PASSES, "gradients")


@pytest.mark.parametrize("pass_name", ALL)
def test_winograd_where_many_channels_need_many_products(pass_name):
    assert chosen(layer(4, 56, 128, 128), pass_name) == "winograd"


@pytest.mark.parametrize("pass_name", ALL)
def test_direct_where_winograd_would_transform_more_weights_than_it_saves_products(pass_name):
    assert chosen(layer(1, 7, 512, 512), pass_name) == "direct"


def test_direct_where_winograds_tiles_are_mostly_padding():
    assert chosen(Geometry.of((64, 3, 3, 64), (3, 3, 64, 64))) == "direct"  # one output of a tile of 16


@pytest.mark.parametrize("pass_name", ["forward", "grad_weight", "gradients"])  # direct's dX fills them with pixels
def test_lanes_where_four_channels_fill_no_vector_and_images_do(pass_name):
    assert chosen(layer(128, 28, 4, 4), pass_name) == "lanes"


def test_not_lanes_for_an_image_alone():
    assert chosen(layer(1, 28, 4, 4)) != "lanes"  # a vector would hold one image


@pytest.mark.parametrize("pass_name", ALL)
def test_grouped_for_depthwise_convolutions_of_many_channels(pass_name):
    assert chosen(layer(8, 28, 256, 256, groups=256), pass_name) == "grouped"


def test_grouped_for_few_images_and_any_stride():
    assert chosen(layer(1, 28, 256, 256, groups=256, strides=2)) == "grouped"


def test_the_groups_of_an_ordinary_convolution_are_never_grouped():
    assert "grouped" not in nn.conv.why(layer(8, 28, 8, 8), FLOAT32).reason


@pytest.mark.parametrize("pass_name", ALL)
@pytest.mark.parametrize("options", [{"kernel": 1}, {"kernel": 7, "strides": 2}, {"kernel": 3, "dilation_rate": 2}])
def test_direct_for_many_channels_where_winograd_and_grouped_do_not_compute(options, pass_name):
    assert chosen(layer(4, 28, 64, 64, **options), pass_name) == "direct"


def test_the_question_s_first_layer_and_its_weight_gradient_are_direct():
    first = Geometry.of((128, 28, 28, 1), (3, 3, 1, 32))  # 32 channels fill vectors; no input gradient is needed
    assert {chosen(first), chosen(first, "grad_weight")} == {"direct"}


OBVIOUS = """
import numpy as np
from nnlite import conv
from nnlite.compiler.target import LANES
layers = {
    "winograd": conv.Geometry.of((8, 58, 58, 256), (3, 3, 256, 256)),
    "direct": conv.Geometry.of((8, 56, 56, 256), (1, 1, 256, 256)),
    "lanes": conv.Geometry.of((128, 28, 28, 1), (3, 3, 1, 2)),
    "grouped": conv.Geometry.of((8, 28, 28, 512), (3, 3, 1, 512), groups=512),
}
print(LANES, *[name for name, layer in layers.items() if conv.why(layer, np.float32).name != name])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.uname().machine != "x86_64", reason="not x86-64")
@pytest.mark.parametrize(("processor", "features", "lanes"), [("generic", "", 4), ("skylake-avx512", "+avx512f", 16)])
def test_obvious_choices_hold_with_vectors_of_any_width(processor, features, lanes):
    """Nothing is run, so any processor can tell."""
    environment = os.environ | {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}
    done = subprocess.run([sys.executable, "-c", OBVIOUS], check=True, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(lanes)


def test_float64_goes_to_what_computes_in_it():
    assert nn.conv.why(layer(128, 16, 4, 4), np.float64).name == "numba_blocked"


@pytest.mark.parametrize("name", choice.ESTIMATED)
@pytest.mark.parametrize("pass_name", ALL)
def test_estimates_grow_with_the_work(name, pass_name):
    groups = 32 if name == "grouped" else 1
    small, more_images = layer(16, 12, 32, 32, groups=groups), layer(64, 12, 32, 32, groups=groups)
    larger = layer(16, 24, 32, 32, groups=groups)
    least = estimate(name, small, pass_name)
    assert estimate(name, more_images, pass_name) > 2 * least
    assert estimate(name, larger, pass_name) > 2 * least


@pytest.mark.parametrize("name", choice.ESTIMATED)
def test_estimates_count_tiles_that_overhang(name):
    geometry = layer(32, 16, 32, 32, groups=32 if name == "grouped" else 1)
    wider = layer(32, 17, 32, 32, groups=geometry.groups)
    wasted = estimate(name, wider) / estimate(name, geometry)
    assert wasted > 1.08


@pytest.mark.parametrize("name", ["direct", "winograd"])
def test_more_threads_share_the_work(name):
    geometry = layer(32, 28, 64, 64)
    assert estimate(name, geometry, num_threads=4) < 0.4 * estimate(name, geometry)


def test_blocks_of_images_are_shared_whole():
    geometry = layer(nn.compiler.LANES, 28, 4, 4)
    one, four = (estimate("lanes", geometry, num_threads=count) for count in (1, 4))
    assert one == pytest.approx(four, rel=1e-6)


def test_the_estimate_of_both_gradients_counts_what_they_share_once():
    geometry = layer(32, 28, 64, 64)
    each = sum(estimate("winograd", geometry, pass_name) for pass_name in ("grad_input", "grad_weight"))
    assert estimate("winograd", geometry, "gradients") < each


@pytest.mark.parametrize("pass_name", ALL)
def test_the_same_question_has_the_same_answer(pass_name):
    geometry = layer(32, 28, 16, 16)
    first = choice.choose(geometry, FLOAT32, pass_name=pass_name)
    choice._by_estimate.cache_clear()
    assert choice.choose(geometry, FLOAT32, pass_name=pass_name) == first


def test_the_reason_names_the_estimates_of_those_that_were_compared():
    reason = nn.conv.why(layer(128, 28, 4, 4), FLOAT32).reason
    assert reason.startswith("estimated ")
    assert "million cycles, " in reason
    assert "direct " in reason


def test_what_can_not_be_faster_is_not_estimated():
    assert "direct" not in nn.conv.why(layer(4, 56, 256, 256), FLOAT32).reason  # 4 times winograd's products


def test_an_unknown_pass_is_refused():
    with pytest.raises(ValueError, match="unknown pass 'backward': expected one of forward, "):
        nn.conv.why(layer(1, 8, 3, 3), FLOAT32, pass_name="backward")


class Registered(nn.conv.Algorithm):
    """A user's, that declares no work."""

    name = "registered_for_choice"

    def forward(self, x, weight, geometry):
        return nn.conv.get("im2col").forward(x, weight, geometry)


def test_a_registered_algorithm_is_taken_only_if_asked_for():
    geometry = layer(128, 28, 4, 4)
    before = nn.conv.why(geometry, FLOAT32)
    nn.conv.register(Registered())
    try:
        assert nn.conv.why(geometry, FLOAT32) == before
        assert nn.conv.why(geometry, FLOAT32, Registered.name).name == Registered.name
    finally:
        nn.conv.unregister(Registered.name)


@pytest.mark.parametrize("items", [None, [nn.conv.get("im2col").work(layer(1, 8, 3, 3), "forward")[1]]])
def test_one_that_replaces_a_built_in_one_and_can_not_be_estimated_is_passed_over(items):
    class Replaced(Registered):
        name = "winograd"

        def work(self, geometry, pass_name, epilogue=None):
            return items

    geometry = layer(4, 56, 128, 128)
    nn.conv.register(Replaced(), replace=True)
    try:
        assert chosen(geometry) == "direct"
    finally:
        nn.conv.unregister("winograd")
    assert chosen(geometry) == "winograd"


# Each pass has its own ---------------------------------------------------------------------------------------------


class Passes:
    """Which algorithm ran which pass of a training step of a convolution with bias and ReLU."""

    def __init__(self, monkeypatch):
        self.ran = []
        for name in choice.ESTIMATED:
            kind = type(nn.conv.get(name))
            for method in ("forward_fused", "backward_fused"):
                monkeypatch.setattr(kind, method, self._noted(name, method, getattr(kind, method)))

    def _noted(self, name, method, function):
        def call(*arguments, **options):
            self.ran.append((name, method.removesuffix("_fused")))
            return function(*arguments, **options)

        return call

    def step(self, x, weight, **options):
        x, weight = nn.Tensor(x, requires_grad=True), nn.Tensor(weight, requires_grad=True)
        bias = nn.Tensor(np.full(weight.shape[3], 0.1, np.float32), requires_grad=True)
        nn.ops.conv2d(x, weight, bias, relu=True, **options).sum().backward()
        return x.grad, weight.grad, bias.grad


@pytest.fixture
def passes(monkeypatch):
    return Passes(monkeypatch)


@pytest.fixture
def by_pass(monkeypatch):
    """`auto` takes direct for the result and lanes for the gradients, as the test pretends."""
    names = {"forward": "direct"}

    def choose(geometry, dtype, *, tuned=True, pass_name="forward"):
        return nn.conv.Choice(names.get(pass_name, "lanes"), "the test pretends")

    monkeypatch.setattr(choice, "choose", choose)


RANDOM = np.random.default_rng(0)
X, WEIGHT = RANDOM.standard_normal((9, 8, 8, 3), np.float32), RANDOM.standard_normal((3, 3, 3, 10), np.float32)


def test_the_gradients_may_be_another_algorithm_s(passes, by_pass):
    gradients = passes.step(X, WEIGHT)
    assert passes.ran == [("direct", "forward"), ("lanes", "backward")]
    expected = passes.step(X, WEIGHT, algorithm="direct")
    assert passes.ran[2:] == [("direct", "forward"), ("direct", "backward")]  # asked for by name
    for got, right in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-3)


def test_use_means_every_pass_even_after_it_ends(passes, by_pass):
    x, weight = nn.Tensor(X, requires_grad=True), nn.Tensor(WEIGHT, requires_grad=True)
    with nn.conv.use("direct"):
        y = nn.ops.conv2d(x, weight, relu=True)
    y.sum().backward()
    assert passes.ran == [("direct", "forward"), ("direct", "backward")]


def test_a_max_pooling_s_gradient_is_that_of_who_knows_its_maxima(by_pass):
    lanes, pooled = nn.conv.get("lanes"), Epilogue(pool=True)
    geometry = Geometry.of(X.shape, WEIGHT.shape)
    assert choice.for_gradients(nn.conv.get("winograd"), geometry, FLOAT32, pooled, "gradients").name == "winograd"
    assert choice.for_gradients(nn.conv.get("winograd"), geometry, FLOAT32, Epilogue(), "gradients") is lanes


@pytest.mark.parametrize(
    ("geometry", "dtype", "message"),
    [
        ("g", np.float32, "geometry: expected an nn.conv.Geometry. Received: str"),
        (layer(1, 8, 4, 4), None, "dtype: expected float32 or float64. Received: None"),
        (layer(1, 8, 4, 4), ">f4", "dtype: expected float32 or float64. Received: >f4"),
    ],
)
def test_what_is_no_layer_or_no_dtype_is_named(geometry, dtype, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        nn.conv.why(geometry, dtype)
