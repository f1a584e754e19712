"""What other programs take of the processors, on given counters."""

from types import SimpleNamespace

import pytest

from nnlite.performance import contention
from nnlite.performance.contention import Contention, caution


@pytest.fixture
def watched(monkeypatch):
    """Two processors, of which this process may use both; counters that a test sets."""
    clocks = SimpleNamespace(now=0.0, own=0.0, busy=[0.0, 0.0])
    monkeypatch.setattr(contention.threads, "available_cpus", lambda: 2)
    monkeypatch.setattr(contention.time, "perf_counter", lambda: clocks.now)
    monkeypatch.setattr(contention.time, "process_time", lambda: clocks.own)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    times = lambda percpu: [SimpleNamespace(user=busy, steal=0.0) for busy in clocks.busy]  # noqa: E731
    monkeypatch.setattr("psutil.cpu_times", times)
    return clocks


@pytest.mark.parametrize(
    ("own", "busy", "share"), [(2.0, [1.0, 1.0], 0.0), (1.0, [1.0, 1.0], 0.5), (0.0, [1.0, 0.0], 0.5), (3.0, [1, 1], 0)]
)
def test_it_is_what_was_busy_and_not_this_process(watched, own, busy, share):
    watching = Contention()
    watched.now, watched.own, watched.busy = 1.0, own, busy
    assert watching.share() == share


def test_a_processor_that_this_process_may_not_use_does_not_count(watched, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {1}, raising=False)
    monkeypatch.setattr(contention.threads, "available_cpus", lambda: 1)
    watching = Contention()
    watched.now, watched.busy = 1.0, [1.0, 0.25]
    assert watching.share() == 0.25


def test_a_caution_is_one_line_and_only_where_it_matters():
    assert caution(contention.TOLERATED) == []
    assert caution(0.634) == ["Other programs used 63% of the CPU: do not trust these times."]
