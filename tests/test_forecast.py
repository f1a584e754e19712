"""The order in which rates are measured, followed, settled and kept, and what a prediction is made with."""

from types import SimpleNamespace

import pytest

import nnlite as nn
from nnlite import jit
from nnlite.explain import forecast as forecasting
from nnlite.explain.contestant import Contestant
from nnlite.explain.measure import training_steps
from nnlite.predict import StepPrediction

pytestmark = pytest.mark.skipif(not jit.ENABLED, reason="rates are measured with compiled kernels")

MACHINE = SimpleNamespace(caches={"L3": 1 << 20})


class Recorded:
    """Rates that say what is asked of them, and under how many threads of the kernels."""

    def __init__(self, said, machine, blas_threads, kernel_threads):
        assert machine is MACHINE
        self.machine, self.name, self.said, self.state = machine, (blas_threads, kernel_threads), said, 0

    def _say(self, *what):
        self.said.append((self.name, *what))

    def complete(self, compute):
        self.state += 1
        step = compute()
        self._say("complete", step.name)
        return [f"slowest of {step.name}"]

    def follow(self, needs, turn, turns):
        self._say("follow", *needs, turn, turns)

    def settle(self):
        self._say("settle")

    def save(self):
        self._say("save")

    def where(self):
        return 0

    def everywhere(self, compute):
        step = compute()
        self._say("predict", step.name, nn.get_num_threads())
        return [step]


@pytest.fixture
def forecasts(monkeypatch, digits):
    said = []

    def predict(calls, optimizer, between, least_step, held):
        step = StepPrediction({})
        step.name = f"{between.algorithm} {len(calls)}"
        return step

    monkeypatch.setattr(forecasting, "predict", predict)
    monkeypatch.setattr(forecasting, "Rates", lambda *arguments: Recorded(said, *arguments))
    contestants = [Contestant(nn.models.mlp(), "auto"), Contestant(nn.models.mlp(), "theano2017")]
    contestants.append(Contestant(nn.models.small_cnn(), "theano2017"))
    steps = training_steps(contestants, *digits[0], batch_size=4)
    return said, forecasting.forecast(contestants, steps, MACHINE, batch_size=4)


def test_what_takes_longest_is_followed_in_turns_and_kept_before_anything_is_predicted(forecasts):
    said, _ = forecasts
    threads = nn.get_num_threads()
    auto, theano = (1, threads), (1, 1)
    names = [what[2] for what in said if what[1] == "complete"]
    assert [name.split()[0] for name in names] == ["auto", "theano2017", "theano2017"]
    steps = list(zip((auto, theano, theano), names, strict=True))
    expected = [(rates, *what) for rates, name in steps for what in (("complete", name), ("save",))]
    expected += [
        (rates, "follow", f"slowest of {name}", turn, forecasting.FOLLOWED)
        for turn in range(forecasting.FOLLOWED)
        for rates, name in steps
    ]
    expected += [(rates, what) for rates in dict.fromkeys((auto, theano)) for what in ("settle", "save")]
    expected += [(rates, "predict", name, rates[1]) for rates, name in steps]
    assert said == expected


def test_a_forecast_tells_the_state_that_its_rates_were_measured_in(forecasts):
    _, (auto, mlp, small_cnn) = forecasts
    assert auto.first == 1
    assert small_cnn.first == mlp.first + 1
