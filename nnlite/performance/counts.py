"""Exact counts: parameters, multiply-accumulates (MACs) and bytes. Nothing is run.

The minimum traffic, unfused, assumes separate operations as the user wrote them. Each reads its inputs once and writes
its outputs once, forward and backward; dropout has a float32 mask. RMSprop makes five passes over the parameters: it
reads parameter, gradient and mean square, and writes parameter and mean square. Fused kernels transfer less.

1 MAC = 2 FLOPs. Kernel positions on padding count; the addition of a bias does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from nnlite.conv.geometry import Geometry

ITEMSIZE = 4  # bytes of a float32
OPTIMIZER_PASSES = 5


@dataclass(frozen=True)
class Operation:
    """The cost of one operation for a batch: MACs of one product; elements read and written by each pass."""

    kind: str
    macs: int
    forward: int
    grad_input: int
    grad_weight: int = 0


class Layer(NamedTuple):
    """A layer, for counting."""

    name: str
    parameters: int
    trained: int  # number of trained parameters
    operations: Sequence[Operation]


@dataclass(frozen=True)
class Pass:
    """One pass of one layer for a batch."""

    layer: str
    part: str  # "forward", "grad_input", "grad_weight" or "optimizer"
    macs: int
    bytes: int

    @property
    def flops(self) -> int:
        return 2 * self.macs


@dataclass(frozen=True)
class Cost:
    """The counts of a network for one training step of a batch."""

    name: str
    batch_size: int
    parameters: int
    passes: tuple[Pass, ...]
    trained: int = 0  # number of trained parameters

    @property
    def forward_macs_per_image(self) -> int:
        return sum(p.macs for p in self.passes if p.part == "forward") // self.batch_size

    @property
    def training_macs_per_image(self) -> int:
        """MACs of the forward pass, of dW of trained layers, and of dX after the first trained layer."""
        return sum(p.macs for p in self.passes) // self.batch_size

    @property
    def minimum_traffic(self) -> int:
        """Bytes of the minimum traffic, unfused, per step."""
        return sum(p.bytes for p in self.passes)


def dense(batch: int, inputs: int, outputs: int, use_bias: bool = True) -> Operation:
    """x (batch, inputs) @ weight (inputs, outputs)"""
    weights, bias = inputs * outputs, outputs * use_bias
    moved = batch * inputs + weights + batch * outputs
    return Operation("dense", batch * weights, moved + bias, moved, moved + bias)


def conv2d(geometry: Geometry, use_bias: bool = True) -> Operation:
    """A convolution with bias over a whole batch."""
    moved = prod(geometry.input_shape) + prod(geometry.weight_shape) + prod(geometry.output_shape)
    bias = geometry.weight_shape[3] * use_bias
    return Operation("conv2d", geometry.macs, moved + bias, moved, moved + bias)


def elementwise(kind: str, size: int) -> Operation:
    """An activation: forward reads x and writes y; backward reads dy and y and writes dx."""
    return Operation(kind, 0, 2 * size, 3 * size)


def dropout(size: int) -> Operation:
    """Forward and backward each read an array and a float32 mask, and write an array."""
    return Operation("dropout", 0, 3 * size, 3 * size)


def max_pool2d(inputs: int, outputs: int) -> Operation:
    """Forward reads x and writes y, backward reads dy and writes dx."""
    return Operation("max_pool2d", 0, inputs + outputs, inputs + outputs)


def count(name: str, batch_size: int, layers: Iterable[Layer]) -> Cost:
    """The cost of a training step over `layers`, in order.

    There is no dX before the first trained layer: the gradients of data and of frozen layers are not computed.
    """
    passes: list[Pass] = []
    total = trained = 0
    flows = False  # whether the layer's input needs a gradient
    for layer in layers:
        operations = layer.operations
        products = [op for op in operations if op.macs]
        passes.append(_pass(layer.name, "forward", operations, [op.forward for op in operations]))
        back = [op for op in operations if flows or (layer.trained and not op.macs)]
        passes.append(_pass(layer.name, "grad_input", back, [op.grad_input for op in back]))
        if layer.trained:
            passes.append(_pass(layer.name, "grad_weight", products, [op.grad_weight for op in products]))
            passes.append(Pass(layer.name, "optimizer", 0, ITEMSIZE * OPTIMIZER_PASSES * layer.trained))
            flows = True
        total += layer.parameters
        trained += layer.trained
    return Cost(name, batch_size, total, tuple(p for p in passes if p.bytes), trained)


def _pass(layer: str, part: str, operations: Sequence[Operation], moved: Sequence[int]) -> Pass:
    return Pass(layer, part, sum(op.macs for op in operations), ITEMSIZE * sum(moved))


def human_bytes(value: float) -> str:
    """1234567 -> "1.2 MB" (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}" if unit != "B" else f"{int(value)} B"
        value /= 1000
    return f"{value:.3g} GB"
