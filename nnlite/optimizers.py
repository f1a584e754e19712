"""Optimizers by Keras 3's names, defaults and formulas. Parameters are updated in place, never rebound."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nnlite import scopes
from nnlite.attributes import KnownAttributes
from nnlite.autograd import Tensor
from nnlite.errors import boolean, fraction, one_of, positive

if TYPE_CHECKING:
    from nnlite.kernels.updates import Table


class Optimizer(KnownAttributes):
    """`build(parameters)` once, then per step `zero_grad()`, a backward, `step()`.

    A subclass names its state arrays in `slots` and writes `update`.
    """

    name: ClassVar[str]
    #: the arrays, of a parameter's size, that are remembered for each parameter
    slots: ClassVar[tuple[str, ...]] = ()

    def __init__(self, learning_rate: float):
        self.learning_rate = learning_rate
        self.parameters: list[Tensor] | None = None
        self.iterations = 0
        self._shapes: list[tuple[int, ...]] = []
        #: of each parameter: what is remembered, by slot, since it was first needed
        self._state: list[dict[str, np.ndarray]] = []
        #: by the slots that are needed, and the parameters that have a gradient
        self._tables: dict[tuple[tuple[str, ...], tuple[int, ...]], Table] = {}

    @property
    def learning_rate(self) -> float:
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = positive("learning_rate", value)

    def build(self, parameters: Iterable[Tensor]) -> None:
        """Take charge of `parameters`, with nothing remembered.

        One that needs no gradient (of a layer that is not trainable) stays as it is until it does.
        Raises ValueError if there is none, if one is there twice or is not C-contiguous, or if the optimizer was built
        for others before.
        """
        parameters = list(parameters)
        for i, parameter in enumerate(parameters):
            if not isinstance(parameter, Tensor):
                raise ValueError(f"parameters[{i}]: expected a Tensor. Received: {parameter!r}")
            _check_in_place(i, parameter)
            if any(parameter is other for other in parameters[:i]):
                raise ValueError(f"parameters[{i}]: expected each parameter once. Received: one that came before")
        if not parameters:
            raise ValueError("parameters: expected at least one. Received: none")
        if self.parameters and not {id(p) for p in self.parameters} <= {id(p) for p in parameters}:
            raise ValueError(
                "parameters: expected those that this optimizer was built for, and perhaps more: make one optimizer a "
                "model. Received: another model's"
            )
        self.parameters = parameters
        self.iterations = 0
        self._shapes = [p.shape for p in parameters]
        self._tables = {}
        self._state = [{} for _ in parameters]

    def zero_grad(self) -> None:
        """Forget the gradients, so that the next backward does not add to them."""
        for parameter in self._built():
            parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient.

        Raises ValueError, with nothing changed, if a gradient is no array of numbers of its parameter's shape.
        """
        #: dtype -> (numbers of the parameters that have a gradient, their arrays, the gradients)
        groups: dict[np.dtype, tuple[list[int], list[np.ndarray], list[np.ndarray]]] = {}
        for i, (parameter, shape) in enumerate(zip(self._built(), self._shapes, strict=True)):
            data, gradient = parameter.data, parameter.grad
            if gradient is None:
                continue
            if not isinstance(gradient, np.ndarray) or gradient.dtype.kind not in "fiub":
                raise ValueError(f"parameters[{i}]: expected an array of numbers as grad. Received: {gradient!r:.60}")
            if not gradient.shape == data.shape == shape:
                raise ValueError(
                    f"parameters[{i}]: expected data and grad of the shape it was built with, {shape}. "
                    f"Received: {data.shape} and {gradient.shape}"
                )
            _check_in_place(i, parameter)
            which, arrays, gradients = groups.setdefault(data.dtype, ([], [], []))
            which.append(i)
            arrays.append(data)
            gradients.append(np.ascontiguousarray(gradient, data.dtype))
        self.iterations += 1
        with scopes.scope(self.name, "optimizer"):
            for dtype, (which, arrays, gradients) in groups.items():
                self.update(self._table(tuple(which), arrays), gradients, dtype.type)

    def _table(self, which: tuple[int, ...], arrays: list[np.ndarray]) -> Table:
        """Some of the parameters, whose numbers are `which`, and what is remembered of them, for a kernel."""
        needed = tuple(slot for slot in self.slots if self.remembers(slot))
        table = self._tables.get((needed, which))
        if table is None or any(a is not b for a, b in zip(table.parameters, arrays, strict=True)):
            from nnlite.kernels.updates import Table

            rows = [(w, *self._memories(i, w, needed)) for w, i in zip(arrays, which, strict=True)]
            table = self._tables[needed, which] = Table(rows)
        return table

    def _memories(self, i: int, w: np.ndarray, needed: tuple[str, ...]) -> list[np.ndarray | None]:
        """A parameter's memory for each slot, zeros where it has none yet; None for what is not needed."""
        for slot in needed:
            self._state[i].setdefault(slot, np.zeros(w.size, w.dtype))
        return [self._state[i][slot] if slot in needed else None for slot in self.slots]

    def remembers(self, slot: str) -> bool:
        """Whether the array named `slot` is needed with these options; `update` gets None in its place if not."""
        return True

    def update(self, table: Table, gradients: list[np.ndarray], number: Callable[[float], Any]) -> None:
        """Change the parameters of a table, of one dtype, in place; `number` makes scalars of that dtype."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments with which to make this optimizer again."""
        return {"learning_rate": self.learning_rate}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.get_config().items())})"

    def _built(self) -> list[Tensor]:
        if self.parameters is None:
            raise ValueError(f"{self.name}: expected build(model.parameters()) before the first step")
        return self.parameters


class RMSprop(Optimizer):
    """Divides the gradient by a running root mean square of it (Tieleman and Hinton, 2012), as Keras 3 does:

    v = rho v + (1 - rho) g^2;  w -= learning_rate g / sqrt(v + epsilon).

    `centered` takes the running mean's square off v; `epsilon_inside_root=False` divides by sqrt(v) + epsilon, as
    PyTorch and Keras 2 do.
    """

    name = "rmsprop"
    slots = ("square", "average", "speed")

    def __init__(
        self,
        learning_rate: float = 1e-3,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        epsilon_inside_root: bool = True,
    ):
        super().__init__(learning_rate)
        self.rho = fraction("rho", rho)
        self.momentum = fraction("momentum", momentum)
        self.epsilon = positive("epsilon", epsilon)
        self.centered = boolean("centered", centered)
        self.epsilon_inside_root = boolean("epsilon_inside_root", epsilon_inside_root)

    def remembers(self, slot: str) -> bool:
        return {"square": True, "average": self.centered, "speed": self.momentum > 0}[slot]

    def update(self, table: Table, gradients: list[np.ndarray], number: Callable[[float], Any]) -> None:
        from nnlite.kernels import updates

        epsilons = (self.epsilon, 0.0) if self.epsilon_inside_root else (0.0, self.epsilon)
        numbers = (number(value) for value in (self.learning_rate, self.rho, self.momentum, *epsilons))
        table.run(updates.rmsprop, gradients, self.centered or None, self.momentum > 0 or None, *numbers)

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
            "epsilon_inside_root": self.epsilon_inside_root,
        }


class SGD(Optimizer):
    """Gradient descent: speed = momentum speed - learning_rate g; w += speed. `nesterov` looks one step ahead."""

    name = "sgd"
    slots = ("speed",)

    def __init__(self, learning_rate: float = 0.01, momentum: float = 0.0, nesterov: bool = False):
        super().__init__(learning_rate)
        self.momentum = fraction("momentum", momentum)
        self.nesterov = boolean("nesterov", nesterov)

    def remembers(self, slot: str) -> bool:
        return self.momentum > 0

    def update(self, table: Table, gradients: list[np.ndarray], number: Callable[[float], Any]) -> None:
        from nnlite.kernels import updates

        numbers = number(self.learning_rate), number(self.momentum)
        table.run(updates.sgd, gradients, self.momentum > 0 or None, *numbers, self.nesterov)

    def get_config(self) -> dict[str, Any]:
        return {"learning_rate": self.learning_rate, "momentum": self.momentum, "nesterov": self.nesterov}


class Adam(Optimizer):
    """Kingma and Ba (2015), in the form before their section 2.1, with epsilon as Keras has it."""

    name = "adam"
    slots = ("mean", "square")

    def __init__(self, learning_rate: float = 1e-3, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7):
        super().__init__(learning_rate)
        self.beta_1 = fraction("beta_1", beta_1)
        self.beta_2 = fraction("beta_2", beta_2)
        self.epsilon = positive("epsilon", epsilon)

    def update(self, table: Table, gradients: list[np.ndarray], number: Callable[[float], Any]) -> None:
        from nnlite.kernels import updates

        t = self.iterations
        rate = self.learning_rate * sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        numbers = (number(value) for value in (rate, self.beta_1, self.beta_2, self.epsilon))
        table.run(updates.adam, gradients, *numbers)

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


class Adadelta(Optimizer):
    """Zeiler (2012), algorithm 1, times a learning rate, as Keras has it."""

    name = "adadelta"
    slots = ("square", "moved")

    def __init__(self, learning_rate: float = 1e-3, rho: float = 0.95, epsilon: float = 1e-7):
        super().__init__(learning_rate)
        self.rho = fraction("rho", rho)
        self.epsilon = positive("epsilon", epsilon)

    def update(self, table: Table, gradients: list[np.ndarray], number: Callable[[float], Any]) -> None:
        from nnlite.kernels import updates

        numbers = (number(value) for value in (self.learning_rate, self.rho, self.epsilon))
        table.run(updates.adadelta, gradients, *numbers)

    def get_config(self) -> dict[str, Any]:
        return {"learning_rate": self.learning_rate, "rho": self.rho, "epsilon": self.epsilon}


_OPTIMIZERS: dict[str, type[Optimizer]] = {cls.name: cls for cls in (RMSprop, SGD, Adam, Adadelta)}


def is_known(optimizer: Optimizer) -> bool:
    """Whether `get` makes an optimizer of this class for its name."""
    return _OPTIMIZERS.get(optimizer.name) is type(optimizer)


def get(optimizer: str | Optimizer, **options: Any) -> Optimizer:
    """A new optimizer of that name, made with `options`; or the instance itself."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    return one_of("optimizer", optimizer, _OPTIMIZERS)(**options)


def _check_in_place(i: int, parameter: Tensor) -> None:
    if not parameter.data.flags.writeable:
        raise ValueError(f"parameters[{i}]: expected an array that can be written. Received: a read-only one")
    if not parameter.data.flags.c_contiguous:
        raise ValueError(
            f"parameters[{i}]: expected a C-contiguous array, to update in place. "
            f"Received: strides {parameter.data.strides} of shape {parameter.shape}"
        )
