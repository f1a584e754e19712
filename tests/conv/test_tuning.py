"""`auto`'s choice: estimated, or measured where autotune is on."""

import json

import numpy as np
import pytest

import nnlite as nn
from nnlite.compiler import cache as jit_cache
from nnlite.conv import registry, tuning

GEOMETRY = nn.conv.Geometry((2, 6, 6, 2), (3, 3, 2, 4))


class Clock:
    """Time passes where a test says so."""

    now = 0.0

    def perf_counter(self):
        return self.now


class Paced(nn.conv.Algorithm):
    """im2col, that takes so many seconds by the clock."""

    def __init__(self, name, seconds, clock):
        self.name, self.seconds, self.clock = name, seconds, clock

    def forward(self, x, weight, geometry):
        self.clock.now += self.seconds
        return nn.conv.get("im2col").forward(x, weight, geometry)


@pytest.fixture
def field(tmp_path, monkeypatch):
    """Only these are candidates, what was measured is kept in tmp_path, and the problems measured are listed."""
    clock, measured = Clock(), []
    monkeypatch.setattr(tuning, "time", clock)
    quick, slow, rule = Paced("quick", 0.001, clock), Paced("slow", 0.03, clock), Paced("rule", 0.002, clock)
    real = tuning.measure
    for algorithm in (quick, slow, rule):
        nn.conv.register(algorithm)
    monkeypatch.setattr(jit_cache, "cache_root", lambda: tmp_path)
    monkeypatch.setattr(tuning, "candidates", lambda *problem: [quick, slow, rule])
    monkeypatch.setattr(tuning, "measure", lambda *problem: measured.append(problem) or real(*problem))
    monkeypatch.setattr(tuning, "_remembered", {})
    yield measured
    for algorithm in (quick, slow, rule):
        nn.conv.unregister(algorithm.name)


def choose(geometry=GEOMETRY, dtype=np.float32):
    return tuning.choose(geometry, dtype, registry.Choice("rule", "the rule"))


def test_off_unless_asked_for():
    assert not tuning.is_on()
    assert "measured" not in nn.conv.why(GEOMETRY, np.float32).reason


def test_the_fastest_is_taken_and_the_reason_says_so(field):
    with nn.conv.autotune():
        name, reason = choose()
    assert (name, reason) == ("quick", "measured: 1 ms, rule 2 ms")


def test_on_auto_computes_with_what_was_measured(field):
    estimated = nn.conv.select(GEOMETRY, np.float32)
    with nn.conv.autotune():
        assert nn.conv.select(GEOMETRY, np.float32).name == "quick"
        assert nn.conv.why(GEOMETRY, np.float32, "im2col").name == "im2col"  # asked for by name
        nn.conv.autotune(False)
        assert nn.conv.select(GEOMETRY, np.float32) is estimated
    assert not tuning.is_on()


def test_the_rule_wins_where_the_difference_is_small(field, monkeypatch):
    monkeypatch.setattr(tuning, "measure", lambda *problem: {"quick": 0.99, "rule": 1.0})
    with nn.conv.autotune():
        assert choose().name == "rule"
    tuning.forget()
    monkeypatch.setattr(tuning, "measure", lambda *problem: {"quick": 0.9, "rule": 1.0})
    with nn.conv.autotune():
        assert choose().name == "quick"


class Raising(Paced):
    def backward(self, x, weight, dy, geometry, needs):
        raise RuntimeError("boom")


class WrongShape(Paced):
    def forward(self, x, weight, geometry):
        return np.zeros(1, np.float32)


class WrongNumbers(Paced):
    def forward(self, x, weight, geometry):
        return 1.01 * nn.conv.get("im2col").forward(x, weight, geometry)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Raising, "it raised RuntimeError: boom"),
        (WrongShape, r"forward: expected float32 of shape \(2, 4, 4, 4\)"),
        (WrongNumbers, "forward is not what im2col gives"),
    ],
)
def test_one_that_fails_is_left_out_and_named(field, monkeypatch, kind, message):
    others = tuning.candidates(GEOMETRY, np.float32)
    monkeypatch.setattr(tuning, "candidates", lambda *problem: [kind("broken", 0, Clock()), *others])
    with nn.conv.autotune(), pytest.warns(UserWarning, match=f"leaves out algorithm 'broken'.*{message}"):
        assert choose().name == "quick"
    monkeypatch.setattr(tuning, "candidates", lambda *problem: [kind("broken", 0, Clock())])
    tuning.forget()
    with nn.conv.autotune(), pytest.warns(UserWarning, match="broken"):
        assert choose().name == "im2col"


def test_a_disk_that_is_full_leaves_no_file_behind(field, tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with nn.conv.autotune():
        assert choose().name == "quick"
    assert list(tmp_path.iterdir()) == []


def test_one_far_behind_is_not_run_to_the_end(field):
    counted = []
    slow = nn.conv.get("slow")
    slow.forward = lambda *arrays: counted.append(1) or Paced.forward(slow, *arrays)
    times = tuning.measure(GEOMETRY, np.float32, ("forward",))
    assert len(counted) == 2  # to compile, and once
    assert times == pytest.approx({"quick": 1, "slow": 30, "rule": 2})


def test_measured_once_a_process_and_once_on_this_disk(field):
    with nn.conv.autotune():
        for _ in range(2):
            choose()
            tuning._remembered.clear()  # as another process begins
    assert len(field) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda monkeypatch: monkeypatch.setattr(tuning.threads, "kernel_parts", lambda: 99),
        lambda monkeypatch: monkeypatch.setattr(tuning, "processor_name", lambda: "another"),
        lambda monkeypatch: monkeypatch.setattr(tuning, "__version__", "0"),
        lambda monkeypatch: monkeypatch.setattr(jit_cache, "sources_hash", lambda: "edited"),
        lambda monkeypatch: monkeypatch.setattr(jit_cache, "target", lambda: ("other", "features", "")),
        lambda monkeypatch: monkeypatch.setattr(tuning, "_source_hash", lambda algorithm: "edited"),
    ],
    ids=["threads", "processor", "versions", "sources", "target", "a user's source"],
)
def test_measured_anew_where_anything_it_hangs_on_changed(field, monkeypatch, change):
    with nn.conv.autotune():
        choose()
        change(monkeypatch)
        tuning._remembered.clear()
        choose()
    assert len(field) == 2


def test_measured_for_each_problem(field):
    with nn.conv.autotune():
        choose()
        choose(GEOMETRY.with_batch(3))
        choose(dtype=np.float64)
    with nn.conv.autotune(passes=("forward",)):
        choose()
    assert len(field) == 4


def test_a_damaged_file_is_measured_anew(field, tmp_path):
    with nn.conv.autotune():
        choose()
        (file,) = tmp_path.glob("choices-*.json")
        file.write_text("{")
        tuning._remembered.clear()
        choose()
        assert len(json.loads(file.read_text())["choices"]) == 1
    assert len(field) == 2


def test_without_a_folder_it_is_remembered_in_the_process(field, monkeypatch):
    monkeypatch.setattr(jit_cache, "cache_root", lambda: None)
    with nn.conv.autotune():
        choose()
        choose()
    assert len(field) == 1


def test_references_are_no_candidates():
    names = [algorithm.name for algorithm in tuning.candidates(GEOMETRY, np.float32)]
    assert "direct" in names
    assert "naive" not in names
    assert "winograd" not in [a.name for a in tuning.candidates(GEOMETRY, np.float64)]


@pytest.mark.parametrize(("passes", "message"), [(("forwards",), "Did you mean 'forward'"), ((), "at least one")])
def test_passes_are_checked(passes, message):
    with pytest.raises(ValueError, match=message):
        nn.conv.autotune(passes=passes)
