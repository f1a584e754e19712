"""The innermost loops of x86-64 assembly, as LLVM writes it (AT&T syntax: the destination is the last operand).

A loop is a natural loop of the flow graph: all blocks from which a jump back to its first block can be reached. It is
an innermost one if it holds no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from nnlite.lab.loading import plain_name

#: a function's first line; local labels begin with .L
_FUNCTION = re.compile(r'"?([A-Za-z_$][\w.$]*)"?:')
_LABEL = re.compile(r"(\.LBB\w+):")
_FILE = re.compile(r'\s*\.file\s+(\d+)\s+(?:"([^"]*)"\s+)?"([^"]*)"')
_LINE = re.compile(r"\s*\.loc\s+(\d+)\s+(\d+)")
_JUMP = re.compile(r"j\w+\s+(\.LBB\w+)$")
#: after these the next instruction is not reached
_ENDS = re.compile(r"(jmpq?|retq?|ud2)\b")
#: Numba's ways into a function, which convert arguments, and its reference counting
_WRAPPERS = ("_ZN7cpython", "cfunc.", "NRT_", "__gufunc__.")
#: of a prange loop, which Numba makes a function of generated source "<string>"
_PRANGE = "_3cdynamic_3e.__numba_parfor_gufunc"


@dataclass(frozen=True)
class Instruction:
    """One instruction, and the source line that it was compiled from ("direct.py", 210), if that is known."""

    text: str
    source: tuple[str, int] | None = None

    @cached_property
    def mnemonic(self) -> str:
        return self.text.split(None, 1)[0]

    @cached_property
    def operands(self) -> tuple[str, ...]:
        """From left to right; the last is the destination."""
        _, _, rest = self.text.partition("\t" if "\t" in self.text else " ")
        return tuple(part.strip() for part in re.split(r",(?![^(]*\))", rest) if part.strip())


@dataclass(frozen=True)
class Loop:
    """An innermost loop: its code in the order in which it lies in memory."""

    function: str  # readable: nnlite.conv.direct.forward
    label: str
    depth: int  # 1: in no other loop
    code: tuple[Instruction, ...]
    frame_pointer: bool = False  # whether %rbp points into the stack
    lines: str = field(default="", compare=False)  # as assembly, labels included, for OSACA

    @property
    def sources(self) -> frozenset[tuple[str, int]]:
        return frozenset(i.source for i in self.code if i.source)

    @property
    def place(self) -> str:
        """The source lines: "direct.py:210-214"; empty if they are not known."""
        files = [i.source[0] for i in self.code if i.source and i.source[0] != "<string>"]
        if not files:
            return ""
        file = max(sorted(set(files)), key=files.count)
        numbers = sorted(line for name, line in self.sources if name == file)
        return f"{file}:{numbers[0]}" + (f"-{numbers[-1]}" if numbers[-1] != numbers[0] else "")


def innermost_loops(assembly: str) -> list[Loop]:
    """All innermost loops of all functions but Numba's wrappers."""
    files = {m[1]: m[3].rpartition("/")[2] for m in map(_FILE.match, assembly.splitlines()) if m}
    return [
        loop
        for name, lines in _functions(assembly)
        if not name.startswith(_WRAPPERS)
        for loop in _loops(name, lines, files)
    ]


def readable(name: str) -> str:
    """Numba's mangled name as Python has it: _ZN6nnlite4conv6direct7forwardB... -> nnlite.conv.direct.forward"""
    if not name.startswith("_ZN"):
        return name
    parts, rest = [], name[3:]
    while match := re.match(r"\d+", rest):
        size = int(match[0])
        parts.append(rest[match.end() :][:size])
        rest = rest[match.end() + size :]
    return plain_name(".".join(part for part in parts if part != "_3clocals_3e").replace(_PRANGE, "prange"))


def _functions(assembly: str) -> Iterator[tuple[str, list[str]]]:
    name, lines = "", list[str]()
    for line in assembly.splitlines():
        if match := _FUNCTION.match(line):
            yield name, lines
            name, lines = match[1], []
        lines.append(line.partition("#")[0].rstrip())
    yield name, lines


@dataclass
class _Block:
    """Instructions of which only the last may jump."""

    label: str
    code: list[Instruction] = field(default_factory=list)
    next: set[int] = field(default_factory=set)


def _loops(name: str, lines: list[str], files: dict[str, str]) -> Iterator[Loop]:
    blocks = _blocks(lines, files)
    bodies = _natural_loops(blocks)
    frame_pointer = any(re.match(r"\s*movq\s+%rsp, %rbp", line) for line in lines)
    for first, body in sorted(bodies.items()):
        if any(other != first and other in body for other in bodies):
            continue
        inside = [blocks[i] for i in sorted(body, key=lambda i: (i < first, i))]
        # a block without a label continues the one before it
        text = "\n".join(
            line
            for block in inside
            for line in [*([f"{block.label}:"] if block.label else []), *(f"\t{i.text}" for i in block.code)]
        )
        depth = sum(first in other for other in bodies.values())
        code = tuple(i for block in inside for i in block.code)
        yield Loop(readable(name), blocks[first].label, depth, code, frame_pointer, text)


def _blocks(lines: list[str], files: dict[str, str]) -> list[_Block]:
    """The flow graph: blocks in the order in which they lie in memory."""
    blocks, source = [_Block("")], None
    for line in lines:
        if match := _LABEL.match(line):
            blocks.append(_Block(match[1]))
        elif match := _LINE.match(line):
            source = (files.get(match[1], "?"), int(match[2])) if match[2] != "0" else None
        elif re.match(r"\s+[a-z]", line):
            blocks[-1].code.append(Instruction(line.strip(), source))
            if _JUMP.match(line.strip()) or _ENDS.match(line.strip()):
                blocks.append(_Block(""))
    places = {block.label: i for i, block in enumerate(blocks) if block.label}
    for i, block in enumerate(blocks):
        last = block.code[-1].text if block.code else ""
        if match := _JUMP.match(last):
            block.next.add(places.get(match[1], i))
        if not _ENDS.match(last) and i + 1 < len(blocks):
            block.next.add(i + 1)
    return blocks


def _natural_loops(blocks: list[_Block]) -> dict[int, set[int]]:
    """First block -> all blocks of its loop. An edge closes a loop if every way to its end leads through its target."""
    import networkx as nx

    graph = nx.DiGraph((i, after) for i, block in enumerate(blocks) for after in block.next)
    graph.add_node(0)
    dominators = nx.immediate_dominators(graph, 0)
    bodies: dict[int, set[int]] = {}
    for last, first in graph.edges:
        block = last if last in dominators else None  # else it is never reached
        while block not in (first, 0, None):
            block = dominators[block]
        if block == first:
            before = nx.ancestors(graph.subgraph(graph.nodes - {first}), last) if last != first else set()
            bodies.setdefault(first, {first}).update(before, {last})
    return bodies
