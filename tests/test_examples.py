"""The examples run as they stand."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    "arguments", [("mnist_mlp.py", "1"), ("mnist_cnn.py", "1"), ("own_operation.py",), ("own_training_loop.py",)]
)
def test_runs(arguments, tmp_path):
    command = [sys.executable, str(EXAMPLES / arguments[0]), *arguments[1:]]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert "accuracy" in result.stdout
    assert "Warning" not in result.stderr
