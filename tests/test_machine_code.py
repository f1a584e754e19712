"""Every compiled kernel's machine code, for processors with AVX2 and with AVX-512: its sums stay in registers.

Compiled, not run, so the tests hold on any x86-64 machine. What tells a spilled sum is tested in lab/test_inspect.py.
"""

import platform

import pytest

from benchmarks.machine_code import EVERY_KERNEL, PROCESSORS, not_reached, spilled_sums
from nnlite.compiler import compilation
from nnlite.lab.inspect.assembly import innermost_loops
from nnlite.lab.inspect.compiling import compile_for
from nnlite.lab.inspect.counts import count

IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
pytestmark = [
    pytest.mark.slow,  # it compiles every kernel for two widths of vectors: minutes
    pytest.mark.skipif(not (compilation.ENABLED and IS_X86), reason="no x86-64 code is compiled"),
]
#: the kernels with the most arithmetic, of each family: what they reach all has to be found
FAMILIES = ("direct._correlate", "direct._reduce_pixels", "lanes._forward", "lanes._backward", "grouped._correlate",
            "grouped._reduce", "winograd._forward", "winograd._backward", "winograd_pair._backward", "matmul._gemm",
            "lanes_pair._backward", "tall_skinny._backward", "peaks.multiply_adds")  # fmt: skip


@pytest.fixture(scope="module")
def compiled():
    return {one.processor: one for one in compile_for(EVERY_KERNEL, PROCESSORS)}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_no_sum_is_spilled_in_an_innermost_loop_of_any_kernel(compiled, processor):
    spilled = {f"{f.name}({f.signature})": n for f in compiled[processor].functions if (n := spilled_sums(f))}
    assert spilled == {}


def test_the_kernels_are_all_reached_and_compiled_for_their_own_width(compiled):
    for one in compiled.values():
        assert one.stopped == ""
        assert not not_reached(one)
        assert one.lanes == (16 if one.processor in ("skylake-avx512", "znver4") else 8)
        for family in FAMILIES:
            loops = [
                count(loop)
                for function in one.functions
                if function.name.endswith(family)
                for loop in innermost_loops(function.assembly)
            ]
            assert max((c.fused for c in loops if c.bits == 32 * one.lanes), default=0) >= 8, (family, one.processor)
