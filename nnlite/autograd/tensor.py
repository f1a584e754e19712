"""Tensor, and how a gradient flows back through what was computed.

While an operation runs forward a `Node` is recorded (nnlite.autograd.recording); `Tensor.backward` visits the nodes in
the opposite order of their creation, each once. A node knows its parents and what their gradients need, never its own
output, so that there are no reference cycles and an array lives only as long as something still needs it.

Gradients of gradients are not supported: a backward function computes on arrays.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from nnlite.autograd.node import Node, reachable
from nnlite.runtime.errors import GraphError, as_array, boolean, numbers
from nnlite.runtime.operands import FLOATS, dtype_said, readable
from nnlite.runtime.replay import copied, filled


class Tensor:
    """An array that can be differentiated with respect to.

    `data` is an ndarray: float32, or float64 if a float64 array was given (anything else becomes float32).
    After `backward`, `grad` of every tensor made with `requires_grad=True` is an ndarray of its shape and dtype;
    a second backward adds to it. Tensors that operations return carry no `grad`.
    A tensor keeps its shape and dtype: `data` can be set to an array that has them, `grad` to numbers of that shape.
    """

    #: `_data` and `_grad` are read and set without a call or a check
    __slots__ = ("__weakref__", "_data", "_grad", "_node", "name", "requires_grad")
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
        self._data: np.ndarray = array
        self.requires_grad = boolean("requires_grad", requires_grad)
        self._grad: np.ndarray | None = None
        self.name = name
        self._node: Node | None = None

    @property
    def data(self) -> np.ndarray:
        return self._data

    @data.setter
    def data(self, array: np.ndarray) -> None:
        dtype, shape = self._data.dtype, self._data.shape
        fits = isinstance(array, np.ndarray) and array.dtype == dtype and array.shape == shape
        if not fits or isinstance(array, np.ma.MaskedArray):
            expected = f"a {dtype} array of shape {shape}, as the tensor has"
            raise ValueError(f"data{self._said()}: expected {expected}. Received: {_kind(array)}")
        self._data = readable(array)

    @property
    def grad(self) -> np.ndarray | None:
        return self._grad

    @grad.setter
    def grad(self, array: np.ndarray | None) -> None:
        if array is not None and not (
            isinstance(array, np.ndarray) and array.dtype.kind in "fiub" and array.shape == self._data.shape
        ):
            expected = f"None or an array of numbers of shape {self._data.shape}, as the tensor has"
            raise ValueError(f"grad{self._said()}: expected {expected}. Received: {_kind(array)}")
        self._grad = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        return self._data.dtype

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def size(self) -> int:
        return self._data.size

    def numpy(self) -> np.ndarray:
        """The array itself, not a copy."""
        return self.data

    def item(self) -> float:
        """The value of a tensor with one element. Raises ValueError if it has another number of them."""
        if self.size != 1:
            raise ValueError(f"tensor: expected one element. Received: shape {self.shape}")
        return self._data.item()

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

    def _said(self) -> str:
        """Whose attribute it is, in messages."""
        return f" of {self.name}" if self.name else ""

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


def _kind(value: Any) -> str:
    if isinstance(value, np.ma.MaskedArray):
        return "a masked array"
    return f"{dtype_said(value.dtype)} of shape {value.shape}" if isinstance(value, np.ndarray) else f"{value!r:.60}"


def _make(
    cls: type[Tensor], data: np.ndarray, requires_grad: bool, grad: np.ndarray | None, name: str | None
) -> Tensor:
    tensor = cls.__new__(cls)
    tensor._data, tensor.requires_grad, tensor._grad, tensor.name = data, requires_grad, grad, name
    tensor._node = None
    return tensor


def _backward(tensor: Tensor, gradient: Any, retain_graph: bool) -> None:
    if not tensor.requires_grad:
        raise GraphError(
            "backward: expected a tensor computed from one with requires_grad=True. Received: one that is not"
        )
    dy = _seed(tensor, gradient)
    if tensor._node is None:
        _accumulate(tensor, dy.copy())
        return
    nodes = reachable(tensor._node)
    for node in nodes:
        node.check()
    pending: dict[Node, np.ndarray] = {tensor._node: dy}
    given: set[int] = {id(dy)}  # arrays that somebody else holds too, which a leaf must not share
    keep = [dy]  # so that no id is used twice
    for node in nodes:
        dy = pending.pop(node)
        for parent, gradient in node.gradients(dy):
            if isinstance(parent, Node):
                pending[parent] = pending[parent] + gradient if parent in pending else gradient
            else:
                shared = gradient is dy or id(gradient) in given or isinstance(gradient.base, np.ndarray)
                given.add(id(gradient))
                keep.append(gradient)
                _accumulate(parent, copied(gradient) if shared else gradient)
        if not retain_graph:
            node.backward, node.parents = None, []


def _seed(tensor: Tensor, gradient: Any) -> np.ndarray:
    """The gradient that backward starts with."""
    if gradient is None:
        if tensor.size != 1:
            raise GraphError(
                "backward: expected a tensor with one element, or a gradient to start with. "
                f"Received: shape {tensor.shape}"
            )
        return filled(tensor.shape, tensor.dtype, 1)
    seed = numbers("gradient", gradient.data if isinstance(gradient, Tensor) else gradient)
    seed = seed.astype(tensor.dtype, copy=False)
    if seed.shape != tensor.shape:
        raise ValueError(f"gradient: expected shape {tensor.shape}, the tensor's. Received: shape {seed.shape}")
    return seed


def _accumulate(leaf: Tensor, gradient: np.ndarray) -> None:
    if gradient.dtype != leaf._data.dtype:
        gradient = numbers("gradient", gradient)
        gradient = gradient.astype(leaf._data.dtype)
    leaf._grad = gradient if leaf._grad is None else np.asarray(leaf._grad + gradient)
