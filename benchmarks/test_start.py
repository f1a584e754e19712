"""What a user waits for: the import, and the first training step of a process, with and without compiled code on disk.

Each round is a whole new process; the interpreter's own start is in the table, to be taken off.
"""

import os
import subprocess
import sys

import pytest

FIRST_STEP = """
import nnlite as nn
(x, y), _ = nn.datasets.load("mnist5k")
model = nn.models.small_cnn()
model.compile()
model.train_on_batch(x[:128], y[:128])
"""
PROGRAMS = {
    "python": "pass",
    "import numpy": "import numpy",
    "import nnlite": "import nnlite",
    "first step": FIRST_STEP,
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_start(benchmark, program):
    benchmark.group = "a process, from its start to its end"
    benchmark.pedantic(_run, (PROGRAMS[program],), rounds=5, warmup_rounds=1)


def test_first_step_compiles(benchmark, tmp_path):
    if benchmark.disabled:
        pytest.skip("compiles everything again, which takes long")
    benchmark.group = "a whole process, nothing compiled before"
    benchmark.pedantic(_run, (FIRST_STEP,), {"NUMBA_CACHE_DIR": str(tmp_path)}, rounds=1)


def _run(program, **environment):
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, **environment})
