"""`nnlite inspect`: loops, counts and faults are read from text; the compiler's code is that for a named processor.

Oracles: assembly written by hand, whose counts are seen at a glance; the instruction tables of uops.info for cycles;
pairs of kernels that differ in one fault, in faulty_kernels.py.
"""

import json
import platform
import re
import sys
from pathlib import Path

import pytest

from nnlite.__main__ import main
from nnlite.compiler import compilation
from nnlite.conv import Geometry
from nnlite.lab.inspect import bounds, compiling
from nnlite.lab.inspect.assembly import innermost_loops, readable
from nnlite.lab.inspect.command import _remarks
from nnlite.lab.inspect.counts import count
from nnlite.lab.inspect.faults import faults, strided_loads
from nnlite.lab.inspect.report import FunctionReport, report

KERNELS = Path(__file__).with_name("faulty_kernels.py")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # OSACA's, of pyparsing
compiles = pytest.mark.skipif(
    not compilation.ENABLED or platform.machine().lower() not in ("x86_64", "amd64"),
    reason="no x86-64 code is compiled",
)


def loop_of(code, lanes_before="", function="f"):
    """The loop that has these instructions, one a line."""
    lines = "\n".join(f"\t{line.strip()}" for line in code.strip().splitlines())
    (loop,) = innermost_loops(f"{function}:\n{lanes_before}.LBB0_1:\n{lines}\n\tjne\t.LBB0_1\n\tretq\n")
    return loop


def kinds(code, lanes=8):
    return [fault.kind for fault in faults(loop_of(code), lanes)]


# Loops ---------------------------------------------------------------------------------------------------------

NEST = """
	.file	1 "/home/me" "mine.py"
f:
	xorl	%eax, %eax
	jmp	.LBB0_2
.LBB0_4:
	incq	%rax
	cmpq	%rax, %rdi
	je	.LBB0_5
.LBB0_2:
	xorl	%ecx, %ecx
.LBB0_3:
	.loc	1 7 0
	vaddps	(%rsi,%rcx,4), %ymm0, %ymm0
	je	.LBB0_6
	.loc	1 8 0
	addq	$8, %rcx
.LBB0_6:
	cmpq	%rcx, %rdx
	jne	.LBB0_3
	jmp	.LBB0_4
.LBB0_5:
	retq
cfunc.f:
.LBB1_1:
	jne	.LBB1_1
	retq
"""


def test_only_the_innermost_loop_is_taken_wherever_llvm_lays_the_end_of_the_outer_one():
    (loop,) = innermost_loops(NEST)
    assert (loop.function, loop.label, loop.depth) == ("f", ".LBB0_3", 2)
    assert [i.mnemonic for i in loop.code] == ["vaddps", "je", "addq", "cmpq", "jne"]


def test_its_source_lines_are_those_of_the_debug_info():
    assert innermost_loops(NEST)[0].place == "mine.py:7-8"


def test_a_jump_back_that_closes_no_circle_is_no_loop():
    assert innermost_loops("f:\n.LBB0_1:\n\tretq\n.LBB0_2:\n\tjmp\t.LBB0_1\n") == []


def test_numbas_names_are_read_as_python_writes_them():
    name = "_ZN6nnlite4conv6direct7forwardB2v1B88c8tJTIeFIjxB2IKSgI4CrvQE"
    assert readable(name) == "nnlite.conv.direct.forward"
    assert readable("_ZN31nnlite_user_own_kernel_0dabb1239correlateB2v1") == "own_kernel.correlate"
    assert readable("_ZN13_3cdynamic_3e36__numba_parfor_gufunc_0x7f6bc3036710B2v2B142c8") == "prange_0x7f6bc3036710"


def test_a_prange_loop_is_shown_without_the_source_that_numba_generates():
    text = NEST.replace('"mine.py"', '"<string>"').replace("f:\n", "_ZN13_3cdynamic_3e24__numba_parfor_gufunc_0xB2:\n")
    (loop,) = innermost_loops(text.replace("cfunc._ZN13_3", "__gufunc__._ZN13_3"))
    assert (loop.function, loop.place) == ("prange_0x", "")


# Counts --------------------------------------------------------------------------------------------------------


def test_instructions_are_counted_by_kind():
    counts = count(
        loop_of("""
        vbroadcastss	(%rax), %ymm0
        vmovups	(%rbx), %ymm1
        vfmadd231ps	(%rcx), %ymm0, %ymm2
        vaddps	%ymm3, %ymm4, %ymm3
        vmulss	%xmm5, %xmm6, %xmm5
        vmovups	%ymm2, (%rdx)
        leaq	8(%rax), %rax
        cmpq	%rbx, (%rsi)""")
    )
    assert (counts.instructions, counts.fused, counts.unfused) == (9, 1, 0)
    assert (counts.loads, counts.stores, counts.broadcasts) == (4, 1, 1)
    assert (counts.bits, counts.vectors, counts.scalar) == (256, 2, 1)
    assert counts.flops == 2 * 8 + 8 + 1


def test_what_adds_to_memory_both_loads_and_stores():
    counts = count(loop_of("addq	$1, (%rax)"))
    assert (counts.loads, counts.stores) == (1, 1)


def test_a_sum_is_spilled_if_the_next_iteration_reads_what_this_one_stores():
    spilled_sum = "vmovaps 32(%rsp), %ymm1\nvfmadd231ps %ymm2, %ymm3, %ymm1\nvmovaps %ymm1, 32(%rsp)"
    value = "vmovaps %ymm1, 32(%rsp)\nvaddps %ymm2, %ymm2, %ymm2\nvaddps 32(%rsp), %ymm2, %ymm3"
    assert kinds(spilled_sum) == ["spilled sums"]
    assert kinds(value) == ["spilled values"]
    assert kinds(spilled_sum.replace("rsp", "rax")) == []


def test_the_frame_pointer_points_into_the_stack_where_there_is_one():
    code = "addq	8(%rbp), %rax"
    assert count(loop_of(code)).stack == 0
    assert count(loop_of(code, "\tmovq\t%rsp, %rbp\n")).stack == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("vmulps %ymm0, %ymm1, %ymm2\nvaddps %ymm2, %ymm3, %ymm3", 1),
        ("vmulps %ymm0, %ymm1, %ymm2\nvmovups (%rax), %ymm2\nvaddps %ymm2, %ymm3, %ymm3", 0),  # overwritten
        ("vmulps %ymm0, %ymm1, %ymm2\nvmulps %ymm2, %ymm3, %ymm3", 0),
        ("vmulps %ymm0, %ymm1, %ymm2\nvdivps %ymm2, %ymm3, %ymm3", 0),
        ("vmulps %ymm0, %ymm1, %ymm2\nvmovups %ymm2, (%rax)\nvaddps %ymm2, %ymm3, %ymm3", 0),  # is needed as well
    ],
)
def test_a_product_is_unfused_if_an_addition_uses_it(code, expected):
    assert count(loop_of(code)).unfused == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("vaddss (%rax), %xmm0, %xmm0\naddq $4, %rax", 0),
        ("vaddss (%rax), %xmm0, %xmm0\nvaddss 4(%rax), %xmm1, %xmm1\naddq $8, %rax", 0),  # two neighbours
        ("vaddss (%rax), %xmm0, %xmm0\naddq $32, %rax", 1),
        ("vaddss (%rax,%rcx,4), %xmm0, %xmm0\nincq %rcx", 0),
        ("vaddss (%rax,%rcx,4), %xmm0, %xmm0\naddq $8, %rcx", 1),
        ("vaddss (%rax), %xmm0, %xmm0\naddq %rdx, %rax", 1),  # a step that is known only when it runs
        ("movq (%rbx), %rax\nvaddss (%rax), %xmm0, %xmm0", 0),  # a table of places has no step
        ("vaddps (%rax), %ymm0, %ymm0\naddq %rdx, %rax", 0),  # rows of vectors may lie anywhere
    ],
)
def test_loads_of_single_numbers_are_strided_if_the_next_is_no_neighbour(code, expected):
    assert len(strided_loads(loop_of(code))) == expected


# Bounds --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def haswell():
    pytest.importorskip("osaca")
    return bounds.analyser("haswell")


def test_eight_multiply_adds_take_four_cycles_of_haswells_two_ports(haswell):
    code = "\n".join(f"vfmadd231ps %ymm14, %ymm15, %ymm{i}" for i in range(8))
    found = haswell.bound(loop_of(code).lines)
    assert (found.ports, found.carried) == (4, 5)  # and each takes five cycles


def test_a_chain_through_two_instructions_is_the_sum_of_their_latencies(haswell):
    assert haswell.bound(loop_of("vaddss %xmm0, %xmm1, %xmm1\nvmulss %xmm1, %xmm2, %xmm1").lines).carried == 3 + 5


def test_a_sum_on_the_stack_waits_for_its_store(haswell):
    in_register = "vfmadd231ps %ymm2, %ymm3, %ymm1"
    on_stack = f"vmovaps 32(%rsp), %ymm1\n{in_register}\nvmovaps %ymm1, 32(%rsp)"
    assert haswell.bound(loop_of(on_stack).lines).carried > haswell.bound(loop_of(in_register).lines).carried == 5


def test_a_broadcast_from_memory_needs_a_port_for_loads_alone(haswell):
    assert haswell.bound("\tvbroadcastss\t(%rax), %ymm0\n\tvbroadcastss\t4(%rax), %ymm1\n").ports == 1


def test_what_osaca_does_not_know_is_named(haswell):
    assert haswell.bound("\tvmaskmovps\t%ymm1, %ymm2, (%rcx)\n").unknown == ("vmaskmovps",)


def test_too_few_sums_wait_for_each_other(haswell):
    def found(sums):
        lines = "\n".join(f"vfmadd231ps %ymm14, %ymm15, %ymm{i}" for i in range(sums))
        text = "f:\n.LBB0_1:\n" + lines.replace("vfm", "\tvfm") + "\n\tjne\t.LBB0_1\n"
        compiled = compiling.Compiled("haswell", 8, (), "")
        return report(compiling.Function("f", "", text), compiled, 1).loops[0]

    assert [fault.kind for fault in found(4).faults] == ["latency"]
    assert found(4).percent_of_peak == pytest.approx(40)  # 4 in 5 cycles, where 10 would do
    assert found(10).faults == []


def test_numbers_that_are_put_into_a_vector_one_by_one_are_a_gather():
    code = "vmovss (%rax), %xmm0\nvinsertps $16, (%rbx), %xmm0, %xmm0"
    assert kinds(code) == ["gather"]
    assert kinds("vinsertf128 $1, (%rax), %ymm0, %ymm0") == []


# Kernels -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def every():
    """The faulty kernels, for processors of two widths and another of the first one's."""
    pytest.importorskip("osaca")
    geometry = Geometry.of((1, 3, 3, 1), (3, 3, 1, 1))
    request = compiling.Request(f"{KERNELS}:All", geometry)
    return {c.processor: c for c in compiling.compile_for(request, ["haswell", "znver3", "skylake-avx512"])}


@pytest.fixture(params=["haswell", "skylake-avx512"])
def compiled(every, request):
    return every[request.param]


def accused(compiled, name):
    (function,) = (f for f in compiled.functions if f.name.endswith(f".{name}"))
    return {fault.kind: fault.sentence for loop in report(function, compiled, 9).loops for fault in loop.faults}


@compiles
@pytest.mark.parametrize(
    ("kernel", "kind", "words"),
    [
        ("float64", "float64", "Write np.float32(0.5) for 0.5"),
        ("scalar", "scalar", "fastmath={'reassoc'}"),
        ("gather", "gather", "one by one"),
        ("unfused", "unfused", "fastmath={'contract'}"),
        ("division", "division", "Multiply by the reciprocal"),
        ("masked", "masked stores", "under a mask"),
        ("strided", "strided loads", "run over the last axis"),
    ],
)
def test_a_planted_fault_is_named_and_its_healthy_twin_is_not_accused(compiled, kernel, kind, words):
    if (kernel, compiled.lanes) == ("masked", 16):
        assert kind not in accused(compiled, f"faulty_{kernel}")  # AVX-512 has masks
        return
    assert words in accused(compiled, f"faulty_{kernel}")[kind]
    assert accused(compiled, f"healthy_{kernel}").keys() <= {"latency"}  # of sums, which LLVM makes of four vectors


@compiles
def test_sums_that_do_not_fit_into_the_registers_are_named(compiled):
    few, many = [f for f in compiled.functions if f.name.endswith(".multiply_adds")][::-1]
    spilled, fine = (report(f, compiled, 1).loops[0] for f in (many, few))
    assert spilled.counts.spilled_sums >= 40 - (16 if compiled.lanes == 8 else 32)
    assert fine.counts.stack == 0
    assert fine.faults == []
    assert fine.percent_of_peak == pytest.approx(100)


@compiles
def test_processors_of_one_width_share_their_functions_and_have_machine_code_of_their_own(every):
    haswell, znver3 = every["haswell"].functions, every["znver3"].functions
    assert [(f.name, f.signature) for f in haswell] == [(f.name, f.signature) for f in znver3]
    assert [f.assembly for f in haswell] != [f.assembly for f in znver3]


@compiles
def test_a_conversion_is_shown_with_its_source_line(compiled):
    lines = KERNELS.read_text("utf-8").splitlines()
    line = next(i for i, text in enumerate(lines, 1) if "x[i] * 0.1" in text)
    assert f"(faulty_kernels.py:{line})" in accused(compiled, "faulty_float64")["float64"]


# The command ---------------------------------------------------------------------------------------------------


@compiles
def test_a_function_of_a_file_is_inspected_for_a_signature(tmp_path, capsys):
    pytest.importorskip("osaca")
    path = tmp_path / "found.json"
    target = f"{KERNELS}:healthy_unfused"
    signature = ["--signature", "float32[::1], float32[::1]"]
    assert main(["inspect", target, *signature, "--cpu", "haswell", "--asm", "--json", str(path)]) == 0
    (processor,) = json.loads(path.read_text("utf-8"))["processors"]
    loop = processor["functions"][0]["loops"][0]
    assert (processor["processor"], loop["fused"], loop["faults"]) == ("haswell", 4, [])
    text = capsys.readouterr().out
    assert re.search(r"multiply-adds +4 fused, 0 unfused", text)
    assert re.search(r"faulty_kernels.py:\d+ +load fma +vfmadd", text)
    assert "trips are not counted" in text


TWO = """
import numba
import numpy as np
import nnlite as nn
@numba.njit
def two(x):
    x[0] = 2
@numba.njit
def four(x):
    x[0] = 4
class Mine(nn.conv.Algorithm):
    name = "mine"
    parameters = {"rows": (2, 4)}
    def forward(self, x, weight, geometry):
        y = np.zeros(geometry.output_shape, x.dtype)
        (four if self.rows == 4 else two)(y.reshape(-1))
        return y
"""


@compiles
def test_an_algorithm_may_have_parameters(tmp_path):
    pytest.importorskip("osaca")
    path, found = tmp_path / "mine.py", tmp_path / "found.json"
    path.write_text(TWO)
    arguments = ["--shape", "1,1,5,5,1,3,3,1,0", "--cpu", "haswell", "--json", str(found)]
    assert main(["inspect", f"{path}:Mine(rows=4)", *arguments]) == 0
    (function,) = json.loads(found.read_text("utf-8"))["processors"][0]["functions"]
    assert function["name"].endswith(".four")


@compiles
def test_a_function_that_calls_compiled_ones_shows_each(tmp_path, capsys):
    pytest.importorskip("osaca")
    path, found = tmp_path / "mine.py", tmp_path / "found.json"
    path.write_text(TWO + "def both():\n    two(np.zeros(3))\n    four(np.zeros(3, np.float32))\n")
    assert main(["inspect", f"{path}:both", "--cpu", "haswell", "--json", str(found)]) == 0
    functions = json.loads(found.read_text("utf-8"))["processors"][0]["functions"]
    signatures = ["array(float64, 1d, C)", "array(float32, 1d, C)"]
    assert [(f["name"].rpartition(".")[2], f["signature"]) for f in functions] == [
        ("two", signatures[0]),
        ("four", signatures[1]),
    ]
    assert main(["inspect", f"{path}:nn", "--cpu", "haswell"]) == 2
    assert "a function without arguments that calls some. Received: module" in capsys.readouterr().err


def test_only_loops_that_there_are_are_said_not_to_be_shown():
    (said,) = _remarks(FunctionReport(compiling.Function("f", "", ""), [], colder=0, versions=2))
    assert said == "Not shown: 2 remainder loops and other versions of the same loops."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["winograd(least_tiles=7)"], "ALGORITHM winograd.least_tiles=7.: least_tiles: expected one of"),
        ([f"{KERNELS}:Mine(7)"], "expected a name after the colon, or an algorithm's CLASS.PARAMETER=VALUE."),
        (["direkt"], "unknown ALGORITHM 'direkt'.* Did you mean 'direct'"),
        (["direct", "--cpu", "neoverse-n1"], "unknown --cpu 'neoverse-n1': expected one of haswell"),
        (["direct", "--pass", "dz"], "unknown --pass 'dz'"),
        (["direct", "--shape", "1,2"], "--shape: expected nine integers"),
        (["direct", "--signature", "int64"], "--signature: expected only with FILE.py:FUNCTION"),
        (["direct", "--loops", "0"], "--loops: expected an integer of at least 1"),
        (["winograd", "--shape", "1,1,9,9,1,5,5,1,0"], "--shape .*winograd declines it"),
    ],
)
@compiles
def test_a_wrong_request_is_one_line(arguments, words, capsys):
    pytest.importorskip("osaca")
    assert main(["inspect", *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(words, error)
    assert error.count("\n") == 1


@compiles
def test_without_osaca_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "osaca", None)
    assert main(["inspect", "direct"]) == 2
    assert "pip install 'nnlite-conv[inspect]'" in capsys.readouterr().err
