"""The ceilings: plausible, kept, measured again when asked."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from nnlite import ceilings as measuring
from nnlite import contention, jit, jit_cache, machine
from nnlite.ceilings import Bandwidth
from nnlite.cli import main


@pytest.fixture(scope="module")
def ceilings():
    return machine.load_or_measure()


def test_the_ceilings_are_plausible(ceilings):
    assert 1 < ceilings.fma_gflops_one <= ceilings.fma_gflops_all <= 1.05 * ceilings.threads * ceilings.fma_gflops_one
    assert 0.01 < ceilings.numba_call_us < 100
    assert 0.01 < ceilings.numpy_call_us < 100
    assert 0.1 < ceilings.parallel_region_us < 10_000
    assert ceilings.fresh_gbs > 0.1
    levels = ["L1", "L2", "L3", "memory"]
    assert [b.level for b in ceilings.bandwidths if b.threads == ceilings.threads] == levels
    reads = {b.level: b.read_gbs for b in ceilings.bandwidths if b.threads == 1}  # whatever other programs take
    assert list(reads) == levels
    assert reads["L1"] > reads["memory"]


def test_it_survives_json(ceilings):
    assert machine.Machine.from_dict(json.loads(json.dumps(ceilings.to_dict()))) == ceilings


@pytest.fixture
def quickly(monkeypatch, tmp_path, ceilings):
    """A cache of its own, and measurements that are counted instead of taken."""
    monkeypatch.setattr(jit_cache, "cache_root", lambda: tmp_path)
    calls = []

    def measure(threads):
        calls.append(threads)
        return replace(ceilings, threads=threads, share=1.0)

    monkeypatch.setattr(machine, "measure", measure)
    return calls


def test_it_is_measured_once_and_again_when_asked(quickly):
    for fresh, measurements in ((False, 1), (False, 1), (True, 2), (False, 2)):
        machine.load_or_measure(2, fresh=fresh)
        assert len(quickly) == measurements
    machine.load_or_measure(1)
    assert quickly == [2, 2, 1]


@pytest.mark.parametrize(("share", "kept"), [(0.5, 1.0), (1.0, 2.0)])
def test_a_disturbed_measurement_does_not_take_the_place_of_what_is_kept(quickly, monkeypatch, ceilings, share, kept):
    for us in (1.0, 2.0):
        measured = replace(ceilings, threads=2, numba_call_us=us, share=share)
        monkeypatch.setattr(machine, "measure", lambda threads, measured=measured: measured)
        assert machine.load_or_measure(2, fresh=True).numba_call_us == us
    assert machine.load_or_measure(2).numba_call_us == kept


def test_a_spoiled_file_is_measured_again(quickly, tmp_path):
    machine.load_or_measure(2)
    (file,) = tmp_path.glob("machine-*.json")
    file.write_text("{")
    machine.load_or_measure(2)
    assert len(quickly) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"bandwidths": []}, {"bandwidths": [3]}, {"caches": 3}, {"caches": {"L1": "x"}}, {"fma_gflops_all": "x"},
        {"fma_gflops_all": 0.0}, {"numba_call_us": float("nan")}, {"threads": 99},
    ],
)  # fmt: skip
def test_what_something_else_wrote_is_measured_again(quickly, tmp_path, wrong):
    machine.load_or_measure(2)
    (file,) = tmp_path.glob("machine-*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | wrong))
    machine.load_or_measure(2)
    assert len(quickly) == 2


def test_the_command_prints_and_writes_them(quickly, tmp_path, capsys, ceilings):
    assert main(["machine", "--fresh", "--json", str(tmp_path / "m.json")]) == 0
    text = capsys.readouterr().out
    assert f"{ceilings.fma_gflops_all:.1f} GFLOP/s" in text
    assert "Compiled kernels: " in text
    assert json.loads((tmp_path / "m.json").read_text())["fma_gflops_all"] == ceilings.fma_gflops_all


def test_clear_cache_empties_the_folder_and_keeps_the_measurement(quickly, tmp_path, capsys):
    machine.load_or_measure(2)
    kernels = tmp_path / "kernels-0123"
    kernels.mkdir()
    (kernels / "a.nbc").write_text("x")
    assert main(["machine", "--clear-cache"]) == 0
    assert "deleted 1 files" in capsys.readouterr().out
    assert not kernels.exists()
    assert len(list(tmp_path.glob("machine-*.json"))) == 1


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setattr(jit, "ENABLED", False)
    with pytest.raises(ValueError, match="machine: expected Numba's compiler"):
        machine.measure(1)
    assert contention.share_of_processors(1) == 1.0


def test_kept_ceilings_are_measured_again_if_they_no_longer_hold(ceilings, monkeypatch):
    measured, ceilings = [], replace(ceilings, share=1.0)

    def load_or_measure(threads=None, *, fresh=False):
        measured.append(fresh)
        return ceilings

    monkeypatch.setattr(machine, "load_or_measure", load_or_measure)
    monkeypatch.setattr(machine, "_measured_again", lambda kept: kept)
    assert machine.load_and_check() == ceilings
    assert measured == [False]
    slower = replace(ceilings, fma_gflops_all=0.8 * ceilings.fma_gflops_all)
    monkeypatch.setattr(machine, "_measured_again", lambda kept: slower)
    # other programs keep the processors, or they lie farther apart than they did: the kept ceilings stay
    for share, launch in ((0.5, 1.0), (1.0, 1.5)):
        monkeypatch.setattr(machine, "share_of_processors", lambda threads, share=share: share)
        monkeypatch.setattr(measuring, "launch_us", lambda threads, launch=launch: launch * ceilings.parallel_region_us)
        assert machine.load_and_check() == ceilings
    assert measured == [False] * 3
    monkeypatch.setattr(measuring, "launch_us", lambda threads: ceilings.parallel_region_us)
    machine.load_and_check()
    assert measured == [False] * 4 + [True]


def test_a_ceiling_that_is_exceeded_is_raised_and_kept_so(quickly, monkeypatch):
    kept = machine.load_or_measure()
    higher = replace(kept, bandwidths=tuple(replace(b, copy_gbs=1.3 * b.copy_gbs) for b in kept.bandwidths))
    monkeypatch.setattr(machine, "_measured_again", lambda kept: higher)
    assert machine.load_and_check() == higher != kept
    assert machine.load_or_measure() == higher
    assert len(quickly) == 1


@pytest.mark.parametrize(("now", "measured"), [(0.5, 1), (1.0, 2)])
def test_ceilings_that_were_disturbed_are_kept_until_other_programs_are_gone(quickly, monkeypatch, now, measured):
    disturbed = replace(machine.load_or_measure(), share=0.5)
    machine._keep(disturbed)
    monkeypatch.setattr(machine, "share_of_processors", lambda threads: now)
    monkeypatch.setattr(machine, "_measured_again", lambda kept: kept)
    assert machine.load_and_check().disturbed == (measured == 1)
    assert len(quickly) == measured


def test_the_share_of_the_processors_is_asked_for_before_and_after(monkeypatch):
    shares = iter([1.0, 0.6])
    monkeypatch.setattr(measuring, "SECONDS", 0)
    monkeypatch.setattr(measuring, "REPEATS", 1)
    monkeypatch.setattr(machine, "share_of_processors", lambda threads: next(shares))
    assert machine.measure(1).share == 0.6


def test_every_ceiling_on_all_threads_is_shown_to_hold(ceilings, monkeypatch):
    """That of the first cache as well: a layer whose operands lie there is compared with it."""
    monkeypatch.setattr(measuring, "bandwidth", lambda level, nbytes, threads: Bandwidth(level, nbytes, 2, 0, 0))
    monkeypatch.setattr(measuring, "fma_gflops", lambda threads: 0.0)
    again = machine._measured_again(replace(ceilings, threads=2, bandwidths=_bandwidths(1, 2)))
    assert again.main_ceilings == dict.fromkeys(["multiply-adds", "L1", "memory"], 0)
    assert again.bandwidths[:2] == _bandwidths(1)  # on one thread they stay


def _bandwidths(*threads):
    return tuple(Bandwidth(level, 1, count, 9, 9) for count in threads for level in ("L1", "memory"))


@pytest.mark.parametrize("size", [16, 1024, 100_000])
def test_ceilings_are_those_of_whole_cache_lines(size):
    for _ in range(5):
        x = measuring._ones(2, size)
        assert (x.ctypes.data % 4096, x.shape, x.flags.c_contiguous) == (0, (2, size), True)


@pytest.mark.parametrize(("quick", "usual"), [(measuring.LAUNCHES // 3, 1.0), (measuring.LAUNCHES // 5, 1000.0)])
def test_a_launch_costs_what_it_does_when_it_is_quick(quick, usual, monkeypatch):
    """Other programs may take three of four samples, no more; the first samples do not count."""
    now = 0.0
    monkeypatch.setattr(measuring, "time", SimpleNamespace(perf_counter=lambda: now))
    slow = measuring.LAUNCHES - quick
    durations = iter([1e-9] * measuring.UNTIMED + [1e-6] * quick + [1e-3] * slow)

    def work():
        nonlocal now
        now += next(durations)

    assert measuring.usual_us(work) == pytest.approx(usual)
    assert next(durations, None) is None


def test_other_memory_is_really_rewritten():
    """A pass that writes what was there, in the compiler's eyes, is no pass."""
    from nnlite.kernels.ceilings import rewrite

    x = np.zeros(1024, np.float32)
    rewrite(x, np.float32(1))
    assert (x == 1).all()
