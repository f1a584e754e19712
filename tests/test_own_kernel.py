"""examples/own_kernel.py against the definition in float64, on processors with vectors of 4 and of 8 numbers."""

import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from nnlite.compiler import ENABLED, REGISTERS, TileShape
from nnlite.conv import Geometry
from nnlite.lab import reference
from nnlite.lab.loading import load_object

FILE = Path(__file__).parent.parent / "examples" / "own_kernel.py"
GEOMETRY = Geometry.of((2, 9, 11, 3), (3, 2, 3, 21), strides=(1, 2), padding=1)

pytestmark = pytest.mark.skipif(not ENABLED, reason="vectors exist in compiled code only")

EDGE_CASES = """
import numpy as np
from nnlite.compiler import LANES
from nnlite.lab import reference
from nnlite.lab.check import check
from nnlite.lab.loading import load_object
from nnlite.lab.reference import FIXED
algorithm = load_object({file!r}, "test")()
assert check(algorithm).refusal is None
computed = 0
for algorithm.rows, algorithm.vectors in ((2, 1), (4, 3)):
    for geometry in FIXED:
        if algorithm.supports(geometry) is None:
            problem = reference.problem(geometry, 0)
            (y,) = reference.run_pass(algorithm, "forward", problem.float32, geometry)
            wanted = problem.expected("forward")
            bound = algorithm.error_bound(geometry, "forward") * reference.rms(wanted)
            assert np.abs(y - wanted).max(initial=0) <= bound, geometry
            computed += 1
print(LANES, computed)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.uname().machine != "x86_64", reason="not x86-64")
@pytest.mark.parametrize(("processor", "features", "lanes"), [("generic", "", 4), ("haswell", "-avx512f", 8)])
def test_every_tile_is_right_on_all_edge_cases_it_supports(processor, features, lanes):
    environment = os.environ | {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}
    code = EDGE_CASES.format(file=f"{FILE}:TiledRows")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(lanes), "36"]  # two tiles, 18 of the 21: three have groups or dilation


def test_it_is_short():
    code = FILE.read_text().split('"""')[::2]  # without docstrings
    assert len([line for part in code for line in part.splitlines() if line.strip()]) < 80


@pytest.fixture
def algorithm():
    return load_object(f"{FILE}:TiledRows", "test")()


def forward(algorithm):
    (y,) = reference.run_pass(algorithm, "forward", reference.problem(GEOMETRY, 0).float32, GEOMETRY)
    return y


def test_there_are_12_combinations_and_those_that_do_not_fit_the_registers_are_declined_in_words(algorithm):
    declined = 0
    combinations = [(r, v) for r in algorithm.parameters["rows"] for v in algorithm.parameters["vectors"]]
    assert len(combinations) == 12
    for algorithm.rows, algorithm.vectors in combinations:
        reason = algorithm.supports(GEOMETRY)
        if reason is not None:
            declined += 1
            assert f"this processor has {REGISTERS}" in reason
    assert declined == sum(TileShape(*c).registers > REGISTERS for c in combinations)


def test_what_it_does_not_compute_is_declined_in_words(algorithm):
    for geometry in (
        Geometry.of((1, 6, 6, 4), (2, 2, 1, 12), groups=4),
        Geometry.of((1, 8, 9, 3), (3, 3, 3, 5), dilation_rate=2),
    ):
        assert algorithm.supports(geometry) == "groups and dilation are not written yet"


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_copy_computes_the_same(algorithm, way):
    algorithm.rows = 3
    same = way(algorithm)
    assert same.rows == 3
    np.testing.assert_array_equal(forward(same), forward(algorithm))


def test_another_python_thread_computes_the_same(algorithm, two_threads):
    found = []
    thread = threading.Thread(target=lambda: found.append(forward(algorithm)))
    thread.start()
    here = forward(algorithm)
    thread.join()
    np.testing.assert_array_equal(found[0], here)
    np.testing.assert_allclose(here, reference.problem(GEOMETRY, 0).expected("forward"), rtol=1e-3, atol=1e-4)
