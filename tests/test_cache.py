"""Compiled code: on first use only, kept on disk, renewed when any kernel's source changes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nnlite
from nnlite import jit, jit_cache

pytestmark = pytest.mark.skipif(not jit.ENABLED, reason="nothing is compiled")

COUNT = """
import numpy as np
from nnlite import jit, jit_cache
from nnlite.simd import LANES
compiled = []
jit.on_compile(compiled.append)
"""
ADD = f"""{COUNT}
from nnlite.kernels import ceilings
x, out = np.ones((1, 8 * LANES), np.float32), np.zeros(LANES, np.float32)
ceilings.read.run(1, 1, x, out)
print(out[0], len(compiled), jit_cache.cache_dir())
"""
MULTIPLY = f"""{COUNT}
from nnlite.kernels import matmul
out = matmul.matmul(np.full((1, 8), 0.5, np.float32), np.ones((8, 64), np.float32))
print(out[0, 0], len(compiled), jit_cache.cache_dir())
"""


def run(code, cwd=None, **environment):
    """What a new process prints, in words."""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | environment, capture_output=True, text=True, cwd=cwd
    )
    return done.stdout.split()


#: a kernel of which every operation is in the module that is edited, and an edit that changes its result
SOURCES = [
    ("simd.py", ADD, "8.0", "builder.fadd(a, b", "builder.fsub(a, b"),
    ("tiles.py", MULTIPLY, "4.0", "fma_value(builder, x, y, total)", "fma_value(builder, y, y, total)"),
]


@pytest.mark.parametrize(("file", "program", "result", "line", "edited"), SOURCES, ids=[s[0] for s in SOURCES])
def test_an_edit_changes_the_code_that_runs(tmp_path, file, program, result, line, edited):
    shutil.copytree(Path(nnlite.__file__).parent, tmp_path / "nnlite", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    first, compiled, _ = run(program, tmp_path, **environment)
    assert first == result
    assert run(program, tmp_path, **environment)[:2] == [result, "0"]  # from the cache
    source = tmp_path / "nnlite" / file
    text = source.read_text()
    assert text.count(line) == 1
    source.write_text(text.replace(line, edited))
    changed = run(program, tmp_path, **environment)
    assert changed[0] != result
    assert changed[1] == compiled != "0"


def printing(expression, folder):
    """A program that prints what comes of a user's module, and how many functions are compiled for it."""
    return f"{COUNT}import sys; sys.path.insert(0, {str(folder)!r}); import mine\nprint({expression}, len(compiled))"


USERS = """
import numpy as np
from nnlite import jit
@jit.kernel
def scale(part, parts, x):
    for i in range(part, x.size, parts):
        x[i] *= {factor}
def run():
    x = np.ones(3)
    scale(x)
    return x.sum()
"""


def test_a_users_edited_kernel_is_compiled_anew(tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    program = printing("mine.run()", tmp_path)
    for factor, compiled in ((2, "2"), (2, "0"), (5, "2"), (5, "0")):  # the kernel and what launches it
        (tmp_path / "mine.py").write_text(USERS.format(factor=factor))
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        assert run(program, **environment, NUMBA_NUM_THREADS="2") == [f"{3.0 * factor}", compiled]


FACTORY = """
import numpy as np
from nnlite.jit import jit, kernel

def scaling(factor):
    @jit
    def scaled(x):
        return x * factor

    @kernel
    def scale(part, parts, x):
        for i in range(part, len(x), parts):
            x[i] = {helper}(x[i])

    return scale

def run(*factors):
    for factor in factors:
        x = np.ones(3)
        scaling(factor)(x)
        yield float(x.sum())
"""


def with_factors(folder, factors):
    return printing(f"*mine.run({factors})", folder)


@pytest.mark.parametrize(("helper", "code_for"), [("scaled", 3), ("factor * float", 2)])
def test_functions_of_one_factory_do_not_share_code(tmp_path, helper, code_for):
    """One that closes over another number, itself or in a function that it calls, is another."""
    (tmp_path / "mine.py").write_text(FACTORY.format(helper=helper))
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_NUM_THREADS": "2"}
    # each number: the kernel, what launches it and what it calls
    assert run(with_factors(tmp_path, "2, 5, 2"), **environment) == ["6.0", "15.0", "6.0", str(2 * code_for)]
    assert run(with_factors(tmp_path, "2, 5, 2"), **environment) == ["6.0", "15.0", "6.0", "0"]
    assert run(with_factors(tmp_path, "3, 5"), **environment) == ["9.0", "15.0", str(code_for)]


RECURSIVE = """
from nnlite.jit import jit

def summing(factor):
    @jit
    def multiples(n):
        if n == 0:
            return 0
        return factor * n + multiples(n - 1)

    @jit
    def one_more(n):
        return multiples(n) + 1

    return one_more
"""


def test_a_function_that_closes_over_itself_is_told_from_another(tmp_path):
    (tmp_path / "mine.py").write_text(RECURSIVE)
    program = printing("mine.summing(2)(3), mine.summing(5)(3)", tmp_path)
    for compiled in ("4", "0"):  # what calls it is kept, with its code
        assert run(program, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == ["13", "31", compiled]


ALIKE = {
    "lambdas of one line": "f, g = jit(lambda x: x * 2), jit(lambda x: x * 3); results = f(1.0), g(1.0)",
    "of a global number": """
results = []
for factor in (2.0, 3.0):
    @jit
    def f(x):
        return x * factor
    results.append(f(1.0))
""",
    "of a global function": """
results = []
for factor in (2.0, 3.0):
    @jit
    def scaled(x):
        return x * factor
    @jit
    def f(x):
        return scaled(x)
    results.append(f(1.0))
""",
    "of arrays": """
def of(array):
    return jit(lambda x: x * array[0])
results = of(np.full(2, 2.0))(1.0), of(np.full(2, 3.0))(1.0)
""",
    "of tuples": """
def of(numbers):
    return jit(lambda x: x * numbers[1])
results = of((1.0, 2.0))(1.0), of((1.0, 3.0))(1.0)
""",
}


@pytest.mark.parametrize("program", ALIKE.values(), ids=ALIKE)
def test_functions_of_one_name_do_not_share_code(tmp_path, program):
    (tmp_path / "mine.py").write_text(f"import numpy as np\nfrom nnlite.jit import jit\n{program}")
    for compiled in (True, False):
        *results, count = run(printing("*mine.results", tmp_path), NUMBA_CACHE_DIR=str(tmp_path))
        assert results == ["2.0", "3.0"]
        assert (int(count) > 0) == compiled


@pytest.mark.parametrize(
    ("program", "other"),
    [
        ("from other import scaled\nf = jit(lambda x: scaled(x))", "@jit\ndef scaled(x):\n    return x * {factor}"),
        ("import other\nf = jit(lambda x: other.scaled(x))", "@jit\ndef scaled(x):\n    return x * {factor}"),
        ("import other\nf = jit(lambda x: x * other.FACTOR)", "FACTOR = {factor}"),
    ],
)
def test_an_edit_in_another_of_the_users_files_is_seen(tmp_path, program, other):
    (tmp_path / "mine.py").write_text(f"import numpy as np\nfrom nnlite.jit import jit\n{program}")
    for factor, fresh in ((2.0, True), (2.0, False), (3.0, True)):
        (tmp_path / "other.py").write_text(f"from nnlite.jit import jit\n{other.format(factor=factor)}")
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        result, count = run(printing("mine.f(1.0)", tmp_path), NUMBA_CACHE_DIR=str(tmp_path))
        assert result == f"{factor}"
        assert (int(count) > 0) == fresh


def test_modules_that_know_each_other_are_not_asked_without_end(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import other\nfrom nnlite.jit import jit\nFACTOR = 2.0\nf = jit(lambda x: x * other.mine.FACTOR * other.one)"
    )
    (tmp_path / "other.py").write_text("import mine\none = 1.0")
    for compiled in ("1", "0"):
        result = run(printing("mine.f(1.0)", tmp_path), NUMBA_CACHE_DIR=str(tmp_path))
        assert result == ["2.0", compiled]


def test_what_libraries_have_is_told_by_its_name(tmp_path):
    program = "import math\nimport numpy as np\nfrom numpy import sqrt\nfrom nnlite.jit import jit\n"
    program += "def root(x):\n    return math.sqrt(x) + sqrt(x) + np.sqrt(np.random.rand() * 0 + x) + np.pi * 0\n"
    (tmp_path / "mine.py").write_text(f"{program}root = jit(root)\n")
    for compiled in ("1", "0"):
        assert run(printing("mine.root(4.0)", tmp_path), NUMBA_CACHE_DIR=str(tmp_path)) == [
            "6.0", compiled,
        ]  # fmt: skip


def test_what_hangs_on_a_value_that_no_text_tells_is_not_kept(tmp_path):
    number = "import enum\nNumber = enum.Enum('Number', {'two': 2, 'three': 3})\n"
    source = FACTORY.format(helper="factor.value * float").replace("x * factor", "x")
    (tmp_path / "mine.py").write_text(number + source)
    numbers = "mine.Number.two, mine.Number.three"
    for _ in range(2):
        assert run(with_factors(tmp_path, numbers), NUMBA_CACHE_DIR=str(tmp_path / "cache")) == ["6.0", "9.0", "4"]


def test_what_numba_does_not_keep_works(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom nnlite import jit\ntable = np.ones(2_000_000)\n"
        "@jit.jit\ndef total(n):\n    return table[:n].sum()\n"
    )
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import mine; print(mine.total(5))"
    assert run(program, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == ["5.0"]


def test_what_stands_in_no_file_is_compiled_each_time():
    namespace = {"jit": jit}
    exec("@jit.jit\ndef twice(x):\n    return 2 * x", namespace)
    assert namespace["twice"](4) == 8


def test_a_read_only_home_is_done_without(tmp_path):
    file = tmp_path / "file"
    file.touch()
    environment = {"HOME": str(file), "XDG_CACHE_HOME": str(file), "NUMBA_CACHE_DIR": "", "TMPDIR": str(tmp_path)}
    for expected in ("2", "0"):  # the kernel and what launches it
        _, compiled, folder = run(ADD, **environment)
        assert compiled == expected
        assert Path(folder).is_relative_to(tmp_path / f"nnlite-{os.getuid()}")


def test_damaged_code_is_compiled_again(tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    run(ADD, **environment)
    (file,) = tmp_path.rglob("ceilings.read-*.code")
    for damage in (
        b"",
        file.read_bytes()[:1000],
        b"not a pickle",
        b"\x8e" + b"\xff" * 8,
        b"(lp0\nI1\np99999999999999999999\n.",
    ):
        file.write_bytes(damage)
        assert run(ADD, **environment)[:2] == ["8.0", "1"]
    assert run(ADD, **environment)[:2] == ["8.0", "0"]


def test_importing_compiles_nothing():
    code = """
import importlib, pkgutil, sys, nnlite
from numba.core import event
compiled = []
class Listener(event.Listener):
    def on_start(self, event): compiled.append(event.data)
    def on_end(self, event): pass
event.register("numba:compile", Listener())
for module in pkgutil.walk_packages(nnlite.__path__, "nnlite."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
nnlite.conv.get("winograd")
print(len(compiled))
"""
    assert run(code) == ["0"]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users on this system")
def test_code_in_somebody_elses_folder_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert jit_cache.cache_root.__wrapped__() == tmp_path / "nnlite"
    (tmp_path / "nnlite").chmod(0o777)
    temporary = jit_cache.cache_root.__wrapped__()
    assert temporary not in (None, tmp_path / "nnlite")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert jit_cache.cache_root.__wrapped__() is None


def test_clear_cache_empties_it(tmp_path, monkeypatch):
    monkeypatch.setattr(jit_cache, "cache_root", lambda: tmp_path)
    for folder in ("kernels-1", "kernels-2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "code").touch()
    (tmp_path / "choices-1.json").touch()
    (tmp_path / "rates-1.json").touch()
    (tmp_path / "machine-1.json").touch()
    assert jit_cache.clear_cache() == 4
    assert [file.name for file in tmp_path.iterdir()] == ["machine-1.json"]
