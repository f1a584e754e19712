"""An activation as a layer of its own."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, ClassVar

from nnlite import ops
from nnlite.autograd import Tensor
from nnlite.network.layers.base import Layer
from nnlite.performance import counts


def as_activation(_: str, value: str | Callable[..., Tensor] | None) -> Callable[..., Tensor]:
    """What a layer's attribute `activation` is, of a name or a function."""
    return ops.get_activation(value)


class Activation(Layer):
    """`Activation("relu")`: an operation of one argument, by name or itself."""

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
        """What the activation of `size` elements costs: nothing if it is linear."""
        if self.activation is ops.linear:
            return []
        return [counts.elementwise(ops.activation_name(self.activation) or "activation", size)]

    def get_config(self) -> dict[str, Any]:
        return {"activation": activation_config(self, self.activation), **super().get_config()}


def activation_config(layer: Layer, activation: Callable[..., Tensor]) -> str:
    """The name of a layer's activation; a function of the user's own can not be saved and raises ValueError."""
    name = ops.activation_name(activation)
    if name is None:
        raise ValueError(f"{layer.label}: expected an activation with a name, to save it. Received: {activation!r}")
    return name
