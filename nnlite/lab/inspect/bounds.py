"""How fast a loop can be, by OSACA: cycles per iteration that the execution ports need, and that dependencies need.

OSACA is the Open Source Architecture Code Analyzer of RRZE (Laukemann et al. 2018): it knows for each processor which
ports execute an instruction, and its latency. Caches are not in its model: all operands are in L1.

Two things are done here instead. Its search for loop-carried dependencies lists every path, which takes minutes for
long loops: here each register that an iteration hands to the next is followed once. And it gives loads that broadcast a
number to the ports of multiply-adds or shuffles, while hardware needs only a load's port for them (uops.info:
VBROADCASTSS from memory): they are given to it as plain loads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

#: LLVM's name of a processor -> OSACA's
ARCHITECTURES = {
    "sandybridge": "SNB", "ivybridge": "IVB", "haswell": "HSW", "broadwell": "BDW", "skylake": "SKX",
    "skylake-avx512": "SKX", "cascadelake": "CSX", "icelake-client": "ICL", "icelake-server": "ICX",
    "sapphirerapids": "SPR", "znver1": "ZEN1", "znver2": "ZEN2", "znver3": "ZEN3", "znver4": "ZEN4",
}  # fmt: skip
_BROADCAST = re.compile(r"v(?:p?broadcast(?:ss|sd|d|q|f32x\d|f64x\d|f128))(\s+[^%]*\([^)]*\),\s*%[xyz]mm\d+)$")
_WIDEST = {16: "zmm", 8: "ymm", 4: "xmm"}


@dataclass(frozen=True)
class Bound:
    """Cycles per iteration: of the busiest port, and of the longest chain from one iteration to the next."""

    ports: float
    carried: float
    unknown: tuple[str, ...]  # instructions that OSACA does not know for this processor; the ports leave them out

    @property
    def cycles(self) -> float:
        return max(self.ports, self.carried)


def require() -> None:
    """Raises ImportError, which says what to install, unless OSACA is there."""
    try:
        import osaca  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "inspect: expected the package osaca, for its processor models. Received: no module osaca. "
            "Install it: pip install 'nnlite-conv[inspect]'"
        ) from error


@cache
def analyser(processor: str) -> Analyser | None:
    """OSACA's model of a processor, by LLVM's name; None if it has none."""
    return Analyser(ARCHITECTURES[processor]) if processor in ARCHITECTURES else None


class Analyser:
    def __init__(self, architecture: str):
        from osaca.parser import get_parser
        from osaca.semantics import ArchSemantics, MachineModel

        self.architecture = architecture
        self._parser = get_parser("x86", "ATT")
        self._model = MachineModel(arch=architecture)
        self._semantics = ArchSemantics(self._parser, self._model)

    def bound(self, assembly: str) -> Bound:
        """The cycles of an iteration of the loop that has this text."""
        lines = [_BROADCAST.sub(r"vmovups\1", line) for line in assembly.splitlines()]
        forms = self._parser.parse_file("\n".join(lines) + "\n")
        self._semantics.normalize_instruction_forms(forms)
        unknown, known = set(), []
        for form in forms:
            name = form.line.split()[0] if form.mnemonic else ""
            try:
                self._semantics.add_semantics([form])
            except KeyError:  # an entry of OSACA's table that OSACA cannot read
                unknown.add(name)
                continue
            known.append(form)
            if name and "tp_unknown" in form.flags and not name.startswith("j"):
                unknown.add(name)
        self._semantics.assign_optimal_throughput(known)
        ports = max(self._semantics.get_throughput_sum(known), default=0.0)
        return Bound(float(ports), self._carried(known), tuple(sorted(unknown)))

    def _carried(self, forms: list[Any]) -> float:
        """The longest chain of dependent instructions from a register in this iteration to the same one in the next."""
        forwarding = self._model.get("store_to_load_forward_latency", 0) or 0
        iteration = [_Step.of(form, forwarding) for form in forms if form.mnemonic]
        written: set[str] = set()
        carried: set[str] = set()  # what is read before it is written
        for step in iteration:
            carried |= (step.data.keys() | step.addresses) - written
            written |= step.results
        return max((_latency(iteration, place) for place in carried & written), default=0.0)

    def peak(self, lanes: int) -> float:
        """FLOPs a cycle of independent multiply-adds of whole vectors."""
        register = _WIDEST[lanes]
        lines = "\n".join(f"\tvfmadd231ps\t%{register}14, %{register}15, %{register}{i}" for i in range(12))
        return 12 * lanes * 2 / self.bound(lines).ports


@dataclass(frozen=True)
class _Step:
    """What an instruction reads and writes: registers, and places of the stack."""

    data: dict[str, float]  # what it computes with -> cycles until the result
    addresses: set[str]  # registers that say where it loads from
    latency: float  # from an address to the result
    results: set[str]

    @classmethod
    def of(cls, form: Any, forwarding: float) -> _Step:
        alone = form.latency if form.latency_wo_load is None else form.latency_wo_load
        operands = form.semantic_operands
        data: dict[str, float] = {}
        addresses: set[str] = set()
        for operand in [*operands["source"], *operands["src_dst"]]:
            if hasattr(operand, "base"):
                addresses |= {_register(part.name) for part in (operand.base, operand.index) if part is not None}
            for place in _place(operand):
                data[place] = (form.latency + forwarding if hasattr(operand, "base") else alone) or 0.0
        written = [*operands["destination"], *operands["src_dst"]]
        results = {place for operand in written for place in _place(operand)}
        return cls(data, addresses, form.latency or 0.0, results)


def _latency(iteration: list[_Step], place: str) -> float:
    """Cycles from what a place holds before an iteration to what it holds after it; 0 if that does not depend on it."""
    ready = {place: 0.0}
    for step in iteration:
        times = [ready[p] + latency for p, latency in step.data.items() if p in ready]
        times += [ready[p] + step.latency for p in step.addresses if p in ready]
        for result in step.results:
            if times:
                ready[result] = max(times)
            else:
                ready.pop(result, None)
    return ready.get(place, 0.0)


def _place(operand: Any) -> list[str]:
    """The register or the place of the stack that an operand is; none for a number or for another place of memory."""
    if hasattr(operand, "base"):
        on_stack = operand.base is not None and operand.base.name == "rsp" and operand.index is None
        return [f"stack {getattr(operand.offset, 'value', 0)}"] if on_stack else []
    return [_register(operand.name)] if hasattr(operand, "name") and hasattr(operand, "prefix") else []


def _register(name: str) -> str:
    """One name for all widths of a register: ymm3 -> v3, r9d -> r9, eax and al -> ax."""
    if name[1:3] == "mm":
        return f"v{name[3:]}"
    if name[:1] == "r" and name[1:2].isdigit():
        return name.rstrip("dwb")
    name = name.removeprefix("r").removeprefix("e")
    return {"al": "ax", "bl": "bx", "cl": "cx", "dl": "dx", "sil": "si", "dil": "di", "bpl": "bp"}.get(name, name)
