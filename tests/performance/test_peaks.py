"""The peak rates: plausible, and their loops as they are meant to be, read in the machine code."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from nnlite.__main__ import main
from nnlite.compiler import compilation
from nnlite.compiler.target import LANES
from nnlite.lab.inspect.assembly import innermost_loops
from nnlite.lab.inspect.counts import count
from nnlite.performance import peaks
from nnlite.performance.microbenchmarks.base import aligned_rows

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="the compiler measures")

#: processor -> (its features, bits of a vector)
PROCESSORS = {
    "haswell": ("-avx512f", 256),
    "znver3": ("", 256),
    "skylake-avx512": ("", 512),
    "znver4": ("", 512),
}
COMPILE = """
import numpy as np
from nnlite.kernels import peaks
for shape in peaks.SUMS:
    out = np.zeros((1, shape.rows * 16), np.float32)
    from numba import typeof, types
    signature = (types.int64, types.int64, types.int64, typeof(shape), typeof(np.zeros(2, np.float32)), typeof(out))
    peaks.multiply_adds.compiled.compile(signature)
    code = peaks.multiply_adds.compiled.inspect_asm(signature)
    print(f"SUMS {shape.rows}")
    print(code)
"""


@pytest.fixture(scope="module")
def machine():
    return peaks.measure()


def test_the_peak_rates_are_plausible(machine):
    assert 1 < machine.fma_gflops_one <= machine.fma_gflops_all
    assert machine.fma_gflops_one == max(machine.fma_gflops_by_sums.values())
    levels = ["L1", "L2", "L3", "memory"]
    assert [b.level for b in machine.bandwidths if b.threads == machine.threads][:4] == levels
    assert all(b.read_gbs > 0 and b.copy_gbs > 0 for b in machine.bandwidths)
    assert min(machine.numpy_call_us, machine.numba_call_us, machine.fork_join_us, machine.first_touch_gbs) > 0


def test_they_are_measured_once_in_a_process(machine):
    assert peaks.measure() is machine


@pytest.mark.parametrize("processor", PROCESSORS)
def test_no_sum_is_spilled_and_every_sum_is_a_multiply_add_of_whole_vectors(processor, tmp_path):
    """Compiled for each kind of processor in a process of its own, whatever this one is, into an empty cache."""
    features, bits = PROCESSORS[processor]
    target = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}
    environment = os.environ | target | {"NUMBA_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    parts = run.stdout.split("SUMS ")[1:]
    assert parts
    for part in parts:
        sums, _, code = part.partition("\n")
        counts = max(map(count, innermost_loops(code)), key=lambda counts: counts.fused)
        iterations, rest = divmod(counts.fused, int(sums))
        assert iterations >= 1
        assert rest == 0
        assert (counts.vectors, counts.bits) == (counts.fused, bits)
        assert counts.stack == 0, f"{sums} sums are spilled on {processor}"


def test_other_memory_is_really_rewritten():
    """A pass that writes what was there, in the compiler's eyes, is no pass."""
    from nnlite.kernels.peaks import rewrite

    x = np.zeros(1024, np.float32)
    rewrite(x, np.float32(1))
    assert (x == 1).all()


@pytest.mark.parametrize("nbytes", [64, 4096, 400_000])
def test_bandwidths_are_those_of_whole_cache_lines(nbytes):
    for _ in range(5):
        x = aligned_rows(2, nbytes)
        assert (x.ctypes.data % 4096, len(x), x.shape[1] % (8 * LANES)) == (0, 2, 0)
        assert x.flags.c_contiguous
        assert x.nbytes == max(nbytes // (64 * LANES) * 64 * LANES, 64 * LANES)


def test_the_command_prints_and_writes_them(machine, tmp_path, capsys):
    path = tmp_path / "machine.json"
    assert main(["machine", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["fma_gflops_all"] == machine.fma_gflops_all
    text = capsys.readouterr().out
    assert f"{machine.fma_gflops_all:.1f} GFLOP/s" in text
    assert max(map(len, text.splitlines()[:-3])) <= 100
