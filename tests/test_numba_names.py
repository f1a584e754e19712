"""Numba's inner parts: each that is used is listed, and a Numba that lacks one says so in one line."""

import ast
import re
import tomllib
from pathlib import Path

import numba
import pytest

import nnlite
from nnlite.compiler import numba_names

PACKAGE = Path(nnlite.__file__).parent
PRIVATE = ("numba.core", "numba.np")
SOURCES = [file for file in PACKAGE.rglob("*.py") if re.search(r"^(from|import) numba", file.read_text("utf-8"), re.M)]


def test_this_numba_has_all_that_nnlite_uses():
    assert numba_names.lacking() == [], f"numba {numba.__version__} lacks these"


def test_the_tested_versions_are_those_of_the_package():
    pyproject = PACKAGE.parent / "pyproject.toml"
    if not pyproject.is_file():
        pytest.skip("installed without its sources")
    (first, last) = numba_names.TESTED
    (needed,) = (d for d in tomllib.loads(pyproject.read_text())["project"]["dependencies"] if d.startswith("numba"))
    assert needed == f"numba >= {first[0]}.{first[1]}, < {last[0]}.{last[1] + 1}"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.name)
def test_what_a_file_uses_of_numbas_inner_parts_is_listed(file):
    """What it imports from there, and the attributes that start with an underscore, less the file's own."""
    tree = ast.walk(ast.parse(file.read_text("utf-8")))
    imported, attributes, own = set(), set(), set()
    for node in tree:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PRIVATE):
            imported |= {f"{node.module}:{name.name}" for name in node.names}
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            (own if ast.unparse(node.value) in ("self", "cls") else attributes).add(node.attr)
    names = [*numba_names.NAMES, *(name for names in numba_names.ATTRIBUTES.values() for name in names)]
    assert {name for name in imported if not any(re.match(rf"{name}\b", listed) for listed in names)} == set()
    assert {name for name in attributes - own if not any(re.search(rf"\b{name}$", listed) for listed in names)} == set()


@pytest.mark.parametrize("kind", numba_names.ATTRIBUTES)
def test_a_missing_attribute_of_an_object_is_found(kind, monkeypatch):
    monkeypatch.setitem(numba_names.ATTRIBUTES, kind, ("_nothing",))
    assert numba_names.lacking() == [f"a {kind}'s _nothing"]


def without(monkeypatch, name):
    there = numba_names._is_there
    monkeypatch.setattr(numba_names, "_is_there", lambda asked: asked != name and there(asked))


def test_what_a_new_numba_lacks_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(numba, "__version__", "0.99.1rc1")
    numba_names.check()  # it lacks nothing
    without(monkeypatch, "numba.core:dispatcher.Dispatcher")
    with pytest.raises(
        ImportError, match=r"Received: 0.99.1rc1, which lacks numba.core:dispatcher.Dispatcher\. "
    ) as error:
        numba_names.check()
    assert "\n" not in str(error.value)
    assert "pip install 'numba>=0.61,<0.69'" in str(error.value)


def test_a_missing_attribute_is_found_too():
    assert not numba_names._is_there("numba.core:dispatcher.Dispatcher._nothing")
    assert not numba_names._is_there("numba.core.nothing:a")


def test_a_tested_numba_is_not_asked(monkeypatch):
    monkeypatch.setattr(numba_names, "lacking", lambda: pytest.fail("asked"))
    numba_names.check()
