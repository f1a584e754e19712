"""The one way nnlite compiles: `jit` for functions, `kernel` for what runs on all threads.

Compiled code of nnlite's own functions is cached on disk (nnlite.compiler.cache). Importing this module imports Numba;
modules that hold kernels are therefore imported when first used.

A kernel's threads are Numba's: one function for the whole package, compiled once, loops over them with `prange` and
jumps to the kernel's code, whose address it is given. A `prange` in each kernel would compile each twice, which takes
many times as long.

The same bits from run to run: arithmetic with fused multiply-adds has several right results, and LLVM's choice among
them depends on the code around it. So each function's machine code exists once: what launches a kernel jumps to its
code instead of holding a copy, and what a kernel calls becomes part of it.
"""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import WeakSet

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import config, types
from numba.core import cgutils, event
from numba.extending import intrinsic

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
    """Compile `function` with Numba when it is first called, or load it from the cache."""
    if function is None:
        return lambda f: jit(f, inline=inline, **options)
    return _compiled(function, None, inline=inline, **options)


def _compiled(function: Callable, links: Links | None, *, inline: bool = False, **options: Any) -> Any:
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


class kernel:
    """A compiled function `f(thread, num_threads, *arrays)` that does one thread's share of the work.

    Calling the kernel as `f(*arrays)` runs it on all threads; `f.run(num_threads, *arrays)` on that many, where arrays
    have room for each. Results depend on how many there are only where a kernel says so. Arguments may be whatever
    Numba knows, NamedTuples too.
    """

    def __init__(self, function: Callable):
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        #: what compiled code jumps to; Python cannot call it where it is compiled
        self.compiled = jit(function, no_cpython_wrapper=True)
        self._launch: Callable | None = None

    def __call__(self, *arrays: Any) -> None:
        self.run(threads.kernel_parts(), *arrays)

    def run(self, num_threads: int, *arrays: Any) -> None:
        """Do the shares of `num_threads` threads, even if the number was changed since."""
        if not ENABLED:
            for thread in range(num_threads):
                self.compiled(thread, num_threads, *arrays)
            return
        if self._launch is None:
            self._launch = launcher(self.compiled)
        if num_threads == 1 or threads.forked():
            self._launch(_in_turn_address(), num_threads, *arrays)
            return
        with threads.launch_lock:
            if _woken.count != threads.get_num_threads():
                _woken.set(threads.get_num_threads())
            self._launch(_at_once_address(), num_threads, *arrays)


# Who runs the threads ------------------------------------------------------------------------------------------

_INT = ir.IntType(64)
#: of a function that runs the threads: address of the code, number of threads, address of its arguments
_RUN = (types.int64, types.int64, types.int64)


@intrinsic
def _jump(typing, code, thread, num_threads, block):
    """Run the machine code at an address: code(thread, num_threads, block)."""

    def emit(context, builder, sig, args):
        share = ir.FunctionType(ir.VoidType(), [_INT] * 3)
        builder.call(builder.inttoptr(args[0], share.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, *_RUN), emit


def _at_once(code, num_threads, block):
    for thread in numba.prange(num_threads):
        _jump(code, thread, num_threads, block)


def _in_turn(code, num_threads, block):
    for thread in range(num_threads):
        _jump(code, thread, num_threads, block)


@cache
def _at_once_address() -> int:
    return numba_private.machine_code(_compiled(_at_once, None, parallel=True, no_cpython_wrapper=True), _RUN).address


@cache
def _in_turn_address() -> int:
    return numba_private.machine_code(_compiled(_in_turn, None, no_cpython_wrapper=True), _RUN).address


class _Woken(threading.local):
    """How many threads Numba wakes when this thread of Python launches; all, until told otherwise, which is slow."""

    count = config.NUMBA_NUM_THREADS

    def set(self, count: int) -> None:
        numba.set_num_threads(min(count, config.NUMBA_NUM_THREADS))
        self.count = count


_woken = _Woken()

# What packs a kernel's arguments -------------------------------------------------------------------------------


def launcher(compiled: Any) -> Callable:
    """A compiled function `f(run, num_threads, *arguments)` that has `run` do all threads' shares of another."""
    links = _Links(compiled)

    @intrinsic
    def launch(typing, run, num_threads, arguments):
        return links.launch(arguments)

    function = compiled.py_func
    names = ", ".join(list(inspect.signature(function).parameters)[2:])  # Numba is slow to tell the types of *arguments
    name, namespace = f"launch_{function.__name__}", {"launch": launch}
    source = f"def {name}(run, num_threads, {names}):\n    launch(run, num_threads, ({names},))\n"
    exec(compile(source, inspect.getfile(function), "exec"), namespace)
    packing = namespace[name]
    packing.__module__, packing.__qualname__ = function.__module__, f"{function.__qualname__}.launch"
    return _compiled(packing, links)


class _Links:
    """Jumps to a kernel's code, by a name that the linker finds."""

    def __init__(self, compiled: Any):
        self._compiled = compiled
        #: that no other function has; one of this process alone, where its code is not cached
        self.name = cache_name(compiled.py_func) or f"{compiled.py_func.__qualname__}.{id(compiled.py_func)}"
        #: of the code that what was compiled in this process jumps to
        self.signatures: list[tuple] = []

    def provide(self, signature: tuple) -> Any:
        """Compile the kernel or load it, and tell the linker its address. Returns the type of its result."""
        code = numba_private.machine_code(self._compiled, signature)
        llvm.add_symbol(self._symbol(signature), code.address)
        return code.result

    def _symbol(self, signature: tuple) -> str:
        types_hash = hashlib.sha256(repr(signature).encode()).hexdigest()[:16]
        return f"nnlite.{self.name}.{types_hash}"

    def launch(self, arguments: Any) -> tuple:
        """What an intrinsic `launch(run, num_threads, arguments)` returns: its type, and a function that emits it."""
        signature = (types.int64, types.int64, *arguments.types)
        result = self.provide(signature)
        if signature not in self.signatures:
            self.signatures.append(signature)

        def call(context: Any, builder: Any, values: list) -> Any:
            code_type = numba_private.function_type(context, result, signature)
            code = cgutils.get_or_insert_function(builder.module, code_type, self._symbol(signature))
            return numba_private.call(context, builder, code, result, signature, values)

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            address, num_threads, packed = args
            values = *numba_private.no_error(), *cgutils.unpack_tuple(builder, packed)
            block = cgutils.alloca_once_value(builder, cgutils.make_anonymous_struct(builder, values))
            share = _share(context, builder.module, block.type, call)
            run = builder.inttoptr(address, numba_private.function_type(context, types.none, _RUN).as_pointer())
            where = [builder.ptrtoint(share, _INT), num_threads, builder.ptrtoint(block, _INT)]
            status = numba_private.call(context, builder, run, types.none, _RUN, where)
            numba_private.pass_on_error(context, builder, status.code, status.excinfoptr)
            error = [builder.load(cgutils.gep_inbounds(builder, block, 0, i)) for i in range(2)]
            numba_private.pass_on_error(context, builder, *error)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, arguments), emit


def _share(context: Any, module: Any, block_type: Any, call: Callable) -> Any:
    """What each thread runs: `call(context, builder, [thread, num_threads, *arguments])` of what the block has."""
    share = ir.Function(module, ir.FunctionType(ir.VoidType(), [_INT] * 3), "nnlite.share")
    share.linkage = "internal"
    thread, num_threads, address = share.args
    builder = ir.IRBuilder(share.append_basic_block())
    block = builder.inttoptr(address, block_type)
    places = [cgutils.gep_inbounds(builder, block, 0, i) for i in range(len(block_type.pointee.elements))]
    code, description, *values = places
    status = call(context, builder, [thread, num_threads, *(builder.load(value) for value in values)])
    with cgutils.if_unlikely(builder, status.is_error):
        builder.store(status.code, code)
        builder.store(status.excinfoptr, description)
    builder.ret_void()
    return share


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
