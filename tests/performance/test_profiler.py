"""The profiler gives every moment to the innermost open scope; the parts add up to the step."""

import pytest

from nnlite.performance import profiler
from nnlite.performance.profiler import OTHER, StepProfile
from nnlite.runtime import scopes


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


def stepping(clock, forward, inner, other):
    def step():
        clock.now += other
        with scopes.scope("dense", "forward"):
            clock.now += forward
            with scopes.scope(None, "grad_weight"):
                clock.now += inner

    return step


def test_each_moment_belongs_to_the_innermost_scope(clock):
    profile = StepProfile()
    assert profile.record(stepping(clock, 2.0, 3.0, 1.0)) == 6.0
    assert profile.parts == {("dense", "forward"): [2.0], ("dense", "grad_weight"): [3.0], OTHER: [1.0]}


def test_a_part_that_a_step_lacks_took_no_time_in_it(clock):
    profile = StepProfile()
    profile.record(lambda: None)
    profile.record(stepping(clock, 2.0, 3.0, 1.0))
    assert profile.parts["dense", "forward"] == [0.0, 2.0]


def test_the_parts_add_up_to_the_median_step_and_none_is_negative(clock):
    """Steps whose medians by part add up to more than the median step: a remainder would be negative."""
    profile = StepProfile()
    for forward, inner, other in ((1, 9, 0), (9, 1, 0), (8, 8, 0.1)):
        profile.record(stepping(clock, forward, inner, other))
    medians = profile.medians()
    assert sum(medians.values()) == pytest.approx(10)
    assert min(medians.values()) >= 0


def test_a_part_of_the_steps():
    profile = StepProfile([1.0, 2.0, 3.0, 4.0], {OTHER: [1.0, 2.0, 3.0, 4.0]})
    assert profile.part(1, 2) == StepProfile([2.0, 3.0], {OTHER: [2.0, 3.0]})


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
    assert (medians[profiler.OTHER], medians["next", "forward"]) == (1.0, 2.0)


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
