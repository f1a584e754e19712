"""The assembly of all compiled functions that a request reaches, for this processor or others.

Code that comes from a cache has no assembly, and nnlite's kernels are other ones on vectors of another width: so each
width gets a new process with an empty cache (`child`), the processes at the same time. What is compiled for other
processors is never run. LLVM optimises it for the first of a width, and emits machine code for each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import nnlite
from nnlite.runtime.errors import unknown

#: processors that --cpu may name -> lanes of their vectors
PROCESSORS = {"haswell": 8, "znver3": 8, "skylake-avx512": 16, "znver4": 16, "sapphirerapids": 16}
#: what several processors have in common, for readers
SHARED = (
    "Processors with vectors of one width share their optimised code: it is the first one's. Name one alone for code "
    "that is optimised for it."
)


@dataclass(frozen=True)
class Request:
    """What is to be reached: an algorithm's pass at a geometry, or a function, with a signature if it is jitted."""

    target: str  # an algorithm's name, or FILE.py:NAME
    geometry: tuple | None = None  # Geometry's fields
    pass_name: str = "forward"
    signature: str | None = None
    lines: bool = True  # whether source lines are asked for


@dataclass(frozen=True)
class Function:
    """A compiled function that Python calls, with all that became part of it."""

    name: str
    signature: str
    assembly: str


@dataclass(frozen=True)
class Compiled:
    processor: str  # LLVM's name
    lanes: int
    functions: tuple[Function, ...]
    #: why what would have been called next was not reached; empty if all was
    stopped: str


def compile_for(request: Request, processors: Sequence[str] = ()) -> list[Compiled]:
    """Compile what the request reaches, for each processor; for this one if none is named.

    Raises ValueError of one line if that fails.
    """
    for name in processors:
        if name not in PROCESSORS:
            raise unknown("--cpu", name, PROCESSORS)
    groups = [
        [p for p in processors if PROCESSORS[p] == lanes] for lanes in dict.fromkeys(map(PROCESSORS.get, processors))
    ]
    with ExitStack() as stack:
        children = [_Child(request, group, stack) for group in groups or [[]]]
        found = {compiled.processor: compiled for child in children for compiled in child.answer()}
    return [found[name] for name in processors or found]


class _Child:
    """A process that compiles for processors of one width."""

    def __init__(self, request: Request, processors: list[str], stack: ExitStack):
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        asked, self._answered = Path(folder) / "request.json", Path(folder) / "answer.json"
        asked.write_text(json.dumps({**asdict(request), "processors": processors}), "utf-8")
        self._name = processors[0] if processors else "this processor"
        command = [sys.executable, "-m", "nnlite.lab.inspect.child", str(asked), str(self._answered)]
        environment = _environment(processors[:1], folder)
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        stack.enter_context(self._process)
        stack.callback(self._process.kill)

    def answer(self) -> list[Compiled]:
        errors = self._process.communicate()[1]
        if not self._answered.exists():
            said = errors.strip().splitlines() or [f"exit status {self._process.returncode}"]
            raise ValueError(f"inspect: compiling for {self._name} failed: {said[-1]}")
        answer = json.loads(self._answered.read_text("utf-8"))
        if isinstance(answer, str):
            raise ValueError(answer)
        return [Compiled(**{**one, "functions": tuple(Function(**f) for f in one["functions"])}) for one in answer]


def _environment(processor: list[str], folder: str) -> dict[str, str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": folder, "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    package = str(Path(nnlite.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    for name in processor:
        # the features are those of the name: left unset, Numba adds this processor's
        environment |= {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""}
    return environment


def is_readable_here() -> bool:
    """Whether this processor's machine code is of the kind that is read: x86-64."""
    import platform

    return platform.machine().lower() in ("x86_64", "amd64")
