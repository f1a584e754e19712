"""The time model: its terms against a hand calculation, and that nothing it needs was timed in the step."""

import itertools
import json
import time

import pytest

import nnlite as nn
from nnlite import jit, jit_cache, machine, predict
from nnlite.conv.stages import Stage
from nnlite.explain.command import cautions
from nnlite.explain.contestant import Contestant
from nnlite.explain.measure import Measurement, measure, training_steps
from nnlite.profiler import OTHER, StepProfile
from nnlite.rates import CHECKED, Rates
from nnlite.rates.state import SAME, State

pytestmark = pytest.mark.skipif(not jit.ENABLED, reason="rates are measured with compiled kernels")


class FakeRates:
    """Rates as a test gives them."""

    class machine:
        numpy_call_us = 2.0
        fresh_gbs = 4.0
        caches = {"L3": 32 << 20}  # noqa: RUF012

    def __init__(self, bandwidth=1e9):
        self._bandwidth = bandwidth

    def bandwidth(self, nbytes):
        return self._bandwidth


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


@pytest.fixture(scope="module")
def small():
    """Two networks of the question on a few images, predicted and measured."""
    contestants = [
        Contestant(getattr(nn.models, name)(), algorithm)
        for algorithm in ("auto", "im2col", "theano2017")
        for name in ("mlp", "small_cnn")
    ]
    steps = training_steps(contestants, batch_size=32)
    return measure(contestants, steps, machine.load_or_measure(), batch_size=32, rounds=5)


def test_every_part_of_the_step_is_predicted(small):
    for m in small:
        assert m.prediction.missing == []
        assert m.predicted_ms == pytest.approx(sum(1e3 * p.terms.seconds for p in m.prediction.parts.values()))
        assert {(layer.name, layer.part) for layer in m.layers} == set(m.prediction.parts)
        assert m.prediction.parts[OTHER].calls > 0


def test_the_prediction_counts_the_layers_arithmetic(small):
    for m in small:
        assert sum(p.flops for p in m.prediction.parts.values()) == 2 * 32 * m.cost.training_macs_per_image


def test_im2col_moves_more_and_auto_less(small):
    moved = {(m.name, m.algorithm): m.moved_bytes for m in small}
    assert moved["small_cnn", "im2col"] > 2 * moved["small_cnn", "auto"]


def test_what_does_not_say_what_it_does_is_named():
    @nn.differentiable
    def strange(x):
        return x * 2, lambda dy: dy * 2

    class Strange(nn.layers.Layer):
        def call(self, x, training):
            return strange(x)

    model = nn.Sequential([nn.Input((28, 28, 1)), nn.Flatten(), Strange(), nn.Dense(10, activation="softmax")])
    contestants = [Contestant(model, "auto")]
    steps = training_steps(contestants, batch_size=8)
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


class Moving(Rates):
    """Rates of processors that a test moves, and gives to other programs."""

    def __init__(self, kept=(), shares=()):
        self.launch = 2.4
        self.shares = iter(shares)
        super().__init__(machine.load_or_measure(), 1, 2)
        self.states = [State(2.4, dict(kept))]
        self.state = self.where()

    def share(self):
        return next(self.shares, 1.0)

    def where(self):
        fits = [state.distance(self.launch) <= SAME for state in self.states]
        if True not in fits:
            self.states.append(State(self.launch))
        return fits.index(True) if True in fits else len(fits)


def test_kept_rates_that_no_longer_hold_are_forgotten():
    names = [str(i) for i in range(CHECKED)]
    kept = Moving(dict.fromkeys([*names, "last"], 100.0))
    assert [kept._checked(name, lambda: 101.0) for name in names] == [100.0] * CHECKED
    assert kept._checked("last", lambda: 50.0) == 100.0  # enough were checked
    kept = Moving(dict.fromkeys([*names, "last"], 100.0))
    for name in names:
        kept._checked(name, lambda: 50.0)
    assert kept.states[0].known == dict.fromkeys(names, 50.0)


def test_a_kept_rate_that_is_off_gives_way_alone():
    names = [str(i) for i in range(CHECKED)]
    kept = Moving(dict.fromkeys([*names, "last"], 100.0) | {"1": 1e5})
    assert [kept._checked(name, lambda: 101.0) for name in names] == [100.0, 101.0, *[100.0] * (CHECKED - 2)]
    assert kept.states[0].known == dict.fromkeys([*names, "last"], 100.0) | {"1": 101.0}


def test_a_rate_that_several_layers_ask_for_is_checked_once():
    kept, asked = Moving({"a": 100.0}), []
    for _ in range(3):
        kept._checked("a", lambda: asked.append(1) or 101.0)
    assert len(asked) == 1


def test_a_rate_that_is_hidden_for_a_moment_still_holds():
    kept = Moving(dict.fromkeys([str(i) for i in range(CHECKED)], 100.0))
    values = itertools.cycle([50.0, 60.0, 99.0])
    assert [kept._checked(str(i), lambda: next(values)) for i in range(CHECKED)] == [100.0] * CHECKED


def test_a_rate_belongs_to_the_state_it_was_measured_in():
    rates = Moving()

    def moved_meanwhile():
        rates.launch = 3.7
        return 60.0

    rates.complete(lambda: (rates.known("a", lambda: 100.0), rates.known("b", moved_meanwhile)))
    assert [p.known for p in rates.states] == [{"a": 100.0}, {"b": 60.0, "a": 100.0}]
    assert rates.everywhere(lambda: rates.known("b", lambda: 0.0)) == [60.0, 60.0]


@pytest.fixture
def kept_in(tmp_path, monkeypatch):
    ceilings = machine.load_or_measure()
    monkeypatch.setattr(machine, "load_or_measure", lambda: ceilings)
    monkeypatch.setattr(jit_cache, "cache_root", lambda: tmp_path)

    def known():
        return [state["known"] for file in tmp_path.glob("rates-*.json") for state in json.loads(file.read_text())]

    return known


def test_a_disturbed_rate_is_measured_anew_and_kept_once_it_is_alone(kept_in):
    rates, values = Moving(shares=[1.0, 0.5, 0.5, 1.0, 1.0]), iter([1.0, 2.0, 3.0, 4.0])
    assert rates.known("a", lambda: next(values)) == 4.0  # before and after the fourth it was alone
    rates.save()
    assert kept_in() == [{"a": 4.0}]
    assert not rates.disturbed


def test_a_rate_that_is_disturbed_all_the_time_is_used_and_told_and_never_kept(kept_in, monkeypatch):
    monkeypatch.setattr(nn.rates, "PATIENCE", 0.0)
    rates = Moving(shares=[1.0, 0.5, 0.5])
    assert rates.known("a", lambda: 7.0) == 7.0
    assert rates.known("b", lambda: 8.0) == 8.0
    rates.known("c", lambda: 9.0)  # half disturbed
    rates.known("d", lambda: 10.0)
    assert rates.disturbed == {(0, "a"), (0, "b"), (0, "c")}
    rates.save()
    assert kept_in() == [{"d": 10.0}]


def test_a_disturbed_rate_does_not_take_the_place_of_a_good_one(monkeypatch):
    monkeypatch.setattr(nn.rates, "PATIENCE", 0.0)
    rates = Moving({"a forward": 100.0}, shares=itertools.repeat(0.5))
    both = {"a forward": 1.0, "a other": 2.0}
    rates.all_known(list(both), lambda: both)
    assert rates.states[0].known == {"a forward": 100.0, "a other": 2.0}
    assert rates.disturbed == {(0, "a other")}


def test_a_state_that_other_programs_feign_is_none(monkeypatch):
    monkeypatch.setattr(nn.rates, "PATIENCE", 0.0)
    handing = 30.0
    monkeypatch.setattr(nn.rates, "handing_us", lambda *threads: handing)
    shares = [1.0]
    monkeypatch.setattr(Rates, "share", lambda self: shares[0])
    rates = Rates(machine.load_or_measure(), 7, 1)  # nothing is kept of so many threads
    assert (rates.where(), [state.handing_us for state in rates.states]) == (0, [30.0])
    handing, shares[0] = 16000.0, 0.5
    assert (rates.where(), len(rates.states)) == (0, 1)
    shares[0] = 1.0
    rates.where()  # half disturbed
    assert (rates.where(), len(rates.states)) == (1, 2)
    assert (rates.where(), len(rates.states)) == (1, 2)


def test_patience_with_other_programs_ends(monkeypatch):
    monkeypatch.setattr(nn.rates, "PATIENCE", 0.05)
    rates, tries = Moving(shares=[0.5] * 20), []
    for key in "abc":
        rates.known(key, lambda: tries.append(1) or time.sleep(0.02) or 1.0)
    assert 3 <= len(tries) <= 6


def test_a_check_that_is_disturbed_tells_nothing_of_what_is_kept(monkeypatch):
    monkeypatch.setattr(nn.rates, "PATIENCE", 0.0)
    names = [str(i) for i in range(CHECKED)]
    rates = Moving(dict.fromkeys(names, 100.0), shares=itertools.repeat(0.5))
    assert [rates._checked(name, lambda: 1.0) for name in names] == [100.0] * CHECKED
    assert rates.states[0].known == dict.fromkeys(names, 100.0)


def measured_with(share=1.0, borrowed=0, disturbed=0):
    prediction = predict.StepPrediction({}, borrowed, disturbed)
    return Measurement("mlp", "auto", None, StepProfile(), [], prediction, share=share)


def test_other_programs_are_told_of():
    assert cautions([measured_with()]) == []
    for caution in ({"share": 0.5}, {"disturbed": 3}, {"borrowed": 2}):
        (said,) = cautions([measured_with(**caution)])
        assert said.startswith("CAUTION: ")
    assert "50% of it" in cautions([measured_with(share=0.5)])[0]
    assert len(cautions([measured_with(0.5, 2, 3)])) == 3


def test_the_share_of_the_processors_is_asked_for_between_the_rounds(monkeypatch):
    shares = iter([1.0, 0.5, 0.6])
    monkeypatch.setattr("nnlite.explain.measure.share_of_processors", lambda threads, blas: next(shares))
    contestants = [Contestant(nn.models.mlp(), "auto")]
    steps = training_steps(contestants, batch_size=8)
    (m,) = measure(contestants, steps, machine.load_or_measure(), batch_size=8, rounds=2)
    assert m.share == pytest.approx(0.7)


def test_nothing_is_predicted_of_what_does_not_say_what_it_does():
    contestants = [Contestant(nn.models.small_cnn(), "fft")]
    steps = training_steps(contestants, batch_size=4)
    (m,) = measure(contestants, steps, machine.load_or_measure(), batch_size=4, rounds=1)
    assert any("fft" in reason for reason in m.prediction.missing)
    unknown = {layer.name for layer in m.layers if layer.predicted_ms is None}
    assert {"conv2d", "conv2d_1"} <= unknown
    assert not [layer for layer in m.layers if layer.name.startswith("conv2d") and layer.predicted_ms]
