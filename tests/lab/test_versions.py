"""`nnlite bench --save` and `--compare`: today's source beside a kept one; and `--diff` of two files of --json."""

import json
from types import SimpleNamespace

import pytest

import nnlite as nn
from nnlite.__main__ import main
from nnlite.lab import versions
from nnlite.lab.loading import load_algorithm, load_module
from nnlite.lab.results import Cell, Row, Run
from nnlite.lab.shapes import resolve

SMALL = ["--shapes", "2,3,8,9,4,3,3,1,0", "--passes", "forward"]
MINE = """
import nnlite as nn
from beside import scale
im2col = nn.conv.get("im2col")
class Mine(nn.conv.Algorithm):
    name = "mine"
    uses_blas = True
    text = "first"
    def forward(self, x, weight, geometry):
        return scale(im2col.forward(x, weight, geometry))
"""
BESIDE = "def scale(y):\n    return y\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nnlite.lab.check.RANDOM", 0)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "beside.py").write_text(BESIDE)
    before = nn.conv.names()
    yield tmp_path
    for name in set(nn.conv.names()) - set(before):
        nn.conv.unregister(name)


def save(name="before"):
    status = main(["bench", "--algorithm", "mine.py:Mine", "--only", "im2col", *SMALL, "--save", name])
    nn.conv.unregister("mine")
    return status


def test_the_saved_source_is_loaded_beside_todays_and_timed_in_the_same_rounds(folder, capsys):
    assert save() == 0
    (folder / "mine.py").write_text(MINE.replace("first", "second"))
    assert main(["bench", "--compare", "before", "--json", "r.json"]) == 0
    assert nn.conv.get("mine").text == "second"
    assert nn.conv.get("mine@before").text == "first"
    run = json.loads((folder / "r.json").read_text())
    (row,) = run["rows"]  # the shape and the pass of the saved run
    assert [cell["algorithm"] for cell in row["algorithms"]] == ["mine@before", "mine"]
    assert row["baseline"] == "mine@before"
    assert {len(cell["samples_ms"]) for cell in row["algorithms"]} == {row["rounds"]}
    assert row["rounds"] >= 15
    (pair,) = run["versions"]
    assert (pair["algorithm"], pair["version"]) == ("mine", "before")
    assert pair["ratio"] == row["algorithms"][1]["ratio"]
    assert "Today's source relative to the saved one" in capsys.readouterr().out


def test_files_beside_it_are_kept_and_each_version_imports_its_own(folder):
    save()
    (folder / "beside.py").write_text("def scale(y):\n    return y * 2\n")
    assert main(["bench", "--compare", "before"]) == 1  # today's is wrong now, the kept one is not
    (folder / "beside.py").unlink()
    assert main(["bench", "--compare", "before", "--algorithm", "nnlite-bench/before/1/mine.py:Mine"]) == 0


def test_two_versions_of_a_module_have_different_names_and_their_packages_are_kept(folder):
    """Numba tells compiled functions apart by them."""
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "part.py").write_text("number = 1")
    (folder / "main.py").write_text("from package import part\nimport package.part")
    first = load_module(folder / "main.py")
    assert set(versions.files_of(folder / "main.py")) == {"main.py", "package/__init__.py", "package/part.py"}
    (folder / "package" / "part.py").write_text("number = 2")
    second = load_module(folder / "main.py")
    assert (first.part.number, second.part.number) == (1, 2)
    assert first.part.__name__ != second.part.__name__


def test_what_is_not_right_is_not_kept(folder, capsys):
    (folder / "beside.py").write_text("def scale(y):\n    return y * 2\n")
    assert save() == 1
    assert "not saved as before" in capsys.readouterr().out
    assert versions.names() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--save", "before", "--algorithm", "mine.py:Mine"], "--save: expected a new name. Received: 'before'"),
        (["--save", "a/b", "--algorithm", "mine.py:Mine"], "--save: expected a name of letters"),
        (["--save", "new"], "--save: expected --algorithm FILE.py:CLASS"),
        (["--compare", "befor"], "unknown --compare 'befor': expected one of before. Did you mean 'before'?"),
        (["--compare", "before", "--rounds", "10"], "--rounds: expected an integer of at least 15"),
        (["--fail-slower", "10"], "--fail-slower: expected --compare NAME with it"),
        (["--compare", "before", "--fail-slower", "-1"], "--fail-slower: expected a percentage of at least 0"),
        (["--compare", "broken"], "--compare broken: expected the JSON of a run"),
        (["--diff", "no.json", "mine.py"], "--diff: expected a file that nnlite bench --json wrote"),
        (["--diff", "mine.py", "mine.py"], "--diff mine.py: expected the JSON of nnlite bench --json"),
        (["--diff", "a.json", "b.json", "--only", "direct"], "--diff: expected no --only with it"),
        (["--watch", "mine.py:Mine", "--save", "x"], "--watch: expected no --save with it"),
        (["--watch", "mine.py:Mine", "--rounds", "5"], "--rounds: expected an integer of at least 15"),
        (["--watch", "mine.py"], "--watch: expected FILE.py:CLASS"),
        (["--watch", "none.py:Mine"], "none.py"),
    ],
)
def test_a_wrong_request_is_one_line_and_status_2(folder, capsys, arguments, message):
    load_module(folder / "mine.py")
    mine = {"mine.py:Mine": "mine"}
    versions.save("before", mine, {"options": {"algorithm": ["mine.py:Mine"]}})
    if "broken" in arguments:
        (versions.save("broken", mine, {}) / "run.json").write_text("{}")
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_without_any_saved_version_the_error_says_where_they_would_be(capsys):
    assert main(["bench", "--compare", "before"]) == 2
    assert "there is none in nnlite-bench" in capsys.readouterr().err


def run_of(today, saved, control, processor="one", date="d"):
    """A run in which mine takes `today` seconds in each round, and its saved version `saved`."""
    (shape,) = resolve(["2,3,8,9,4,3,3,1,0"], 1)
    cells = [
        Cell(name, "timed", seconds=seconds, flops=2 * shape.geometry.macs, peak_gflops=100.0)
        for name, seconds in (("mine@before", saved), ("mine", today))
    ]
    row = Row(shape, "forward", cells, baseline="mine@before", control_seconds=control)
    row.compare()
    return Run(processor, 100.0, threads=2, seed=0, command="", date=date, rows=[row])


@pytest.mark.parametrize(
    ("today", "control", "rounds", "fails"),
    [
        (1.2, 1.0, 15, True),
        (1.2, 1.0, 14, False),  # too few rounds for an interval
        (1.05, 1.0, 15, False),
        (1.2, 1.3, 15, False),  # less than the A/A noise
        (0.8, 1.0, 15, False),
    ],
)
def test_slower_fails_only_beyond_percentage_and_noise(today, control, rounds, fails):
    run = run_of([today] * rounds, [1.0] * rounds, [control] * rounds)
    (pair,) = versions.compare(run, ["before"], 10.0)
    assert pair.fails == fails
    assert not versions.compare(run, ["before"], None)[0].fails
    told = versions.table([pair], 10.0).notes[-1]
    assert ("none of 1" in told) != fails


def test_a_renamed_algorithm_is_not_compared(folder, capsys):
    save()
    (folder / "mine.py").write_text(MINE.replace('"mine"', '"other"'))
    assert main(["bench", "--compare", "before"]) == 2
    assert "to have a saved version (mine@before). Received: other" in capsys.readouterr().err


def test_nothing_was_compared_if_todays_declines(folder, capsys):
    save()
    (folder / "mine.py").write_text(MINE + "    def supports(self, geometry):\n        return 'no'")
    assert main(["bench", "--compare", "before", "--fail-slower", "10"]) == 1
    assert "Nothing was compared" in capsys.readouterr().out


def test_a_saved_batch_size_belongs_to_the_saved_shapes(folder):
    versions.save("seed", {"mine.py:Mine": load_algorithm("mine.py:Mine").name}, {"options": {"batch_size": 4}})
    for shapes, expected in ((None, 4), (["2,3,8,9,4,3,3,1,0"], None)):
        options = SimpleNamespace(
            compare=["seed"], algorithm=[], shapes=shapes, batch_size=None, passes=None, default_of=lambda name: None
        )
        versions.fill_options(options)
        assert options.batch_size == expected


def test_a_colon_in_a_parameter_s_value_is_kept(folder):
    (folder / "mine.py").write_text(MINE.replace("    text", '    parameters = {"axes": ("n:c", "c:n")}\n    text'))
    spec = "mine.py:Mine(axes='c:n')"
    versions.save("colon", {spec: load_algorithm(spec).name}, {})
    (algorithm,) = versions.load("colon")
    assert algorithm.axes == "c:n"


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(folder, capsys):
    (folder / versions.FOLDER).write_text("a file")
    assert save() == 2
    assert "--save: expected a writable folder" in capsys.readouterr().err
    assert main(["bench", "--watch", "mine.py:Mine"]) == 2
    assert "--watch: expected a writable folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "received"),
    [
        (lambda run: run.pop("rows"), "Received: JSON of another command"),
        (lambda run: run.update(schema=9), "of schema 1. Received: JSON of schema 9"),
        (lambda run: run.update(rows=[1]), "Received: rows that are not a run's"),
        (lambda run: run["rows"][0]["algorithms"][1].update(percent_of_peak=None), "rows that are not a run's"),
        (lambda run: run["rows"][0]["algorithms"][0].pop("median_ms"), "not a run's (KeyError('median_ms'))"),
    ],
)
def test_diff_refuses_what_is_not_a_run(folder, capsys, change, received):
    content = json.loads(json.dumps(run_of([1.0] * 5, [4.0] * 5, [4.0] * 5).to_dict()))
    change(content)
    (folder / "a.json").write_text(json.dumps(content))
    assert main(["bench", "--diff", "a.json", "a.json"]) == 2
    assert received in capsys.readouterr().err


def test_diff_lays_two_machines_side_by_side(folder, capsys):
    for name, processor, seconds in (("a", "one", 1.0), ("b", "two", 2.0), ("c", "one", 3.0)):
        content = run_of([seconds] * 5, [4.0] * 5, [4.0] * 5, processor).to_dict()
        (folder / f"{name}.json").write_text(json.dumps(content))
    assert main(["bench", "--diff", "a.json", "b.json"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "mine@before 4,000 0% 4,000 0% 1.00" in text
    assert "mine 1,000 0% 2,000 0% 2.00" in text
    assert "This compares two machines" in text
    assert main(["bench", "--diff", "a.json", "c.json"]) == 0
    assert "This compares two times on one machine, or two machines" in " ".join(capsys.readouterr().out.split())
