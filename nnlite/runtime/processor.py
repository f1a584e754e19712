"""The processor's name, caches and memory, and no more: its vectors and registers are what Numba compiles for
(nnlite.compiler.target), which need not be this processor.
"""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

#: bytes, if the system does not report them
_USUAL_CACHES = {"L1": 32 << 10, "L2": 1 << 20, "L3": 16 << 20}


@cache
def processor_name() -> str:
    """The processor's name, as the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        return sysctl("machdep.cpu.brand_string") or platform.processor()
    return platform.processor() or platform.machine()


@cache
def cache_sizes() -> dict[str, int]:
    """Bytes of L1 (data), L2 and L3; typical sizes if the system does not report them."""
    sizes = dict(_USUAL_CACHES)
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with suppress(OSError, ValueError, IndexError):  # some virtual machines report a part of them
            level = f"L{(index / 'level').read_text().strip()}"
            if level in sizes and (index / "type").read_text().strip() != "Instruction":
                text = (index / "size").read_text().strip()
                sizes[level] = int(text.rstrip("KM")) << {"K": 10, "M": 20}.get(text[-1], 0)
    if platform.system() == "Darwin":
        for level, key in (("L1", "hw.l1dcachesize"), ("L2", "hw.l2cachesize"), ("L3", "hw.l3cachesize")):
            told = sysctl(key)
            sizes[level] = int(told) if told.isdigit() and int(told) else sizes[level]
    return sizes


def memory_bytes() -> int:
    """Bytes of this machine's memory."""
    import psutil

    return psutil.virtual_memory().total


def sysctl(key: str) -> str:
    """The value of `key` on macOS; empty if it is unknown."""
    result = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=False)
    return result.stdout.strip()
