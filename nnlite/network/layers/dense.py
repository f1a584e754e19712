"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import ClassVar

from nnlite import ops
from nnlite.autograd import Tensor
from nnlite.network.initializers import Initializer
from nnlite.network.layers.activation import Activation, as_activation
from nnlite.network.layers.base import Layer, Shape, expect_shape
from nnlite.performance import counts
from nnlite.runtime.errors import boolean, positive_int
from nnlite.runtime.random import Seed


class Dense(Layer):
    """activation(x @ weight + bias) over the last axis: (n, ..., in) -> (n, ..., units). Keras's arguments."""

    made_by = ("units", "use_bias", "kernel_initializer", "bias_initializer", "weight", "bias")
    _checks: ClassVar = {"activation": as_activation, "fuse": boolean}

    def __init__(
        self,
        units: int,
        activation: str | Callable[..., Tensor] | None = None,
        use_bias: bool = True,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
        name: str | None = None,
        trainable: bool = True,
    ):
        super().__init__(name, trainable)
        self.units = positive_int("units", units)
        self.activation: Callable[..., Tensor] = as_activation("activation", activation)
        self.use_bias = boolean("use_bias", use_bias)
        self.kernel_initializer = kernel_initializer
        self.bias_initializer = bias_initializer
        self.weight: Tensor | None = None  # (in, units)
        self.bias: Tensor | None = None  # (units)
        #: whether ReLU is fused into the product's kernel
        self.fuse = True

    def make_parameters(self, input_shape: Shape) -> None:
        if not input_shape:
            raise ValueError(f"x: expected shape (n, ..., features) for {self.label}. Received: shape (n)")
        self.weight = self.add_parameter("weight", (input_shape[-1], self.units), self.kernel_initializer)
        if self.use_bias:
            self.bias = self.add_parameter("bias", (self.units,), self.bias_initializer)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def call(self, x: Tensor, training: bool) -> Tensor:
        if self.fuse and self.activation is ops.relu and type(self).product is Dense.product:
            return self.product(x, relu=True)
        return self.activation(self.product(x))

    def product(self, x: Tensor, *, relu: bool = False, dropout: float = 0.0, seed: Seed = 0) -> Tensor:
        """x @ weight + bias with the requested ReLU and dropout, without the activation."""
        expect_shape(self, "weight", self.weight, (x.shape[-1], self.units))
        return ops.dense(x, self.weight, self.bias, relu=relu, dropout=dropout, seed=seed)

    def operations(self, batch: int) -> list[counts.Operation]:
        assert self.input_shape is not None
        rows = batch * prod(self.input_shape[:-1])
        product = counts.dense(rows, self.input_shape[-1], self.units, self.use_bias)
        return [product, *Activation(self.activation).costs(rows * self.units)]
