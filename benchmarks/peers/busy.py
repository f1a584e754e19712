"""`--busy N`: programs that keep processors busy beside the peers, as a machine's other programs do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

#: a loop in Python, which ends if the process that started it is gone
_LOOP = "import os\nwhile os.getppid() == {parent}:\n    for _ in range(10**6): pass"


@contextmanager
def busy_programs(count: int) -> Iterator[Callable[[], float]]:
    """Inside, `count` programs run on any CPU that this process may use. Yields how many CPUs they took so far."""
    command = [sys.executable, "-S", "-c", _LOOP.format(parent=os.getpid())]
    programs = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(count)]
    began = time.perf_counter()

    def cpus() -> float:
        times = [psutil.Process(program.pid).cpu_times() for program in programs]
        return sum(t.user + t.system for t in times) / (time.perf_counter() - began)

    try:
        yield cpus
    finally:
        for program in programs:
            program.kill()
            program.wait()
