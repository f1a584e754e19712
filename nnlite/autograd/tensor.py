"""Tensor and the tape: how a gradient flows back through what was computed.

An operation is a function of arrays, decorated with `differentiable`: it returns its result and how a gradient flows
back. While it runs forward a `Node` is recorded; `Tensor.backward` visits the nodes in the opposite order of their
creation, each once. A node knows its parents and what their gradients need, never its own output, so that there are
no reference cycles and an array lives only as long as something still needs it.

Gradients of gradients are not supported: a backward function computes on arrays.

A gradient is of the arrays as the forward saw them. So an array that an operation got must not change in place before
the backward: a new array in its Tensor's `data` does no harm, `optimizer.step()`, `set_weights` and `w.data -= ...` do.
Two elements of each parameter and each input are compared, which costs a microsecond an array. Not found is a change
that leaves both as they were, one of an operation's result, and one through memory whose array is gone.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from nnlite.runtime import scopes
from nnlite.runtime.errors import GraphError, as_array, boolean, numbers
from nnlite.runtime.operands import FLOATS, checked_operands, require_floats

Backward = Callable[..., Any]
_ndarray = np.ndarray
_order = itertools.count()


class _Mode(threading.local):
    grad_enabled = True
    recording = False


_mode = _Mode()


class Tensor:
    """An array that can be differentiated with respect to.

    `data` is an ndarray: float32, or float64 if a float64 array was given (anything else becomes float32).
    After `backward`, `grad` of every tensor made with `requires_grad=True` is an ndarray of its shape and dtype;
    a second backward adds to it. Tensors that operations return carry no `grad`.
    """

    __slots__ = ("__weakref__", "_node", "data", "grad", "name", "requires_grad")
    #: a copy shares nothing with its original
    __copy__ = copy.deepcopy
    __array_priority__ = 1000.0  # an ndarray on the left of an operator leaves it to us
    __array_ufunc__ = None

    def __init__(self, data: Any, requires_grad: bool = False, name: str | None = None):
        if isinstance(data, Tensor):
            data = data.data
        array = as_array("data", data)
        if array.dtype not in FLOATS or (array.dtype == np.float64 and not isinstance(data, (np.ndarray, np.generic))):
            if array.dtype.kind not in "fiub":
                raise TypeError(f"data: expected numbers. Received: {type(data).__name__} of dtype {array.dtype}")
            array = array.astype(np.float32)
        self.data: np.ndarray = array
        self.requires_grad = boolean("requires_grad", requires_grad)
        self.grad: np.ndarray | None = None
        self.name = name
        self._node: Node | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    def numpy(self) -> np.ndarray:
        """The array itself, not a copy."""
        return self.data

    def item(self) -> float:
        """The value of a tensor with one element. Raises ValueError if it has another number of them."""
        if self.size != 1:
            raise ValueError(f"tensor: expected one element. Received: shape {self.shape}")
        return self.data.item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def detach(self) -> Tensor:
        """The same array as a tensor through which no gradient flows."""
        return Tensor(self.data)

    def backward(self, gradient: Any = None, *, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor, weighted by `gradient`, to `grad` of every leaf it was computed from.

        `gradient` has this tensor's shape; a tensor with one element needs none (it is 1). The graph gives its memory
        back on the way, unless `retain_graph`; a second call then raises GraphError before it changes anything.
        """
        _backward(self, gradient, boolean("retain_graph", retain_graph))

    def __reduce__(self) -> tuple:
        """How copies and pickles are made, its gradient included."""
        if self._node is not None:
            raise GraphError(
                "copy: expected a tensor that was made from an array. Received: one that was computed, whose graph "
                "cannot be copied. Copy detach() of it"
            )
        return _make, (type(self), self.data, self.requires_grad, self.grad, self.name)

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        extra = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({np.array2string(self.data, prefix='Tensor(', threshold=100)}, dtype={self.dtype}{extra})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.data, dtype=dtype, copy=copy)

    __hash__ = object.__hash__

    if TYPE_CHECKING:  # attached by nnlite.ops, each beside its gradient
        T: Tensor

        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __pow__(self, exponent: float) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def max(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def reshape(self, *shape: Any) -> Tensor: ...
        def transpose(self, *axes: Any) -> Tensor: ...
        def exp(self) -> Tensor: ...
        def log(self) -> Tensor: ...
        def sqrt(self) -> Tensor: ...


def _make(
    cls: type[Tensor], data: np.ndarray, requires_grad: bool, grad: np.ndarray | None, name: str | None
) -> Tensor:
    tensor = cls.__new__(cls)
    tensor.data, tensor.requires_grad, tensor.grad, tensor.name = data, requires_grad, grad, name
    tensor._node = None
    return tensor


def _sample(array: np.ndarray) -> tuple:
    """Two elements, by which a change in place is found. Of images they are not at the edge, which is often empty."""
    n = array.size
    return array.item(n // 3), array.item(n * 10 // 11)


class Node:
    """One recorded operation: where its gradients go and how they are computed."""

    __slots__ = ("arrays", "backward", "dtype", "layer", "operation", "order", "parents", "shapes")

    def __init__(
        self, operation: str, parents: tuple, shapes: tuple, backward: Backward, dtype: np.dtype, arrays: Sequence
    ):
        self.operation = operation
        self.dtype = dtype  # of the result, and of the gradient that `backward` gets
        self.parents: tuple[Node | Tensor | None, ...] = parents  # a leaf Tensor, or None where no gradient goes
        self.shapes = shapes
        self.backward: Backward | None = backward
        self.order = next(_order)
        self.layer = scopes.current_layer()
        #: of each argument that is an array and no operation's result: it, as long as it lives, and a sample of it
        self.arrays = [
            (i, weakref.ref(array), _sample(array))
            for i, (array, parent) in enumerate(zip(arrays, parents, strict=True))
            if array.__class__ is _ndarray and parent.__class__ is not Node and array.size
        ]

    def check(self) -> None:
        """Raise GraphError if the graph was freed, or if an argument is seen to have changed since."""
        if self.backward is None:
            raise GraphError(
                f"backward: the graph was already freed by an earlier backward (at {self.operation!r}). "
                "Pass retain_graph=True to the earlier one, or compute the tensor again"
            )
        for i, reference, sample in self.arrays:
            array = reference()
            if array is not None and _sample(array) != sample and repr(_sample(array)) != repr(sample):  # NaN != NaN
                raise GraphError(
                    f"backward of {self.operation!r}: expected argument {i} as it was in the forward. Received: one "
                    "that was changed in place since (optimizer.step(), set_weights and x.data[...] = do that). "
                    "Call backward first, or compute the tensor again"
                )

    def gradients(self, dy: np.ndarray) -> tuple[np.ndarray | None, ...]:
        """The gradients of the operation's arguments, checked: one each, of the argument's shape."""
        needs = tuple([parent is not None for parent in self.parents])
        assert self.backward is not None
        if dy.dtype != self.dtype:  # a float32 result that met a float64 array afterwards
            dy = dy.astype(self.dtype)
        with scopes.scope(self.layer, "grad_input"):
            gradients = self.backward(dy, needs)
        if len(gradients) != len(needs):
            raise GraphError(
                f"backward of {self.operation!r}: expected {len(needs)} gradients, one per argument. "
                f"Received: {len(gradients)}"
            )
        for i, (gradient, need, shape) in enumerate(zip(gradients, needs, self.shapes, strict=True)):
            if need and getattr(gradient, "shape", None) != shape and (gradient is None or np.shape(gradient) != shape):
                received = "None" if gradient is None else f"shape {np.shape(gradient)}"
                raise GraphError(
                    f"backward of {self.operation!r}: expected a gradient of shape {shape} for argument {i}. "
                    f"Received: {received}"
                )
        return gradients


# Recording -----------------------------------------------------------------------------------------------------


@contextmanager
def no_grad() -> Iterator[None]:
    """Compute without recording: nothing inside can be differentiated, and nothing is kept for it."""
    outer = _mode.grad_enabled
    _mode.grad_enabled = False
    try:
        yield
    finally:
        _mode.grad_enabled = outer


def is_recording() -> bool:
    """Inside an operation: whether its backward will be kept. What only backward needs can be left out if not."""
    return _mode.recording


def differentiable(function: Callable) -> Callable[..., Tensor]:
    """Make a function of arrays an operation on Tensors.

    `function(*arrays, **options)` gets its positional arguments as ndarrays (Tensors are unwrapped, anything else
    comes as it is) and returns `(result, backward)`. `backward` says how the gradient `dy` of the result flows back:

    - an operation of one argument: one callable, `backward(dy) -> dx`;
    - of several: a tuple with one such callable an argument; those of arguments that need no gradient are not called;
    - or, where they share work, one `backward(dy, needs) -> (gradient or None, ...)` for all arguments.

    Arguments count as the function declares them, also those left to their default. Keyword-only ones are options,
    through which no gradient flows. What is annotated `Floats` is checked: ValueError unless it is a Tensor or an
    array of float32 or float64.

    A gradient has its argument's shape, and is a new array, `dy` itself or a view of it, never one that is kept.

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
        recorded = recorded and _mode.grad_enabled
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
    """All arguments by position: those that were passed by name, and defaults for those that were not passed."""
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


# Going back ----------------------------------------------------------------------------------------------------


def _backward(tensor: Tensor, gradient: Any, retain_graph: bool) -> None:
    if not tensor.requires_grad:
        raise GraphError(
            "backward: expected a tensor computed from one with requires_grad=True. Received: one that is not"
        )
    dy = _seed(tensor, gradient)
    if tensor._node is None:
        _accumulate(tensor, dy.copy())
        return
    nodes = _reachable(tensor._node)
    for node in nodes:
        node.check()
    pending: dict[Node, np.ndarray] = {tensor._node: dy}
    given: set[int] = {id(dy)}  # arrays that somebody else holds too, which a leaf must not share
    keep = [dy]  # so that no id is used twice
    for node in nodes:
        dy = pending.pop(node)
        for parent, gradient in zip(node.parents, node.gradients(dy), strict=True):
            if parent is None:
                continue
            gradient = np.asarray(gradient)
            if isinstance(parent, Node):
                pending[parent] = pending[parent] + gradient if parent in pending else gradient
            else:
                shared = gradient is dy or id(gradient) in given or isinstance(gradient.base, np.ndarray)
                given.add(id(gradient))
                keep.append(gradient)
                _accumulate(parent, gradient.copy() if shared else gradient)
        if not retain_graph:
            node.backward, node.parents = None, ()


def _seed(tensor: Tensor, gradient: Any) -> np.ndarray:
    """The gradient that backward starts with."""
    if gradient is None:
        if tensor.size != 1:
            raise GraphError(
                "backward: expected a tensor with one element, or a gradient to start with. "
                f"Received: shape {tensor.shape}"
            )
        return np.ones(tensor.shape, tensor.dtype)
    seed = numbers("gradient", gradient.data if isinstance(gradient, Tensor) else gradient)
    seed = seed.astype(tensor.dtype, copy=False)
    if seed.shape != tensor.shape:
        raise ValueError(f"gradient: expected shape {tensor.shape}, the tensor's. Received: shape {seed.shape}")
    return seed


def _reachable(last: Node) -> list[Node]:
    """The nodes that `last` was computed from, itself included, latest first."""
    found = {last}
    stack = [last]
    while stack:
        for parent in stack.pop().parents:
            if isinstance(parent, Node) and parent not in found:
                found.add(parent)
                stack.append(parent)
    return sorted(found, key=lambda node: node.order, reverse=True)


def _accumulate(leaf: Tensor, gradient: np.ndarray) -> None:
    if gradient.dtype != leaf.data.dtype:
        gradient = numbers("gradient", gradient)
        gradient = gradient.astype(leaf.data.dtype)
    leaf.grad = gradient if leaf.grad is None else np.asarray(leaf.grad + gradient)
