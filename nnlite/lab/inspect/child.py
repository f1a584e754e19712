"""The process that compiles for `compiling`: python -m nnlite.lab.inspect.child REQUEST ANSWER

Every call of a compiled function is noted, with its argument types. On this processor it then runs. For others it is
only compiled: a kernel returns nothing, so the pass goes on with whatever is in its arrays; where a function returns an
array, nobody knows what is called next, and it ends.
"""

from __future__ import annotations

import inspect
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from nnlite import conv
from nnlite.compiler import launch as kernels
from nnlite.compiler import numba_private
from nnlite.compiler.cache import CodeCache
from nnlite.compiler.target import LANES
from nnlite.conv.parameters import split_call
from nnlite.lab import reference
from nnlite.lab.inspect.compiling import Compiled, Function, Request
from nnlite.lab.loading import load_algorithms, load_object, plain_name
from nnlite.runtime import threads


class _Stopped(Exception):
    """What is called next depends on what a function that is not run returns."""


class _Noted:
    """The compiled functions that Python calls, and the signatures."""

    def __init__(self, runs: bool):
        self.functions: dict[tuple[Any, tuple], None] = {}
        self._runs, self._inside = runs, False
        self._call = numba_private.intercept_calls(self._called)
        self._run_kernel = kernels.kernel.run
        kernels.kernel.run = lambda kernel, *arguments: self._launched(kernel, arguments)  # type: ignore[method-assign]

    def note(self, function: Any, arguments: tuple) -> tuple:
        signature = numba_private.compiled_for(function, arguments)
        if not self._inside:
            self.functions.setdefault((function, signature))
        return signature

    def _called(self, function: Any, arguments: tuple, named: dict) -> Any:
        bound = inspect.signature(function.py_func).bind(*arguments, **named)
        bound.apply_defaults()
        signature = self.note(function, bound.args)
        if self._runs:
            return self._call(function, *arguments, **named)
        result = function.overloads[signature].signature.return_type
        if str(result) == "none":
            return None
        if hasattr(result, "bitwidth") or str(result) == "bool":
            return 0
        raise _Stopped(f"{function.__name__} returns {result}, whose value is known only at run time")

    def _launched(self, kernel: Any, arguments: tuple) -> None:
        self.note(kernel.compiled, (0, *arguments))
        if self._runs:
            self._inside = True
            try:
                self._run_kernel(kernel, *arguments)
            finally:
                self._inside = False


def answer(request: Request, processors: list[str]) -> list[Compiled]:
    """Reach what is asked for; for each processor, or else for this one, the functions."""
    target, stopped = request.target, ""
    runs = not processors
    if request.lines:
        numba_private.add_source_lines()
    if not runs:
        numba_private.never_execute()
        CodeCache.save_overload = lambda *_: None  # type: ignore[method-assign]
    found = load_object(split_call(target)[0], "ALGORITHM") if ".py:" in target else None
    algorithm = load_algorithms([target])[0] if isinstance(found, type) else None
    noted = _Noted(runs)
    threads.set_num_threads(1)
    try:
        if found is not None and algorithm is None:
            _compile_function(noted, found, request.signature, target)
        else:
            assert request.geometry is not None
            operands = reference.operands(request.geometry, 0).astype(np.float32)
            reference.run_pass(algorithm or conv.get(target), request.pass_name, operands, request.geometry)
    except _Stopped as reason:
        stopped = str(reason)
    except Exception as error:
        if runs or not noted.functions:
            raise
        stopped = f"after it, {type(error).__name__}: {error} (kernels are compiled here, not run)"
    return [
        Compiled(name, LANES, tuple(_described(name if processors else None, *one) for one in noted.functions), stopped)
        for name in processors or [numba_private.target()[1]]
    ]


def _described(processor: str | None, function: Any, signature: tuple) -> Function:
    assembly = (
        numba_private.assembly_for(function, signature, processor) if processor else function.inspect_asm(signature)
    )
    name = f"{plain_name(function.py_func.__module__)}.{function.py_func.__qualname__}"
    return Function(name, ", ".join(map(str, signature)), assembly)


def _compile_function(noted: _Noted, function: Any, signature: str | None, target: str) -> None:
    """A jitted function of the user's: for `signature`, else for what its file compiled it for. Another is called."""
    if isinstance(function, kernels.kernel):
        function = function.compiled
    if inspect.isfunction(function) and signature is None and not inspect.signature(function).parameters:
        function()
        return
    if not hasattr(function, "inspect_asm"):
        expected = "an algorithm's class, a jitted function, or a function without arguments that calls some"
        raise ValueError(f"ALGORITHM {target}: expected {expected}. Received: {type(function).__name__}")
    if signature is not None:
        try:
            function.compile(f"({signature},)")
        except Exception as error:
            said = str(error).strip().splitlines()[0]
            raise ValueError(f"--signature {signature}: {target} does not compile for it: {said}") from error
    if not function.overloads:
        raise ValueError(
            f"--signature: expected the argument types of {target}, such as 'float32[:, ::1], int64'. Received: none"
        )
    for known in list(function.overloads):
        noted.functions.setdefault((function, known))


def main(asked: str, answered: str) -> None:
    warnings.simplefilter("ignore")  # Numba's on source lines that it does not find, NumPy's on numbers nobody computed
    try:
        content: Any = answer(*pickle.loads(Path(asked).read_bytes()))
    except (ValueError, OSError) as error:
        content = str(error)
    Path(answered).write_bytes(pickle.dumps(content))


if __name__ == "__main__":
    main(*sys.argv[1:])
