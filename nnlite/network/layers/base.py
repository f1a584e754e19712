"""The base class of layers: parameters, shapes and a call. The arithmetic is in nnlite.ops."""

from __future__ import annotations

import copy
import re
from inspect import signature
from math import prod
from typing import Any, ClassVar, Self

import numpy as np

from nnlite import ops
from nnlite.autograd import Tensor
from nnlite.network import initializers
from nnlite.performance.counts import Operation
from nnlite.runtime import random, scopes
from nnlite.runtime.attributes import KnownAttributes, as_call
from nnlite.runtime.errors import LARGEST, boolean, numbers

#: a shape without the batch
Shape = tuple[int, ...]


class Layer(KnownAttributes):
    """Base class of layers. A subclass defines `call`, and `make_parameters`, `output_shape_for` and `operations` if
    the defaults do not fit.

    Shapes do not include the batch: (28, 28, 1). A layer is built once, for one input shape, by its model or by its
    first call.
    """

    #: copies are deep
    __copy__ = copy.deepcopy
    _changes: ClassVar = [0]
    #: the arguments that determine parameters and shapes, and the parameters: fixed once the layer is built
    made_by: ClassVar[tuple[str, ...]] = ()

    def __new__(cls, *args: Any, **options: Any) -> Self:
        # Keras 1 and 2 took input_shape in the first layer, as the scripts of the question do
        if "input_shape" in options and "input_shape" not in signature(cls.__init__).parameters:
            raise TypeError(
                f"input_shape: expected nn.Input({options['input_shape']}) before the {cls.__name__}, as the model's "
                f"first layer. Received: input_shape={options['input_shape']}"
            )
        return super().__new__(cls)

    def __init__(self, name: str | None = None, trainable: bool = True):
        if name is not None and not isinstance(name, str):
            raise ValueError(f"name: expected a string. Received: {name!r}")
        self.name = name
        self.input_shape: Shape | None = None
        self.output_shape: Shape | None = None
        self._parameters: list[Tensor] = []
        self.trainable = trainable

    # to be defined by a subclass

    def call(self, x: Tensor, training: bool) -> Tensor:
        """The result for x (n, *input_shape): (n, *output_shape)."""
        raise NotImplementedError(f"{type(self).__name__} does not define call(x, training)")

    def make_parameters(self, input_shape: Shape) -> None:
        """Check `input_shape` and make the parameters with `add_parameter`."""

    def output_shape_for(self, input_shape: Shape) -> Shape:
        """The shape of the result for inputs of `input_shape`."""
        return input_shape

    def operations(self, batch: int) -> list[Operation]:
        """The operations of the layer for a batch, for the exact counts."""
        return []

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer again, as JSON values; without initializers.

        Raises ValueError for an activation of the user's, which cannot be saved.
        """
        names = signature(type(self).__init__).parameters
        config = {n: getattr(self, n) for n in names if hasattr(self, n) and not n.endswith("_initializer")}
        if "activation" in config:
            config["activation"] = ops.activation_name(config["activation"])
            if config["activation"] is None:
                raise ValueError(
                    f"{self.label}: expected a built-in activation; others cannot be saved. "
                    f"Received: {vars(self)['activation']!r}"
                )
        return config

    # inherited

    @property
    def trainable(self) -> bool:
        """Whether its parameters are trained from the next step on. If not, their gradients are not computed.

        Gradients still flow through the layer to earlier layers.
        """
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = boolean("trainable", value)
        for parameter in self._parameters:
            parameter.requires_grad = self._trainable
            if not self._trainable:
                parameter.grad = None  # from an earlier step; the optimizer must not use it

    def _fixed(self) -> tuple[str, ...]:
        return self.made_by if self.__dict__.get("input_shape") else ()

    @property
    def built(self) -> bool:
        return self.input_shape is not None

    def build(self, input_shape: Shape) -> None:
        """Make the parameters for inputs of `input_shape` (without the batch).

        Raises ValueError if the layer was built for another shape or does not fit this one.
        """
        if self.built:
            if self.input_shape != tuple(input_shape):
                raise ValueError(
                    f"{self.label}: expected inputs of shape (n, {_join(self.input_shape)}), as when it was built. "
                    f"Received: (n, {_join(input_shape)})"
                )
            return
        try:
            self.make_parameters(tuple(input_shape))
            self.output_shape = self.output_shape_for(tuple(input_shape))
        except BaseException:
            self.unbuild()
            raise
        self.input_shape = tuple(input_shape)

    def unbuild(self) -> None:
        """Remove the parameters and the shapes."""
        self._parameters = []
        self.input_shape = self.output_shape = None

    def add_parameter(self, name: str, shape: Shape, initializer: str | initializers.Initializer) -> Tensor:
        """A new float32 parameter with values of `initializer`; trained if the layer is."""
        if isinstance(initializer, str) and prod(shape) > LARGEST // 8:  # NumPy has other words for each
            raise _too_large(name, shape)
        argument = f"{'kernel' if name == 'weight' else name}_initializer"  # as Keras calls it
        initialize = initializers.get(initializer, argument)
        try:
            values = np.ascontiguousarray(numbers(argument, initialize(shape, random.generator())), dtype=np.float32)
        except (MemoryError, OverflowError):
            raise _too_large(name, shape) from None
        if values.shape != shape:
            raise ValueError(f"{argument}: expected an array of shape {shape}. Received: shape {values.shape}")
        parameter = Tensor(values, requires_grad=self.trainable, name=name)
        self._parameters.append(parameter)
        return parameter

    def __call__(self, x: Any, training: bool = False) -> Tensor:
        training = boolean("training", training)
        x = as_input(x)
        if self.input_shape is None:
            self.build(x.shape[1:])
        elif x._data.shape[1:] != self.input_shape:
            raise ValueError(
                f"x: expected shape (n, {_join(self.input_shape)}) for {self.label}. Received: shape {x.shape}"
            )
        with scopes.scope(self.name or default_name(type(self).__name__), "forward"):
            result = self.call(x, training)
        if not isinstance(result, Tensor):
            raise TypeError(f"{self.label}: expected call to return a Tensor. Received: {type(result).__name__}")
        return result

    def parameters(self) -> list[Tensor]:
        """The parameters, trained or not, in Keras's order: weight, bias."""
        return list(self._parameters)

    def count_params(self) -> int:
        """The number of elements of all parameters."""
        return sum(parameter.size for parameter in self._parameters)

    def trained_params(self) -> int:
        """The number of trained elements."""
        return sum(parameter.size for parameter in self._parameters if parameter.requires_grad)

    @property
    def label(self) -> str:
        """The layer's name in messages."""
        return f"layer {self.name!r}" if self.name else type(self).__name__

    def __repr__(self) -> str:
        named = {
            name: None if value.__name__ == "linear" else value.__name__
            for name, value in vars(self).items()
            if hasattr(value, "__name__")
        }
        return as_call(self, **named)


def as_input(x: Any) -> Tensor:
    """A Tensor as it is; numbers as one of float32."""
    return x if isinstance(x, Tensor) else Tensor(numbers("x", x).astype(np.float32, copy=False))


def _too_large(name: str, shape: Shape) -> ValueError:
    expected = f"{name}: expected a parameter that fits into memory"
    return ValueError(f"{expected}. Received: shape {shape}, {4 * prod(shape):,} bytes")


def changes() -> int:
    """How often an attribute of any layer was set: what was derived from one before may be out of date."""
    return Layer._changes[0]


def default_name(class_name: str) -> str:
    """Conv2D -> conv2d, MaxPooling2D -> max_pooling2d: Keras's rule."""
    words = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", class_name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def _join(shape: Shape | None) -> str:
    return ", ".join(map(str, shape or ()))


def expect_rank(layer: Layer, input_shape: Shape, rank: int, meaning: str) -> None:
    """Raise ValueError unless `input_shape` (without the batch) has `rank` sizes of at least 1."""
    if len(input_shape) != rank or min(input_shape, default=1) < 1:
        raise ValueError(f"x: expected shape {meaning} for {layer.label}. Received: shape (n, {_join(input_shape)})")


def expect_shape(layer: Layer, name: str, parameter: Any, shape: Shape) -> None:
    """Raise ValueError if a parameter was replaced by one of another shape."""
    if getattr(parameter, "shape", None) != shape:
        raise ValueError(f"{name} of {layer.label}: expected shape {shape}. Received: shape {np.shape(parameter)}")
