"""Operations: a function of arrays that returns its result and how a gradient flows back, decorated."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from contextlib import ContextDecorator
from typing import Any

import numpy as np

from nnlite.autograd.node import Backward, Node
from nnlite.autograd.tensor import Tensor
from nnlite.runtime import scopes
from nnlite.runtime.errors import GraphError
from nnlite.runtime.operands import FLOATS, checked_operands, require_floats

_ndarray = np.ndarray


class _Off(type(threading.RLock()), ContextDecorator):  # type: ignore[misc]
    """Held while nothing is recorded. A lock, because no signal interrupts its enter and exit, which are in C."""

    def _recreate_cm(self) -> _Off:
        return _mode.off  # of the thread that calls a decorated function


class _Mode(threading.local):
    recording = False

    def __init__(self) -> None:
        self.off = _Off()


_mode = _Mode()


def no_grad() -> _Off:
    """`with no_grad():` computes without recording: nothing inside can be differentiated, nothing is kept for it."""
    return _mode.off


def is_recording() -> bool:
    """Inside an operation: whether its backward will be kept. If not, what only backward needs can be left out."""
    return _mode.recording


def differentiable(function: Callable) -> Callable[..., Tensor]:
    """Make a function of arrays an operation on Tensors.

    `function(*arrays, **options)` gets its positional arguments as ndarrays (Tensors are unwrapped, others are passed
    unchanged) and returns `(result, backward)`. `backward` computes gradients from `dy`, the gradient of the result:

    - an operation of one argument: one callable, `backward(dy) -> dx`;
    - of several: a tuple with one callable per argument; those of arguments that need no gradient are not called;
    - or, if they share work, one `backward(dy, needs) -> (gradient or None, ...)` for all arguments.

    Every declared argument counts, also one that was left to its default. Keyword-only ones are options: no gradient
    flows through them. An argument annotated `Floats` is checked: ValueError unless it is a Tensor or an array of
    float32 or float64.

    A gradient has its argument's shape. It is a new array, `dy` itself or a view of it, never an array kept elsewhere.

    >>> @differentiable
    ... def square(x):
    ...     return x * x, lambda dy: 2 * x * dy
    """
    name = function.__name__
    positional = _positional(inspect.signature(function))
    checked = checked_operands(positional or ())

    @functools.wraps(function)
    def operation(*args: Any, **options: Any) -> Tensor:
        if positional is not None and (options or len(args) < len(positional)):
            args = _complete(name, positional, args, options)
        recorded, arrays = False, []
        parents: list[Node | Tensor | None] = []  # a leaf Tensor, or None where no gradient goes
        shapes: list[tuple[int, ...] | None] = []
        for arg in args:
            if isinstance(arg, Tensor):
                needed = arg.requires_grad
                recorded = recorded or needed
                arrays.append(arg.data)
                shapes.append(getattr(arg.data, "shape", None))  # data may have been replaced by what is no array
                parents.append((arg._node or arg) if needed else None)
            else:
                arrays.append(arg)
                shapes.append(None)
                parents.append(None)
        for i in checked:
            array = arrays[i]
            if array.__class__ is not _ndarray or array.dtype not in FLOATS:
                require_floats(array, *checked[i])
        recorded = recorded and not _mode.off._is_owned()
        tracer = scopes.current_tracer()
        if tracer is not None:
            tracer(operation, arrays, options, tuple(parent is not None for parent in parents))
        outer = _mode.recording
        _mode.recording = recorded
        try:
            result, backward = function(*arrays, **options)
        finally:
            _mode.recording = outer
        output = Tensor.__new__(Tensor)
        output.data = result if isinstance(result, np.ndarray) else np.asarray(result)
        output.grad = output.name = output._node = None
        output.requires_grad = recorded
        if recorded:
            output._node = Node(
                name, tuple(parents), tuple(shapes), _for_all(name, backward, len(args)), output.data.dtype, arrays
            )
        return output

    operation.__dict__["function"] = function
    return operation


def _positional(signature: inspect.Signature) -> tuple[inspect.Parameter, ...] | None:
    """The parameters that are arguments of an operation; None if it takes any number of them."""
    parameters = signature.parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return tuple(p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))


def _complete(name: str, positional: tuple[inspect.Parameter, ...], args: tuple, options: dict) -> tuple:
    """All arguments by position, also those that were passed by name or left to their default."""
    rest = []
    for parameter in positional[len(args) :]:
        if parameter.name in options:
            rest.append(options.pop(parameter.name))
        elif parameter.default is not parameter.empty:
            rest.append(parameter.default)
        else:
            raise TypeError(f"{name}: expected the argument {parameter.name!r}. Received: none")
    for key, value in options.items():
        if isinstance(value, Tensor):
            raise TypeError(f"{name}: {key} is an option, through which no gradient flows. Received: a Tensor")
    return (*args, *rest)


def _for_all(name: str, backward: Any, count: int) -> Backward:
    """Any of the forms of a backward as `backward(dy, needs) -> gradients`."""
    if isinstance(backward, tuple):
        if len(backward) != count:
            raise GraphError(
                f"{name}: expected {count} backward callables, one per argument. Received: {len(backward)}"
            )
        return lambda dy, needs: tuple(f(dy) if need else None for f, need in zip(backward, needs, strict=True))
    if not callable(backward):
        raise GraphError(f"{name}: expected (result, backward) with a callable backward. Received: {backward!r}")
    if count == 1:
        return lambda dy, needs: (backward(dy),)
    return backward
