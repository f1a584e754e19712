"""What tables, pictures and the ladder say about results whose truth is known."""

from io import StringIO

import numpy as np
import pytest
from matplotlib.colors import to_hex
from rich.console import Console

from nnlite import conv
from nnlite.lab import figures, tables
from nnlite.lab.bench import bench
from nnlite.lab.ladder import rungs, table
from nnlite.lab.results import Cell, Row, Run
from nnlite.lab.shapes import LARGE_BATCH, resolve
from nnlite.lab.table import to_rich
from nnlite.performance.contention import TOLERATED


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "0.0123"), (0.0004567, "0.000457"), (0.5, "0.50"), (12.3456, "12.35"), (123.4, "123")]
)
def test_a_ratio_has_three_digits_however_small(value, text):
    assert tables.ratio(value) == text


@pytest.fixture
def row():
    """im2col 1 s; direct 0.25 s, above a peak of 100 GFLOP/s; winograd 0.5 s, effective; naive 8 s, from a slice."""

    def cell(name, seconds, **more):
        return Cell(name, "timed", seconds=[seconds] * 5, flops=int(30e9), peak_gflops=100.0, error=1e-6, **more)

    (shape, *_) = resolve(["vgg"], 1)
    cells = [
        cell("im2col", 1),
        cell("direct", 0.25),
        cell("winograd", 0.5, effective_rate=True),
        cell("naive", 8, scale=64),
    ]
    found = Row(shape, "forward", cells, baseline="im2col", control_seconds=[1.0] * 5)
    found.compare()
    return found


@pytest.fixture
def run(row):
    return Run("a processor", 100.0, threads=1, seed=0, command="", date="", rows=[row])


def test_the_table_marks_the_best_slices_effective_rates_and_defects(row, run):
    out = Console(file=StringIO(), width=100, color_system=None)
    out.print(to_rich(tables.row_table(row)))
    lines = {line.replace("*", "").split()[0]: line for line in out.file.getvalue().splitlines() if line.strip()}
    assert [name for name in ("im2col", "direct", "winograd", "naive") if "*" in lines[name]] == ["direct"]
    assert [name for name in ("im2col", "direct", "winograd", "naive") if "~" in lines[name]] == ["naive"]
    assert "120% !" in lines["direct"]
    assert "60% eff" in lines["winograd"]
    assert "naive 1/64" in " ".join(out.file.getvalue().split())
    assert any("Error in nnlite" in sentence for sentence in tables.remarks(run))
    row.cells[1].effective_rate = True
    assert not any("Error in nnlite" in sentence for sentence in tables.remarks(run))


@pytest.mark.parametrize(("percent", "defect"), [(101, False), (104, True)])
def test_so_far_as_two_measurements_of_a_peak_spread_is_no_defect(percent, defect):
    cell = Cell("direct", "timed", seconds=[1.0], flops=int(percent * 1e9), peak_gflops=100.0)
    assert cell.over_peak == cell.to_dict()["over_peak"] == defect


def test_rungs_go_up_from_the_slowest(row):
    found = [(rung.cell.algorithm, rung.over_below, rung.over_first) for rung in rungs(row)]
    assert found == [("naive", 1, 1), ("im2col", 8, 8), ("winograd", 2, 16), ("direct", 2, 32)]


def test_the_heat_map_is_of_the_ratios_and_the_bars_orange_is_the_fastest(row, run):
    (image,) = figures.heat_map([row]).axes[0].images
    np.testing.assert_allclose(image.get_array(), [[0, -2, -1, 3]])
    bars = figures.bars([row], run).axes[0].patches
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == [
        figures.BLUE,
        figures.ORANGE,
        figures.BLUE,
        figures.GREY,
    ]
    assert [bar.get_width() for bar in bars] == [30, 120, 60, 3.75]


def test_a_picture_of_one_row_has_room_for_its_words(row, tmp_path):
    """Warnings are errors in tests; matplotlib warns if the axes do not fit."""
    (row.shape,), row.cells = resolve(["8,32,26,26,64,3,3,1,0"], 1), row.cells[:2]
    assert len(figures.write(figures.heat_map([row]), tmp_path / "heat")) == 2


def test_large_images_come_in_small_batches_and_that_is_said(row):
    assert {shape.geometry.input_shape[0] for shape in resolve(["vgg", "resnet", "alexnet"], 128)} == {LARGE_BATCH}
    assert {shape.geometry.input_shape[0] for shape in resolve(["seed"], 128)} == {128}
    assert "Batch size: 4, not the published 64." in tables.row_table(row).notes[0]


def test_the_baseline_is_the_one_asked_for_and_both_gradients_are_twice_the_work():
    algorithms, shapes = [conv.get("im2col"), conv.get("strided_view")], resolve(["1,2,5,5,3,3,3,1,0"], 1)
    run = bench(algorithms, shapes, ["forward", "gradients"], baseline="strided_view", rounds=5, seconds=0.1)
    assert [row.baseline for row in run.rows] == ["strided_view", "strided_view"]
    assert [row.cells[0].flops for row in run.rows] == [2 * shapes[0].geometry.macs, 4 * shapes[0].geometry.macs]


@pytest.mark.parametrize(("share", "told"), [(0.3, True), (TOLERATED, False)])
def test_a_run_beside_other_programs_says_so(run, share, told):
    run.others_share = share
    for said in (next(tables.remarks(run)), table(rungs(run.rows[0]), run).caption):
        assert ("Other programs used 30% of the CPU" in said) == told


def test_with_too_few_rounds_the_table_says_so_and_claims_nothing(row):
    for cell in row.cells:
        cell.seconds = cell.seconds[:4]
    row.control_seconds = row.control_seconds[:4]
    row.compare()
    assert {cell.verdict for cell in row.cells} == {"baseline", "too few rounds"}
    assert "4 rounds; too few rounds for intervals" in tables.row_table(row).notes[0]
