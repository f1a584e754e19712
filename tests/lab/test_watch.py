"""`nnlite bench --watch`: a file is rewritten between two looks at it, as an editor would; no clock decides."""

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnlite import conv
from nnlite.conv import Geometry
from nnlite.lab import bench, timing, versions, watch
from nnlite.lab.loading import load_module
from nnlite.lab.shapes import Shape
from nnlite.performance.statistics import FEWEST_ROUNDS

SHAPES = [Shape("s", Geometry.of((2, 8, 9, 3), (3, 3, 3, 4)), 2)]
RIGHT = """
import nnlite as nn
im2col = nn.conv.get("im2col")
class Mine(nn.conv.Algorithm):
    name = "mine"
    uses_blas = True
    def forward(self, x, weight, geometry):
        return im2col.forward(x, weight, geometry)
"""
WRONG = RIGHT.replace("return im2col.forward(x, weight, geometry)", "return im2col.forward(x, -weight, geometry)")
RAISES_WHEN_TIMED = (
    RIGHT
    + """
    calls = 0
    def forward(self, x, weight, geometry):
        Mine.calls += x.shape == (2, 8, 9, 3)
        if Mine.calls > 4:
            raise RuntimeError("too often")
        return im2col.forward(x, weight, geometry)
"""
)


@pytest.fixture(autouse=True)
def few_geometries(monkeypatch):
    monkeypatch.setattr("nnlite.lab.check.FIXED", watch.geometries(conv.get("naive"), 0)[:3])
    monkeypatch.setattr("nnlite.lab.check.RANDOM", 0)


@pytest.fixture
def seconds(monkeypatch):
    """{text in a version's source: the seconds that each call takes}; instead of the clock."""
    known, sources, load = {}, {}, watch.load_algorithm

    def remember(spec, kind):
        algorithm = load(spec, kind)
        sources[id(algorithm)] = Path(spec.partition(":")[0]).read_text()
        return algorithm

    def timed(call):
        algorithm = call.args[0]
        kept = Path(sys.modules[type(algorithm).__module__].__file__)  # of one that was saved before
        source = sources.get(id(algorithm)) or kept.read_text()
        return lambda: next((value for text, value in known.items() if text in source), 1.0)

    monkeypatch.setattr(watch, "load_algorithm", remember)
    monkeypatch.setattr(bench, "timed", timed)
    monkeypatch.setattr(bench, "Contention", lambda: SimpleNamespace(share=lambda: 0.0))
    return known


def run(folder, monkeypatch, capsys, *sources):
    """The lines that are printed for each of the sources, and at the end."""
    monkeypatch.chdir(folder)
    file, later = folder / "mine.py", list(sources)
    file.write_text(later.pop(0))

    def save(path):
        if not later:
            raise KeyboardInterrupt
        new = folder / "new.py"
        new.write_text(later.pop(0))
        new.replace(file)  # as editors do that write a new file

    options = argparse.Namespace(
        watch="mine.py:Mine", shapes=["s"], batch_size=None, passes="forward", rounds=15, seed=0
    )
    assert watch.run(options, SHAPES, ["forward"], save) == 130
    lines = [line for line in capsys.readouterr().out.partition("best so far (95%)\n")[2].splitlines() if line]
    return lines[: len(sources)], lines[len(sources) :]


def test_each_version_is_timed_beside_the_last_and_the_best(tmp_path, monkeypatch, capsys, seconds):
    """2 s, then 1 s, then 4 s, then 3 s: the third is 4 times the second, the fourth 0.75 of the third."""
    seconds.update({"# one": 2.0, "# two": 1.0, "# three": 4.0, "# four": 3.0})
    sources = [RIGHT + f"# {number}" for number in ("one", "two", "three", "four")]
    (one, two, three, four), end = run(tmp_path, monkeypatch, capsys, *sources)
    assert one.split() == ["1", "correct", "(3)", "2,000"]
    faster, slower = "0.50 (0.50-0.50) faster", "4.00 (4.00-4.00) slower"
    assert " ".join(two.split()[3:]) == f"1,000 2.0% {faster} {faster} than 1 at 2,000 ms"
    assert " ".join(three.split()[3:]) == f"4,000 2.0% {slower} {slower} than 2 at 1,000 ms"
    assert " ".join(four.split()[3:]) == (
        "3,000 2.0% 0.75 (0.75-0.75) faster 3.00 (3.00-3.00) slower than 2 at 1,000 ms"
    )
    assert end[0] == f"Best: version 2, 1,000 ms. Its source: {versions.FOLDER / 'Mine-2'}"
    assert (versions.FOLDER / "Mine-2" / "1" / "mine.py").read_text() == sources[1]
    assert "--compare Mine-1" in end[1]


def test_a_save_that_undoes_what_was_broken_is_no_new_version(tmp_path, monkeypatch, capsys, seconds):
    seconds.update({"# one": 1.0, "# two": 0.5})
    broken = RIGHT + "# one\n("
    (_, _, undone, two), _ = run(
        tmp_path, monkeypatch, capsys, RIGHT + "# one", broken, RIGHT + "# one", RIGHT + "# two"
    )
    assert undone.split() == ["as", "version", "1"]
    assert two.split()[0] == "2"


def test_no_difference_leaves_the_older_one_the_best(tmp_path, monkeypatch, capsys, seconds):
    seconds.update({"# one": 1.0, "# two": 0.99})
    (_, two), end = run(tmp_path, monkeypatch, capsys, RIGHT + "# one", RIGHT + "# two")
    assert "no difference from 1" in two
    assert end[0].startswith("Best: version 1,")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (RIGHT + "def (", "not loaded: mine.py raised SyntaxError"),
        (RIGHT.replace("Mine", "Yours"), "not loaded: expected the name 'Mine' in mine.py"),
        (RIGHT + "1 / 0", "not loaded: mine.py raised ZeroDivisionError in line 9"),
        (WRONG, "wrong: forward is wrong in float32 for 1x5x6x1 -> 1, 3x3"),
        (RAISES_WHEN_TIMED, "raised RuntimeError in line 14: too often"),
        (RIGHT + "    def supports(self, geometry):\n        return 'no'", "declines 2x8x9x3 -> 4, 3x3: no"),
    ],
    ids=["syntax", "no class", "import", "wrong", "timing", "declines"],
)
def test_a_broken_version_is_one_line_and_the_next_is_timed(tmp_path, monkeypatch, capsys, broken, told):
    (one, line, two), _ = run(tmp_path, monkeypatch, capsys, RIGHT, broken, RIGHT + "# mended")
    assert told in line
    assert one.split()[:2] == ["1", "correct"]
    assert two.split()[:2] == ["2", "correct"]
    assert versions.names() == ["Mine-1", "Mine-2"]


def test_a_file_that_is_broken_at_first_and_never_mended(tmp_path, monkeypatch, capsys):
    (line,), end = run(tmp_path, monkeypatch, capsys, "def (")
    assert "SyntaxError" in line
    assert end == ["No version was timed."]


def test_a_kept_version_can_be_compared_with_todays(tmp_path, monkeypatch, capsys):
    run(tmp_path, monkeypatch, capsys, RIGHT)
    options = SimpleNamespace(
        compare=["Mine-1"], algorithm=[], shapes=None, batch_size=None, passes=None, default_of=lambda name: None
    )
    try:
        versions.fill_options(options)
    finally:
        conv.unregister("mine@Mine-1")
    assert (options.algorithm, options.shapes, options.passes) == (["mine.py:Mine"], ["s"], "forward")


def test_a_version_that_cannot_be_saved_is_timed_all_the_same(tmp_path, monkeypatch, capsys):
    def save(*_):
        raise OSError("disk full")

    monkeypatch.setattr(versions, "save", save)
    (line,), _ = run(tmp_path, monkeypatch, capsys, RIGHT)
    assert line.split()[:2] == ["1", "correct"]
    assert line.endswith("(not saved: disk full)")


def test_a_later_watch_goes_on_from_the_last_version_and_the_best(tmp_path, monkeypatch, capsys, seconds):
    """Version 1 takes 0.5 s and is the best, version 2 takes 1 s and is the last."""
    seconds.update({"# one": 0.5, "# two": 1.0, "# three": 0.25})
    run(tmp_path, monkeypatch, capsys, RIGHT + "# one", RIGHT + "# two")
    (unchanged, three), end = run(tmp_path, monkeypatch, capsys, RIGHT + "# two", RIGHT + "# three")
    assert unchanged.split() == ["as", "version", "2"]
    assert three.split()[0] == "3"
    assert three.endswith("faster than 1 at 500 ms")
    assert end[0].startswith("Best: version 3, 250 ms.")


def test_a_later_watch_of_other_layers_begins_with_a_best_of_its_own(tmp_path, monkeypatch, capsys, seconds):
    run(tmp_path, monkeypatch, capsys, RIGHT + "# one")
    path = versions.FOLDER / "Mine-1" / "run.json"
    path.write_text(path.read_text().replace('"forward"', '"grad_input"'))
    (line,), _ = run(tmp_path, monkeypatch, capsys, RIGHT + "# one")
    assert line.split() == ["2", "correct", "(3)", "1,000"]
    path = versions.FOLDER / "Mine-2" / "run.json"
    path.write_text(path.read_text().replace('"forward"', '"grad_input"'))
    options = argparse.Namespace(
        watch="mine.py:Mine", shapes=["s"], batch_size=None, passes="forward", rounds=15, seed=0
    )
    told = watch.Watch(options, SHAPES, ["forward"]).resume()
    assert told.startswith("Not compared with version 2 of an earlier watch: it was timed with other --shapes")


def test_versions_that_are_compared_have_the_rounds_for_an_interval():
    assert timing.COMPARED_ROUNDS >= 15 > FEWEST_ROUNDS


def test_a_busy_machine_is_said_to_be(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "Contention", lambda: SimpleNamespace(share=lambda: 0.4))
    (line,), _ = run(tmp_path, monkeypatch, capsys, RIGHT)
    assert line.endswith("(other programs: 40% of the CPU)")


def test_a_check_that_takes_long_says_how_much_was_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(watch, "CHECK_SECONDS", -1.0)
    (line,), _ = run(tmp_path, monkeypatch, capsys, RIGHT)
    assert "correct (1 of 3)" in line  # the first compiles


def test_waiting_ends_with_a_complete_file_and_sees_files_beside_it(tmp_path, monkeypatch):
    """A truncated file on the way, the file replaced, and a file that it imports."""
    main, beside = tmp_path / "main.py", tmp_path / "beside.py"
    beside.write_text("number = 1")
    main.write_text("import beside")
    load_module(main)
    steps = [
        lambda: main.write_text(""),
        lambda: main.unlink(),
        lambda: main.write_text("import beside"),  # the same source again
        lambda: None,
        lambda: main.write_text("import beside  # new"),
        lambda: None,
    ]
    monkeypatch.setattr(watch.time, "sleep", lambda _: steps.pop(0)())
    watch.wait_for_save(main)
    assert not steps
    load_module(main)
    steps[:] = [lambda: None, lambda: beside.write_text("number = 2"), lambda: None]
    watch.wait_for_save(main)
    assert not steps
    assert load_module(main).beside.number == 2


def test_all_versions_are_timed_on_the_same_slice(monkeypatch, seconds):
    """The first algorithm could be timed on a fourth of the work, the second on half of it."""
    geometry = SHAPES[0].geometry
    slices = [timing.Slice(geometry, 4.0), timing.Slice(geometry, 2.0)]
    monkeypatch.setattr(timing, "plan", lambda *_: slices.pop(0))
    algorithms = [conv.get("im2col"), conv.get("strided_view")]
    run = bench.bench(algorithms, SHAPES, ["forward"], checked=algorithms, one_slice=True)
    assert [cell.scale for cell in run.rows[0].cells] == [4.0, 4.0]


def test_several_passes_are_timed_as_their_sum(tmp_path, monkeypatch, capsys, seconds):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(RIGHT)
    options = argparse.Namespace(
        watch="mine.py:Mine", shapes=["s"], batch_size=None, passes="forward,grad_input", rounds=15, seed=0
    )
    assert "correct (3)           2,000" in watch.Watch(options, SHAPES, ["forward", "grad_input"]).look()


def test_a_difference_within_the_noise_shows_the_noise(tmp_path, monkeypatch, capsys, seconds):
    """The control takes 1.1 s where the best takes 1 s."""
    seconds.update({"# two": 0.95})
    candidate = bench._candidate

    def slower_control(name, *arguments):
        made = candidate(name, *arguments)
        return made if name is not timing.CONTROL else bench.Candidate(name, lambda: 1.1, made.team)

    monkeypatch.setattr(bench, "_candidate", slower_control)
    (_, two), _ = run(tmp_path, monkeypatch, capsys, RIGHT, RIGHT + "# two")
    assert two.split()[4:8] == ["10.0%", "0.95", "(0.95-0.95)", "no"]
