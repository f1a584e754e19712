"""`nnlite bench --roofline`: the arithmetic of roofs on a machine whose rates are known."""

from types import SimpleNamespace

import numpy as np
import pytest

from nnlite import conv
from nnlite.lab import roofline
from nnlite.lab.bench import bench
from nnlite.lab.results import Cell, Row, Run
from nnlite.lab.shapes import resolve

IM2COL = conv.get("im2col")


class Silent(conv.Algorithm):
    """Declares no traffic; its gradients are im2col's."""

    name = "silent"

    def forward(self, x, weight, geometry):
        return IM2COL.forward(x, weight, geometry)


class Declared(Silent):
    name = "declared"

    def moved_bytes(self, geometry, pass_name):
        return 2 << 20


def level(name, threads, gbs):
    return SimpleNamespace(level=name, threads=threads, copy_gbs=gbs)


#: peak of two threads 100 GFLOP/s; a level of a machine is half as fast as the one above it
MACHINE = SimpleNamespace(
    caches={"L1": 32 << 10, "L2": 512 << 10, "L3": 4 << 20},
    threads=2,
    bandwidths=[level(n, 2, g) for n, g in (("L1", 80.0), ("L2", 40.0), ("L3", 20.0), ("memory", 10.0))],
    fma_gflops=lambda threads: 100.0 if threads > 1 else 50.0,
)


@pytest.fixture(autouse=True)
def registered():
    for algorithm in (Silent(), Declared()):
        conv.register(algorithm)
    yield
    for name in ("silent", "declared"):
        conv.unregister(name)


def point(shape, algorithm="declared", pass_name="forward", seconds=1.0, **more):
    (shape,) = resolve([shape], 1)
    flops = 2 * shape.geometry.macs
    cell = Cell(algorithm, "timed", seconds=[seconds] * 5, flops=flops, peak_gflops=100.0, error=0.0, **more)
    row = Row(shape, pass_name, [cell], baseline=algorithm, control_seconds=[seconds] * 5)
    row.compare()
    run = Run("a processor", 100.0, threads=2, seed=0, command="", date="", rows=[row])
    (found,) = roofline.points(run, MACHINE)
    return found


def test_few_flops_per_byte_are_under_a_bandwidth_many_under_the_peak():
    """2 MiB are in L3: its 20 GB/s are 100 GFLOP/s from 5 FLOPs per byte on."""
    narrow = point("1,1,66,66,4,3,3,1,0")  # 147,456 MACs
    assert narrow.flops_per_byte == 2 * 147_456 / (2 << 20)
    assert (narrow.level, narrow.roof, narrow.roof_gflops) == ("L3", "L3", 20 * narrow.flops_per_byte)
    wide = point("1,32,66,66,64,3,3,1,0", seconds=2 * 75_497_472 / 50e9)
    assert (wide.roof, wide.roof_gflops, wide.percent) == ("FMA peak", 100.0, pytest.approx(50))


def test_the_level_is_the_smallest_that_holds_the_traffic():
    found = {bytes_: _level_of(bytes_) for bytes_ in (64 << 10, 65 << 10, 1 << 20, 4 << 20, (4 << 20) + 1)}
    assert list(found.values()) == ["L1", "L2", "L2", "L3", "memory"]  # L1 and L2 are of each thread, L3 of both


def _level_of(moved):
    class Moves(Declared):
        name = "moves"

        def moved_bytes(self, geometry, pass_name):
            return moved

    conv.register(Moves())
    try:
        return point("1,1,66,66,4,3,3,1,0", "moves").level
    finally:
        conv.unregister("moves")


def test_traffic_is_what_is_declared_else_that_of_the_inherited_code_else_the_minimum():
    (shape,) = resolve(["2,3,8,9,4,3,3,1,0"], 1)
    geometry, silent = shape.geometry, conv.get("silent")
    assert roofline.traffic(conv.get("declared"), geometry, "forward") == (2 << 20, True)
    assert roofline.traffic(IM2COL, geometry, "forward") == (IM2COL.moved_bytes(geometry, "forward"), True)
    assert roofline.traffic(silent, geometry, "forward") == (geometry.least_bytes("forward"), False)
    gradients = [IM2COL.moved_bytes(geometry, name) for name in ("grad_input", "grad_weight")]
    assert roofline.traffic(silent, geometry, "grad_input") == (gradients[0], True)
    assert roofline.traffic(silent, geometry, "gradients") == (sum(gradients), True)


@pytest.mark.parametrize("name", conv.names())
@pytest.mark.parametrize("pass_name", ["forward", "grad_input", "grad_weight", "gradients"])
def test_every_algorithm_has_a_place(name, pass_name):
    (shape,) = resolve(["2,3,8,9,4,3,3,1,0"], 1)
    moved, _ = roofline.traffic(conv.get(name), shape.geometry, pass_name)
    assert moved >= shape.geometry.least_bytes("forward")


def test_one_thread_is_held_to_the_rates_of_one(monkeypatch):
    monkeypatch.setattr(MACHINE, "bandwidths", [*MACHINE.bandwidths, *(level(n, 1, 5.0) for n in MACHINE.caches)])
    monkeypatch.setattr(Declared, "one_thread", True)
    found = point("1,32,66,66,64,3,3,1,0")
    assert (found.threads, found.roof, found.roof_gflops) == (1, "FMA peak", 50.0)


def test_the_run_has_the_peak_of_its_roofline(monkeypatch):
    monkeypatch.setattr("nnlite.lab.check.RANDOM", 0)
    monkeypatch.setattr("nnlite.lab.check.FIXED", [])
    run = bench([conv.get("declared")], [], ["forward"], machine=MACHINE)
    assert run.peak_gflops == MACHINE.fma_gflops(run.threads)


def test_the_table_marks_what_is_not_as_it_seems():
    points = [
        point("1,1,66,66,4,3,3,1,0", "silent", scale=2.0),
        point("1,32,66,66,64,3,3,1,0", seconds=1e-3, effective_rate=True),
    ]
    first, last = roofline.tables(points, MACHINE)
    assert not first.notes
    assert "min" in first.rows[0][2].text
    assert first.rows[0][4].text.startswith("~")
    assert "eff" in last.rows[0][4].text
    assert [cell.text for cell in last.rows[0]][-3:] == ["FMA peak", "100", "151%"]
    notes = " ".join(last.notes)
    assert all(words in notes for words in ("min: ", "eff: ", "Far below", "FMA peak 100 GFLOP/s"))
    assert "Above 100%" not in notes


def test_the_plot_has_a_dot_per_algorithm_and_every_roof():
    points = [point("1,1,66,66,4,3,3,1,0", name) for name in ("silent", "declared")]
    (axes,) = roofline.draw(points, MACHINE).axes
    offsets = axes.collections[0].get_offsets()
    np.testing.assert_allclose(offsets, [[p.flops_per_byte, p.gflops] for p in points])
    words = {text.get_text().strip() for text in axes.texts}
    assert words == {"L1", "L2", "L3", "memory", "peak 100 GFLOP/s", "silent", "declared"}
