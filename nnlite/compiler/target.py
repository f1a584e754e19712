"""The processor that Numba compiles for: what plans, tile shapes and estimates of time derive from.

It is a matter of NUMBA_CPU_NAME and NUMBA_CPU_FEATURES and need not be the processor that this runs on: so the compiler
is asked. The caches and cores of the machine are in nnlite.runtime.processor, which needs no compiler.
"""

from __future__ import annotations

from nnlite.compiler import numba_private


def _probe() -> tuple[int, int]:
    """(lanes of a float32 register, number of vector registers) of the processor that Numba compiles for."""
    wide = "<16 x float>"
    assembly = numba_private.assembly(
        f"define {wide} @f({wide} %a, {wide} %b) {{ %c = fadd {wide} %a, %b\n ret {wide} %c }}"
    )
    if "zmm" in assembly:
        return 16, 32
    if "ymm" in assembly:
        return 8, 16
    return 4, 32 if numba_private.target()[0].startswith(("aarch64", "arm64")) else 16


#: float32 numbers in a vector register, and vector registers
LANES, REGISTERS = _probe()
#: multiply-adds of vectors that begin in a cycle, and the cycles that one takes, or one cycle more: the compiler does
#: not say, and nearly all processors are alike
MULTIPLY_ADD_PORTS, MULTIPLY_ADD_CYCLES = 2, 5
#: vectors, or numbers for all lanes of one, that are loaded in a cycle
LOAD_PORTS = 2
