"""What an iteration of a loop executes: counts of its instructions by kind. x86-64 with AVX2 or AVX-512."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from nnlite.lab.inspect.assembly import Instruction, Loop

_FUSED = re.compile(r"vfn?m(?:add|sub)(?:132|213|231)([ps])([sd])$")
_PLAIN = re.compile(r"v?(add|sub|mul|div|sqrt)([ps])([sd])$")
_DIVISION = re.compile(r"(v?(div|sqrt)[ps][sd]|i?div[bwlq]?)$")
#: of float32 to float64, or back
CONVERSION = re.compile(r"v?cvt(ss2sd|ps2pd|sd2ss|pd2ps)")
_GATHER = re.compile(r"vp?gather")
_INSERT = re.compile(r"v?(insertps|pinsr[bwdq])$")
#: what writes its last operand without reading it
_MOVES = re.compile(r"(v?mov|vextract|v?pextr|v?maskmov|vpmaskmov|vp?scatter|vp?compress|set|vcvtps2ph)")
_NO_ACCESS = re.compile(r"(lea|nop|prefetch|call|push[wlq]?$|pop[wlq]?$|j)")
_READS_ONLY = re.compile(r"(cmp|test|bt|v?ucomis|v?comis|vptest|vtestp|div|idiv|mul|imul)[a-z]*$")
#: what uses a vector register for one number
_ONE_NUMBER = re.compile(r"v?[a-z0-9]+s[sd]([a-z]*|2[a-z]+)$|v?mov[dq]$|v?xorps$")
_WIDTHS = {"x": 128, "y": 256, "z": 512}


@dataclass(frozen=True)
class Access:
    """A reference to memory: disp(base, index, scale)."""

    instruction: Instruction
    operand: str
    loads: bool
    stores: bool

    @cached_property
    def parts(self) -> tuple[str, str, str, int]:
        """(displacement, base, index, scale)"""
        match = re.match(r"([^(]*)\(([^,)]*),?([^,)]*),?([^,)]*)\)", self.operand.partition("{")[0].strip())
        assert match is not None
        return match[1], match[2].strip(), match[3].strip(), int(match[4].strip() or 1)

    @property
    def vector(self) -> bool:
        """Whether a vector register takes part."""
        return any(re.search(r"%[xyz]mm", operand) for operand in self.instruction.operands)


def accesses(code: tuple[Instruction, ...]) -> list[Access]:
    """The references to memory, the stack included."""
    found = []
    for instruction in code:
        if _NO_ACCESS.match(instruction.mnemonic):
            continue
        for i, operand in enumerate(instruction.operands):
            if "(" in operand and "%rip" not in operand:
                target = i == len(instruction.operands) - 1 and not _READS_ONLY.match(instruction.mnemonic)
                stores = target
                loads = not target or not _MOVES.match(instruction.mnemonic)
                found.append(Access(instruction, operand, loads, stores))
    return found


def on_stack(loop: Loop, access: Access) -> bool:
    return access.parts[1] == "%rsp" or (loop.frame_pointer and access.parts[1] == "%rbp")


@dataclass(frozen=True)
class Counts:
    """Of one iteration."""

    instructions: int
    fused: int  # multiply-adds
    unfused: int  # products that a separate instruction adds
    loads: int
    stores: int
    broadcasts: int
    bits: int  # of the widest vector register; 0 if all code is scalar
    scalar: int  # arithmetic instructions of one float
    vectors: int  # arithmetic instructions of whole vectors
    divisions: int
    conversions: int
    gathers: int
    inserts: int  # loads of one number into a vector
    masked_stores: int
    stack: int  # references
    spilled_sums: int  # vectors that are read from the stack and stored there again for the next iteration
    spilled_values: int  # vectors that are stored to the stack and read again in the same iteration
    flops: int

    @property
    def multiply_adds(self) -> int:
        return self.fused + self.unfused


def count(loop: Loop) -> Counts:
    code, found = loop.code, accesses(loop.code)
    arithmetic = [(i, m) for i in code if (m := _FUSED.match(i.mnemonic) or _PLAIN.match(i.mnemonic))]
    packed = [(i, m) for i, m in arithmetic if m.group(m.re.groups - 1) == "p"]
    sums, values = spills(loop)
    return Counts(
        instructions=len(code),
        fused=sum(m.re is _FUSED for _, m in arithmetic),
        unfused=unfused(code),
        loads=sum(a.loads for a in found),
        stores=sum(a.stores for a in found),
        broadcasts=sum("broadcast" in i.mnemonic or "{1to" in i.text for i in code),
        bits=max((_bits(i) for i in code if not _ONE_NUMBER.match(i.mnemonic)), default=0),
        scalar=len(arithmetic) - len(packed),
        vectors=len(packed),
        divisions=sum(bool(_DIVISION.match(i.mnemonic)) for i in code),
        conversions=sum(bool(CONVERSION.match(i.mnemonic)) for i in code),
        gathers=sum(bool(_GATHER.match(i.mnemonic)) for i in code),
        inserts=sum(a.loads and bool(_INSERT.match(a.instruction.mnemonic)) for a in found),
        masked_stores=sum(a.stores and ("maskmov" in a.instruction.mnemonic or "{%k" in a.operand) for a in found),
        stack=sum(on_stack(loop, a) for a in found),
        spilled_sums=len(sums),
        spilled_values=len(values),
        flops=sum(_lanes(i, m) * (2 if m.re is _FUSED else 1) for i, m in arithmetic),
    )


def _bits(instruction: Instruction) -> int:
    return max((_WIDTHS[letter] for letter in re.findall(r"%([xyz])mm", instruction.text)), default=0)


def _lanes(instruction: Instruction, match: re.Match[str]) -> int:
    packed, precision = match.groups()[-2:]
    return _bits(instruction) // (32 if precision == "s" else 64) if packed == "p" else 1


def stack_accesses(loop: Loop) -> list[Access]:
    return [access for access in accesses(loop.code) if on_stack(loop, access)]


def spills(loop: Loop) -> tuple[list[str], list[str]]:
    """Places of the stack where vectors are spilled: (those of sums, those of values of one iteration).

    A sum is carried from iteration to iteration: it is read before it is stored.
    """
    first: dict[str, Access] = {}
    stored = Counter[str]()
    read = Counter[str]()
    for access in stack_accesses(loop):
        if access.vector:
            first.setdefault(access.operand, access)
            stored[access.operand] += access.stores
            read[access.operand] += access.loads
    both = [place for place in first if stored[place] and read[place]]
    sums = [place for place in both if first[place].loads]
    return sums, [place for place in both if place not in sums]


def unfused(code: tuple[Instruction, ...]) -> int:
    """Products that the next instruction to use them adds or subtracts."""
    products: set[str] = set()
    found = 0
    for instruction in code:
        registers = [_register(operand) for operand in instruction.operands]
        plain = _PLAIN.match(instruction.mnemonic)
        used = products.intersection(registers)  # the destination is overwritten, or was used too
        products -= used
        if plain and plain[1] in ("add", "sub"):
            found += len(used.intersection(registers[:-1]))
        if plain and plain[1] == "mul":
            products.add(registers[-1])
    return found


def _register(operand: str) -> str:
    """%ymm3 and %xmm3 are one register."""
    match = re.match(r"%[xyz]mm(\d+)", operand)
    return f"v{match[1]}" if match else operand
