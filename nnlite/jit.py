"""The one way nnlite compiles: `jit` for functions, `kernel` for what runs on all threads.

Compiled code is cached on disk (nnlite.jit_cache). Importing this module imports Numba; modules that hold kernels are
therefore imported when first used.

The same bits from run to run: arithmetic with fused multiply-adds has several right results, and LLVM's choice among
them hangs on the code around it. So each function's machine code exists once: a kernel's parallel loop jumps to the
serial code instead of holding a copy, and what a kernel calls becomes part of it.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import threading
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.core import cgutils, config, dispatcher, types
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from nnlite import threads
from nnlite.jit_cache import CodeCache, Links, can_keep

#: what LLVM may do with float arithmetic: fuse multiply-adds and reorder sums, but honour NaN and infinity
FASTMATH = {"contract", "reassoc", "nsz"}
#: whether kernels are compiled at all (not with NUMBA_DISABLE_JIT=1)
ENABLED = not config.DISABLE_JIT

prange = numba.prange

threads.own("kernels")
if hasattr(os, "register_at_fork"):  # a child would wait for ever for a parent's thread that compiles
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


def jit(function: Callable | None = None, *, inline: bool = False, parallel: bool = False, **options: Any) -> Any:
    """Compile `function` with Numba on first use, from the cache where it was compiled before."""
    if function is None:
        return lambda f: jit(f, inline=inline, parallel=parallel, **options)
    return _compiled(function, None, inline=inline, parallel=parallel, **options)


def _compiled(function: Callable, links: Links | None, *, inline: bool, parallel: bool, **options: Any) -> Any:
    options.setdefault("fastmath", FASTMATH)
    compiled = numba.njit(
        nogil=True,
        error_model="numpy",
        inline="always" if inline else "never",
        parallel=parallel,
        no_cfunc_wrapper=True,
        pipeline_class=_Compiler,
        **options,
    )(function)
    if isinstance(compiled, dispatcher.Dispatcher) and not inline and can_keep(function):
        setattr(compiled, "_cache", CodeCache(function, links))  # noqa: B010, Numba has no public way to choose a cache
        _watch(compiled)
    return compiled


class _Launch(threading.local):
    """How many threads Numba was last told to use by this Python thread: it keeps the number for each."""

    threads = 0


_launch = _Launch()

#: how Numba marks code that it copied from the called function
_COPIES = (llvm.Linkage.linkonce_odr, llvm.Linkage.weak_odr)


class _Compiler(Compiler):
    """Numba's compiler, but what a function calls becomes part of it, under no name that others see.

    Numba compiles a copy of each called function into the caller under the called one's name, and the linker takes the
    first of that name: the called one's own code where it was compiled in this process, the caller's copy where the
    caller comes from the cache. Both are right, but they need not round alike.
    """

    def compile_extra(self, function: Callable) -> Any:
        library = self.state.targetctx.codegen().create_library(function.__qualname__)
        library.enable_object_caching()
        optimize = library._optimize_final_module

        def internalize_and_optimize() -> None:
            for function in library._final_module.functions:
                if function.linkage in _COPIES and not function.name.startswith("NRT_"):
                    function.linkage = "internal"
            optimize()

        library._optimize_final_module = internalize_and_optimize
        self.state.library = library
        return super().compile_extra(function)


class kernel:
    """A compiled function `f(part, parts, *arrays)` that does one of `parts` equal shares of the work.

    Calling the kernel as `f(*arrays)` runs all parts, one a thread; `f.run(parts, *arrays)` runs so many, where arrays
    have room for each. Results depend on how many parts there are only where a kernel says so. Arguments may be
    NamedTuples, of NamedTuples too: the same ones in each call.
    """

    def __init__(self, function: Callable):
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.serial = jit(function)
        #: the loop over the parts, and what takes nested arguments apart for it; one value, as threads may race to it
        self._parallel: tuple[Callable, Callable | None] | None = None
        self._function = function

    def __call__(self, *arrays: Any) -> None:
        self.run(threads.kernel_parts(), *arrays)

    def run(self, parts: int, *arrays: Any) -> None:
        """Do all of so many parts, however many threads there are meanwhile."""
        if parts == 1 or threads.forked() or not ENABLED:
            for part in range(parts):
                self.serial(part, parts, *arrays)
            return
        if self._parallel is None:
            self._parallel = _parallel(self._function, self.serial, arrays)
        parallel, flatten = self._parallel
        if flatten is not None:
            arrays = flatten(*arrays)
        with threads.launch_lock:
            if _launch.threads != parts:
                numba.set_num_threads(min(parts, config.NUMBA_NUM_THREADS))
                _launch.threads = parts
            parallel(parts, *arrays)


def _is_nested(value: Any) -> bool:
    """Whether it is a tuple of tuples, which Numba does not hand to a parallel loop."""
    return isinstance(value, tuple) and any(isinstance(part, tuple) for part in value)


def _parallel(function: Callable, serial: Any, arrays: tuple) -> tuple[Callable, Callable | None]:
    """A compiled function that runs `serial` once a part, in parallel, for arguments as `arrays`.

    It takes nested ones in their parts, to be put together in the loop: the second function takes them apart.
    """
    names = list(inspect.signature(function).parameters)[2:]
    name = f"{function.__name__}_parallel"
    links = _Links(serial)
    namespace: dict[str, Any] = {"prange": prange, "links": links, "__name__": function.__module__}
    taken, given, flat = list(names), list(names), list(names)
    for i, array in enumerate(arrays):
        if _is_nested(array):
            taken[i] = ", ".join(f"{names[i]}_{field}" for field in array._fields)
            given[i] = f"{type(array).__name__}({taken[i]})"
            flat[i] = f"*{names[i]}"
            namespace[type(array).__name__] = type(array)
    source = (
        f"def jump(typing, part, parts, {', '.join(names)}):\n    return links.jump(part, parts, {', '.join(names)})\n"
        f"def {name}(parts, {', '.join(taken)}):\n    for part in prange(parts):\n"
        f"        jump(part, parts, {', '.join(given)})\n"
        f"def flatten({', '.join(names)}):\n    return {', '.join(flat)}\n"
    )
    exec(compile(source, inspect.getfile(function), "exec"), namespace)
    namespace["jump"] = intrinsic(namespace["jump"])
    parallel = namespace[name]
    parallel.__module__ = function.__module__
    parallel.__qualname__ = f"{function.__qualname__}_parallel"
    return _compiled(parallel, links, inline=False, parallel=True), namespace["flatten"] if flat != names else None


class _Links:
    """Jumps from a kernel's parallel loop to its serial code, by a name that the linker finds."""

    def __init__(self, serial: Any):
        self._serial = serial
        #: of the serial code that loops compiled in this process jump to
        self.signatures: list[tuple] = []

    def provide(self, signature: tuple) -> Any:
        """Compile the serial code or load it, and tell the linker its address. Returns what Numba knows about it."""
        self._serial.compile(signature)
        compiled = self._serial.overloads[signature]
        address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        llvm.add_symbol(self._symbol(signature), address)
        return compiled

    def _symbol(self, signature: tuple) -> str:
        function = self._serial.py_func
        types_hash = hashlib.sha256(repr(signature).encode()).hexdigest()[:16]
        return f"nnlite.{function.__module__}.{function.__qualname__}.{types_hash}"

    def jump(self, *argument_types: Any) -> tuple:
        """What an intrinsic returns: the type of the call, and a function that emits it."""
        signature = (types.int64, types.int64, *argument_types[2:])
        compiled = self.provide(signature)
        if signature not in self.signatures:
            self.signatures.append(signature)

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            convention = context.call_conv
            function_type = convention.get_function_type(compiled.fndesc.restype, signature)
            function = cgutils.get_or_insert_function(builder.module, function_type, self._symbol(signature))
            status, _ = convention.call_function(builder, function, compiled.fndesc.restype, signature, args)
            with cgutils.if_unlikely(builder, status.is_error):
                convention.return_status_propagate(builder, status)
            return context.get_dummy_value()

        return types.void(*signature), emit


# Telling the user that something compiles ----------------------------------------------------------------------

_listeners: list[Callable[[str], None]] = []


def on_compile(listener: Callable[[str], None]) -> None:
    """Call `listener(name)` before each kernel that is compiled anew (not for one that comes from the cache)."""
    _listeners.append(listener)


def _watch(compiled: Any) -> None:
    compile_for_real = compiled._compiler.compile

    def announce(args: Any, return_type: Any) -> Any:
        for listener in _listeners:
            listener(compiled.__name__)
        return compile_for_real(args, return_type)

    compiled._compiler.compile = announce
