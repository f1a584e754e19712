"""Parameters of algorithms, and `nnlite bench --sweep`, which finds their best values. No test depends on a clock."""

import copy
import json
import pickle

import numpy as np
import pytest

import nnlite as nn
from nnlite.__main__ import main
from nnlite.conv import Epilogue, Geometry, direct_plan, direct_weight_plan, tuning
from nnlite.lab.loading import load_algorithms
from nnlite.lab.results import Cell, Row
from nnlite.lab.shapes import Shape
from nnlite.lab.sweep import DROPS, LEAST_ROUNDS, Sweep, kept, race
from nnlite.lab.timing import COMPARED_ROUNDS
from nnlite.performance.rounds import Candidate, run_rounds

GEOMETRY = Geometry.of((2, 8, 9, 3), (3, 3, 3, 4))


class Tiled(nn.conv.Algorithm):
    """im2col; its parameters change nothing."""

    name = "tiled"
    parameters = {"rows": (4, 6, 8), "layout": ("nhwc", "n c")}  # noqa: RUF012
    rows = 6

    def forward(self, x, weight, geometry):
        return nn.conv.get("im2col").forward(x, weight, geometry)


@pytest.fixture(autouse=True)
def registered():
    before = nn.conv.names()
    nn.conv.register(Tiled())
    yield
    for name in set(nn.conv.names()) - set(before):
        nn.conv.unregister(name)


# Parameters ---------------------------------------------------------------------------------------------------------


def test_a_parameter_is_what_is_given_else_the_class_s_else_the_first_value():
    tiled, other = Tiled(), Tiled(rows=8)
    assert (tiled.rows, tiled.layout, tiled.name) == (6, "nhwc", "tiled")
    assert (other.rows, other.layout, other.name) == (8, "nhwc", "tiled(rows=8)")
    assert Tiled(layout="n c", rows=4).name == "tiled(rows=4, layout='n c')"
    assert repr(other) == "<algorithm 'tiled(rows=8)'>"
    assert Tiled.rows == 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"row": 4}, "unknown parameter 'row' of 'tiled': expected one of rows, layout. Did you mean 'rows'?"),
        ({"rows": 5}, "rows: expected one of 4, 6, 8. Received: 5"),
        ({"rows": "4"}, "rows: expected one of 4, 6, 8. Received: '4'"),
    ],
)
def test_another_parameter_or_value_is_refused(given, message):
    with pytest.raises(ValueError, match=".*") as caught:
        Tiled(**given)
    assert str(caught.value) == message
    with pytest.raises(ValueError, match="algorithm 'im2col' declares no parameters"):
        type(nn.conv.get("im2col"))(rows=4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"parameters": {"rows": 4}}, "expected a dict from names to tuples of values"),
        ({"parameters": {"rows": ()}}, "expected a dict from names to tuples of values"),
        ({"parameters": {"forward": (1, 2)}}, "expected a name that is not taken. Received: 'forward'"),
        ({"parameters": {"name": ("a", "b")}}, "expected a name that is not taken. Received: 'name'"),
        ({"parameters": {"rows": (4, 4)}}, r"expected different values of rows. Received: \(4, 4\)"),
        ({"parameters": {"rows": (4, 6)}, "rows": 5}, "rows: expected one of 4, 6. Received: 5"),
    ],
)
def test_a_class_that_declares_them_wrongly_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        type("Wrong", (nn.conv.Algorithm,), wrong)


def test_a_subclass_may_declare_other_values():
    class Taller(Tiled):
        parameters = {"rows": (10, 12)}  # noqa: RUF012

    assert Taller().rows == 10


def test_an_own_constructor_needs_no_super():
    class Quiet(Tiled):
        def __init__(self, rows=4):
            self.note = "own"

    class Closed(Tiled):
        def __init__(self):
            self.note = "own"

    assert (Quiet().rows, Quiet().layout, Quiet().name) == (6, "nhwc", "tiled")
    with pytest.raises(ValueError, match=r"Quiet: expected __init__\(.*Received: rows=6 after it got rows=4"):
        Quiet().combinations("rows")
    with pytest.raises(ValueError, match=r"Closed: expected __init__\(.*, for rows. Received: .*'rows'"):
        Closed().combinations("rows")


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_keep_parameters_and_name(way):
    twin = way(Tiled(rows=8))
    assert (twin.rows, twin.name) == (8, "tiled(rows=8)")
    assert twin.with_parameters(layout="n c").name == "tiled(rows=8, layout='n c')"


def test_combinations_begin_with_the_algorithm_s_own_values():
    names = [one.name for one in Tiled().combinations()]
    assert names[0] == "tiled(rows=6, layout='nhwc')"
    assert len(set(names)) == 6
    assert [one.rows for one in Tiled(layout="n c").combinations("rows")] == [6, 4, 8]
    assert {one.layout for one in Tiled(layout="n c").combinations("rows")} == {"n c"}
    with pytest.raises(ValueError, match="unknown parameter 'columns' of 'tiled'"):
        Tiled().combinations("columns")


def test_a_name_with_values_is_an_algorithm():
    assert nn.conv.get("tiled(rows=8)").rows == 8
    assert nn.conv.get("tiled( layout = 'n c', rows=4)").name == "tiled(rows=4, layout='n c')"
    assert nn.conv.get("tiled(layout=nhwc)").layout == "nhwc"
    assert "tiled(rows=8)" not in nn.conv.names()
    with nn.conv.use("tiled(rows=8)"):
        assert nn.conv.select(GEOMETRY, np.float32).rows == 8
    layer = nn.Conv2D(4, 3, algorithm="tiled(rows=8)")
    assert layer(nn.Tensor(np.ones((1, 5, 5, 2), np.float32))).shape == (1, 3, 3, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiled(rows=5)", "rows: expected one of 4, 6, 8"),
        ("tiled(rows=4, rows=6)", "expected NAME=VALUE, separated by commas"),
        ("tiled(rows=4, 6)", "expected NAME=VALUE, separated by commas"),
        ("tilde(rows=4)", "unknown algorithm 'tilde'"),
        ("tiled(4)", "unknown algorithm"),
        ("im2col(rows=4)", "algorithm 'im2col' declares no parameters"),
    ],
)
def test_a_name_with_other_values_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        nn.conv.get(name)


def test_a_name_with_values_follows_a_replaced_algorithm():
    class Other(Tiled):
        pass

    assert type(nn.conv.get("tiled(rows=8)")) is Tiled
    nn.conv.register(Other(), replace=True)
    assert type(nn.conv.get("tiled(rows=8)")) is Other
    nn.conv.unregister("tiled")
    with pytest.raises(ValueError, match="unknown algorithm 'tiled'"):
        nn.conv.get("tiled(rows=8)")


def test_algorithms_with_other_values_are_registered_side_by_side():
    nn.conv.register(Tiled(rows=8))
    assert "tiled(rows=8)" in nn.conv.names()
    with pytest.raises(ValueError, match="registered already"):
        nn.conv.register(Tiled(rows=8))


@pytest.mark.parametrize("name", ["winograd", "direct", "grouped", "kn2row"])
def test_built_in_algorithms_are_right_with_each_combination(name):
    """im2col in float64 is the oracle; the geometry is large enough for several blocks, panels and bands."""
    geometry = Geometry.of((5, 13, 14, 130), (3, 3, 130, 9), padding=1)
    if name == "grouped":
        geometry = Geometry.of((3, 9, 60, 64), (3, 3, 8, 64), padding=1, groups=8)
    generator = np.random.default_rng(0)
    x, weight, dy = (
        generator.standard_normal(shape, np.float32)
        for shape in (geometry.input_shape, geometry.weight_shape, geometry.output_shape)
    )
    exact = [a.astype(np.float64) for a in (x, weight, dy)]
    oracle = nn.conv.get("im2col")
    expected = oracle.forward(*exact[:2], geometry), *oracle.backward(*exact, geometry, (True, True))
    for one in nn.conv.get(name).combinations():
        fused = one.forward_fused(x, weight, None, geometry, Epilogue()) if one.fuses(geometry, Epilogue()) else None
        results = [one.forward(x, weight, geometry), *one.backward(x, weight, dy, geometry, (True, True))]
        for got, right in zip([*results, *([fused.result] if fused else [])], [*expected, expected[0]], strict=False):
            assert np.abs(got - right).max() <= 1e-4 * np.sqrt(np.mean(right**2)), one


def test_built_in_parameters_reach_the_plans():
    def plan(**parameters):
        direct = nn.conv.get("direct").with_parameters(**parameters)
        wide = Geometry.of((1, 4, 5, 300), (3, 3, 300, 20))
        long = Geometry.of((1, 80, 80, 16), (3, 3, 16, 16))
        panels = direct_plan.forward(wide, False, direct.panel_bytes).nest.blocks
        return len(panels), direct_weight_plan.grad_weight(long, 1, False, direct.line_bytes).nest.bands

    values = type(nn.conv.get("direct")).parameters
    low = {name: min(options) for name, options in values.items()}
    assert plan(**low)[0] > plan()[0]
    assert plan(**low)[1] > plan()[1]
    winograd, geometry = nn.conv.get("winograd"), Geometry.of((64, 26, 26, 64), (3, 3, 64, 64))
    assert len({one.sizes(geometry).block for one in winograd.combinations()}) > 2


def test_autotune_may_choose_among_parameters(monkeypatch, tmp_path):
    names = [a.name for a in tuning.candidates(GEOMETRY, np.float32, True)]
    assert {"direct", "tiled", "tiled(rows=8, layout='nhwc')"} <= set(names)
    assert "tiled(rows=6, layout='nhwc')" not in names  # it is `tiled`
    assert "tiled(rows=8, layout='nhwc')" not in [a.name for a in tuning.candidates(GEOMETRY, np.float32)]
    monkeypatch.setattr("nnlite.compiler.cache.cache_root", lambda: tmp_path)
    monkeypatch.setattr(tuning, "_remembered", {})
    given = {True: {"direct": 1.0, "tiled(rows=8)": 0.5}, False: {"direct": 1.0, "tiled": 0.9}}
    monkeypatch.setattr(tuning, "measure", lambda geometry, dtype, passes, parameters: given[parameters])
    with nn.conv.autotune(parameters=True):
        assert nn.conv.select(GEOMETRY, np.float32).rows == 8
        with nn.conv.autotune():
            assert nn.conv.why(GEOMETRY, np.float32).name == "tiled"
        assert nn.conv.why(GEOMETRY, np.float32).name == "tiled(rows=8)"
    assert not tuning.is_on()


# The race -----------------------------------------------------------------------------------------------------------


def candidates(times, spikes=()):
    """The default, challengers and the control, which take these seconds; more at spikes (name, run)."""
    runs = dict.fromkeys(times, 0)

    def clock(name):
        def time():
            runs[name] += 1
            return times[name] * (50 if (name, runs[name]) in spikes else 1)

        return time

    return [Candidate(name, clock(name)) for name in times]


#: the default is slow; "c7" is the fastest of 11 challengers
TIMES = {"default": 2.0, **{f"c{i}": 1 + abs(i - 7) / 10 for i in range(11)}, None: 2.0}


def test_slower_ones_are_dropped_and_the_default_survives():
    samples = race(candidates(TIMES), rounds=LEAST_ROUNDS)
    ran = {name: len(taken) for name, taken in samples.items()}
    assert ran["default"] == ran["c7"] == LEAST_ROUNDS == DROPS[-1] + COMPARED_ROUNDS
    assert ran[None] == COMPARED_ROUNDS
    assert sorted(ran.values()) == [2] * 6 + [3] * 3 + [5] + [COMPARED_ROUNDS] + [LEAST_ROUNDS] * 2
    assert {name for name, rounds in ran.items() if rounds > 2} == {"default", "c5", "c6", "c7", "c8", "c9", None}
    assert samples["c7"] == [1.0] * LEAST_ROUNDS


def test_it_takes_less_than_a_third_of_the_samples_of_all_rounds():
    everything = run_rounds(candidates(TIMES), rounds=LEAST_ROUNDS)
    raced = race(candidates(TIMES), rounds=LEAST_ROUNDS)
    assert sum(map(sum, raced.values())) > 0
    assert 3 * sum(map(len, raced.values())) < 1.1 * sum(map(len, everything.values()))
    slow = TIMES | {f"c{i}": 5.0 for i in range(5)}  # as tiles that are too small are
    costs = [sum(map(sum, run(candidates(slow), rounds=LEAST_ROUNDS).values())) for run in (race, run_rounds)]
    assert 3 * costs[0] < costs[1]


def test_one_disturbed_run_drops_nobody():
    spikes = {("c7", 1), ("c7", 3), ("default", 2)}
    samples = race(candidates(TIMES, spikes), rounds=LEAST_ROUNDS)
    assert len(samples["c7"]) == LEAST_ROUNDS


@pytest.mark.parametrize(("challengers", "remain"), [(27, [9, 3, 1]), (11, [5, 2, 1]), (2, [2, 1, 1]), (1, [1, 1, 1])])
def test_the_same_factor_remains_after_each_drop(challengers, remain):
    assert [kept(challengers, drop) for drop in range(len(DROPS))] == remain


@pytest.mark.parametrize("names", [("default", None), ("default", "c7", None)])
def test_with_one_challenger_or_none_nobody_is_dropped(names):
    samples = race(candidates({name: TIMES[name] for name in names}), rounds=LEAST_ROUNDS)
    assert {len(taken) for taken in samples.values()} == {LEAST_ROUNDS}


def test_after_an_interruption_the_rounds_completed_before_count():
    samples, rounds = {}, []

    def stop():
        rounds.append(1)
        if len(rounds) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race(candidates(TIMES), rounds=LEAST_ROUNDS, samples=samples, progress=stop)
    assert len(samples["default"]) == len(samples["c7"]) == 4
    assert samples.pop(None) == []
    assert min(map(len, samples.values())) == 2


# The result ---------------------------------------------------------------------------------------------------------


def row_of(seconds, baseline, control=None):
    cells = [Cell(name, "timed", seconds=taken, flops=1, peak_gflops=1.0, error=0.0) for name, taken in seconds.items()]
    row = Row(Shape("layer", GEOMETRY, 2), "forward", cells, baseline, control or [1.0] * len(seconds[baseline]))
    row.compare()
    return row


DEFAULT, OTHER, THIRD = (f"tiled(rows={rows})" for rows in (6, 4, 8))
STEADY = [1.0] * LEAST_ROUNDS


def test_the_ratio_is_that_of_the_rounds_after_the_choice():
    lucky = [0.5] * DROPS[-1] + [1.1] * COMPARED_ROUNDS
    row = row_of({DEFAULT: STEADY, OTHER: lucky, THIRD: [0.6] * DROPS[-1]}, DEFAULT)
    default, other, third = row.cells
    assert (other.ratio.value, other.ratio.low, other.ratio.high) == pytest.approx((1.1, 1.1, 1.1))
    assert (default.best, other.verdict) == (True, "slower")
    assert (third.ratio.value, third.ratio.low, third.verdict) == (0.6, None, "dropped after 5 rounds")


def test_fewer_rounds_after_the_choice_give_no_interval():
    few = [1.0] * (LEAST_ROUNDS - 1)
    row = row_of({DEFAULT: few, OTHER: [0.5] * len(few), THIRD: [2.0] * DROPS[-1]}, DEFAULT)
    assert (row.cells[1].ratio.low, row.cells[1].verdict) == (None, "too few rounds")


@pytest.mark.parametrize(
    ("factor", "answer"),
    [
        (0.5, "The best is rows=4: it takes 1/2 of the time of the default (95% interval 0.50 to 0.50, 15 rounds"),
        (1.5, "The best is the default. The best other, rows=4, takes 1.50 times its time (95% interval 1.50 to"),
        (1.01, "No combination is shown to be faster than the default. The best other, rows=4, takes 1.01 times"),
    ],
)
def test_the_answer_says_whether_the_default_is_right(factor, answer):
    sweep = Sweep([nn.conv.get("tiled")], ["rows"])
    row = row_of({DEFAULT: STEADY, OTHER: [factor] * LEAST_ROUNDS, THIRD: [9.0] * DROPS[-1]}, DEFAULT)
    few = row_of({DEFAULT: [1.0] * 4, OTHER: [factor] * 4}, DEFAULT)
    assert sweep.answer(row).startswith(answer)
    assert "too few rounds for an interval" in sweep.answer(few)


# The command --------------------------------------------------------------------------------------------------------

MINE = """
import numpy as np
import nnlite as nn
class Mine(nn.conv.Algorithm):
    name = "mine"
    uses_blas = True
    parameters = {"rows": (2, 4, 6, 8), "layout": ("flat", "blocked")}
    rows = 4
    def supports(self, geometry):
        return "8 rows do not fit" if self.rows == 8 else None
    def forward(self, x, weight, geometry):
        return nn.conv.get("im2col").forward(x, weight, geometry)
class Wrong(Mine):
    name = "wrong"
    def forward(self, x, weight, geometry):
        return super().forward(x, weight, geometry) + (self.rows == 6)
"""
SMALL = ["--shapes", "2,3,8,9,4,3,3,1,0", "--passes", "forward"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nnlite.lab.check.RANDOM", 2)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_a_sweep_checks_and_times_each_combination(folder, capsys):
    files = ["--json", "r.json", "--csv", "r.csv", "--figures", "pictures"]
    assert main(["bench", "--algorithm", "mine.py:Mine", "--sweep", *SMALL, *files]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    text = " ".join(printed.split())
    assert "6 of 8 combinations of mine are correct" in text
    assert "rows=8, layout=flat; rows=8, layout=blocked: 8 rows do not fit." in text
    assert "successive halving (Jamieson and Talwalkar 2016" in text
    assert r"rows \ layout" in text
    result = json.loads((folder / "r.json").read_text())
    assert result["sweep"]["default"] == "mine(rows=4, layout='flat')"
    (row,) = result["rows"]
    cells = {cell["algorithm"]: cell for cell in row["algorithms"]}
    assert row["baseline"] == result["sweep"]["default"]
    assert {name for name, cell in cells.items() if cell["status"] == "declined"} == {
        "mine(rows=8, layout='flat')",
        "mine(rows=8, layout='blocked')",
    }
    rounds = sorted(len(cell["samples_ms"]) for cell in cells.values() if cell["status"] == "timed")
    assert rounds == [2, 2, 3, 5, 20, 20]  # of five challengers three, then two, then one
    assert sum(cell["ratio"]["low"] is not None for cell in cells.values() if cell["status"] == "timed") == 2
    assert {path.name for path in (folder / "pictures").iterdir()} == {"sweep-heatmap.svg", "sweep-heatmap.png"}


def test_a_combination_that_declines_all_edge_cases_is_correct_if_it_is_where_it_is_timed(folder, capsys):
    (folder / "mine.py").write_text(MINE.replace("self.rows == 8", "geometry.input_shape != (2, 8, 9, 3)"))
    assert main(["bench", "--algorithm", "mine.py:Mine", "--sweep", "rows", *SMALL]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "4 of 4 combinations of mine are correct, on 0 geometries and at the timed shapes." in text


def test_the_grid_marks_the_best_and_the_dropped():
    sweep = Sweep([nn.conv.get("tiled")], [])
    names = list(sweep.combinations)
    seconds = {name: [9.0] * 2 for name in names} | {names[0]: STEADY, names[1]: [0.5] * LEAST_ROUNDS}
    all_ratios, grid = sweep.tables(row_of(seconds, names[0]))
    assert [line[4].text for line in all_ratios.rows] == ["1.00", "0.50", *["(9.00)"] * 4]
    assert "do not compare them with the others'" in all_ratios.notes[0]
    assert grid.title == "x default; * best; (dropped after few rounds)"
    lines = {row[0].text: [cell.text for cell in row[1:]] for row in grid.rows}
    assert lines == {"4": ["(9.00)", "(9.00)"], "6": ["1.00", "* 0.50"], "8": ["(9.00)", "(9.00)"]}


def test_only_takes_an_algorithm_with_parameters(folder, capsys):
    assert main(["bench", "--only", "tiled(rows=8, layout=nhwc),tiled", *SMALL, "--json", "r.json"]) == 0
    (row,) = json.loads((folder / "r.json").read_text())["rows"]
    assert [cell["algorithm"] for cell in row["algorithms"]] == ["tiled(rows=8, layout='nhwc')", "tiled"]
    assert main(["bench", "--only", "tiled(rows=9)", *SMALL]) == 2
    assert "--only tiled(rows=9): rows: expected one of 4, 6, 8." in capsys.readouterr().err


def test_some_parameters_are_swept_and_the_others_stay(folder, capsys):
    assert main(["bench", "--algorithm", "mine.py:Mine(layout=blocked)", "--sweep", "rows", *SMALL]) == 0
    assert "3 of 4 combinations of mine(layout='blocked')" in capsys.readouterr().out


def test_a_wrong_combination_is_refused_by_name(folder, capsys):
    assert main(["bench", "--algorithm", "mine.py:Wrong", "--sweep", "rows", *SMALL]) == 1
    text = capsys.readouterr().out
    assert "2 of 4 combinations of wrong are correct" in text
    assert "REFUSED rows=6: forward is wrong" in text


def test_one_combination_of_a_file_is_named_by_its_values(folder):
    first, second = load_algorithms(["mine.py:Mine(rows=6)", "mine.py:Mine"])
    assert (first.name, first.rows, second.name) == ("mine(rows=6)", 6, "mine")
    with pytest.raises(ValueError, match=r"--algorithm mine.py:Mine\(rows=5\): rows: expected one of 2, 4, 6, 8."):
        load_algorithms(["mine.py:Mine(rows=5)"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep"], "--sweep: expected one algorithm, from --only or --algorithm. Received: none"),
        (["--sweep", "--only", "direct,winograd"], "expected one algorithm, from --only or --algorithm. Received: dir"),
        (["--sweep", "--only", "im2col"], "--sweep: algorithm 'im2col' declares no parameters"),
        (["--sweep", "block", "--only", "winograd"], "--sweep: unknown parameter 'block' of 'winograd'"),
        (["--sweep", "--only", "winograd", "--baseline", "direct"], "--sweep: expected no --baseline with it"),
        (["--sweep", "--only", "winograd", "--rounds", "19"], "--rounds: expected an integer of at least 20"),
        (
            ["--sweep", "least_tiles", "--only", "winograd", "--figures", "f"],
            "--figures: expected two parameters with --sweep. Received: least_tiles",
        ),
    ],
)
def test_a_sweep_of_nothing_sensible_is_refused(arguments, message, folder, capsys):
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err
