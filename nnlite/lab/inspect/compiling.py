"""The assembly of all compiled functions that a request reaches, for this processor or another.

Code that comes from a cache has no assembly, and Numba compiles for one processor in a process: so each processor gets
a new process with an empty cache (`child`). What is compiled for another processor is never run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import nnlite
from nnlite.runtime.errors import unknown

#: processors that --cpu may name
PROCESSORS = ("haswell", "znver3", "skylake-avx512", "znver4", "sapphirerapids")


@dataclass(frozen=True)
class Request:
    """What is to be reached: an algorithm's pass at a geometry, a function with a signature, or the whole package."""

    target: str | None  # an algorithm's name, FILE.py:NAME, or None for every kernel of the package
    geometry: tuple | None = None  # Geometry's fields
    pass_name: str = "forward"
    signature: str | None = None


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


def compile_for(request: Request, processor: str | None) -> Compiled:
    """Compile what the request reaches; for this processor if `processor` is None.

    Raises ValueError of one line if that fails.
    """
    if processor is not None and processor not in PROCESSORS:
        raise unknown("--cpu", processor, PROCESSORS)
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "request.json", Path(folder) / "answer.json"
        asked.write_text(json.dumps({**asdict(request), "runs": processor is None}), "utf-8")
        command = [sys.executable, "-m", "nnlite.lab.inspect.child", str(asked), str(answered)]
        done = subprocess.run(command, env=_environment(processor, folder), capture_output=True, text=True, check=False)
        if not answered.exists():
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise ValueError(f"inspect: compiling for {processor or 'this processor'} failed: {said[-1]}")
        answer = json.loads(answered.read_text("utf-8"))
    if "error" in answer:
        raise ValueError(answer["error"])
    return Compiled(
        answer["processor"], answer["lanes"], tuple(Function(**f) for f in answer["functions"]), answer["stopped"]
    )


def _environment(processor: str | None, folder: str) -> dict[str, str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": folder, "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    package = str(Path(nnlite.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    if processor is not None:
        # the features are those of the name: left unset, Numba adds this processor's
        environment |= {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    return environment


def is_readable_here() -> bool:
    """Whether this processor's machine code is of the kind that is read: x86-64."""
    import platform

    return platform.machine().lower() in ("x86_64", "amd64")
