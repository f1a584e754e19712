"""An activation as a separate layer."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import ClassVar

from nnlite import ops
from nnlite.autograd import Tensor
from nnlite.network.layers.base import Layer
from nnlite.performance import counts
from nnlite.runtime.attributes import KnownAttributes


def as_activation(argument: str, value: str | Callable[..., Tensor] | None) -> Callable[..., Tensor]:
    """The activation function of a name, or the function itself.

    Raises ValueError for a layer or a model, whose parameters would not be trained, and for a class.
    """
    if isinstance(value, (KnownAttributes, type)):
        received = " ".join(repr(value).split())
        raise ValueError(
            f"{argument}: expected a name or a function of a Tensor. Received: {received:.60}. "
            "Add a layer to the model instead"
        )
    return ops.get_activation(value)


class Activation(Layer):
    """`Activation("relu")`: an operation of one argument, given by name or as a callable."""

    _checks: ClassVar = {"activation": as_activation}

    def __init__(self, activation: str | Callable[..., Tensor], name: str | None = None, trainable: bool = True):
        super().__init__(name, trainable)
        self.activation: Callable[..., Tensor] = as_activation("activation", activation)

    def call(self, x: Tensor, training: bool) -> Tensor:
        return self.activation(x)

    def operations(self, batch: int) -> list[counts.Operation]:
        assert self.input_shape is not None
        return self.costs(batch * prod(self.input_shape))

    def costs(self, size: int) -> list[counts.Operation]:
        """The cost of the activation for `size` elements; empty if it is linear."""
        if self.activation is ops.linear:
            return []
        return [counts.elementwise(ops.activation_name(self.activation) or "activation", size)]
