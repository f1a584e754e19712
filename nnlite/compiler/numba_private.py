"""What nnlite uses of Numba's internals, each behind one function: nothing else in nnlite uses them.

Any version of Numba may change them, so pyproject.toml takes the versions that the tests ran with and no others.
tests/test_numba_private.py calls each function here and says which one a new Numba breaks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numba
from llvmlite import ir

#: the first and the last version that nnlite's tests were run with; pyproject.toml has them too
TESTED = (0, 61), (0, 68)


def what_to_install(error: Exception) -> str:
    """The message for a user with another Numba, in one line."""
    first, last = (".".join(map(str, version)) for version in TESTED)
    return (
        f"numba: expected a version from {first} to {last}, with which nnlite was tested. "
        f"Received: {numba.__version__}, whose internals have changed ({error}). "
        f"Install one: pip install 'numba>={first},<{TESTED[1][0]}.{TESTED[1][1] + 1}'"
    )


try:
    from numba import typeof, types
    from numba.core import cgutils
    from numba.core.caching import NullCache as Cache  # what Numba asks for a function's compiled code
    from numba.core.callconv import errcode_t, excinfo_t
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import Compiler, CompileResult
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.cpu import CPUTargetOptions
    from numba.core.debuginfo import DIBuilder
    from numba.core.dispatcher import Dispatcher
    from numba.core.registry import cpu_target
    from numba.core.serialize import dumps
except ImportError as error:
    raise ImportError(what_to_install(error)) from error


# The processor -------------------------------------------------------------------------------------------------


def target() -> tuple[str, ...]:
    """What is compiled for: (triple, processor, features)."""
    return tuple(cpu_target.target_context.codegen().magic_tuple())


def assembly(code: str) -> str:
    """What Numba's processor makes of LLVM's text."""
    return cpu_target.target_context.codegen()._tm.emit_assembly(llvm.parse_assembly(code))


# Compiled functions --------------------------------------------------------------------------------------------


class MachineCode(NamedTuple):
    address: int
    result: Any  # its Numba type


#: options of a jitted function that makes no arrays and returns none: it, and what is compiled for it, counts no
#: references to those it is given. Counts are shared: threads that count references to one table wait for each other
NO_REFERENCE_COUNTS = {"_nrt": False}


def machine_code(function: Any, signature: tuple) -> MachineCode:
    """The code of a jitted function for a signature; it is compiled, or loaded, if need be."""
    function.compile(signature)
    compiled = function.overloads[signature]
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return MachineCode(address, compiled.fndesc.restype)


def ignore_read_only(function: Any) -> None:
    """Have a jitted function run the same code for read-only arrays as for others: Numba would compile it again."""
    compile_for = function._compile_for_args

    def compile_writable(*args: Any, **named: Any) -> Any:
        given = [typeof(arg) for arg in args]
        writable = [_writable(kind) for kind in given]
        if given == writable or named:
            return compile_for(*args, **named)
        code = function.compile(tuple(writable))
        function._insert([kind._code for kind in given], code, False)  # the next call finds it
        return code

    function._compile_for_args = compile_writable


def _writable(kind: Any) -> Any:
    if isinstance(kind, types.Array):
        return kind.copy(readonly=False)
    if isinstance(kind, types.BaseNamedTuple):
        return types.BaseTuple.from_types([_writable(part) for part in kind], kind.instance_class)
    return kind


#: how Numba marks code that it copied from the called function
_COPIES = (llvm.Linkage.linkonce_odr, llvm.Linkage.weak_odr)


class OneCopy(Compiler):
    """Numba's compiler, but what a function calls becomes part of it, under no name that others see.

    Numba compiles a copy of each called function into the caller, under the called function's name. The linker takes
    the first code of that name: the called function's if it was compiled in this process, the caller's copy if the
    caller comes from the cache. Both are correct, but they may round differently.
    """

    def compile_extra(self, function: Any) -> Any:
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


def compiler_locks() -> tuple[AbstractContextManager[Any], ...]:
    """The locks that compiling takes, in the order in which they are taken."""
    return global_compiler_lock, llvm.ffi.lib._lock


# Compiled code on disk -----------------------------------------------------------------------------------------


def keep_in(cache: Cache, function: Any) -> None:
    """Have a jitted function's code loaded from a cache and saved there; Numba lets nobody choose it."""
    setattr(function, "_cache", cache)  # noqa: B010, mypy knows no such attribute


def holds_addresses(compiled: Any) -> bool:
    """Whether code that was just compiled holds addresses of this process."""
    return compiled.library.has_dynamic_globals


def to_bytes(compiled: Any, *extra: Any) -> bytes:
    """A compiled function, and what else is to be stored with it, for `pickle.loads` and `rebuild`."""
    return dumps((*extra, compiled._reduce()))


def rebuild(context: Any, reduced: tuple) -> Any:
    """The compiled function of which `to_bytes` was told."""
    return CompileResult._rebuild(context, *reduced)


# Calls between machine code ------------------------------------------------------------------------------------


def no_error() -> list[ir.Constant]:
    """What a call that raised nothing returns: a code, and where the exception is described."""
    return [ir.Constant(errcode_t, 0), ir.Constant(ir.PointerType(excinfo_t), None)]


def function_type(context: Any, result: Any, signature: tuple) -> ir.FunctionType:
    """The LLVM type of a jitted function's code."""
    return context.call_conv.get_function_type(result, signature)


def call(context: Any, builder: Any, code: Any, result: Any, signature: tuple, values: list) -> Any:
    """Emit a call of a jitted function's code. Returns its status: `is_error`, `code`, `excinfoptr`."""
    return context.call_conv.call_function(builder, code, result, signature, values)[0]


def pass_on_error(context: Any, builder: Any, code: Any, description: Any) -> None:
    """Emit: if `code` tells of an exception, leave the function with it."""
    status = context.call_conv._get_return_status(builder, code, description)
    with cgutils.if_unlikely(builder, status.is_error):
        context.call_conv.return_status_propagate(builder, status)


# Compiling for inspection, in a separate process ----------------------------------------------------------------


def intercept_calls(instead: Callable[[Any, tuple, dict], Any]) -> Callable[..., Any]:
    """Have each call of a jitted function from Python become `instead(function, arguments, named)`.

    Returns what calls it in truth: `call(function, *arguments, **named)`.
    """
    call = Dispatcher.__call__

    def called(function: Any, *arguments: Any, **named: Any) -> Any:
        return instead(function, arguments, named)

    setattr(Dispatcher, "__call__", called)  # noqa: B010, mypy lets nobody assign a method
    return call


def compiled_for(function: Any, arguments: tuple) -> tuple:
    """The signature that a jitted function is compiled for when it is called so; compiles it."""
    signature = tuple(function.typeof_pyval(argument) for argument in arguments)
    if function._can_compile:
        function.compile(signature)
        return signature
    return function.nopython_signatures[0].args if len(function.overloads) == 1 else signature


def add_source_lines() -> None:
    """Have whatever is compiled from now on say its source lines; nothing else of the code changes."""
    finalize = CPUTargetOptions.finalize

    def with_lines(self: Any, flags: Any, options: Any) -> None:
        flags.debuginfo = flags.dbg_directives_only = True
        flags.dbg_extend_lifetimes = flags.dbg_optnone = False
        if not flags.is_set("boundscheck"):
            flags.boundscheck = False
        finalize(self, flags, options)

    class OnlyLines(DIBuilder):  # Numba compiles inner parts with other flags than its caller's
        def __init__(self, module: Any, filepath: str, cgctx: Any, directives_only: bool):
            super().__init__(module, filepath, cgctx, True)

    CPUTargetOptions.finalize = with_lines
    cpu_target.target_context.DIBuilder = OnlyLines


def never_execute() -> None:
    """Have whatever is compiled from now on end as LLVM's code, optimised but never loaded: in half the time.

    What is compiled so cannot be called from Python, and has no object code to be stored.
    """
    finalize = CPUTargetOptions.finalize

    def without_wrapper(self: Any, flags: Any, options: Any) -> None:
        flags.no_cpython_wrapper = True
        finalize(self, flags, options)

    def entry_point(library: Any, description: Any, environment: Any) -> Any:
        library._ensure_finalized()
        return [].append  # Numba wants some built-in function, a different one each time

    CPUTargetOptions.finalize = without_wrapper
    cpu_target.target_context.get_executable = entry_point
    setattr(JITCodeLibrary, "_finalize_specific", lambda library: None)  # noqa: B010, mypy lets nobody assign a method


def assembly_for(function: Any, signature: tuple, processor: str) -> str:
    """The assembly of a jitted function for a processor, by LLVM's name: of code that is optimised already."""
    options = {"opt": 3, "reloc": "static", "codemodel": "jitdefault", "jit": True}  # Numba's
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=processor, **options)
    return machine.emit_assembly(function.overloads[signature].library._final_module)
