"""Which processor this is: measurements are kept under its name."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from pathlib import Path


@cache
def processor_name() -> str:
    """The processor's own name, as well as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        return sysctl("machdep.cpu.brand_string") or platform.processor()
    return platform.processor() or platform.machine()


def sysctl(key: str) -> str:
    """What macOS says about `key`; empty if it says nothing."""
    result = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=False)
    return result.stdout.strip()
