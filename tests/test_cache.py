"""Compiled code: on first use only, kept on disk, renewed when any kernel's source changes."""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import nnlite
from nnlite.compiler import cache as jit_cache
from nnlite.compiler import compilation

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="nothing is compiled")

COUNT = """
import numpy as np
from nnlite.compiler import compilation, pool, cache as jit_cache
from nnlite.compiler.target import LANES
ended = pool.Pool()
ended.end()
pool.in_turn_address(), pool.share_out_address(), pool._serve(ended.shared, 1, 0)  # once for the package
compiled = []
compilation.listeners.append(compiled.append)
"""
ADD = f"""{COUNT}
from nnlite.kernels import peaks
x, out = np.ones((1, 8 * LANES), np.float32), np.zeros(LANES, np.float32)
peaks.read.run(1, 1, x, out)
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
    ("reductions.py", MULTIPLY, "4.0", "fma_value(builder, x, y, total)", "fma_value(builder, y, y, total)"),
]
#: Numba's setting of where code is kept, which is not where nnlite's goes
LOCATOR = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}


@pytest.mark.parametrize(("file", "program", "result", "line", "edited"), SOURCES, ids=[s[0] for s in SOURCES])
def test_an_edit_changes_the_code_that_runs(tmp_path, file, program, result, line, edited):
    shutil.copytree(Path(nnlite.__file__).parent, tmp_path / "nnlite", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path), **LOCATOR}
    first, compiled, folder = run(program, tmp_path, **environment)
    assert first == result
    assert {path.parent for path in (tmp_path / "cache").rglob("*.*")} == {Path(folder)}
    assert run(program, tmp_path, **environment)[:2] == [result, "0"]  # from the cache
    source = tmp_path / "nnlite" / "compiler" / file
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
from nnlite.compiler.compilation import jit
from nnlite.compiler.launch import kernel

def scaling(factor):
    @jit
    def scaled(x):
        return x * factor

    @kernel
    def scale(part, parts, x):
        for i in range(part, len(x), parts):
            x[i] = scaled(x[i])

    return scale

def run(*factors):
    for factor in factors:
        x = np.ones(3)
        scaling(factor)(x)
        yield float(x.sum())
"""


def test_users_functions_are_compiled_anew_in_each_process(tmp_path):
    """Their code hangs on what they close over and on globals; of one name they do not share code."""
    (tmp_path / "mine.py").write_text(USERS)
    program = printing("*mine.run(2, 5, 2)", tmp_path)
    for _ in range(2):  # each number: the function, the kernel and what launches it
        assert run(program, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == ["6.0", "15.0", "6.0", "9"]
    assert [file for file in tmp_path.rglob("*.code") if "nnlite.compiler" not in file.name] == []


def test_only_functions_of_hashed_sources_that_their_name_tells_are_cached():
    source = "def plain(x): return x\ndef made(n):\n    def f(x): return x * n\n    return f\nline = lambda x: x\n"
    own, other, users = ({"__name__": f"nnlite.{name}"} for name in ("own", "other", "users"))
    exec(compile(source, Path(nnlite.__file__).parent / "conv/winograd/own.py", "exec"), own)
    exec(compile(source, Path(nnlite.__file__).parent / "ops/other.py", "exec"), other)
    exec(compile(source, "/home/me/mine.py", "exec"), users)
    assert jit_cache.cache_name(own["plain"]) == "nnlite.own.plain"
    for function in (own["made"](2), own["line"], other["plain"], users["plain"], users["made"](2)):
        assert jit_cache.cache_name(function) is None


def test_an_edit_in_any_folder_of_a_hashed_room_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(jit_cache, "_PACKAGE", tmp_path)
    file = tmp_path / "conv" / "winograd" / "tiles.py"
    file.parent.mkdir(parents=True)
    hashes = set()
    for text in ("a = 1", "a = 2"):
        file.write_text(text)
        hashes.add(jit_cache.sources_hash.__wrapped__())
    assert len(hashes) == 2


def test_code_that_holds_an_address_of_its_process_is_not_kept(tmp_path):
    """Numba puts the address of a large array into the code."""
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom nnlite.compiler import compilation, jit\n"
        "table = np.ones(2_000_000)\ncompilation.cache_name = lambda f: f.__name__\n"
        "@jit\ndef total(n):\n    return table[:n].sum()\n@jit\ndef twice(n):\n    return 2 * n\n"
    )
    for compiled in ("2", "1"):
        result = run(printing("mine.total(5), mine.twice(3)", tmp_path), NUMBA_CACHE_DIR=str(tmp_path / "cache"))
        assert result == ["5.0", "6", compiled]


def test_kernels_from_the_cache_run_on_all_threads(tmp_path):
    program = f"""{COUNT}
from nnlite.kernels import peaks
out = np.zeros(2)
peaks.nothing.run(2, out)
print(*out, len(compiled))
"""
    for compiled in ("2", "0"):  # the kernel, and what packs its arguments
        assert run(program, NUMBA_CACHE_DIR=str(tmp_path)) == ["0.0", "1.0", compiled]


def test_what_stands_in_no_file_is_compiled_each_time():
    namespace = {"jit": compilation.jit}
    exec("@jit\ndef twice(x):\n    return 2 * x", namespace)
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
    (file,) = tmp_path.rglob("*.peaks.read-*.code")
    whole = file.read_bytes()
    middle = len(whole) // 2
    for damage in (b"", whole[:1000], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]):
        file.write_bytes(damage)
        assert run(ADD, **environment)[:2] == ["8.0", "1"]
    assert file.read_bytes()[:32] == hashlib.sha256(file.read_bytes()[32:]).digest()
    assert run(ADD, **environment)[:2] == ["8.0", "0"]


@pytest.fixture
def kept(tmp_path):
    """A file of the cache."""
    content = bytes(range(100))
    path = tmp_path / "a.code"
    path.write_bytes(hashlib.sha256(content).digest() + content)
    path.chmod(0o600)
    assert jit_cache._checked(path) == content
    return path


def test_each_flipped_bit_of_code_is_seen(kept):
    whole = kept.read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        kept.write_bytes(flipped)
        with pytest.raises(ValueError):  # noqa: PT011, it has no reader
            jit_cache._checked(kept)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users on this system")
@pytest.mark.parametrize("whose", ["writable by others", "of another user", "a link"])
def test_a_file_that_another_user_may_have_written_is_not_run(kept, monkeypatch, whose):
    if whose == "writable by others":
        kept.chmod(0o622)
    elif whose == "of another user":
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    else:
        kept.rename(kept.with_name("b"))
        kept.symlink_to("b")
    with pytest.raises(OSError):  # noqa: PT011, it has no reader
        jit_cache._checked(kept)


def test_what_was_refused_is_compiled_again_and_replaced_and_no_link_is_followed(tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    run(ADD, **environment)
    (file,) = tmp_path.rglob("*.peaks.read-*.code")
    (launch,) = tmp_path.rglob("*.peaks.read.launch-*.code")
    file.chmod(0o666)
    launch.unlink()
    (tmp_path / "other").write_text("mine")
    launch.symlink_to(tmp_path / "other")
    assert run(ADD, **environment)[:2] == ["8.0", "2"]
    assert (tmp_path / "other").read_text() == "mine"
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


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users on this system")
def test_a_folder_that_another_user_may_write_to_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert jit_cache.cache_root.__wrapped__() == tmp_path / "nnlite"
    assert stat.S_IMODE((tmp_path / "nnlite").stat().st_mode) == 0o700
    (tmp_path / "nnlite").chmod(0o777)
    assert jit_cache.cache_root.__wrapped__() not in (None, tmp_path / "nnlite")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert jit_cache.cache_root.__wrapped__() is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users on this system")
def test_nor_is_one_within_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(jit_cache, "cache_root", lambda: tmp_path)
    cache = jit_cache.CodeCache("name", None)
    assert cache._place(())[1].parent == jit_cache.cache_dir()
    jit_cache.cache_dir().chmod(0o777)
    jit_cache._is_trusted.cache_clear()
    jit_cache._warn_once.cache_clear()
    with pytest.warns(UserWarning, match="kernels are not stored"), pytest.raises(OSError):  # noqa: PT011, no reader
        cache._place(())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_nor_is_a_link_of_another_user_to_a_folder_of_ours(tmp_path):
    (tmp_path / "ours").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("ours")
    assert jit_cache._is_private(tmp_path / "link")
    os.chown(tmp_path / "link", 12345, 12345, follow_symlinks=False)
    assert not jit_cache._is_private(tmp_path / "link")


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


def test_a_relative_xdg_cache_home_is_ignored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert jit_cache.cache_root.__wrapped__() == tmp_path / "home" / ".cache" / "nnlite"
    assert not (tmp_path / "relative").exists()


def test_without_a_folder_one_warning_says_so(monkeypatch):
    monkeypatch.setattr(jit_cache, "cache_dir", lambda: None)
    jit_cache._warn_once.cache_clear()
    code = jit_cache.CodeCache("name", None)
    with pytest.warns(UserWarning, match="compiled kernels are not stored.*no writable folder was found"):
        code.load_overload((), SimpleNamespace(refresh=lambda: None))
    code.load_overload((), SimpleNamespace(refresh=lambda: None))  # a warning would be an error
