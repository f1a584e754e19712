"""The assembly of all compiled functions that a request reaches, for this processor or others.

Code that comes from a cache has no assembly, and nnlite's kernels are other ones on vectors of another width: so each
width gets a new process with an empty cache (`child`), the processes at the same time. What is compiled for other
processors is never run. LLVM optimises it for the first of a width, and emits machine code for each.
"""

from __future__ import annotations

import os
import pickle
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nnlite
from nnlite.conv import Geometry
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
    geometry: Geometry | None = None
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
    widths = dict.fromkeys(map(PROCESSORS.get, processors))
    groups = [[name for name in processors if PROCESSORS[name] == lanes] for lanes in widths] or [[]]
    with ThreadPoolExecutor(len(groups)) as pool:
        answers = pool.map(partial(_compile, request), groups)
        found = {compiled.processor: compiled for answer in answers for compiled in answer}
    return [found[name] for name in processors or found]


def _compile(request: Request, processors: list[str]) -> list[Compiled]:
    """The answer of a process that compiles for processors of one width, or for this processor."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "request", Path(folder) / "answer"
        asked.write_bytes(pickle.dumps((request, processors)))
        command = [sys.executable, "-m", "nnlite.lab.inspect.child", str(asked), str(answered)]
        ended = subprocess.run(command, env=_environment(processors[:1], folder), capture_output=True, text=True)
        if not answered.exists():
            said = ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"]
            where = processors[0] if processors else "this processor"
            raise ValueError(f"inspect: compiling for {where} failed: {said[-1]}")
        answer = pickle.loads(answered.read_bytes())
    if isinstance(answer, str):
        raise ValueError(answer)
    return answer


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
    return platform.machine().lower() in ("x86_64", "amd64")
