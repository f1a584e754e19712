"""The time model: its terms against a hand calculation, and that nothing it needs was timed in the step."""

import time

import numpy as np
import pytest

import nnlite as nn
from nnlite import calls, jit, machine, predict
from nnlite.calls import Between
from nnlite.conv import Geometry
from nnlite.conv.stages import Stage
from nnlite.explain.conditions import cautions, verdict
from nnlite.explain.contestant import Contestant
from nnlite.explain.document import _conditions
from nnlite.explain.forecast import Forecast
from nnlite.explain.measure import Measurement, measure, training_steps
from nnlite.performance.work import Array, Call
from nnlite.predict import StepPrediction
from nnlite.performance.profiler import CHANGED, OTHER, StepProfile

pytestmark = pytest.mark.skipif(not jit.ENABLED, reason="rates are measured with compiled kernels")


class FakeRates:
    """Rates as a test gives them."""

    borrowed, disturbed = ("a",), ("b", "c")

    class machine:
        numpy_call_us = 2.0
        numba_call_us = 3.0
        fresh_gbs = 4.0
        caches = {"L3": 32 << 20}  # noqa: RUF012

    def __init__(self, bandwidth=1e9):
        self._bandwidth = bandwidth

    def bandwidth(self, nbytes):
        return self._bandwidth

    def rate(self, stage, held):
        return 1e9

    def costs(self, keys, measure):
        """Of each smallest operation a microsecond forward and 10 of the tape, of the smallest step 20 and 4."""
        known = {"forward": 1e-6, "other": 20e-6 if keys[0].startswith("around") else 10e-6, "update": 4e-6}
        return {key: known.get(key.split()[-1], 0.0) for key in keys}


def stage(kind, amount, moved, calls=1, fresh=0):
    return Stage("", kind, (), amount, moved, moved, moved, calls, fresh)


def test_a_product_is_bounded_by_arithmetic_or_by_its_operands():
    compute = predict.stage_terms(stage("gemm", 1e9, 1000), 1e11, FakeRates())
    assert compute == predict.Terms(compute=pytest.approx(0.01))
    starved = predict.stage_terms(stage("gemm", 1e9, 10**8), 1e11, FakeRates())
    assert starved == predict.Terms(memory=pytest.approx(0.1))


def test_calls_beyond_the_first_and_fresh_memory_are_added():
    terms = predict.stage_terms(stage("assign", 1e6, 10**6, calls=11, fresh=4 * 10**6), 1e9, FakeRates())
    assert terms == predict.Terms(memory=pytest.approx(1e-3), calls=pytest.approx(2e-5), fresh=pytest.approx(1e-3))
    assert terms.seconds == pytest.approx(2.02e-3)
    assert terms.bound == "overhead"  # 1.02 ms of calls and fresh memory, 1 ms of copying


def predicted(calls, arrays=2, rates=None):
    optimizer = nn.RMSprop()
    optimizer.build([nn.Tensor(np.zeros(3, np.float32), requires_grad=True) for _ in range(arrays)])
    between = Between(rates or FakeRates(), "auto", None, 0)
    return predict.predict(calls, optimizer, between, lambda: None, held=0)


def test_each_parameter_beyond_those_of_the_smallest_step_costs_a_call():
    update = ("rmsprop", "optimizer")
    assert predicted([], arrays=2).parts[update].calls == pytest.approx(4e-6)
    assert predicted([], arrays=5).parts[update].calls == pytest.approx(4e-6 + 3 * 3e-6)
    assert predicted([], arrays=1).parts[update].calls == pytest.approx(4e-6)


def dense_call(*needs):
    arrays = [Array(shape, np.dtype(np.float32)) for shape in ((4, 6), (6, 3), (3,))]
    return Call("dense", nn.ops.dense, tuple(arrays), {}, needs)


def test_the_tape_of_each_operation_is_other():
    result = predicted([dense_call(True, True, True)] * 2)
    assert result.parts[OTHER].calls == pytest.approx(2 * 10e-6 + 20e-6)
    assert result.parts["dense", "forward"].calls == pytest.approx(2 * 1e-6)


class Measuring(FakeRates):
    """Rates that know nothing, of which each cost is measured by a third of the samples."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def costs(self, keys, measure):
        self.asked.append(keys[0])
        return dict.fromkeys(keys, 0.0) | measure(3)


def test_the_tape_of_the_smallest_step_is_not_counted_twice(monkeypatch):
    """Its "other" is what is measured less the tape of its own operations."""
    measured = {OTHER: 5e-3, ("rmsprop", "optimizer"): 2e-3}
    monkeypatch.setattr(calls, "_profile", lambda step, between, parts: measured if parts == 3 else None)
    monkeypatch.setattr(calls, "trace", lambda step: [dense_call(True)] * 2)
    tape = 1e-3
    monkeypatch.setattr(calls, "calling_cost", lambda call, between: {"other": tape, "forward": 1.0})
    between = Between(Measuring(), "auto", None, 0)
    assert calls.around(None, "rmsprop", between) == pytest.approx({"other": 3e-3, "update": 2e-3})
    tape = 1.0
    assert calls.around(None, "rmsprop", between)["other"] == 0.0


def test_a_smallest_step_of_another_batch_is_another_step(monkeypatch):
    monkeypatch.setattr(calls, "_profile", lambda *arguments: {OTHER: 1.0, ("rmsprop", "optimizer"): 1.0})
    monkeypatch.setattr(calls, "calling_cost", lambda call, between: {})
    rates = Measuring()
    for batch, algorithm in ((1, "auto"), (2, "auto"), (2, "im2col"), (2, "auto")):
        call = Call("dense", nn.ops.dense, (Array((batch, 1), np.dtype(np.float32)),), {}, (True,))
        monkeypatch.setattr(calls, "trace", lambda step, call=call: [call])
        calls.around(None, "rmsprop", Between(rates, algorithm, None, 0))
    assert len(set(rates.asked)) == 3
    assert rates.asked[1] == rates.asked[3]


@pytest.mark.parametrize("parts", [1, 3])
def test_a_part_of_the_samples_is_taken(parts):
    between, longest = [], 0.5
    seconds = calls._profile(lambda: time.sleep(0.002), lambda: between.append(1), parts)
    assert len(between) == calls.CALL_SAMPLES // parts
    assert set(seconds) == {OTHER}
    assert 0.002 <= seconds[OTHER] < longest  # in seconds


def test_what_needs_no_gradient_has_none():
    assert [part for _, part in predicted([dense_call(False, False, False)]).parts if part != "forward"] == [
        "optimizer", "other",
    ]  # fmt: skip
    assert ("dense", "gradients") in predicted([dense_call(True, True, True)]).parts
    parts = [set(calls._measure_call(dense_call(*[need] * 3), lambda: None, 3)) for need in (False, True)]
    assert parts == [{"forward", "other"}, {"forward", "other", "grad_input", "gradients"}]


def test_a_call_that_needs_fewer_gradients_is_another_call(monkeypatch):
    monkeypatch.setattr(calls, "_measure_call", lambda call, between, parts: {})
    rates = Measuring()
    for touched, needs in ((0, (True, True)), (0, (False, True)), (1, (True, True)), (0, (True, True))):
        calls.calling_cost(dense_call(*needs, True), Between(rates, "auto", None, touched))
    assert len(set(rates.asked)) == 3
    assert rates.asked[0] == rates.asked[3]


def test_of_what_does_not_say_what_it_does_the_gradients_are_missing_too():
    def strange(x):
        return x

    for needed in (True, False):
        found = predicted(
            [Call("dense", strange, dense_call().arguments, {}, (needed,)), dense_call(*[needed] * 3)]
        ).parts
        of_layer = {part: found["dense", part].missing for layer, part in found if layer == "dense"}
        assert set(of_layer) == ({"forward", "grad_input", "grad_weight", "gradients"} if needed else {"forward"})
        assert set(of_layer.values()) == {"operation 'strange'"}


def test_rates_that_are_not_to_be_relied_on_are_counted():
    result = predicted([])
    assert (result.borrowed, result.disturbed) == (1, 2)


@pytest.mark.parametrize(("held", "made", "touched"), [(0, 0, 1), (24 << 20, 3, 4 << 20), (1 << 40, 4, 64 << 20)])
def test_between_calls_a_step_touches_its_arrays(held, made, touched):
    """Shared out among the calls, forward and back; no more than all caches twice, of 32 MiB."""
    between = Between.of(FakeRates(), "auto", None, held, made)
    assert between.touched == touched


def test_the_smallest_convolution_runs_the_same_code():
    """Strides, dilation, taps and groups as they are; one pixel, or those of a pool; of the channels the fewest."""
    geometry = Geometry((8, 30, 30, 12), (3, 2, 6, 64), strides=(2, 3), dilation_rate=(1, 2), groups=2)
    least = calls._smallest_geometry(geometry, 1, 2)
    assert least.output_shape[:3] == (1, 1, 2)
    assert (least.strides, least.dilation_rate, least.groups) == ((2, 3), (1, 2), 2)
    (kh, kw, c, k), fewest = least.weight_shape, calls._fewest
    assert (kh, kw, c, k) == (3, 2, fewest(6), 2 * fewest(32))
    assert fewest(6) < 6 or fewest(32) < 32
    assert calls._smallest_geometry(geometry, 1, 2, keep_channels=True).weight_shape == geometry.weight_shape


@pytest.fixture(scope="module")
def small(digits):
    """Two networks of the question on a few images, predicted and measured."""
    contestants = [
        Contestant(getattr(nn.models, name)(), algorithm)
        for algorithm in ("auto", "im2col", "theano2017")
        for name in ("mlp", "small_cnn")
    ]
    steps = training_steps(contestants, *digits[0], batch_size=32)
    return measure(contestants, steps, machine.load_or_measure(), batch_size=32, rounds=5)


def test_every_part_of_the_step_is_predicted(small):
    for m in small:
        assert m.prediction.missing == []
        assert m.predicted_ms == pytest.approx(sum(1e3 * p.terms.seconds for p in m.prediction.parts.values()))
        assert {(layer.name, layer.part) for layer in m.layers} == set(m.prediction.parts)
        assert m.prediction.parts[OTHER].calls > 0


def test_the_prediction_counts_the_layers_arithmetic(small):
    for m in small:
        assert (
            sum(stage.flops for p in m.prediction.parts.values() for stage, _, _ in p.stages)
            == 2 * 32 * m.cost.training_macs_per_image
        )


def test_im2col_moves_more_and_auto_less(small):
    moved = {(m.name, m.algorithm): m.moved_bytes for m in small}
    assert moved["small_cnn", "im2col"] > 2 * moved["small_cnn", "auto"]


def test_what_does_not_say_what_it_does_is_named(digits):
    @nn.differentiable
    def strange(x):
        return x * 2, lambda dy: dy * 2

    class Strange(nn.layers.Layer):
        def call(self, x, training):
            return strange(x)

    model = nn.Sequential([nn.Input((28, 28, 1)), nn.Flatten(), Strange(), nn.Dense(10, activation="softmax")])
    contestants = [Contestant(model, "auto")]
    steps = training_steps(contestants, *digits[0], batch_size=8)
    (m,) = measure(contestants, steps, machine.load_or_measure(), batch_size=8, rounds=1)
    assert m.prediction.missing == ["operation 'strange'"]
    assert m.predicted_ms is None
    assert m.moved_bytes is None


def test_a_network_that_ends_in_logits_is_trained_on_logits(digits):
    from nnlite.explain.request import loss_of

    logits = nn.Sequential([nn.Input((784,)), nn.Dense(10)])
    probabilities = nn.Sequential([nn.Input((784,)), nn.Dense(10, activation="softmax")])
    probabilities.set_weights(logits.get_weights())
    x, y = digits[0][0][:8].reshape(8, 784), digits[0][1][:8]
    losses = [loss_of(model)(y, model(x)).item() for model in (logits, probabilities)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def measured_with(share=1.0, borrowed=0, disturbed=0, strayed=False, name="mlp", algorithm="auto"):
    prediction = predict.StepPrediction({}, borrowed, disturbed)
    return Measurement(name, algorithm, None, StepProfile(), [], prediction, share=share, strayed=strayed)


def test_other_programs_are_told_of():
    assert cautions([measured_with()]) == []
    for caution in ({"share": 0.5}, {"disturbed": 3}, {"borrowed": 2}, {"strayed": True}):
        (said,) = cautions([measured_with(**caution)])
        assert said.startswith("CAUTION: ")
    assert "50% of it" in cautions([measured_with(share=0.5)])[0]
    assert len(cautions([measured_with(0.5, 2, 3, True)])) == 4


@pytest.mark.parametrize(
    ("moved", "named"),
    [
        ({"auto": ["mlp"]}, "of the mlp under auto. "),
        ({"auto": ["mlp", "cnn"], "im2col": ["mlp", "cnn"]}, "of the mlp and the cnn under auto and im2col. "),
        ({"auto": ["mlp", "cnn"], "im2col": ["cnn"]}, "of the mlp and the cnn under auto; the cnn under im2col. "),
    ],
)
def test_networks_are_named_together_with_their_algorithms(moved, named):
    borrowed = [measured_with(1.0, 1, name=n, algorithm=a) for a, names in moved.items() for n in names]
    (said,) = cautions([measured_with(name="other"), *borrowed])
    assert named in said


def test_cautions_come_before_what_is_said_and_checks_after_it():
    moved = measured_with(0.5)
    moved.profile = StepProfile([1.0] * 9, left_out=1)
    assert list(verdict([moved], None, {"Why": ["So."]})) == ["Cautions", "Why", "Checks of this run"]
    assert verdict([measured_with()], None, {"Why": ["So."]}) == {"Why": ["So."]}


@pytest.mark.parametrize(("kept", "left_out", "told"), [(4, 8, True), (5, 7, False), (3, 0, False)])
def test_few_rounds_that_are_alike_are_told_of(kept, left_out, told):
    few, fewer = measured_with(), measured_with()
    few.profile = StepProfile([1.0] * kept, left_out=left_out)
    fewer.profile = StepProfile([1.0] * 2, left_out=10 * told)
    said = cautions([measured_with(), fewer, few])
    assert [f"no more than {kept} rounds are alike" in caution for caution in said] == [True] * told


def test_the_conditions_of_a_measurement_are_in_the_document_as_numbers():
    m = measured_with(share=0.5, borrowed=2, disturbed=3, strayed=True)
    m.threads, m.profile = 1, StepProfile([1.0] * 4, state=CHANGED, left_out=8)
    assert _conditions(m) == {
        "threads": 1,
        "share_of_processors": 0.5,
        "rounds_kept": 4,
        "rounds_left_out": 8,
        "processors_moved_in_every_round": True,
        "processors_lay_as_never_before": True,
        "rates_disturbed": 3,
        "rates_of_another_state": 2,
    }


@pytest.mark.parametrize(("state", "strayed"), [(0, False), (1, True), (CHANGED, False)])
def test_a_state_that_is_new_while_the_steps_are_timed_is_told(monkeypatch, state, strayed):
    known = Forecast([StepPrediction({})], first=0, where=lambda: state)

    def profiled(steps, surroundings, **options):
        with surroundings[0]():
            return [StepProfile([1.0], state=state)]

    monkeypatch.setattr("nnlite.explain.measure.forecast", lambda *arguments: [known])
    monkeypatch.setattr("nnlite.explain.measure.profile", profiled)
    contestants = [Contestant(nn.models.mlp(), "auto")]
    (m,) = measure(contestants, [lambda: None], machine.load_or_measure(), batch_size=8)
    assert m.strayed == strayed


def test_the_share_of_the_processors_is_asked_for_between_the_rounds(monkeypatch, digits):
    shares = iter([1.0, 0.5, 0.6])
    monkeypatch.setattr("nnlite.explain.measure.share_of_processors", lambda threads, blas: next(shares))
    contestants = [Contestant(nn.models.mlp(), "auto")]
    steps = training_steps(contestants, *digits[0], batch_size=8)
    (m,) = measure(contestants, steps, machine.load_or_measure(), batch_size=8, rounds=2)
    assert m.share == pytest.approx(0.7)


@pytest.mark.parametrize("algorithm", ["auto", "im2col", "theano2017"])
def test_a_measurement_tells_its_threads(digits, algorithm):
    contestants = [Contestant(nn.models.mlp(), algorithm)]
    steps = training_steps(contestants, *digits[0], batch_size=8)
    (m,) = measure(contestants, steps, None, batch_size=8, rounds=1)
    assert m.threads == (1 if algorithm == "theano2017" else nn.get_num_threads())


def test_nothing_is_predicted_of_what_does_not_say_what_it_does(digits):
    contestants = [Contestant(nn.models.small_cnn(), "fft")]
    steps = training_steps(contestants, *digits[0], batch_size=4)
    (m,) = measure(contestants, steps, machine.load_or_measure(), batch_size=4, rounds=1)
    assert any("fft" in reason for reason in m.prediction.missing)
    unknown = {layer.name for layer in m.layers if layer.predicted_ms is None}
    assert {"conv2d", "conv2d_1"} <= unknown
    assert not [layer for layer in m.layers if layer.name.startswith("conv2d") and layer.predicted_ms]
