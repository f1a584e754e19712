"""The rates: which are measured anew, kept and told of, as processors are moved and other programs take them."""

import itertools
import json
import time
from dataclasses import replace
from functools import partial

import pytest

import nnlite as nn
from nnlite import ceilings as measuring
from nnlite import jit, jit_cache, machine
from nnlite.ceilings import Bandwidth
from nnlite.conv.stages import move
from nnlite.rates import TRIES, Need, Rates
from nnlite.rates.state import SAME, State, handing_us

pytestmark = pytest.mark.skipif(not jit.ENABLED, reason="rates are measured with compiled kernels")


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

    def one(self, key, measure=None):
        """What is known under one key."""
        return self.known((key,), lambda parts: {key: measure()})[key]

    def where(self):
        fits = [state.distance(self.launch) <= SAME for state in self.states]
        if True not in fits:
            self.states.append(State(self.launch))
        return fits.index(True) if True in fits else len(fits)


def test_a_rate_belongs_to_the_state_it_was_measured_in():
    rates = Moving()

    def moved_meanwhile():
        rates.launch = 3.7
        return 60.0

    rates.complete(lambda: (rates.one("a", lambda: 100.0), rates.one("b", moved_meanwhile)))
    assert [p.known for p in rates.states] == [{"a": 100.0}, {"b": 60.0, "a": 100.0}]
    assert rates.everywhere(lambda: rates.one("b", lambda: 0.0)) == [60.0, 60.0]


@pytest.fixture
def kept_in(tmp_path, monkeypatch):
    ceilings = machine.load_or_measure()
    monkeypatch.setattr(machine, "load_or_measure", lambda: ceilings)
    monkeypatch.setattr(jit_cache, "cache_root", lambda: tmp_path)

    def known():
        return [state["known"] for file in tmp_path.glob("rates-*.json") for state in json.loads(file.read_text())]

    return known


def path(**changes):
    """Where the rates of this machine are kept."""
    return nn.rates._kept_path(replace(machine.load_or_measure(), **changes), 1, 2)


@pytest.mark.usefixtures("kept_in")
def test_rates_are_kept_under_what_they_hang_on(monkeypatch):
    paths = [path(), path(), path(processor="another"), path(versions={"numpy": "0"})]
    paths.append(nn.rates._kept_path(machine.load_or_measure(), 2, 1))
    with monkeypatch.context() as patched:
        patched.setattr(jit_cache, "target", lambda: ("x86_64", "haswell", "-avx512f"))
        paths.append(path())
    with monkeypatch.context() as patched:
        patched.setattr(nn.rates, "_MEASURED", nn.rates._MEASURED[1:])
        paths.append(path())
    assert paths[0] == paths[1]
    assert len({p.name for p in paths}) == len(paths) - 1


def test_the_sources_of_all_that_takes_time_are_among_it():
    """Of the layers and of autograd too: what calling costs is the time of their Python."""
    hashed = nn.rates._sources()
    package = nn.rates.Path(nn.__file__).parent
    for name in ("autograd.py", "ops/dense.py", "rates/measure.py", "layers/base.py"):
        assert package / name in hashed
    assert not any("explain" in str(file.relative_to(package)) for file in hashed)


@pytest.mark.parametrize(
    "content",
    [
        "no JSON", "3", "[3]", '[{"handing_us": 2.4}]', '[{"handing_us": "a", "known": {}}]',
        '[{"handing_us": 0, "known": {"a": 1}}]', '[{"handing_us": NaN, "known": {"a": 1}}]',
        '[{"handing_us": 2.4, "known": {"a": Infinity}}]', '[{"handing_us": 2.4, "known": ["a"]}]',
    ],
)  # fmt: skip
@pytest.mark.usefixtures("kept_in")
def test_what_something_else_wrote_is_not_read(content):
    path().write_text(content)
    rates = Rates(machine.load_or_measure(), 1, 2)
    assert [state.known for state in rates.states] == [{}]
    assert all(0.1 < state.handing_us < 1e5 for state in rates.states)


@pytest.mark.usefixtures("kept_in")
def test_what_is_saved_is_known_to_the_next(monkeypatch):
    monkeypatch.setattr(Rates, "share", lambda self: 1.0)
    monkeypatch.setattr(nn.rates, "handing_us", lambda *threads: 2.4)
    rates = Rates(machine.load_or_measure(), 1, 2)
    rates.known(["a"], lambda parts: {"a": 7.0})
    rates.save()
    assert Rates(machine.load_or_measure(), 1, 2).states == [State(2.4, {"a": 7.0})]


@pytest.fixture
def asks_each_time(monkeypatch):
    monkeypatch.setattr(nn.rates.undisturbed, "ASKED_EVERY", 0.0)


def test_what_was_measured_since_it_last_asked_is_disturbed_too(kept_in, monkeypatch):
    monkeypatch.setattr(nn.rates.undisturbed, "ASKED_EVERY", 60.0)
    monkeypatch.setattr(nn.rates.undisturbed, "PATIENCE", 0.0)
    rates = Moving(shares=[1.0, 0.5])
    for key in "abc":
        rates.one(key, lambda: 7.0)
    assert not rates.disturbed  # it has not asked yet
    monkeypatch.setattr(nn.rates.undisturbed, "ASKED_EVERY", 0.0)
    rates.one("d", lambda: 8.0)
    assert rates.disturbed == {(0, key) for key in "abcd"}
    rates.one("e", lambda: 9.0)
    rates.one("f", lambda: 9.0)
    monkeypatch.setattr(nn.rates.undisturbed, "ASKED_EVERY", 60.0)
    rates.one("g", lambda: 9.0)
    rates.save()
    assert kept_in() == [{"f": 9.0, "g": 9.0}]


def test_before_it_is_kept_what_was_measured_last_is_asked_about(kept_in, monkeypatch):
    monkeypatch.setattr(nn.rates.undisturbed, "ASKED_EVERY", 60.0)
    rates = Moving(shares=[1.0, 0.5])
    rates.one("a", lambda: 7.0)
    rates.save()
    assert kept_in() == []


@pytest.mark.usefixtures("asks_each_time")
def test_a_disturbed_rate_is_measured_anew_and_kept_once_it_is_alone(kept_in):
    rates, values = Moving(shares=[1.0, 0.5, 0.5, 1.0, 1.0]), iter([1.0, 2.0, 3.0, 4.0])
    assert rates.one("a", lambda: next(values)) == 4.0  # before and after the fourth it was alone
    rates.save()
    assert kept_in() == [{"a": 4.0}]
    assert not rates.disturbed


@pytest.mark.usefixtures("asks_each_time")
def test_a_rate_that_is_disturbed_all_the_time_is_used_and_told_and_never_kept(kept_in, monkeypatch):
    monkeypatch.setattr(nn.rates.undisturbed, "PATIENCE", 0.0)
    rates = Moving(shares=[1.0, 0.5, 0.5])
    assert rates.one("a", lambda: 7.0) == 7.0
    assert rates.one("b", lambda: 8.0) == 8.0
    rates.one("c", lambda: 9.0)  # half disturbed
    rates.one("d", lambda: 10.0)
    assert rates.disturbed == {(0, "a"), (0, "b"), (0, "c")}
    rates.save()
    assert kept_in() == [{"d": 10.0}]


@pytest.mark.usefixtures("asks_each_time")
def test_a_disturbed_rate_does_not_take_the_place_of_a_good_one(monkeypatch):
    monkeypatch.setattr(nn.rates.undisturbed, "PATIENCE", 0.0)
    rates = Moving({"a forward": 100.0}, shares=itertools.repeat(0.5))
    both = {"a forward": 1.0, "a other": 2.0}
    rates.known(list(both), lambda parts: both)
    assert rates.states[0].known == {"a forward": 100.0, "a other": 2.0}
    assert rates.disturbed == {(0, "a other")}


def test_a_state_that_other_programs_feign_is_none(monkeypatch):
    monkeypatch.setattr(nn.rates.undisturbed, "PATIENCE", 0.0)
    handing = 30.0
    monkeypatch.setattr(nn.rates, "handing_us", lambda *threads: handing)
    shares = [1.0]
    monkeypatch.setattr(Rates, "share", lambda self: shares[0])
    shares[0] = 0.5
    assert len(Rates(machine.load_or_measure(), 7, 1).states) == 1  # it needs one to begin with
    shares[0] = 1.0
    rates = Rates(machine.load_or_measure(), 7, 1)  # nothing is kept of so many threads
    assert (rates.where(), [state.handing_us for state in rates.states]) == (0, [30.0])
    handing, shares[0] = 16000.0, 0.5
    assert (rates.where(), len(rates.states)) == (0, 1)
    shares[0] = 1.0
    rates.where()  # half disturbed
    assert (rates.where(), len(rates.states)) == (1, 2)
    assert (rates.where(), len(rates.states)) == (1, 2)


@pytest.mark.usefixtures("asks_each_time")
def test_patience_with_other_programs_ends(monkeypatch):
    monkeypatch.setattr(nn.rates.undisturbed, "PATIENCE", 0.05)
    rates, tries = Moving(shares=[0.5] * 20), []
    for key in "abc":
        rates.one(key, lambda: tries.append(1) or time.sleep(0.02) or 1.0)
    assert 3 <= len(tries) <= 6


@pytest.mark.parametrize(("moves", "times"), [(0, 1), (1, 2), (9, TRIES)])
def test_what_is_computed_while_the_processors_move_is_computed_again_a_few_times(moves, times):
    rates, computed = Moving(), []

    def measure():
        if len(computed) <= moves:
            rates.launch *= 2
        return 1.0

    rates.complete(lambda: computed.append(1) or rates.one(str(len(computed)), measure))
    assert len(computed) == times


def test_what_one_state_lacks_is_borrowed_of_another_and_counted():
    rates = Moving({"a": 1.0})
    rates.states.append(State(5.0, {"a": 3.0, "b": 2.0}))
    found = rates.everywhere(lambda: (rates.one("a"), rates.one("b"), len(rates.borrowed)))
    assert found == [(1.0, 2.0, 1), (3.0, 2.0, 0)]


def test_a_run_has_little_time_for_what_it_knows_of_another_state(monkeypatch):
    monkeypatch.setattr(nn.rates, "MOVED_SECONDS", 0.01)
    rates, measured = Moving({"a": 1.0, "b": 2.0}), []
    rates.launch *= 2

    def anew(key):
        measured.append(key)
        time.sleep(0.02)
        return 7.0

    def compute():
        return [rates.one(key, partial(anew, key)) for key in ("new", "a", "b", "newer")]

    rates.complete(compute)
    assert measured == ["new", "a", "newer"]  # what no state knows is measured whatever it takes
    assert rates.everywhere(lambda: (compute(), sorted(rates.borrowed))) == [
        ([7.0, 1.0, 2.0, 7.0], ["new", "newer"]),
        ([7.0, 7.0, 2.0, 7.0], ["b"]),
    ]
    rates.launch *= 2
    assert rates.where() == 2
    rates.state = 2
    assert rates._kept("a") == 7.0  # of the state most like this one


def test_what_takes_longest_and_was_kept_is_measured_in_every_run(monkeypatch):
    monkeypatch.setattr(nn.rates, "FRESH", 0.5)
    work = {"short": 10, "long": 30, "longest": 50, "shortest": 1}
    stages = [move(kind, kind, (), touched=amount, arrays=64) for kind, amount in work.items()]
    monkeypatch.setattr(nn.rates, "_measured", lambda *rest: 2.0)

    def slowest(rates, *more):
        needs = rates.complete(lambda: [rates.rate(stage, 0) for stage in (*stages, *more)])
        return [need.keys[0].split()[0] for need in needs]

    first = Moving()
    assert slowest(first) == []  # in the first run all were measured
    kept = first.states[0].known
    assert slowest(Moving(kept)) == ["longest"]  # it is more than half of 91
    monkeypatch.setattr(nn.rates, "FRESH", 0.9)
    assert slowest(Moving(kept), stages[0], stages[0]) == ["longest", "short", "long"]  # the short one runs three times


def test_costs_of_calling_are_followed_as_rates_are(monkeypatch):
    monkeypatch.setattr(nn.rates, "FRESH", 0.5)
    rates = Moving({"a forward": 2.0, "a other": 2.0, "b forward": 3.0})
    needs = rates.complete(lambda: (rates.costs(["a forward", "a other"], None), rates.costs(["b forward"], None)))
    assert [need.keys for need in needs] == [("a forward", "a other")]


def test_what_follows_is_measured_by_its_part_of_the_samples(monkeypatch):
    asked = []
    monkeypatch.setattr(nn.rates, "_measured", lambda *rest: asked.append(rest[-1]) or 2.0)
    stage = move("a", "a", (), touched=10, arrays=64)
    first = Moving()
    first.complete(lambda: first.rate(stage, 0))
    rates = Moving(first.states[0].known)
    rates.follow(rates.complete(lambda: rates.rate(stage, 0)), 0, 3)
    assert asked == [1, 3]


def test_of_a_step_that_is_computed_again_what_it_asked_for_at_last_counts():
    rates, tries = Moving({"a": 1.0, "b": 2.0}), []

    def move_processors():
        rates.launch *= 2
        return 5.0

    def compute():
        tries.append(1)
        if len(tries) == 1:
            rates.costs(["a"], None)
            rates.one("c", move_processors)
        rates.costs(["b"], lambda parts: {"b": 2.0})

    needs = rates.complete(compute)
    assert len(tries) == 2
    assert {key for need in needs for key in need.keys} <= {"b"}
    assert list(rates._taking) == [("b",)]


def test_a_step_during_which_the_processors_were_moved_and_back_is_computed_again():
    rates, computed = Moving(), []

    def to(launch):
        rates.launch = launch
        return 1.0

    def compute():
        computed.append(1)
        rates.one(f"there {len(computed)}", lambda: to(3.7 if len(computed) == 1 else 2.4))
        rates.one(f"back {len(computed)}", lambda: to(2.4))

    rates.complete(compute)
    assert len(computed) == 2


def test_nothing_is_borrowed_after_all_states_were_predicted_for():
    rates = Moving()
    rates.states.append(State(5.0, {"a": 3.0}))
    rates.everywhere(lambda: rates.one("a"))
    rates.state = 0
    assert rates.one("a", lambda: 7.0) == 7.0


@pytest.mark.usefixtures("asks_each_time")
def test_what_is_measured_again_and_alone_is_no_longer_disturbed(kept_in, monkeypatch):
    monkeypatch.setattr(nn.rates.undisturbed, "PATIENCE", 0.0)
    rates = Moving(shares=[1.0, 0.5, 1.0])
    rates.one("a", lambda: 7.0)
    rates.one("b", lambda: 7.0)
    assert rates.disturbed == {(0, "a"), (0, "b")}
    rates.known(["a", "c"], lambda parts: {"a": 8.0, "c": 9.0})
    assert rates.disturbed == {(0, "b")}
    rates.save()
    assert kept_in() == [{"a": 8.0, "c": 9.0}]


def test_only_what_another_state_knows_takes_of_the_time_for_what_is_known(monkeypatch):
    monkeypatch.setattr(nn.rates, "MOVED_SECONDS", 1e-3)
    rates = Moving({"a": 1.0, "b": 2.0})
    rates.launch *= 2
    rates.state = rates.where()
    rates.known(["a", "new"], lambda parts: time.sleep(0.01) or {"a": 5.0, "new": 6.0})
    assert rates.one("b", lambda: 7.0) == 7.0
    assert rates.one("b", lambda: 8.0) == 7.0


def need(*keys, measure):
    """What is measured to the same number under all of some keys."""
    return Need(keys, lambda parts: dict.fromkeys(keys, measure(parts)))


def test_a_kept_rate_follows_the_median_of_what_is_measured_again():
    rates, parts = Moving({"a": 2.0, "b": 3.0}), []
    rates.states.append(State(5.0))
    values = iter([100.0, 8.0, 1.0, 7.0])

    def measure(n):
        parts.append(n)
        return next(values)

    for turn in range(3):
        rates.follow([need("a", measure=measure)], turn, 3)
    rates.launch = 5.0
    rates.follow([need("a", measure=measure)], 3, 3)
    rates.settle()
    assert parts == [3] * 4
    assert [state.known for state in rates.states] == [{"a": 5.0, "b": 3.0}, {"a": 7.0}]
    rates.settle()  # once
    assert rates.states[0].known["a"] == 5.0


def test_what_was_followed_is_kept_for_the_next_run(kept_in):
    rates = Moving({"a": 2.0})
    rates.follow([need("a", measure=lambda parts: 8.0)], 0, 1)
    rates.settle()
    rates.save()
    assert kept_in() == [{"a": 5.0}]


@pytest.mark.usefixtures("asks_each_time")
def test_what_was_disturbed_while_it_was_followed_does_not_count_though_the_next_is_alone(monkeypatch):
    monkeypatch.setattr(nn.rates.undisturbed, "PATIENCE", 0.0)
    rates = Moving({"a": 2.0}, shares=[0.79, 1.0])
    rates.follow([need("a", measure=lambda parts: 8.0)], 0, 1)
    rates.settle()
    assert rates.states[0].known == {"a": 2.0}


def test_a_cost_that_once_was_nothing_follows_too():
    rates = Moving({"a": 0.0, "b": 4.0})
    rates.follow([Need(("a", "b"), lambda parts: {"a": 3.0})], 0, 1)
    rates.settle()
    assert rates.states[0].known == {"a": 1.5, "b": 2.0}


def test_what_is_disturbed_or_moved_while_it_is_measured_again_does_not_count(monkeypatch):
    monkeypatch.setattr(nn.rates.undisturbed, "PATIENCE", 0.0)
    disturbed = Moving({"a": 2.0}, shares=itertools.repeat(0.5))
    disturbed.follow([need("a", measure=lambda parts: 8.0)], 0, 1)
    disturbed.settle()
    moved = Moving({"a": 2.0})

    def measure(parts):
        moved.launch *= 2
        return 8.0

    moved.follow([need("a", measure=measure)], 0, 1)
    moved.settle()
    assert disturbed.states[0].known == moved.states[0].known == {"a": 2.0}


def test_what_turns_out_to_be_disturbed_after_it_was_measured_again_does_not_count_either(monkeypatch):
    monkeypatch.setattr(nn.rates.undisturbed, "ASKED_EVERY", 60.0)
    rates = Moving({"a": 2.0, "b": 2.0}, shares=[1.0, 0.5, 1.0, 1.0])
    rates.follow([need("a", measure=lambda parts: 8.0)], 0, 2)
    rates.settle()  # it asks, and is not alone
    assert rates.states[0].known == {"a": 2.0, "b": 2.0}
    rates = Moving({"a": 2.0, "b": 2.0}, shares=[1.0, 0.5, 1.0, 1.0])
    rates.follow([need("a", measure=lambda parts: 8.0)], 0, 2)
    rates.one("c", lambda: 1.0)
    monkeypatch.setattr(nn.rates.undisturbed, "ASKED_EVERY", 0.0)
    rates.follow([need("b", measure=lambda parts: 4.0)], 0, 2)  # it asks after this, once more as it was not alone
    rates.follow([need("a", measure=lambda parts: 8.0)], 1, 2)
    rates.settle()
    assert rates.states[0].known == {"a": 5.0, "b": 3.0, "c": 1.0}


def test_following_takes_no_longer_than_it_may(monkeypatch):
    monkeypatch.setattr(nn.rates, "FRESH_SECONDS", -1.0)
    rates, measured = Moving({"a": 2.0}), []
    rates.follow([need("a", measure=measured.append)], 0, 1)
    assert measured == []


def test_what_found_no_time_in_a_turn_comes_first_in_the_next(monkeypatch):
    monkeypatch.setattr(nn.rates, "FRESH_SECONDS", 0.01)
    rates, measured = Moving(dict.fromkeys("abc", 2.0)), []

    def slow(name):
        return need(name, measure=lambda parts: measured.append(name) or time.sleep(0.02) or 2.0)

    needs = [slow(name) for name in "abc"]
    for turn in range(5):
        rates.follow(needs, turn, 5)
    assert "".join(measured) == "abcab"


def test_what_two_steps_need_is_measured_again_once_in_a_turn():
    rates, measured = Moving(dict.fromkeys("ab", 2.0)), []
    both, one = (need(*keys, measure=lambda parts: measured.append(parts) or 2.0) for keys in ("ab", "b"))
    for turn in range(2):
        rates.follow([both, one], turn, 2)
        rates.follow([one, both], turn, 2)
    assert len(measured) == 4


def test_what_is_measured_together_is_kept_together():
    rates = Moving()
    assert rates.known(["a", "b"], lambda parts: {"b": 5.0}) == {"a": 0.0, "b": 5.0}
    assert rates.known(["b", "a"], None) == {"a": 0.0, "b": 5.0}


def test_a_bandwidth_is_that_of_the_smallest_working_set_that_holds_so_much():
    rates = Moving()
    measured = ((100, 1, 5.0), (1000, 1, 3.0), (200, 2, 8.0), (1000, 2, 4.0))
    bandwidths = tuple(Bandwidth("", nbytes, threads, 0.0, gbs) for nbytes, threads, gbs in measured)
    rates.machine = replace(rates.machine, threads=2, bandwidths=bandwidths)
    assert [rates.bandwidth(nbytes) for nbytes in (1, 200, 201, 1e15)] == [8e9, 8e9, 4e9, 4e9]
    rates.kernel_threads = 1
    assert [rates.bandwidth(nbytes) for nbytes in (100, 101)] == [5e9, 3e9]


# The state of the processors ------------------------------------------------------------------------------------


def test_states_differ_by_a_factor():
    assert State(2.0).distance(3.0) == State(3.0).distance(2.0) == 1.5
    assert State(2.0).distance(2.0) == 1.0


def test_work_is_handed_to_those_that_own_the_threads(monkeypatch):
    assert handing_us(1, 1) == 1.0
    monkeypatch.setattr(measuring, "usual_us", lambda work: work())
    monkeypatch.setattr("nnlite.kernels.ceilings.nothing", len)
    assert handing_us(1, 3) == 3
    product = handing_us(2, 1)
    assert (product == len(product)).all()
