"""The words of the program: plain, and the field's. `python tests/test_words.py` prints every sentence, to be read."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import all_samples, answers

import nnlite
from nnlite.explain import answer, case_study, compare, tables

PACKAGE = Path(nnlite.__file__).parent
#: rooms whose sentences, docstrings and comments are checked
ROOMS = ("explain", "lab", "network", "performance", "runtime", "ops", "autograd", "compiler")
#: rooms of which the printed sentences are checked
PRINTING = ("conv", "kernels")
BESIDES = [PACKAGE.parent / "examples", PACKAGE.parent / "benchmarks"]
READMES = (PACKAGE.parent / "README.md", PACKAGE.parent / "benchmarks" / "README.md")
#: paraphrases and metaphors -> what to write instead
INSTEAD = {
    r"unfused least bytes": "minimum traffic, unfused",
    r"\bmoved bytes|\bmoves? \d": "memory traffic; transfers",
    r"\bceilings?\b": "peak rates",
    r"which count predicts": "which metric predicts",
    r"\bunder (auto|im2col|theano2017|winograd|direct)\b": "with algorithm ...",
    r"\b(MACs|bytes|FLOPs|images|products?) an? (image|step|batch|tap|second)\b": "per",
    r"\b(one|a) (line|row|column|bar|panel|value|word|call|time) an? \w": "one ... per ...",
    r"\bonce an? \w|\bone an? (argument|class|round|epoch|image|layer)\b": "once per, one per",
    r"thought to have (run|done)": "reconstruction of the 2017 Theano run",
    r"\b(processor|CPU) of then\b": "the 2017 CPU",
    r"\bdear to\b": "expensive to",
    r"on the way back": "in the backward pass",
    r"where neighbours": "when adjacent layers allow it",
    r"\bhangs? on\b": "depends on",
    r"shown to hold": "re-checked",
    r"\banew\b": "again",
    r"\bnasty\b": "edge cases",
    r"\bthe very\b": "exactly the",
    r"\bone's own\b|\bof (their|its|your|a user's) own\b": "custom, your own",
    r"in the median": "median error",
    r"measured less predicted": "measured - predicted",
    r"\bd (input|weight|both)\b": "dX, dW, dX + dW",
    r"went to them": "other programs used",
    r"lay otherwise": "core-to-core latency changed",
    r"less than \d+% is no difference": "A/A noise",
    r"neither's threads": "BLAS and kernel threads never run together",
    r"\bfresh memory\b": "first-touch page faults",
    r"where random numbers start": "random seed",
    r"\bturned over\b": "transposed",
    r"\bbears?\b": "are safe for",
    r"images fill them": "vectorised over images",
    r"first use\b": "plain words",
    r"\bso many\b|\blest\b|\botherwise than\b|\blikewise\b|\bthat is all\b": "plain words, or nothing",
}
MOST_WORDS = 40


def words_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, text) of every string of two or more words in code, docstrings left out; {...} stands for a value."""
    doc = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        text = None
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(p.value) if isinstance(p, ast.Constant) else "{...}" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in doc | inside:
            text = node.value
        if text and len(re.findall(r"[A-Za-z]{2,}", text)) > 1 and " " in text.strip():
            yield node.lineno, " ".join(text.split())


def sources(rooms: tuple[str, ...] = ROOMS) -> Iterator[Path]:
    yield from sorted(path for path in PACKAGE.glob("*.py"))
    for folder in [*(PACKAGE / room for room in rooms), *BESIDES]:
        yield from sorted(folder.rglob("*.py"))


def place(path: Path, line: int = 1) -> str:
    return f"{path.relative_to(PACKAGE.parent)}:{line}"


def in_code() -> Iterator[tuple[str, str]]:
    """(place, text) of every text that the program can print, as it is in the code."""
    for path in sources((*ROOMS, *PRINTING)):
        for line, text in words_of(ast.parse(path.read_text())):
            yield place(path, line), text
    for path in sorted(PACKAGE.rglob("*.j2")):
        text = re.sub(r"\{#.*?#\}|\{%.*?%\}|<[^>]*>", "\n", path.read_text(), flags=re.DOTALL)
        for line in re.sub(r"\{\{.*?\}\}", "{...}", text).splitlines():
            if " " in line.strip():
                yield place(path), line.strip()


def rendered() -> Iterator[tuple[str, str]]:
    """(sample, sentence) of the sentences, titles and notes that sample documents give."""
    for name, document in all_samples().items():
        with answers():
            said = [answer.question(document), *answer.sentences(document), compare.worst_prediction(document)]
            said += [s for sentences in case_study.sections(document).values() for s in sentences]
        found = [tables.networks(document), tables.accuracy(document)]
        for algorithm, networks in document.by_algorithm.items():
            found += [tables.metrics(document, algorithm)] if len(networks) > 1 else []
            found += [tables.layers(n, document) for n in networks]
            found += [tables.difference(n, base) for n in networks if (base := document.base_of(n))]
        found += [tables.sweep(content) for content in document.sweeps]
        said += document.cautions
        said += [text for table in found for text in (table.title, *table.columns, *table.notes)]
        yield from ((name, text) for text in dict.fromkeys(said))


def comments() -> Iterator[tuple[str, str]]:
    """(place, text) of every docstring and comment."""
    for path in sources():
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
                yield place(path, getattr(node, "lineno", 1)), " ".join(text.split())
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield place(path, token.start[0]), token.string


def readmes() -> Iterator[tuple[str, str]]:
    for path in READMES:
        yield from ((f"{path.parent.name}/{path.name}", block) for block in path.read_text().split("\n\n"))


def home_made(text: str) -> list[str]:
    """What a text says in words of its own, and what to write instead."""
    found = [
        (m[0], better) for pattern, better in INSTEAD.items() for m in re.finditer(pattern, " ".join(text.split()))
    ]
    return [f"{phrase!r} -> {better}" for phrase, better in found]


def longest(text: str) -> int:
    """Words of the longest sentence; formulas, names and lists of choices are not counted."""
    return max(len(re.findall(r"\b[A-Za-z]{2,}\b", sentence)) for sentence in re.split(r"(?<=[.!?:;])\s", text))


@pytest.mark.parametrize("texts", [in_code, rendered, comments, readmes])
def test_the_words_are_the_fields(texts):
    assert not [f"{where}: {found}" for where, text in texts() for found in home_made(text)]


@pytest.mark.parametrize("texts", [in_code, rendered])
def test_sentences_are_short(texts):
    assert not [f"{where}: {text}" for where, text in texts() if longest(text) > MOST_WORDS]


def test_the_readme_is_short():
    assert len(READMES[0].read_text().splitlines()) <= 200


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ('raise ValueError(f"x: expected {a}. Received: {b}")', "x: expected {...}. Received: {...}"),
        ('print("two words")', "two words"),
        ('def f():\n    """A docstring of words."""\n    return "not " "a docstring"', "not a docstring"),
        ('a = "and other" if b else c', "and other"),
    ],
)
def test_texts_are_found_in_code(code, text):
    assert [found for _, found in words_of(ast.parse(code))] == [text]


@pytest.mark.parametrize("text", ["It moves 30 MB a step.", "one line an epoch", "shapes under auto", "its first use"])
def test_home_made_words_are_found(text):
    assert home_made(text)


if __name__ == "__main__":
    for where, text in [*in_code(), *rendered()]:
        print(f"{where}: {text}")
