"""The 2-D convolution layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from nnlite import conv, ops
from nnlite.autograd import Tensor
from nnlite.conv.geometry import Padding, check_padding
from nnlite.network.initializers import Initializer
from nnlite.network.layers.activation import Activation, as_activation
from nnlite.network.layers.base import Layer, Shape, expect_rank, expect_shape
from nnlite.performance import counts
from nnlite.runtime.errors import boolean, int_pair, positive_int


class Conv2D(Layer):
    """activation(conv2d(x, weight) + bias), channels last: (n, h, w, c) -> (n, oh, ow, filters).

    `kernel_size`, `strides` and `dilation_rate` are an integer or (height, width). `padding` is "valid", "same", an
    integer, or ((top, bottom), (left, right)). `algorithm` is a name of `nn.conv.names()` or "auto". The other
    arguments are Keras's. Raises ValueError, which names the argument.
    """

    made_by = (
        "filters", "kernel_size", "strides", "padding", "dilation_rate", "groups", "use_bias", "kernel_initializer",
        "bias_initializer", "weight", "bias",
    )  # fmt: skip
    _checks: ClassVar = {"activation": as_activation, "fuse": boolean}

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = (1, 1),
        padding: Padding = "valid",
        dilation_rate: int | tuple[int, int] = (1, 1),
        groups: int = 1,
        activation: str | Callable[..., Tensor] | None = None,
        use_bias: bool = True,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
        algorithm: str = "auto",
        name: str | None = None,
        trainable: bool = True,
    ):
        super().__init__(name, trainable)
        self.filters = positive_int("filters", filters)
        self.kernel_size = int_pair("kernel_size", kernel_size)
        self.strides = int_pair("strides", strides)
        self.padding = check_padding(padding)
        self.dilation_rate = int_pair("dilation_rate", dilation_rate)
        self.groups = positive_int("groups", groups)
        if self.filters % self.groups:
            raise ValueError(f"groups: expected a divisor of the {self.filters} filters. Received: {self.groups}")
        self.activation: Callable[..., Tensor] = as_activation("activation", activation)
        self.use_bias = boolean("use_bias", use_bias)
        self.kernel_initializer = kernel_initializer
        self.bias_initializer = bias_initializer
        if algorithm != "auto":
            conv.get(algorithm)
        self.algorithm = algorithm
        self.weight: Tensor | None = None  # (kh, kw, c / groups, filters)
        self.bias: Tensor | None = None  # (filters)
        #: whether ReLU is fused into the convolution's kernel
        self.fuse = True

    def make_parameters(self, input_shape: Shape) -> None:
        expect_rank(self, input_shape, 3, "(n, h, w, c)")
        geometry = self.geometry(1, input_shape)
        self.weight = self.add_parameter("weight", geometry.weight_shape, self.kernel_initializer)
        if self.use_bias:
            self.bias = self.add_parameter("bias", (self.filters,), self.bias_initializer)

    def geometry(self, batch: int, input_shape: Shape | None = None) -> conv.Geometry:
        """The convolution problem for a batch. Raises ValueError if the layer does not fit the input."""
        h, w, c = input_shape or self.input_shape or ()
        if c % self.groups:
            raise ValueError(f"groups: expected a divisor of the {c} input channels. Received: {self.groups}")
        return conv.Geometry.of(
            (batch, h, w, c),
            (*self.kernel_size, c // self.groups, self.filters),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            groups=self.groups,
        )

    def output_shape_for(self, input_shape: Shape) -> Shape:
        return self.geometry(1, input_shape).output_shape[1:]

    def call(self, x: Tensor, training: bool) -> Tensor:
        if self.fuse and self.activation is ops.relu:
            return self.product(x, relu=True)
        return self.activation(self.product(x))

    def product(self, x: Tensor, *, relu: bool = False, max_pool: bool = False) -> Tensor:
        """The convolution with bias and the requested epilogue, without the activation."""
        expect_shape(self, "weight", self.weight, (*self.kernel_size, x.shape[-1] // self.groups, self.filters))
        return ops.conv2d(
            x,
            self.weight,
            self.bias,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            groups=self.groups,
            algorithm=self.algorithm,
            relu=relu,
            max_pool=max_pool,
        )

    def operations(self, batch: int) -> list[counts.Operation]:
        geometry = self.geometry(batch)
        n, oh, ow, k = geometry.output_shape
        return [counts.conv2d(geometry, self.use_bias), *Activation(self.activation).costs(n * oh * ow * k)]
