"""The examples run as they stand."""

import importlib
import platform
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import nnlite as nn

EXAMPLES = Path(__file__).parent.parent / "examples"


def finished(folder, file, *arguments):
    command = [sys.executable, str(EXAMPLES / file), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def run(folder, file, *arguments):
    result = finished(folder, file, *arguments)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("mnist_mlp.py", "--epochs", "1"),
        ("mnist_cnn.py", "--epochs", "1"),
        ("own_operation.py",),
        ("own_training_loop.py",),
    ],
)
def test_trains(arguments, tmp_path):
    assert "accuracy" in run(tmp_path, *arguments)


def test_own_algorithm_is_a_short_template_that_is_right(tmp_path):
    text = run(tmp_path, "own_algorithm.py")
    assert "correct on " in text
    assert "row_by_row: " in text
    assert len((EXAMPLES / "own_algorithm.py").read_text().splitlines()) < 60


def test_own_kernel_is_checked_timed_and_inspected_by_the_commands_that_it_names(tmp_path):
    lines = (EXAMPLES / "own_kernel.py").read_text().splitlines()
    commands = [line.split() for line in lines if line.startswith("    nnlite ")]
    assert [command[1] for command in commands] == ["bench", "bench", "inspect"]
    for _, name, *arguments in commands:
        small = [a.replace("16,32,26,26,64", "2,3,9,9,20") for a in arguments]
        if name == "bench" and "--sweep" not in small:
            small += ["--only", "im2col", "--passes", "forward", "--rounds", "5"]
        done = subprocess.run(
            [sys.executable, "-m", "nnlite", name, *small],
            capture_output=True, text=True, cwd=EXAMPLES.parent, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert ("tiled_rows" if name == "bench" else "own_kernel.correlate") in done.stdout


TUTORIAL = sorted(path.name for path in (EXAMPLES / "tutorial").glob("[1-9]_*.py"))


def test_each_exercise_of_the_tutorial_is_solved_by_the_next_script():
    assert [name[0] for name in TUTORIAL] == list("1234567")
    for script, solution in zip(TUTORIAL, [*TUTORIAL[1:], "nnlite/conv/winograd.py"], strict=True):
        text = (EXAMPLES / "tutorial" / script).read_text()
        exercise = text.partition('"""')[2].partition('"""')[0].partition("\n\nExercise: ")[2]
        assert f"The solution is {solution}" in " ".join(exercise.split())


@pytest.mark.parametrize("script", TUTORIAL)
def test_a_step_of_the_tutorial_is_right_and_shows_what_it_changed(tmp_path, script):
    text = " ".join(run(tmp_path, f"tutorial/{script}", "--small").split())
    assert "Correct on " in text
    assert "REFUSED" not in text
    assert "15 rounds" in text
    assert "Exercise: " in text
    if script[0] != "1":
        assert "15 paired rounds" in text
    if script[0] > "2" and platform.machine().lower() in ("x86_64", "amd64"):
        assert "Hot loop at " in text
        assert "cycles by ports" in text


def test_the_tutorial_goes_on_without_osaca(monkeypatch, capsys):
    def missing():
        raise ImportError("install it: pip install 'nnlite-conv[inspect]'")

    monkeypatch.setattr("nnlite.lab.inspect.bounds.require", missing)
    monkeypatch.syspath_prepend(str(EXAMPLES / "tutorial"))
    (message,) = importlib.import_module("show").hottest(1, "3_compiled_loops.py:CompiledLoops", None)
    assert "pip install" in message


def test_the_ladder_has_a_rung_for_every_algorithm_and_draws_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nnlite.conv.names", lambda: ["im2col", "numba", "direct"])  # each is checked first
    monkeypatch.setattr("sys.argv", ["ladder.py", str(tmp_path / "rungs.png"), "2,3,8,8,4,3,3,1,0"])
    runpy.run_path(str(EXAMPLES / "ladder.py"))
    text = capsys.readouterr().out
    for name in nn.conv.names():
        assert name in text
    assert "im2col: built in examples/tutorial/2_im2col.py" in text
    assert (tmp_path / "rungs.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnist_mlp.py", "--epochs", "0"), "--epochs: expected an integer of at least 1. Received: 0"),
        (("mnist_cnn.py", "--epochs", "many"), "--epochs: invalid int value: 'many'"),
        (("ladder.py", "no/where.png"), "picture: expected an existing folder. Received: 'no'"),
        (("ladder.py", "ladder.docx"), "picture: expected a name that ends in .png"),
        (("ladder.py", "ladder.png", "2,3"), "--shapes"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_runs(tmp_path, arguments, message):
    result = finished(tmp_path, *arguments)
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1]
    assert result.stdout == ""
