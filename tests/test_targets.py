"""Code for processors other than this one: what is emitted, not how fast it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnlite.compiler import compilation

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="nothing is compiled")

ASSEMBLY = """
import numpy as np
from nnlite.compiler import target
from nnlite.kernels import peaks
factors = np.array([0.5, 0.25, 1, 2, 3, 4], np.float32)
peaks.multiply_adds.run(1, 100, peaks.SUMS[-1], factors, np.zeros((1, 32 * target.LANES), np.float32))
(assembly,) = peaks.multiply_adds.compiled.inspect_asm().values()
widest = next(register for register in ("zmm", "ymm", "xmm") if register in assembly)
print(target.LANES, widest, "fma" if "vfmadd" in assembly else "no fma")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.uname().machine != "x86_64", reason="not x86-64")
@pytest.mark.parametrize(
    ("name", "features", "expected"),
    [
        ("haswell", "-avx512f", "8 ymm fma"),
        ("skylake-avx512", "", "16 zmm fma"),
        ("generic", "", "4 xmm no fma"),
    ],
)
def test_registers_are_the_targets_widest(tmp_path, name, features, expected):
    if name == "skylake-avx512" and "avx512f" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor can not run it")
    environment = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", ASSEMBLY], check=True, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == expected
