"""The one way nnlite compiles: `jit` for functions, `kernel` for what runs on all threads.

Compiled code of nnlite's own functions is cached on disk (nnlite.compiler.cache). Importing this module imports Numba;
modules that hold kernels are therefore imported when first used.

A kernel's parts run on the threads of Numba's threading layer, which gets a function and a pointer to its arguments.
Numba's own way there, `prange`, compiles a function of all arguments anew, which takes many times as long.

The same bits from run to run: arithmetic with fused multiply-adds has several right results, and LLVM's choice among
them hangs on the code around it. So each function's machine code exists once: what launches a kernel jumps to its
code instead of holding a copy, and what a kernel calls becomes part of it.
"""

from __future__ import annotations

import nnlite.compiler.numba_names  # noqa: F401, first: says what this Numba lacks

# isort: split
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.core import cgutils, config, dispatcher, types
from numba.core.callconv import errcode_t, excinfo_t
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic
from numba.np.ufunc import parallel as numba_threads

from nnlite.compiler.cache import CodeCache, Links, kept_name
from nnlite.runtime import threads

#: what LLVM may do with float arithmetic: fuse multiply-adds and reorder sums, but honour NaN and infinity
FASTMATH = {"contract", "reassoc", "nsz"}
#: whether kernels are compiled at all (not with NUMBA_DISABLE_JIT=1)
ENABLED = not config.DISABLE_JIT

threads.own("kernels")
threads.compiler_locks = global_compiler_lock, numba_threads._backend_init_thread_lock, llvm.ffi.lib._lock


def jit(function: Callable | None = None, *, inline: bool = False, **options: Any) -> Any:
    """Compile `function` with Numba on first use, from the cache where it was compiled before."""
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
        pipeline_class=_Compiler,
        **options,
    )(function)
    if isinstance(compiled, dispatcher.Dispatcher) and not inline:
        _watch(compiled)
        if name := kept_name(function):
            setattr(compiled, "_cache", CodeCache(name, links))  # noqa: B010, Numba has no public way to choose it
    return compiled


_INT, _BYTES, _EXCEPTION = ir.IntType(64), ir.IntType(8).as_pointer(), ir.PointerType(excinfo_t)
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
    whatever Numba knows, NamedTuples too.
    """

    def __init__(self, function: Callable):
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        #: what compiled code jumps to; Python cannot call it where it is compiled
        self.compiled = jit(function, no_cpython_wrapper=True)
        self._launch: Callable | None = None

    def __call__(self, *arrays: Any) -> None:
        self.run(threads.kernel_parts(), *arrays)

    def run(self, parts: int, *arrays: Any) -> None:
        """Do all of so many parts, however many threads there are meanwhile."""
        if not ENABLED:
            for part in range(parts):
                self.compiled(part, parts, *arrays)
            return
        if self._launch is None:
            self._launch = launcher(self.compiled)
        if parts == 1 or threads.forked():
            self._launch(parts, 1, *arrays)
            return
        with threads.launch_lock:
            self._launch(parts, min(parts, config.NUMBA_NUM_THREADS), *arrays)


def launcher(compiled: Any) -> Callable:
    """A compiled function `f(parts, threads, *arguments)` that runs all parts of another, on so many threads."""
    links = _Links(compiled)

    @intrinsic
    def launch(typing, parts, threads, arguments):
        return links.launch(arguments)

    function = compiled.py_func
    names = ", ".join(list(inspect.signature(function).parameters)[2:])  # Numba is slow to tell the types of *arguments
    name, namespace = f"launch_{function.__name__}", {"launch": launch}
    source = f"def {name}(parts, threads, {names}):\n    launch(parts, threads, ({names},))\n"
    exec(compile(source, inspect.getfile(function), "exec"), namespace)
    start = namespace[name]
    start.__module__, start.__qualname__ = function.__module__, f"{function.__qualname__}.launch"
    numba_threads._launch_threads()
    return _compiled(start, links)


class _Links:
    """Jumps to a kernel's code, by a name that the linker finds."""

    def __init__(self, compiled: Any):
        self._compiled = compiled
        #: that no other function has; one of this process alone, where its code is not kept
        self.name = kept_name(compiled.py_func) or f"{compiled.py_func.__qualname__}.{id(compiled.py_func)}"
        #: of the code that what was compiled in this process jumps to
        self.signatures: list[tuple] = []

    def provide(self, signature: tuple) -> Any:
        """Compile the kernel or load it, and tell the linker its address. Returns what Numba knows about it."""
        self._compiled.compile(signature)
        compiled = self._compiled.overloads[signature]
        address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        llvm.add_symbol(self._symbol(signature), address)
        return compiled

    def _symbol(self, signature: tuple) -> str:
        types_hash = hashlib.sha256(repr(signature).encode()).hexdigest()[:16]
        return f"nnlite.{self.name}.{types_hash}"

    def launch(self, arguments: Any) -> tuple:
        """What an intrinsic `launch(parts, threads, arguments)` returns: its type, and a function that emits it."""
        signature = (types.int64, types.int64, *arguments.types)
        compiled = self.provide(signature)
        if signature not in self.signatures:
            self.signatures.append(signature)

        def call(context: Any, builder: Any, values: list) -> Any:
            convention, result = context.call_conv, compiled.fndesc.restype
            function_type = convention.get_function_type(result, signature)
            code = cgutils.get_or_insert_function(builder.module, function_type, self._symbol(signature))
            status, _ = convention.call_function(builder, code, result, signature, values)
            return status

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            parts, threads, packed = args
            no_error = ir.Constant(errcode_t, 0), ir.Constant(_EXCEPTION, None)
            values = *no_error, parts, *cgutils.unpack_tuple(builder, packed)
            block = cgutils.alloca_once_value(builder, cgutils.make_anonymous_struct(builder, values))
            work = _work(context, builder.module, block.type, call)
            # each thread gets its first part as the address of a first array, of bytes, that begins at 0
            array = cgutils.alloca_once_value(builder, ir.Constant(_BYTES, None))
            count, step = (cgutils.alloca_once_value(builder, value) for value in (parts, ir.Constant(_INT, 1)))
            where = [builder.bitcast(pointer, _BYTES) for pointer in (work, array, count, step, block)]
            layer_type = ir.FunctionType(ir.VoidType(), [_BYTES] * 5 + [_INT] * 3)
            layer = cgutils.get_or_insert_function(builder.module, layer_type, "numba_parallel_for")
            with builder.if_else(builder.icmp_signed(">", threads, ir.Constant(_INT, 1))) as (several, one):
                with several:
                    builder.call(layer, [*where, ir.Constant(_INT, 0), ir.Constant(_INT, 1), threads])
                with one:
                    builder.call(work, [array, count, step, where[-1]])
            error = (builder.load(cgutils.gep_inbounds(builder, block, 0, i)) for i in range(2))
            status = context.call_conv._get_return_status(builder, *error)
            with cgutils.if_unlikely(builder, status.is_error):
                context.call_conv.return_status_propagate(builder, status)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, arguments), emit


def _work(context: Any, module: Any, block_type: Any, call: Callable) -> Any:
    """What each thread runs: `call(context, builder, [part, parts, *arguments])` of what the block has, for its parts.

    Its own arguments are those of a generalised ufunc of NumPy: arrays, sizes, steps, data.
    """
    arguments = [_BYTES.as_pointer(), _INT.as_pointer(), _INT.as_pointer(), _BYTES]
    work = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), "nnlite.work")
    work.linkage = "internal"
    arrays, sizes, _, data = work.args
    builder = ir.IRBuilder(work.append_basic_block())
    block = builder.bitcast(data, block_type)
    places = [cgutils.gep_inbounds(builder, block, 0, i) for i in range(len(block_type.pointee.elements))]
    code, error, *values = places
    first, values = builder.ptrtoint(builder.load(arrays), _INT), [builder.load(value) for value in values]
    with cgutils.for_range(builder, builder.load(sizes)) as loop:
        status = call(context, builder, [builder.add(first, loop.index), *values])
        with cgutils.if_unlikely(builder, status.is_error):
            builder.store(status.code, code)
            builder.store(status.excinfoptr, error)
    builder.ret_void()
    return work


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
