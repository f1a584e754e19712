"""The examples run as they stand."""

import subprocess
import sys
from pathlib import Path

import pytest

import nnlite as nn

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(folder, file, *arguments):
    command = [sys.executable, str(EXAMPLES / file), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "arguments", [("mnist_mlp.py", "1"), ("mnist_cnn.py", "1"), ("own_operation.py",), ("own_training_loop.py",)]
)
def test_trains(arguments, tmp_path):
    assert "accuracy" in run(tmp_path, *arguments)


def test_own_algorithm_is_a_short_template_that_is_right(tmp_path):
    text = run(tmp_path, "own_algorithm.py")
    assert "right on " in text
    assert "row_by_row: " in text
    assert len((EXAMPLES / "own_algorithm.py").read_text().splitlines()) < 60


def test_the_ladder_has_a_rung_for_every_algorithm_and_draws_them(tmp_path):
    text = run(tmp_path, "ladder.py", "rungs.png", "2,3,8,8,4,3,3,1,0")
    for name in nn.conv.names():
        assert name in text
    assert (tmp_path / "rungs.png").read_bytes().startswith(b"\x89PNG")
