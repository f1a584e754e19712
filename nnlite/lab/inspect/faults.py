"""What slows a loop down, in words: one sentence a fault, what it is and what to do."""

from __future__ import annotations

import re
from typing import NamedTuple

from nnlite.lab.inspect.assembly import Loop
from nnlite.lab.inspect.counts import CONVERSION, Access, accesses, count, on_stack, stack_accesses

#: references of addresses to the stack that are worth a sentence, as a share of all instructions
_MANY = 0.1


class Fault(NamedTuple):
    kind: str
    sentence: str


def faults(loop: Loop, lanes: int) -> list[Fault]:
    """The faults of a loop; `lanes` is how many float32 a register of the processor holds."""
    c = count(loop)
    registers = 32 if lanes == 16 else 16
    addresses = sum(not a.vector for a in stack_accesses(loop))
    # kind, how many there are, what one and several are called, what that means and what to do
    known = [
        (
            "spilled sums", c.spilled_sums, "sum does", "sums do",
            f"not fit into the {registers} vector registers: each iteration loads them from the stack and stores them "
            "again. Use a smaller tile.",
        ),
        (
            "spilled values", c.spilled_values, "vector is", "vectors are",
            "stored to the stack and loaded again in the same iteration: more are needed at once than the "
            f"{registers} registers hold. Compute fewer at once.",
        ),
        (
            "addresses on the stack", addresses if addresses > _MANY * c.instructions else 0,
            "address or counter is", "addresses or counters are",
            "on the stack: the general registers do not hold all. Use fewer pointers, such as one base and a constant "
            "step.",
        ),
        (
            "float64", c.conversions, "conversion", "conversions",
            f"between float32 and float64{_at(loop, CONVERSION)}: a float64 constant or sum is in the loop. Write "
            "np.float32(0.5) for 0.5, and begin sums with np.float32(0).",
        ),
        (
            "unfused", c.unfused, "product is", "products are",
            "added by a separate instruction: a fused multiply-add does both in one. Compile with "
            "fastmath={'contract'}.",
        ),
        (
            "division", c.divisions, "division or square root", "divisions or square roots",
            "in each iteration: each blocks its port for several cycles. Multiply by the reciprocal, computed before "
            "the loop; avoid // and %.",
        ),
        (
            "gather", c.gathers, "gather loads", "gathers load",
            "the numbers of a vector one by one from places that are not neighbours. Put them in order before the "
            "loop, or let the loop run over the last axis.",
        ),
        (
            "gather", c.inserts, "number is", "numbers are",
            "loaded one by one and put together into vectors: LLVM does not know that they are neighbours, as with a "
            "table of indices, a step, or an index that may be negative. Let the loop run over the last axis of a "
            "contiguous array, from 0 on.",
        ),
        (
            "masked stores", c.masked_stores if lanes < 16 else 0, "store", "stores",
            "under a mask (vmaskmov): slow without AVX-512, most of all on AMD. Store whole vectors: compute both "
            "cases and select, or treat the rest after the loop.",
        ),
        (
            "strided loads", len(strided_loads(loop)), "load of a single number", "loads of single numbers",
            "at a step of more than one number, where one load could fill a vector. Let the innermost loop run over "
            "the last axis, or copy the operand to a contiguous array first.",
        ),
    ]  # fmt: skip
    found = [
        Fault(kind, f"{n} {one if n == 1 else several} {meaning}") for kind, n, one, several, meaning in known if n
    ]
    if c.scalar and not c.vectors and lanes > 1:
        sentence = (
            f"Scalar code: each float instruction computes 1 number, a register holds {lanes}. LLVM did not vectorise "
            "the loop. The innermost loop needs contiguous arrays; and if the function was compiled without "
            "fastmath={'reassoc'}, a sum needs it."
        )
        found.insert(0, Fault("scalar", sentence))
    return found


def waiting(ports: float, carried: float) -> Fault:
    """The fault of a loop that waits for itself longer than for the ports."""
    return Fault(
        "latency",
        f"Each iteration waits for the one before: {carried:.0f} cycles, where the ports need {ports:.0f}. "
        "Use more independent accumulators, for example a larger tile.",
    )


def _at(loop: Loop, mnemonic: re.Pattern[str]) -> str:
    places = {i.source for i in loop.code if mnemonic.match(i.mnemonic) and i.source}
    return f" ({', '.join(f'{file}:{line}' for file, line in sorted(places)[:3])})" if places else ""


# Strided loads -------------------------------------------------------------------------------------------------

#: loads of a single float, by size: the scalar ones, and those that put a number into a vector
_SINGLE = re.compile(
    r"(vmov|v?add|v?sub|v?mul|vfn?m(?:add|sub)\d+|vcvt)(ss|sd)|vcvtss2sd|vinsertps|vpinsr[dq]|vmov[dq]$"
)


def strided_loads(loop: Loop) -> list[Access]:
    """Loads of single numbers, of which the next iteration's is not the neighbour of this iteration's."""
    groups: dict[tuple[str, str, int], list[Access]] = {}
    for access in accesses(loop.code):
        single = access.loads and access.vector and _SINGLE.match(access.instruction.mnemonic)
        if single and not on_stack(loop, access):
            groups.setdefault(access.parts[1:], []).append(access)
    steps = _steps(loop)
    strided = []
    for (base, index, scale), group in groups.items():
        parts = [(steps.get(base, 0), 1), (steps.get(index, 0), scale)]
        if any(step == "computed" for step, _ in parts):
            continue  # not a step: a table of places, say
        size = 8 if re.search(r"sd$|q$|ss2si", group[0].instruction.mnemonic) else 4
        covered = size * len({access.parts[0] for access in group})
        variable = any(step == "variable" for step, _ in parts)
        if variable or abs(sum(int(step) * factor for step, factor in parts)) > covered:
            strided += group
    return strided


def _steps(loop: Loop) -> dict[str, int | str]:
    """Register -> what an iteration adds to it: a number, "variable" or, if it is no constant step, "computed"."""
    steps: dict[str, int | str] = {}
    for instruction in loop.code:
        operands = instruction.operands
        if not operands or not re.match(r"%r\w+$|%e\w+$", operands[-1]):
            continue
        if re.match(r"(cmp|test|bt|j|push)", instruction.mnemonic):
            continue
        target, step = operands[-1], _step(instruction.mnemonic, operands)
        known = steps.get(target, 0)
        if "computed" in (step, known):
            steps[target] = "computed"
        elif "variable" in (step, known):
            steps[target] = "variable"
        else:
            steps[target] = int(known) + int(step)
    return steps


def _step(mnemonic: str, operands: tuple[str, ...]) -> int | str:
    if mnemonic in ("incq", "decq"):
        return 1 if mnemonic == "incq" else -1
    if mnemonic in ("addq", "subq"):
        sign = 1 if mnemonic == "addq" else -1
        constant = re.match(r"\$(-?\d+)$", operands[0])
        return sign * int(constant[1]) if constant else "variable"
    if mnemonic == "leaq" and (constant := re.match(rf"(-?\d*)\({re.escape(operands[-1])}\)$", operands[0])):
        return int(constant[1] or 0)
    return "computed"
