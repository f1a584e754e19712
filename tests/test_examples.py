"""The examples run as they stand."""

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


def test_the_ladder_has_a_rung_for_every_algorithm_and_draws_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nnlite.conv.names", lambda: ["im2col", "numba", "direct"])  # each is checked first
    monkeypatch.setattr("sys.argv", ["ladder.py", str(tmp_path / "rungs.png"), "2,3,8,8,4,3,3,1,0"])
    runpy.run_path(str(EXAMPLES / "ladder.py"))
    text = capsys.readouterr().out
    for name in nn.conv.names():
        assert name in text
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
