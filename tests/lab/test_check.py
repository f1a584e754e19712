"""A wrong algorithm is refused, with a message that says what is wrong; a right one is not."""

import numpy as np
import pytest

from nnlite import conv
from nnlite.conv import Algorithm, Fused, Geometry
from nnlite.lab import reference
from nnlite.lab.check import check, check_at
from nnlite.lab.contract import LARGEST_BOUND, Refused
from nnlite.lab.reference import FIXED, random_geometries

IM2COL = conv.get("im2col")


class Right(Algorithm):
    """im2col under another name; the wrong ones below each do one thing otherwise."""

    name = "right"

    def forward(self, x, weight, geometry):
        return IM2COL.forward(x, weight, geometry)


class OffByOneAtTheRight(Right):
    def forward(self, x, weight, geometry):
        y = super().forward(x, weight, geometry)
        if geometry.output_shape[2] > 1:
            y[:, :, -1] = 0
        return y


class FlippedTaps(Right):
    def forward(self, x, weight, geometry):
        return super().forward(x, np.ascontiguousarray(weight[::-1, ::-1]), geometry)


class FlippedWeightGradient(Right):
    def grad_weight(self, x, dy, geometry):
        return np.ascontiguousarray(super().grad_weight(x, dy, geometry)[::-1, ::-1])


class SwappedStrides(Right):
    def forward(self, x, weight, geometry):
        swapped = Geometry(
            geometry.input_shape, geometry.weight_shape, geometry.strides[::-1], geometry.pads, geometry.dilation_rate,
            geometry.groups,
        )  # fmt: skip
        return super().forward(x, weight, swapped)


class ScaledGradient(Right):
    def grad_weight(self, x, dy, geometry):
        return super().grad_weight(x, dy, geometry) * x.dtype.type(1.01)


class ScaledBackward(Right):
    def backward(self, x, weight, dy, geometry, needs):
        dx, dweight = super().backward(x, weight, dy, geometry, needs)
        return None if dx is None else dx * dx.dtype.type(1.01), dweight


class Float64Output(Right):
    def forward(self, x, weight, geometry):
        return super().forward(x, weight, geometry).astype(np.float64)


class WritesIntoItsInput(Right):
    def forward(self, x, weight, geometry):
        y = super().forward(x, weight, geometry)
        x *= 2
        return y


class Raises(Right):
    def grad_input(self, dy, weight, geometry):
        raise RuntimeError("no luck")


class ExcusesItself(Right):
    def error_bound(self, geometry, pass_name, dtype=np.float32):
        return 0.5


class OneResultForAll(Right):
    def __init__(self):
        self.kept = {}

    def forward(self, x, weight, geometry):
        y = super().forward(x, weight, geometry)
        kept = self.kept.setdefault((geometry, x.dtype), y)
        kept[...] = y
        return kept


class ReturnsItsInput(Right):
    def forward(self, x, weight, geometry):
        y = super().forward(x, weight, geometry)
        if y.shape == x.shape:
            x_like = x.reshape(-1)
            return x_like.reshape(x.shape)
        return y


class NotContiguous(Right):
    def forward(self, x, weight, geometry):
        return super().forward(x, weight, geometry).transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3)


class NotANumber(Right):
    def forward(self, x, weight, geometry):
        y = super().forward(x, weight, geometry)
        return np.full_like(y, np.nan)


class WrongShape(Right):
    def forward(self, x, weight, geometry):
        return super().forward(x, weight, geometry)[:, :-1]


class UnknownDtype(Right):
    dtypes = (np.int32,)


class DtypesWithoutParentheses(Right):
    dtypes = np.float32


class SaysTrueWhereItCan(Right):
    def supports(self, geometry):
        return True


class SupportsRaises(Right):
    def supports(self, geometry):
        return geometry.no_such_attribute


class BoundRaises(Right):
    def error_bound(self, geometry, pass_name, dtype=np.float32):
        raise KeyError(pass_name)


class NothingIsGoodEnough(Right):
    def error_bound(self, geometry, pass_name, dtype=np.float32):
        return -1.0


class Exits(Right):
    def forward(self, x, weight, geometry):
        raise SystemExit(0)


class ComputesInFloat32(Right):
    def forward(self, x, weight, geometry):
        return super().forward(x.astype(np.float32), weight.astype(np.float32), geometry).astype(x.dtype)


class OneGradientAloneIsWrong(Right):
    def backward(self, x, weight, dy, geometry, needs):
        dx, dweight = super().backward(x, weight, dy, geometry, needs)
        return (2 * dx if needs == (True, False) else dx), dweight


class ReturnsWhatNobodyNeeds(Right):
    def backward(self, x, weight, dy, geometry, needs):
        return super().backward(x, weight, dy, geometry, (True, needs[1]))


class BackwardRaisesForTheFirstLayer(Right):
    def backward(self, x, weight, dy, geometry, needs):
        if not needs[0]:
            raise RuntimeError("no dx")
        return super().backward(x, weight, dy, geometry, needs)


REFUSALS = [
    (OffByOneAtTheRight, r"forward is wrong in float32 for .*y\[n=0, oh=0, ow=3, k=0\].*are at ow=3, the last"),
    (FlippedTaps, r"forward is wrong .* a flipped kernel"),
    (FlippedWeightGradient, r"grad_weight is wrong .* a flipped kernel"),
    (SwappedStrides, r"forward (is wrong|returns shape|raises) .*strides 1x3"),
    (ScaledGradient, r"grad_weight is wrong .*Every element is 1\.01 times the expected value"),
    (ScaledBackward, r"backward is wrong .*dx\[n=0.*Every element is 1\.01 times"),
    (Float64Output, r"forward returns float64 for float32 operands"),
    (WritesIntoItsInput, r"forward writes into its input x"),
    (Raises, r"grad_input raises RuntimeError for 1x5x6x1 -> 1, 3x3: no luck"),
    (ExcusesItself, r"declares an error bound of 0\.5 for forward; expected more than 0 and at most 1e-03"),
    (OneResultForAll, r"forward overwrites its earlier result on a second call"),
    (ReturnsItsInput, r"forward returns memory of its input x"),
    (NotContiguous, r"not C-contiguous"),
    (NotANumber, r"NaN or infinite"),
    (WrongShape, r"forward returns shape \(1, 2, 4, 1\).*expected \(n, oh, ow, k\) = \(1, 3, 4, 1\)"),
    (UnknownDtype, r"declares dtypes .* expected a tuple of np.float32, np.float64 or both"),
    (DtypesWithoutParentheses, r"declares dtypes .* expected a tuple of np.float32, np.float64 or both"),
    (SaysTrueWhereItCan, r"supports returns True for .*; expected None, or the reason as a string"),
    (SupportsRaises, r"supports raises AttributeError"),
    (BoundRaises, r"error_bound raises KeyError"),
    (NothingIsGoodEnough, r"an error bound of -1 for forward; expected more than 0"),
    (Exits, r"forward raises SystemExit"),
    (ComputesInFloat32, r"forward is wrong in float64 .* does a part compute in float32"),
    (OneGradientAloneIsWrong, r"backward with needs=\(True, False\) is wrong .*Every element is 2 times"),
    (ReturnsWhatNobodyNeeds, r"backward with needs=\(False, True\) returns ndarray for grad_input; expected None"),
    (BackwardRaisesForTheFirstLayer, r"backward with needs=\(False, True\) raises RuntimeError .*no dx"),
]


@pytest.mark.parametrize(("wrong", "message"), REFUSALS, ids=[wrong.__name__ for wrong, _ in REFUSALS])
def test_refused_with_what_is_wrong(wrong, message):
    report = check(wrong())
    assert report.refused
    import re

    assert re.search(message, report.refusal), report.refusal
    assert "\n" not in report.refusal


def test_a_right_algorithm_passes_on_every_geometry():
    report = check(Right())
    assert report.refusal is None
    assert report.checked == len(FIXED) + 30
    assert set(report.errors) == {"forward", "grad_input", "grad_weight", "gradients"}
    assert 0 < max(report.errors.values()) < LARGEST_BOUND


def test_declining_is_no_mistake():
    class OnlyStrideOne(Right):
        def supports(self, geometry):
            return None if geometry.strides == (1, 1) else "strides are not written yet"

    report = check(OnlyStrideOne())
    assert report.refusal is None
    assert report.declined
    assert {reason for _, reason in report.declined} == {"strides are not written yet"}
    assert report.checked + len(report.declined) == len(FIXED) + 30


class FusedWrongly(Right):
    """Forgets the ReLU's mask in the fused gradient."""

    dtypes = (np.float32,)

    def fuses(self, geometry, epilogue):
        return epilogue.relu and not epilogue.pool and not epilogue.bias

    def forward_fused(self, x, weight, bias, geometry, epilogue):
        return Fused(x, weight, np.maximum(self.forward(x, weight, geometry), 0))

    def backward_fused(self, ran, dresult, geometry, epilogue, needs):
        return (*self.backward(ran.x, ran.weight, dresult, geometry, needs[:2]), None)


class FusedWronglyForTheFirstLayer(FusedWrongly):
    def backward_fused(self, ran, dresult, geometry, epilogue, needs):
        dy = dresult * (ran.result > 0) if needs[0] else dresult
        return super().backward_fused(ran, dy, geometry, epilogue, needs)


class FusedGivesWhatNobodyNeeds(FusedWronglyForTheFirstLayer):
    def backward_fused(self, ran, dresult, geometry, epilogue, needs):
        dy = dresult * (ran.result > 0)
        return (*self.backward(ran.x, ran.weight, dy, geometry, needs[:2]), dy.sum((0, 1, 2)))


class FusedGivesAPair(FusedWrongly):
    def forward_fused(self, x, weight, bias, geometry, epilogue):
        return super().forward_fused(x, weight, bias, geometry, epilogue).result, None


def test_a_fused_pass_that_gives_something_else_is_refused():
    assert "expected nnlite.conv.Fused. Received: tuple" in check(FusedGivesAPair()).refusal


def test_a_fused_gradient_that_is_wrong_without_dx_is_refused():
    assert "dweight is wrong" in check(FusedWronglyForTheFirstLayer()).refusal


def test_a_fused_gradient_that_nothing_needs_is_refused():
    refusal = check(FusedGivesWhatNobodyNeeds()).refusal
    assert "dbias for 1x5x6x1 -> 1, 3x3 is not needed: expected None" in refusal


class LeavesTheLastRowUnwritten(Right):
    """Into memory that was used before, perhaps for the right result."""

    memory = np.empty(0, np.float32)

    def forward(self, x, weight, geometry):
        right = super().forward(x, weight, geometry)
        if self.memory.shape != right.shape:
            self.memory = right
        self.memory[:, :-1] = right[:, :-1]
        return self.memory


def test_right_values_of_an_earlier_result_do_not_help_one_that_leaves_memory_unwritten():
    geometry, wrong = Geometry.of((1, 5, 6, 1), (3, 3, 1, 1)), LeavesTheLastRowUnwritten()
    problem = reference.Problem(geometry, 0)
    assert check_at(wrong, "forward", problem).error < LARGEST_BOUND  # of whom the memory was before
    with pytest.raises(Refused, match=r"oh=2, ow=0, k=0\]: expected .*, got nan.*never written"):
        check_at(wrong, "forward", problem)


def test_of_both_gradients_the_one_nearer_to_its_bound_is_told():
    class Uneven(type(conv.get("im2col"))):
        def grad_weight(self, x, dy, geometry):
            return super().grad_weight(x, dy, geometry) * np.float32(1 + 2e-5)

        def error_bound(self, geometry, pass_name, dtype=np.float32):
            return {"grad_input": 1e-6, "grad_weight": 1e-3}[pass_name]

    geometry = Geometry.of((1, 5, 6, 1), (3, 3, 1, 1))
    error, bound = check_at(Uneven(), "gradients", reference.Problem(geometry, 0))
    assert bound == 1e-6
    assert 0 < error < bound


def test_a_wrong_fused_gradient_is_refused():
    report = check(FusedWrongly())
    assert report.refused
    assert "fused Epilogue(bias=False, relu=True, pool=False): dx is wrong" in report.refusal


@pytest.mark.parametrize("pass_name", conv.PASSES)
def test_the_fast_reference_is_the_definition(pass_name):
    """`by_taps` against `naive`, in float64."""
    for geometry in (*FIXED, *(g for g in random_geometries(30, 0) if g.macs < 30_000)):
        given = reference.operands(geometry, 1)
        (right,) = reference.run_pass(conv.get("naive"), pass_name, given, geometry)
        np.testing.assert_allclose(reference.by_taps(geometry, pass_name, given), right, atol=1e-12)


def test_random_geometries_are_the_same_for_a_seed_and_others_for_another():
    assert random_geometries(30, 3) == random_geometries(30, 3) != random_geometries(30, 4)
    kinds = random_geometries(30, 0)
    assert any(g.groups > 1 for g in kinds)
    assert any(g.dilation_rate != (1, 1) for g in kinds)
    assert any(g.pads[0][0] != g.pads[0][1] for g in kinds)
