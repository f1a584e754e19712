"""Optimizers with Keras 3's names, defaults and formulas. Parameters are updated in place."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, fields
from math import prod, sqrt
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from nnlite.autograd import Tensor
from nnlite.runtime import scopes
from nnlite.runtime.attributes import KnownAttributes
from nnlite.runtime.errors import boolean, fraction, one_of, positive

if TYPE_CHECKING:
    from nnlite.kernels.updates import Row


class _Place(NamedTuple):
    """A parameter's shape and dtype when the optimizer was built, and its offset in the state of that dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype
    begin: int


@dataclass(eq=False)
class Optimizer(KnownAttributes):
    """Base class: call `build(parameters)` once; then for each step `zero_grad()`, `loss.backward()` and `step()`.

    A subclass lists its state in `slots` and defines `scalars`; its fields are the constructor's arguments.
    """

    learning_rate: float

    name: ClassVar[str]
    #: the name of its kernel in nnlite.kernels.updates
    kernel: ClassVar[str]
    #: names of the state arrays, each of a parameter's size
    slots: ClassVar[tuple[str, ...]] = ()
    _checks: ClassVar = {"learning_rate": positive}
    #: copies are deep, parameters included
    __copy__ = copy.deepcopy

    def __post_init__(self) -> None:
        self._parameters: list[Tensor] | None = None
        self.iterations = 0
        self._places: list[_Place] = []
        #: by slot and dtype: the state of all parameters of that dtype, allocated when first needed
        self._memory: dict[tuple[str, np.dtype], np.ndarray] = {}

    def build(self, parameters: Iterable[Tensor]) -> None:
        """Set the parameters to update, with new state.

        A parameter without a gradient (of a layer that is not trainable) is not updated.
        Raises ValueError if there is none, if one is given twice or is not C-contiguous, or if the optimizer was built
        for another model.
        """
        parameters = list(parameters)
        for i, parameter in enumerate(parameters):
            if not isinstance(parameter, Tensor):
                raise ValueError(f"parameters[{i}]: expected a Tensor. Received: {parameter!r}")
            _check_in_place(i, parameter.data)
            if any(parameter is other for other in parameters[:i]):
                raise ValueError(f"parameters[{i}]: expected each parameter once. Received: a duplicate")
        if not parameters:
            raise ValueError("parameters: expected at least one. Received: none")
        if not {id(p) for p in self._parameters or ()} <= {id(p) for p in parameters}:
            raise ValueError(
                "parameters: expected those of the model that this optimizer was built for. Received: another model's. "
                "Make one optimizer per model"
            )
        self._parameters = parameters
        self.iterations = 0
        self._places, self._memory = [], {}
        sizes: dict[np.dtype, int] = {}
        for parameter in parameters:
            begin = sizes.get(parameter.dtype, 0)
            self._places.append(_Place(parameter.shape, parameter.dtype, begin))
            sizes[parameter.dtype] = begin + parameter.size

    @property
    def parameters(self) -> tuple[Tensor, ...] | None:
        """The parameters of `build`; None before it."""
        return None if self._parameters is None else tuple(self._parameters)

    def zero_grad(self) -> None:
        """Remove the gradients, so that the next backward does not add to them."""
        for parameter in self._built():
            parameter._grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient.

        Raises ValueError, and changes nothing, if a parameter's array is not C-contiguous, writable and of the shape
        and dtype it was built with, or if a gradient is not a numeric array of that shape.
        """
        groups: dict[np.dtype, list[Row]] = {}
        for i, (parameter, place) in enumerate(zip(self._built(), self._places, strict=True)):
            w, g = parameter._data, parameter._grad
            if g is None:
                continue
            shape, dtype, begin = place
            if not isinstance(w, np.ndarray) or w.dtype != dtype or w.shape != shape or not w.flags.carray:
                _check_parameter(i, w, place)
            if not isinstance(g, np.ndarray) or g.dtype != dtype or g.shape != shape or not g.flags.carray:
                g = _fitting_gradient(i, g, place)
            groups.setdefault(dtype, []).append((w, g, begin))
        self.__dict__["iterations"] += 1  # past the checks of what a user sets
        with scopes.scope(self.name, "optimizer"):
            for dtype, rows in groups.items():
                from nnlite.kernels import updates

                scalars = [n if isinstance(n, bool) else dtype.type(n) for n in self.scalars()]
                updates.run(getattr(updates, self.kernel), rows, self._remembered(dtype), *scalars)

    def _remembered(self, dtype: np.dtype) -> list[np.ndarray | None]:
        """By slot: the state of the parameters of that dtype, initially zeros; None if it is not needed."""
        found: list[np.ndarray | None] = []
        for slot in self.slots:
            remembered = self._memory.get((slot, dtype)) if (is_needed := self.remembers(slot)) else None
            if is_needed and remembered is None:
                size = sum(prod(place.shape) for place in self._places if place.dtype == dtype)
                remembered = self._memory[slot, dtype] = np.zeros(size, dtype)
            found.append(remembered)
        return found

    def remembers(self, slot: str) -> bool:
        """Whether this slot is needed with these options; if not, the kernel gets None."""
        return True

    def scalars(self) -> tuple[float | bool, ...]:
        """The kernel's scalar arguments for one step."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _built(self) -> list[Tensor]:
        if self._parameters is None:
            raise ValueError(f"{self.name}: expected build(model.parameters()) before the first step")
        return self._parameters


@dataclass(eq=False)
class RMSprop(Optimizer):
    """Divides the gradient by its running root mean square (Tieleman and Hinton, 2012), as in Keras 3:

    v = rho v + (1 - rho) g^2;  w -= learning_rate g / sqrt(v + epsilon).

    `centered` subtracts the square of the running mean from v. `epsilon_inside_root=False` divides by
    sqrt(v) + epsilon, as in PyTorch and Keras 2.
    """

    name: ClassVar = "rmsprop"
    kernel: ClassVar = "rmsprop"
    slots: ClassVar = ("square", "average", "speed")
    _checks: ClassVar = Optimizer._checks | {
        "rho": fraction, "momentum": fraction, "epsilon": positive, "centered": boolean, "epsilon_inside_root": boolean,
    }  # fmt: skip

    learning_rate: float = 1e-3
    rho: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-7
    centered: bool = False
    epsilon_inside_root: bool = True

    def remembers(self, slot: str) -> bool:
        return {"square": True, "average": self.centered, "speed": self.momentum > 0}[slot]

    def scalars(self) -> tuple[float | bool, ...]:
        epsilons = (self.epsilon, 0.0) if self.epsilon_inside_root else (0.0, self.epsilon)
        return (self.learning_rate, self.rho, self.momentum, *epsilons)


@dataclass(eq=False)
class SGD(Optimizer):
    """Gradient descent: speed = momentum speed - learning_rate g; w += speed. `nesterov`: Nesterov (1983).

    The form with Nesterov momentum is Keras's: w += momentum speed - learning_rate g.
    """

    name: ClassVar = "sgd"
    kernel: ClassVar = "sgd"
    slots: ClassVar = ("speed",)
    _checks: ClassVar = Optimizer._checks | {"momentum": fraction, "nesterov": boolean}

    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def remembers(self, slot: str) -> bool:
        return self.momentum > 0

    def scalars(self) -> tuple[float | bool, ...]:
        return (self.learning_rate, self.momentum, self.nesterov)


@dataclass(eq=False)
class Adam(Optimizer):
    """Adam: Kingma and Ba (2015), in the form at the end of their section 2, with epsilon as in Keras."""

    name: ClassVar = "adam"
    kernel: ClassVar = "adam"
    slots: ClassVar = ("mean", "square")
    _checks: ClassVar = Optimizer._checks | {"beta_1": fraction, "beta_2": fraction, "epsilon": positive}

    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def scalars(self) -> tuple[float | bool, ...]:
        t = self.iterations
        rate = self.learning_rate * sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        return (rate, self.beta_1, self.beta_2, self.epsilon)


@dataclass(eq=False)
class Adadelta(Optimizer):
    """Adadelta: Zeiler (2012), algorithm 1, times a learning rate as in Keras."""

    name: ClassVar = "adadelta"
    kernel: ClassVar = "adadelta"
    slots: ClassVar = ("square", "moved")
    _checks: ClassVar = Optimizer._checks | {"rho": fraction, "epsilon": positive}

    learning_rate: float = 1e-3
    rho: float = 0.95
    epsilon: float = 1e-7

    def scalars(self) -> tuple[float | bool, ...]:
        return (self.learning_rate, self.rho, self.epsilon)


_OPTIMIZERS: dict[str, type[Optimizer]] = {cls.name: cls for cls in (RMSprop, SGD, Adam, Adadelta)}


def is_known(optimizer: Optimizer) -> bool:
    """Whether this is a built-in optimizer."""
    return _OPTIMIZERS.get(optimizer.name) is type(optimizer)


def get(optimizer: str | Optimizer, **options: Any) -> Optimizer:
    """A new optimizer of that name with `options`, or the instance itself."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    return one_of("optimizer", optimizer, _OPTIMIZERS)(**options)


def _check_parameter(i: int, data: Any, place: _Place) -> None:
    """Raise ValueError unless it is an array of the parameter's shape and dtype that can be updated in place."""
    expected = f"parameters[{i}]: expected {place.dtype} data of shape {place.shape}, as when it was built"
    if not isinstance(data, np.ndarray):
        raise ValueError(f"{expected}. Received: {data!r:.60}")
    if data.shape != place.shape or data.dtype != place.dtype:
        raise ValueError(
            f"{expected}. Received: {data.dtype} of shape {data.shape}. Copy the values into it: data[...] = values"
        )
    _check_in_place(i, data)


def _fitting_gradient(i: int, gradient: Any, place: _Place) -> np.ndarray:
    """It in its parameter's dtype, C-contiguous. Raises ValueError unless it is a numeric array of its shape."""
    if not isinstance(gradient, np.ndarray) or gradient.dtype.kind not in "fiub":
        raise ValueError(f"parameters[{i}]: expected an array of numbers as grad. Received: {gradient!r:.60}")
    if gradient.shape != place.shape:
        raise ValueError(f"parameters[{i}]: expected grad of shape {place.shape}. Received: shape {gradient.shape}")
    return np.require(gradient, place.dtype, ("C", "A", "E"))


def _check_in_place(i: int, data: np.ndarray) -> None:
    if not data.flags.writeable:
        raise ValueError(f"parameters[{i}]: expected a writable array. Received: a read-only one")
    if not data.flags.c_contiguous:
        raise ValueError(
            f"parameters[{i}]: expected a C-contiguous array, to update in place. "
            f"Received: strides {data.strides} of shape {data.shape}"
        )
    if not data.flags.aligned:
        raise ValueError(f"parameters[{i}]: expected an aligned array. Received: an unaligned one")
