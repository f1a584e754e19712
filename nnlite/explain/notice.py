"""Tells the user once that kernels are being compiled, which the first run waits for."""

from __future__ import annotations

import sys


def announce_compilation() -> None:
    """From now on, say on stderr when the first kernel is compiled, and that the next run will not."""
    from nnlite import jit

    said = False

    def say(name: str) -> None:
        nonlocal said
        if not said:
            said = True
            kept = "kept for the next run" if jit.cache_dir() else "no folder to keep them in was found"
            print(f"compiling kernels on first use ({kept}) ...", file=sys.stderr, flush=True)

    jit.on_compile(say)
