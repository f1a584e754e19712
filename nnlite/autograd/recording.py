"""Operations: a function of arrays that returns its result and how a gradient flows back, decorated."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from contextlib import ContextDecorator
from typing import Any

import numpy as np

from nnlite.autograd.node import Node
from nnlite.autograd.tensor import Tensor
from nnlite.runtime import scopes
from nnlite.runtime.errors import GraphError, numbers
from nnlite.runtime.operands import FLOATS, checked_operands, require_floats

_ndarray = np.ndarray


class _Off(type(threading.RLock()), ContextDecorator):  # type: ignore[misc]
    """Held while nothing is recorded. A lock, because no signal interrupts its enter and exit, which are in C."""

    def _recreate_cm(self) -> _Off:
        return _mode.off  # of the thread that calls a decorated function


class _Mode(threading.local):
    def __init__(self) -> None:
        self.off = _Off()


_mode = _Mode()


def no_grad() -> _Off:
    """`with no_grad():` computes without recording: nothing inside can be differentiated, nothing is kept for it."""
    return _mode.off


def is_recording() -> bool:
    """Whether operations of this thread are recorded now."""
    return not _mode.off._is_owned()


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
    name = getattr(function, "__name__", type(function).__name__)
    try:
        if isinstance(function, type):
            raise TypeError
        positional = _positional(inspect.signature(function))
    except (TypeError, ValueError):  # not callable, or in C without a signature
        expected = "a Python function of arrays that returns (result, backward)"
        raise TypeError(f"function: expected {expected}. Received: {function!r:.60}") from None
    count, checked = len(positional), checked_operands(positional)

    @functools.wraps(function)
    def operation(*args: Any, **options: Any) -> Tensor:
        if len(args) < count:
            args = _complete(name, positional, args, options)
        for key, value in options.items():
            if isinstance(value, Tensor):
                raise TypeError(f"{name}: {key} is an option, through which no gradient flows. Received: a Tensor")
        arrays, recorded = [], False
        for arg in args:
            if isinstance(arg, Tensor):
                arrays.append(arg._data)
                recorded = recorded or arg.requires_grad
            else:
                arrays.append(arg)
        for i, argument, beside in checked:
            array = arrays[i]
            if array.__class__ is not _ndarray or array.dtype not in FLOATS:
                require_floats(array, argument, beside)
        recorded = recorded and not _mode.off._is_owned()
        if scopes.listeners and (tracer := scopes.current_tracer()) is not None:
            tracer(operation, arrays, options, tuple([isinstance(x, Tensor) and x.requires_grad for x in args]))
        made = function(*arrays, **options)
        if made.__class__ is not tuple or len(made) != 2:
            raise GraphError(f"{name}: expected it to return (result, backward). Received: {_said(made)}")
        result, backward = made
        output = Tensor.__new__(Tensor)
        output._data = result if isinstance(result, _ndarray) else numbers(f"result of {name}", result)
        output._grad = output.name = output._node = None
        output.requires_grad = recorded
        if recorded:
            _check_backward(name, backward, len(args))
            output._node = Node(name, args, arrays, backward, output._data.dtype)
        return output

    operation.__dict__["function"] = function
    return operation


def _positional(signature: inspect.Signature) -> tuple[inspect.Parameter, ...]:
    """The parameters that are arguments of an operation; none if it takes any number of them."""
    parameters = signature.parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return ()
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
    return (*args, *rest)


def _check_backward(name: str, backward: Any, count: int) -> None:
    """Raise GraphError unless it has one of the forms of a backward."""
    if isinstance(backward, tuple):
        if len(backward) != count:
            raise GraphError(
                f"{name}: expected {count} backward callables, one per argument. Received: {len(backward)}"
            )
    elif not callable(backward):
        raise GraphError(f"{name}: expected (result, backward) with a callable backward. Received: {backward!r}")


def _said(made: Any) -> str:
    if made is None:
        return "None (is a return missing?)"
    return f"{len(made)} values" if isinstance(made, (tuple, list)) else f"{type(made).__name__}"
