"""Which rounds make a profile, where a script tells the state of the machine and a clock of its own the time."""

from statistics import median

import pytest

from nnlite import profiler, scopes
from nnlite.explain.forecast import Forecast
from nnlite.predict import StepPrediction
from nnlite.profiler import CHANGED, FEWEST, PATIENCE, profile


class Clock:
    """Time passes in steps alone."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(profiler, "time", clock)
    return clock


def scripted(clock, rounds, seconds=1e9, **options):
    """The profile of one step whose turn i is in rounds[i]: a state, or two of which the second is found after it.

    A step takes a second and as many thousandths as there were steps before, so that its time tells which it was.
    """
    turns = [turn if isinstance(turn, tuple) else (turn, turn) for turn in rounds]
    asked, taken = [0], [0]

    def state():
        turn, moment = divmod(asked[0], 2)
        asked[0] += 1
        return turns[turn][moment]

    def step():
        clock.now += 1 + taken[0] / 1000
        taken[0] += 1

    (result,) = profile([step], states=[state], warmup=0, rounds=len(turns), seconds=seconds, **options)
    kept = [round(ms - 1e3) for ms in result.steps]  # the first turn warms its step: one step more
    return result, [number - 1 for number in kept]


def test_rounds_in_the_commonest_state_are_kept(clock):
    result, kept = scripted(clock, "abbabbb")
    assert kept == [1, 2, 4, 5, 6]
    assert (result.state, result.left_out) == ("b", 2)
    assert result.step_ms == median(result.steps)
    assert all(len(samples) == 5 for samples in result.parts.values())


def test_a_round_in_which_the_state_changed_is_left_out(clock):
    result, kept = scripted(clock, ["a", ("a", "b"), ("a", "b"), ("a", "b"), "a"])
    assert kept == [0, 4]
    assert (result.state, result.left_out) == ("a", 3)


def test_if_it_changed_in_all_they_are_all_kept_and_that_is_told(clock):
    result, kept = scripted(clock, [("a", "b"), ("b", "a")])
    assert kept == [0, 1]
    assert (result.state, result.left_out) == (CHANGED, 0)


def in_states(clock, told, which, rounds=5, **options):
    """Profiles of steps that are told their states by some functions of which each knows its next."""

    def step():
        clock.now += 1

    scripts = [iter([state for state in states for _ in range(2)]) for states in told]
    return profile([step] * len(which), states=[scripts[i].__next__ for i in which], warmup=0, rounds=rounds, **options)


def test_the_state_of_every_step_that_is_told_it_alike_counts(clock):
    """One of two steps changes its state from round to round: no more than what both share is kept."""
    both = in_states(clock, ["axayayaxay"], [0, 0])
    assert [(p.state, len(p.steps), p.left_out) for p in both] == [("a", 3, 2), ("y", 3, 2)]


def test_steps_that_are_told_their_states_otherwise_keep_rounds_of_their_own(clock):
    profiles = in_states(clock, ["aaaab", "xyyyx"], [0, 1])
    assert [(p.state, len(p.steps), p.left_out) for p in profiles] == [("a", 4, 1), ("y", 3, 2)]


def test_preferred_states_are_kept_though_others_are_commoner(clock):
    result, kept = scripted(clock, "b" * FEWEST + "a" * (FEWEST + 3), preferred=["b".__eq__])
    assert (result.state, kept) == ("b", list(range(FEWEST)))


@pytest.mark.parametrize(
    ("rounds", "state", "count"), [("a", "a", 1), ("baa", "a", 2), ("aabaab", "a", 4), ("abab", "b", 2)]
)
def test_of_few_rounds_half_make_a_profile_of_preferred_ones(clock, rounds, state, count):
    result, _ = scripted(clock, rounds, preferred=["b".__eq__])
    assert (result.state, len(result.steps)) == (state, count)


def test_fewer_than_enough_of_the_preferred_give_way_to_the_commonest(clock):
    result, _ = scripted(clock, "b" * (FEWEST - 1) + "a" * (FEWEST + 1), preferred=["b".__eq__])
    assert (result.state, len(result.steps)) == ("a", FEWEST + 1)


def test_steps_are_in_a_preferred_state_if_each_of_them_is(clock):
    both = in_states(clock, ["aybyaybyayby"], [0, 0], rounds=6, preferred=["b".__eq__, "y".__eq__])
    assert [(p.state, p.left_out) for p in both] == [("b", 3), ("y", 3)]


def test_after_its_seconds_it_waits_for_enough_of_the_preferred(clock):
    states = "a" * 4 + "b" * 30
    result, kept = scripted(clock, states, preferred=["b".__eq__], seconds=8.0)
    assert (result.state, len(kept)) == ("b", FEWEST)


def test_it_stops_after_its_seconds_if_there_are_enough(clock):
    result, _ = scripted(clock, "a" * 30, seconds=8.0)
    assert len(result.steps) == 7  # and one that warmed


def test_its_patience_ends(clock):
    result, _ = scripted(clock, "a" * 100, preferred=[lambda state: False], seconds=20.0)
    assert 20 * PATIENCE - 2 <= len(result.steps) <= 20 * PATIENCE + 1
    assert result.state == "a"


def test_a_forecast_knows_a_state_if_nothing_of_it_is_borrowed():
    forecast = Forecast([StepPrediction({}), StepPrediction({}, borrowed=1)], first=1, where=lambda: 0)
    assert [forecast.knows(state) for state in (0, 1, 2, None, CHANGED)] == [True, False, False, False, False]
    assert [forecast.at(state).borrowed for state in (0, 1)] == [0, 1]


def test_what_is_not_known_of_a_state_is_forecast_for_how_the_processors_lay_at_first_in_this_run():
    kept_before, now = StepPrediction({}, borrowed=1), StepPrediction({}, borrowed=2)
    forecast = Forecast([kept_before, now], first=1, where=lambda: 0)
    assert [forecast.at(state).borrowed for state in (2, None, CHANGED)] == [2, 2, 2]


@pytest.mark.parametrize("moment", ["after it opened", "before it closes"])
def test_a_scope_that_an_exception_of_a_signal_handler_keeps_open_ends_with_the_one_around_it(
    clock, monkeypatch, moment
):
    class Interrupted(profiler._Recorder):
        def enter(self, layer, part):
            depth = super().enter(layer, part)
            if (layer, moment) == ("inner", "after it opened"):
                raise KeyboardInterrupt
            return depth

        def leave(self, depth):
            if (self._open[-1][0], moment) == ("inner", "before it closes"):
                self._open[-1] = "told", "once"
                raise KeyboardInterrupt
            super().leave(depth)

    def step():
        with scopes.scope("outer", "forward"), pytest.raises(KeyboardInterrupt), scopes.scope("inner", "forward"):
            pass
        assert scopes.current_layer() is None
        clock.now += 1
        with scopes.scope("next", "forward"):
            clock.now += 2

    monkeypatch.setattr(profiler, "_Recorder", Interrupted)
    result = profiler.StepProfile()
    result.record(step)
    medians = result.medians()
    assert (medians[profiler.OTHER], medians["next", "forward"]) == (1e3, 2e3)


def test_a_layer_whose_scope_an_exception_kept_open_is_not_that_of_who_listens_later():
    class Listener:
        def enter(self, layer, part):
            return 0

        def leave(self, depth):
            pass

    scopes.scope("forgotten", "forward").__enter__()
    try:
        with scopes.listening(Listener()):
            assert scopes.current_layer() is None
        with scopes.tracing(lambda *call: None):
            assert scopes.current_layer() is None
    finally:
        scopes._here.layer = None


def test_an_exception_inside_leaves_no_scope_and_no_listener(clock):
    with pytest.raises(KeyboardInterrupt), scopes.scope("inner", "forward"):
        raise KeyboardInterrupt
    assert scopes.current_layer() is None

    def step():
        scopes.scope("outer", "forward").__enter__()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profiler.StepProfile().record(step)
    assert (scopes.current_layer(), scopes._here.listener) == (None, None)
