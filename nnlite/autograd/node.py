"""A recorded operation: what its gradients need, and whether its arguments are as the forward saw them.

An array that an operation got must not change in place before the backward. `optimizer.step()`, `set_weights` and
`w.data -= ...` change it; a new array in its Tensor's `data` does not. Two elements of each parameter and input are
compared, which costs a microsecond per array. Three changes are not found: one that leaves both elements as they were,
one of an operation's result, and one through memory whose array is gone.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from nnlite.runtime import scopes
from nnlite.runtime.errors import GraphError

if TYPE_CHECKING:
    from nnlite.autograd.tensor import Tensor

Backward = Callable[..., Any]
_ndarray = np.ndarray
_order = itertools.count()


def _sample(array: np.ndarray) -> tuple:
    """Two elements that show a change in place; not at the edge of images, which is often empty."""
    n = array.size
    return array.item(n // 3), array.item(n * 10 // 11)


class Node:
    """One recorded operation: where its gradients go and how they are computed."""

    __slots__ = ("arrays", "backward", "dtype", "layer", "operation", "order", "parents", "shapes")

    def __init__(self, operation: str, args: Sequence, arrays: Sequence, backward: Any, dtype: np.dtype):
        """`arrays` are the arguments as the operation got them: of a Tensor, its data."""
        self.operation = operation
        self.dtype = dtype  # of the result, and of the gradient that `backward` gets
        self.backward: Backward | tuple[Backward | None, ...] | None = backward
        self.order = next(_order)
        self.layer = scopes.current_layer()
        self.parents: list[Node | Tensor | None] = []  # a leaf Tensor, or None where no gradient goes
        self.shapes: list[tuple[int, ...] | None] = []
        #: of each argument that is an array and no operation's result: it, as long as it lives, and a sample of it
        self.arrays: list[tuple[int, weakref.ref, tuple]] = []
        for i, array in enumerate(arrays):
            arg = args[i]
            parent = (arg._node or arg) if arg is not array and arg.requires_grad else None
            self.parents.append(parent)
            is_array = array.__class__ is _ndarray
            self.shapes.append(array.shape if is_array else getattr(array, "shape", None))
            if is_array and parent.__class__ is not Node and array.size:
                self.arrays.append((i, weakref.ref(array), _sample(array)))

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

    def gradients(self, dy: np.ndarray) -> list[tuple[Node | Tensor, np.ndarray]]:
        """The parents that need a gradient, each with its own, checked: of the argument's shape."""
        needs = tuple([parent is not None for parent in self.parents])
        backward: Any = self.backward
        gradients: Any
        if dy.dtype != self.dtype:  # a float32 result that met a float64 array afterwards
            dy = dy.astype(self.dtype)
        with scopes.scope(self.layer, "grad_input"):
            if isinstance(backward, tuple):
                gradients = [f(dy) if need else None for f, need in zip(backward, needs, strict=True)]
            else:
                gradients = (backward(dy),) if len(needs) == 1 else backward(dy, needs)
        if not isinstance(gradients, (tuple, list)):
            received = "None (is a return missing?)" if gradients is None else type(gradients).__name__
            raise GraphError(
                f"backward of {self.operation!r}: expected a tuple of {len(needs)} gradients, one per argument. "
                f"Received: {received}"
            )
        if len(gradients) != len(needs):
            raise GraphError(
                f"backward of {self.operation!r}: expected {len(needs)} gradients, one per argument. "
                f"Received: {len(gradients)}"
            )
        found = []
        for i, parent in enumerate(self.parents):
            if parent is None:
                continue
            gradient, shape = gradients[i], self.shapes[i]
            if gradient.__class__ is not _ndarray:
                gradient = None if gradient is None else np.asarray(gradient)
            if gradient is None or gradient.shape != shape:
                received = "None (is a return missing?)" if gradient is None else f"shape {gradient.shape}"
                raise GraphError(
                    f"backward of {self.operation!r}: expected a gradient of shape {shape} for argument {i}. "
                    f"Received: {received}"
                )
            found.append((parent, gradient))
        return found


def reachable(last: Node) -> list[Node]:
    """The nodes that `last` was computed from, itself included, latest first."""
    found = {last}
    stack = [last]
    while stack:
        for parent in stack.pop().parents:
            if parent.__class__ is Node and parent not in found:
                found.add(parent)
                stack.append(parent)
    return sorted(found, key=attrgetter("order"), reverse=True)
