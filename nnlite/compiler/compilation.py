"""The one way nnlite compiles: `jit` for functions, `kernel` (nnlite.compiler.launch) for what runs on all threads.

Compiled code of nnlite's own functions is cached on disk (nnlite.compiler.cache). Importing this module imports Numba;
modules that hold kernels are therefore imported when first used.

The same bits from run to run: arithmetic with fused multiply-adds has several right results, and LLVM's choice among
them depends on the code around it. So each function's machine code exists once: what launches a kernel jumps to its
code instead of holding a copy, and what a kernel calls becomes part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import numba
from numba import config
from numba.core import event

from nnlite.compiler import numba_private
from nnlite.compiler.cache import CodeCache, Links, cache_name
from nnlite.runtime import threads

#: what LLVM may do with float arithmetic: fuse multiply-adds and reorder sums, but honour NaN and infinity
FASTMATH = {"contract", "reassoc", "nsz"}
#: whether kernels are compiled at all (not with NUMBA_DISABLE_JIT=1)
ENABLED = not config.DISABLE_JIT

threads.own("kernels")
threads.compiler_locks = numba_private.compiler_locks()


def jit(function: Callable | None = None, *, inline: bool = False, **options: Any) -> Any:
    """Compile `function` with Numba at its first call with each combination of types: `@jit` above its `def`.

    Multiply-adds may be fused and sums reordered; NaN and infinity are honoured. Division by zero gives infinity or
    NaN. The GIL is released, array bounds are not checked, and read-only arrays are written to if the code does so.
    Functions that it calls have to be compiled with `jit` too. `inline=True` pastes a small function into its callers
    before types are known; `options` are numba.njit's.
    """
    if function is None:
        return lambda f: jit(f, inline=inline, **options)
    return compile_with(function, None, inline=inline, **options)


def compile_with(function: Callable, links: Links | None, *, inline: bool = False, **options: Any) -> Any:
    """As `jit`, of a function whose code jumps to other code by `links`."""
    options.setdefault("fastmath", FASTMATH)
    compiled = numba.njit(
        nogil=True,
        error_model="numpy",
        inline="always" if inline else "never",
        no_cfunc_wrapper=True,
        pipeline_class=numba_private.OneCopy,
        **options,
    )(function)
    if ENABLED and not inline:
        numba_private.ignore_read_only(compiled)
        _compiled_here.add(compiled)
        if name := cache_name(function):
            numba_private.keep_in(CodeCache(name, links), compiled)
    return compiled


# Telling the user that something compiles ----------------------------------------------------------------------

#: called with the name of each function of ours before it is compiled; not if it comes from the cache
listeners: list[Callable[[str], None]] = []
_compiled_here: WeakSet = WeakSet()


class _Announcer(event.Listener):
    def on_start(self, event: Any) -> None:
        if (compiled := event.data["dispatcher"]) in _compiled_here:
            for listener in list(listeners):
                listener(compiled.__name__)

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Announcer())
