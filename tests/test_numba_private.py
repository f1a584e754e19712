"""Numba's inner parts: one module uses them, and each of its functions is tried with the Numba that is installed."""

import ast
import pickle
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numba
import numpy as np
import pytest
from llvmlite import ir
from numba import types

import nnlite
from nnlite.compiler import compilation, numba_private

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="nothing is compiled")

PACKAGE = Path(nnlite.__file__).parent
SOURCES = [file for file in PACKAGE.rglob("*.py") if re.search(r"^(from|import) numba", file.read_text("utf-8"), re.M)]
#: what Numba's manual tells who extends it to import
DOCUMENTED = {"numba", "numba.extending", "numba.core:cgutils", "numba.core:types", "numba.core:event"}
INT = types.int64


@numba.njit
def half(x):
    if x < 0:
        raise ValueError("x: expected at least 0")
    return x / 2


def compiled():
    half.compile((INT,))
    return half.overloads[(INT,)]


def tried_target():
    triple, _processor, _features = numba_private.target()
    assert "-" in triple


def tried_assembly():
    assert "ret" in numba_private.assembly("define void @f() { ret void }")


def tried_machine_code():
    code = numba_private.machine_code(half, (INT,))
    assert code.address
    assert code.result == types.float64


def tried_ignore_read_only():
    function, values = numba.njit(lambda x: x[0] / 2), np.ones(1)
    numba_private.ignore_read_only(function)
    for read_only in (values, np.broadcast_to(values, (1,)), np.broadcast_to(3 * values, (1,)), values):
        assert function(read_only) == read_only[0] / 2
    assert [signature[0].mutable for signature in function.overloads] == [True]


def tried_no_reference_counts():
    function, values = numba.njit(lambda x, y: x[0] + y[1], **numba_private.NO_REFERENCE_COUNTS), np.ones(3)
    before = sys.getrefcount(values)
    assert function(values, values) == 2
    assert sys.getrefcount(values) == before
    assert "NRT_incref" not in "".join(function.inspect_asm().values())
    with pytest.raises(numba.TypingError):
        numba.njit(lambda n: np.empty(n), **numba_private.NO_REFERENCE_COUNTS)(3)


def tried_compiler_locks():
    for lock in numba_private.compiler_locks():
        with lock:
            pass


def tried_cache():
    class Asked(numba_private.Cache):
        def load_overload(self, signature, context):
            asked.append(signature)

    asked, function = [], numba.njit(lambda x: x)
    numba_private.keep_in(Asked(), function)
    assert (function(3), asked) == (3, [(INT,)])


def tried_holds_addresses():
    table = np.ones(2_000_000)
    function = numba.njit(lambda i: table[i])
    function.compile((INT,))
    assert numba_private.holds_addresses(function.overloads[(INT,)])
    assert not numba_private.holds_addresses(compiled())


def tried_to_bytes_and_rebuild():
    extra, reduced = pickle.loads(numba_private.to_bytes(compiled(), "extra"))
    again = numba_private.rebuild(half.targetctx, reduced)
    assert (extra, again.entry_point(3)) == ("extra", 1.5)


def tried_one_copy():
    @numba.njit
    def helper(n):  # calls itself, so that LLVM does not make all of it part of its caller
        return n if n < 2 else helper(n - 1) + helper(n - 2)

    function = numba.njit(lambda n: helper(n), pipeline_class=numba_private.OneCopy)
    assert function(10) == 55
    library = function.overloads[(INT,)].library
    assert {f.linkage.name for f in library.get_defined_functions() if "helper" in f.name} == {"internal"}


def tried_calls():
    """What is called by its address hands its exception on."""

    @numba.extending.intrinsic
    def call(typing, address, x):
        def emit(context, builder, sig, args):
            code_type = numba_private.function_type(context, types.float64, (INT,))
            code = builder.inttoptr(args[0], code_type.as_pointer())
            status = numba_private.call(context, builder, code, types.float64, (INT,), args[1:])
            numba_private.pass_on_error(context, builder, status.code, status.excinfoptr)
            numba_private.pass_on_error(context, builder, *numba_private.no_error())
            return ir.Constant(ir.IntType(64), 1)

        return INT(INT, INT), emit

    function, address = (
        numba.njit(lambda address, x: call(address, x)),
        numba_private.machine_code(half, (INT,)).address,
    )
    assert function(address, 3) == 1
    with pytest.raises(ValueError, match="x: expected at least 0"):
        function(address, -3)


INSPECTED = """
import numba, numpy as np
from nnlite.compiler import numba_private

@numba.njit
def half(x):
    return x / 2

called = []
def instead(function, arguments, named):
    called.append(numba_private.compiled_for(function, arguments))
    return call(function, *arguments, **named)

numba_private.add_source_lines()
call = numba_private.intercept_calls(instead)
assert half(np.float32(3)) == 1.5
assert called == [(numba.float32,)], called
print(half.inspect_asm(called[0]))
"""


def tried_inspecting(tmp_path):
    """What changes Numba for a whole process is tried in one of its own."""
    file = tmp_path / "inspected.py"
    file.write_text(INSPECTED, "utf-8")
    run = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    line = INSPECTED.splitlines().index("    return x / 2") + 1
    assert re.search(rf"\.loc\s+1 {line} ", run.stdout)
    assert ".debug_info" not in run.stdout
    assert numba_private.add_source_lines
    assert numba_private.intercept_calls
    assert numba_private.compiled_for


COMPILED = """
import numba
from nnlite.compiler import numba_private

@numba.njit
def inner(x):
    return x / 2

@numba.njit
def half(x):
    return inner(x)

numba_private.never_execute()
signature = numba_private.compiled_for(half, (3.0,))
for processor in ("x86-64", "haswell"):
    print(numba_private.assembly_for(half, signature, processor), "END")
"""


def tried_compiling_for_another_processor():
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("names of x86-64 processors and instructions")
    run = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    old, new, _ = run.stdout.split("END")
    assert re.search(r"\tmulsd", old), old
    assert re.search(r"\tvmulsd", new), new
    assert "cpython" not in old
    assert numba_private.never_execute
    assert numba_private.assembly_for


TRIED = {name.removeprefix("tried_"): f for name, f in list(globals().items()) if name.startswith("tried_")}


@pytest.mark.parametrize("what", TRIED)
def test_numba_has_what_numba_private_uses(what, tmp_path):
    try:
        TRIED[what](*[tmp_path] * TRIED[what].__code__.co_argcount)
    except Exception as error:
        pytest.fail(f"numba {numba.__version__} changed what numba_private uses for {what}: {error!r}")


def test_each_function_of_numba_private_is_tried():
    tree = ast.parse(Path(numba_private.__file__).read_text("utf-8"))
    public = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    public -= {name for name in public if name.startswith("_")}
    tried = {name for f in TRIED.values() for name in f.__code__.co_names + inner_names(f)}
    assert public - tried - {"MachineCode", "what_to_install"} == set()


def inner_names(function):
    return tuple(name for code in function.__code__.co_consts if hasattr(code, "co_names") for name in names_in(code))


def names_in(code):
    return code.co_names + tuple(n for inner in code.co_consts if hasattr(inner, "co_names") for n in names_in(inner))


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.name)
def test_nobody_else_uses_numbas_inner_parts(file):
    """Neither imports beyond what its manual shows, nor attributes that start with an underscore but the file's own."""
    if file.name == "numba_private.py":
        return
    imported, attributes, own = set(), set(), set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "numba":
            imported |= {node.module} & DOCUMENTED or {f"{node.module}:{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            imported |= {name.name for name in node.names if name.name.split(".")[0] == "numba"}
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            (own if ast.unparse(node.value) in ("self", "cls") else attributes).add(node.attr)
    assert imported - DOCUMENTED == set()
    assert attributes - own == set()


def test_the_tested_versions_are_those_of_the_package():
    pyproject = PACKAGE.parent / "pyproject.toml"
    if not pyproject.is_file():
        pytest.skip("installed without its sources")
    (first, last) = numba_private.TESTED
    (needed,) = (d for d in tomllib.loads(pyproject.read_text())["project"]["dependencies"] if d.startswith("numba"))
    assert needed == f"numba >= {first[0]}.{first[1]}, < {last[0]}.{last[1] + 1}"


def test_a_numba_that_lacks_a_part_is_told_in_one_line():
    code = "import sys, numba; numba.__version__ = '0.99.1rc1'; sys.modules['numba.core.callconv'] = None\n"
    code += "import nnlite.compiler.compilation"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    *_, last = done.stderr.splitlines()
    assert last.startswith("ImportError: numba: expected a version from 0.61 to 0.68")
    assert "Received: 0.99.1rc1" in last
    assert last.endswith("pip install 'numba>=0.61,<0.69'")
