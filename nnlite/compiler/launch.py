"""`kernel`: compiled functions that run on all threads (nnlite.compiler.pool).

What launches a kernel is compiled for its arguments' types: it packs them into a block of memory and has the threads
jump to code that unpacks them. So the code that runs threads is compiled once for the whole package.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nnlite.compiler import numba_private, pool
from nnlite.compiler.cache import cache_name
from nnlite.compiler.compilation import ENABLED, compile_with, jit
from nnlite.runtime import replay, threads

_INT = ir.IntType(64)


class kernel:
    """A compiled function `f(thread, num_threads, *arguments)` that does one thread's share of the work.

        @kernel
        def double(thread, num_threads, x, y):
            for i in range(thread * x.size // num_threads, (thread + 1) * x.size // num_threads):
                y[i] = 2 * x[i]

        double(x, y)

    Called without the first two arguments it runs on nn.get_num_threads() threads and returns when all are done;
    `f.run(num_threads, *arguments)` makes that many shares, for arrays that have a place for each. What it returns is
    lost. No two threads may write the same element. Arguments are arrays, numbers, TileShapes, tuples, and NamedTuples
    of these; the function is compiled at the first call with each combination of types. A kernel may call functions
    compiled with `jit`, but no kernel. With `makes_arrays=False` it and what it calls must not make
    arrays, not even slices that they return; then it counts no references, which is faster with many small arrays.

    Raises TypeError for a function with fewer than three parameters, with defaults or *arguments, and for a call
    with too few or too many arguments; ValueError for arguments of types that it does not compile for.
    """

    def __init__(self, function: Callable, *, makes_arrays: bool = True):
        self.__doc__, self.__name__, self.__qualname__ = function.__doc__, function.__name__, function.__qualname__
        self.__module__ = function.__module__
        parameters = inspect.signature(function).parameters.values()
        if len(parameters) < 3 or any(p.kind != p.POSITIONAL_OR_KEYWORD or p.default != p.empty for p in parameters):
            received = f"{function.__name__}{inspect.signature(function)}"
            raise TypeError(f"kernel: expected a function f(thread, num_threads, argument, ...). Received: {received}")
        self._count = len(parameters) - 2
        #: what compiled code jumps to; Python cannot call it where it is compiled
        self.compiled = jit(
            function, no_cpython_wrapper=True, **({} if makes_arrays else numba_private.NO_REFERENCE_COUNTS)
        )
        self._launch: Callable | None = None

    def __call__(self, *arguments: Any) -> None:
        self.run(threads.kernel_parts(), *arguments)

    def __reduce__(self) -> str:
        """Kernels are copied and pickled as functions are: by name."""
        return self.__qualname__

    def run(self, num_threads: int, *arguments: Any) -> None:
        """Do the shares of that many threads, however many there are meanwhile."""
        if len(arguments) != self._count:
            raise TypeError(f"kernel {self.__name__}: expected {self._count} arguments. Received: {len(arguments)}")
        replay.note(self.run, num_threads, *arguments)
        if not ENABLED:
            for thread in range(num_threads):
                self.compiled(thread, num_threads, *arguments)
            return
        if self._launch is None:
            self._launch = launcher(self.compiled)
        workers = pool.workers
        if not 1 < num_threads <= pool.MOST_PARTS or not workers.lock.acquire(blocking=False):
            self._launch(pool.in_turn_address(), 0, num_threads, *arguments)  # another thread's launch has the workers
            return
        try:
            if workers.size < num_threads:
                workers.start(num_threads)
            self._launch(pool.share_out_address(), workers.shared, num_threads, *arguments)
        finally:
            workers.lock.release()


#: for loops that often read small tables
arrayless_kernel = partial(kernel, makes_arrays=False)


# What packs a kernel's arguments -------------------------------------------------------------------------------


def launcher(compiled: Any) -> Callable:
    """A compiled function `f(run, shared, num_threads, *arguments)` that has `run` do all parts of another."""
    links = _Links(compiled)

    @intrinsic
    def launch(typing, run, shared, num_threads, arguments):
        return links.launch(arguments)

    function = compiled.py_func
    names = ", ".join(list(inspect.signature(function).parameters)[2:])  # Numba is slow to tell the types of *arguments
    name, namespace = f"launch_{function.__name__}", {"launch": launch}
    source = f"def {name}(run, shared, num_threads, {names}):\n    launch(run, shared, num_threads, ({names},))\n"
    exec(compile(source, inspect.getfile(function), "exec"), namespace)
    packing = namespace[name]
    packing.__module__, packing.__qualname__ = function.__module__, f"{function.__qualname__}.launch"
    return compile_with(packing, links)


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
        try:
            code = numba_private.machine_code(self._compiled, signature)
        except Exception as error:
            function = self._compiled.py_func
            names = list(inspect.signature(function).parameters)[2:]
            received = ", ".join(f"{name}: {typ}" for name, typ in zip(names, signature[2:], strict=True))
            raise ValueError(f"kernel {function.__name__}({received}): {error}") from error
        llvm.add_symbol(self._symbol(signature), code.address)
        return code.result

    def _symbol(self, signature: tuple) -> str:
        types_hash = hashlib.sha256(repr(signature).encode()).hexdigest()[:16]
        return f"nnlite.{self.name}.{types_hash}"

    def launch(self, arguments: Any) -> tuple:
        """What an intrinsic `launch(run, shared, num_threads, arguments)` returns: type, and what emits it."""
        signature = (types.int64, types.int64, *arguments.types)
        result = self.provide(signature)
        if signature not in self.signatures:
            self.signatures.append(signature)

        def call(context: Any, builder: Any, values: list) -> Any:
            code_type = numba_private.function_type(context, result, signature)
            code = cgutils.get_or_insert_function(builder.module, code_type, self._symbol(signature))
            return numba_private.call(context, builder, code, result, signature, values)

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            address, shared, num_threads, packed = args
            values = *numba_private.no_error(), *cgutils.unpack_tuple(builder, packed)
            block = cgutils.alloca_once_value(builder, cgutils.make_anonymous_struct(builder, values))
            share = _share(context, builder.module, block.type, call)
            run = builder.inttoptr(address, numba_private.function_type(context, types.none, pool.RUN).as_pointer())
            where = [shared, builder.ptrtoint(share, _INT), num_threads, builder.ptrtoint(block, _INT)]
            status = numba_private.call(context, builder, run, types.none, pool.RUN, where)
            numba_private.pass_on_error(context, builder, status.code, status.excinfoptr)
            error = [builder.load(cgutils.gep_inbounds(builder, block, 0, i)) for i in range(2)]
            numba_private.pass_on_error(context, builder, *error)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, arguments), emit


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
