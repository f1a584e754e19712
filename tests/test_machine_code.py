"""The hot loops of products and of direct convolution, read in the machine code: their sums stay in registers."""

import os
import re
import subprocess
import sys

import pytest

from nnlite.compiler import compilation

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="there is no machine code without the compiler")

#: processor -> features that it is not to have
PROCESSORS = {"haswell": "-avx512f", "skylake-avx512": ""}
COMPILE = """
import numpy as np
from numba import typeof, types
from nnlite.conv import Geometry, direct, direct_plan
from nnlite.conv.direct_packing import Weights
from nnlite.kernels import matmul

geometry = Geometry.of((1, 9, 9, 32), (3, 3, 32, 64))
x, weight, work = (np.zeros(shape, np.float32) for shape in (geometry.input_shape, geometry.weight_shape, (1, 1)))

def show(kernel, shape, *arguments):
    signature = (types.int64, types.int64, *map(typeof, (shape, *arguments)))
    kernel.compiled.compile(signature)
    print("KERNEL", kernel.__name__, shape.rows * shape.vectors)
    print(kernel.compiled.inspect_asm(signature))

plan = matmul._plan(128, 512, 512)
show(matmul._gemm, plan.shape, plan.sizes, work, work, plan.no_bias, work, False, matmul._NO_MASK, work)
plan = direct_plan.forward(geometry)
operands = direct.Operands(x, x, False, Weights.of(plan, weight, False), plan.nest.start, x, False)
show(direct._correlate, plan.shape, plan.nest, direct_plan.shares_of(plan, 1, 1), operands, work)
plan = direct_plan.grad_weight(geometry)
operands = direct.GradientOperands(x, x, x, False, work, np.zeros((1, 1, 1), np.float32))
show(direct._reduce_pixels, plan.shape, plan.nest, operands, work)
"""


def innermost_loops(code):
    """The instructions of each block that jumps back to itself."""
    for block in re.split(r"(?m)^(?=\.LBB\w+:)", code):
        label, _, body = block.partition(":")
        lines = [line.strip() for line in body.splitlines()]
        end = next((i for i, line in enumerate(lines) if re.match(rf"j\w+\s+{re.escape(label)}$", line)), None)
        if end is not None:
            yield lines[:end]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_no_sum_of_a_tile_is_spilled_in_an_innermost_loop(processor, tmp_path):
    """Compiled, not run, for each kind of processor in a process of its own, whatever this one is."""
    environment = os.environ | {
        "NUMBA_CPU_NAME": processor,
        "NUMBA_CPU_FEATURES": PROCESSORS[processor],
        "NUMBA_NUM_THREADS": "1",
        "NUMBA_CACHE_DIR": str(tmp_path),  # code that comes from a cache cannot be read
    }
    run = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    kernels = run.stdout.split("KERNEL ")[1:]
    assert len(kernels) == 3
    for kernel in kernels:
        title, _, code = kernel.partition("\n")
        loops = [loop for loop in innermost_loops(code) if sum("vfmadd" in i for i in loop) >= int(title.split()[1])]
        assert loops, title
        for loop in loops:
            assert not [i for i in loop if "mm" in i and "(%rsp" in i], f"{title} on {processor}"
