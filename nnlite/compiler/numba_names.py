"""What nnlite uses of Numba's inner parts, which may change: a Numba that was not tested is asked for each of them.

Importing this module checks. It comes before the imports that would fail without saying which Numba to install.
"""

from __future__ import annotations

from pkgutil import resolve_name

import numba

#: the first and the last version that nnlite's tests were run with; pyproject.toml has them too
TESTED = (0, 61), (0, 68)
NAMES = (
    "numba.core:cgutils.alloca_once_value", "numba.core:cgutils.for_range", "numba.core:cgutils.gep_inbounds",
    "numba.core:cgutils.get_or_insert_function", "numba.core:cgutils.if_unlikely", "numba.core:types",
    "numba.core:cgutils.make_anonymous_struct", "numba.core:cgutils.unpack_tuple", "numba.core:config.DISABLE_JIT",
    "numba.core:config.NUMBA_NUM_THREADS", "numba.core:dispatcher.Dispatcher", "numba.core.caching:NullCache",
    "numba.core.callconv:CPUCallConv._get_return_status", "numba.core.callconv:errcode_t",
    "numba.core.callconv:excinfo_t", "numba.core.codegen:CPUCodeLibrary._optimize_final_module",
    "numba.core.codegen:CPUCodeLibrary.enable_object_caching", "numba.core.compiler:CompileResult._rebuild",
    "numba.core.compiler:CompileResult._reduce", "numba.core.compiler:Compiler",
    "numba.core.compiler_lock:global_compiler_lock", "numba.core.registry:cpu_target", "numba.core.serialize:dumps",
    "numba.core.typing.templates:ConcreteTemplate", "numba.core.typing.templates:infer_global",
    "numba.core.typing.templates:signature", "numba.np.ufunc:parallel._launch_threads",
    "numba.np.ufunc:parallel._backend_init_thread_lock", "llvmlite.binding:ffi.lib._lock",
)  # fmt: skip
#: what objects have once they are made
ATTRIBUTES = {"dispatcher": ("_cache", "_compiler"), "code library": ("_final_module",), "code generator": ("_tm",)}


def lacking() -> list[str]:
    """The names that this Numba does not have."""
    missing = [name for name in NAMES if not _is_there(name)]
    if not missing:
        from numba.core.registry import cpu_target

        generator = cpu_target.target_context.codegen()
        made = {"dispatcher": numba.njit(lambda: None), "code library": generator.create_library("check")}
        made["code generator"] = generator
        missing += [
            f"a {kind}'s {name}"
            for kind, names in ATTRIBUTES.items()
            for name in names
            if not hasattr(made[kind], name)
        ]
    return missing


def check() -> None:
    """Raises ImportError, in one line, if this Numba was not tested and lacks what nnlite uses; the others are fast."""
    first, last = TESTED
    version = tuple(int(part) for part in numba.__version__.split(".")[:2])
    if not first <= version <= last and (missing := lacking()):
        raise ImportError(
            f"numba: expected a version from {_dotted(first)} to {_dotted(last)}, with which nnlite was tested. "
            f"Received: {numba.__version__}, which lacks {', '.join(missing)}. "
            f"Install one: pip install 'numba>={_dotted(first)},<{last[0]}.{last[1] + 1}'"
        )


def _is_there(name: str) -> bool:
    try:
        resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


check()
