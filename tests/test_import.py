"""`import nnlite` is light."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["numba", "matplotlib", "rich", "safetensors", "scipy", "psutil"])
def test_import_does_not_import(module):
    code = f"import nnlite, sys; nnlite.network.models.cnn().cost(128); sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
