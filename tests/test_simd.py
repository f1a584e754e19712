"""Vectors against NumPy."""

import os
import subprocess
import sys

import numpy as np
import pytest

from nnlite.compiler import compilation, simd, transposition
from nnlite.compiler.target import LANES

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="vectors exist in compiled code only")


@compilation.jit
def _arithmetic(x, y, out):
    a, b = simd.load(x, 0), simd.load(y, 0)
    simd.store(out, 0, a + b)
    simd.store(out, LANES, 2 * a - b * 0.5)
    simd.store(out, 2 * LANES, simd.select((a > b) | (a != a), a, 7))
    simd.store(out, 3 * LANES, simd.relu(a))


def test_vectors_compute_as_arrays_do(generator):
    x, y = generator.standard_normal((2, LANES)).astype(np.float32)
    x[1], y[0] = np.nan, 3
    out = np.zeros(4 * LANES, np.float32)
    _arithmetic(x, y, out)
    expected = [x + y, 2 * x - y * np.float32(0.5), np.where((x > y) | np.isnan(x), x, 7), np.maximum(x, 0)]
    np.testing.assert_allclose(out, np.concatenate(expected), rtol=1e-6, atol=1e-6)


@compilation.jit
def _first(x, out, codes, count):
    value = simd.load_first(x, 0, count)
    simd.store(out, 0, value)
    simd.store_first(out, LANES, value + 1, count)
    simd.store_bytes(codes, 0, value, count)
    simd.store(out, 2 * LANES, simd.load_bytes(codes, 0, count))


@pytest.mark.parametrize("count", [-1, 0, 1, LANES - 1, LANES, LANES + 1, 1 << 32])
def test_partial_loads_and_stores_touch_the_first_lanes_alone(count):
    x, out, codes = (
        np.arange(1, LANES + 1, dtype=np.float32),
        np.full(3 * LANES, -1, np.float32),
        np.full(LANES, 9, np.uint8),
    )
    _first(x, out, codes, count)
    present = np.arange(LANES) < count
    np.testing.assert_array_equal(out[:LANES], np.where(present, x, 0))
    np.testing.assert_array_equal(out[LANES : 2 * LANES], np.where(present, x + 1, -1))
    np.testing.assert_array_equal(codes, np.where(present, x, 9))
    np.testing.assert_array_equal(out[2 * LANES :], np.where(present, x, 0))


@compilation.jit
def _transpose(x, out):
    transposition.transpose(x, 0, x.shape[1], out, 0, out.shape[1])


def test_transpose_turns_a_block_over(generator):
    x = generator.standard_normal((LANES, LANES + 3)).astype(np.float32)
    out = np.zeros((LANES, LANES + 5), np.float32)
    _transpose(x, out)
    np.testing.assert_array_equal(out[:, :LANES], x[:, :LANES].T)
    assert not out[:, LANES:].any()


NARROWER = """
import numpy as np
from nnlite.compiler import compilation, simd, target
@compilation.jit
def double(x, count):
    simd.store_first(x, 0, simd.load(x, 0) + simd.load(x, 0), count)
double(np.ones(64, np.float32), 3)
assembly = " ".join(double.inspect_asm().values())
print(target.LANES, "zmm" in assembly, "ymm" in assembly, "vpack" in assembly)
"""


def test_a_narrower_processor_gets_no_wider_registers_and_one_comparison_for_a_mask(tmp_path):
    if not sys.platform.startswith("linux") or os.uname().machine != "x86_64":
        pytest.skip("names of x86 registers")
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "-avx512f",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run([sys.executable, "-c", NARROWER], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["8", "False", "True", "False"]  # two comparisons' results would be packed
