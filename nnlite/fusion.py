"""Neighbouring layers that one kernel computes: which they are, and how they are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nnlite import conv, ops
from nnlite.autograd import Tensor
from nnlite.layers import Conv2D, Dropout, Layer, MaxPooling2D


class Fused(NamedTuple):
    """Some layers as one."""

    layers: tuple[Layer, ...]
    #: the result of the last of them, of the input of the first
    compute: Callable[[Tensor], Tensor]

    @property
    def name(self) -> str:
        """The layers' names, joined by "+"."""
        return "+".join(layer.name or "" for layer in self.layers)


def first_layers(
    layers: Sequence[Layer], batch: int, dtype: Any, *, training: bool, needs_gradient: bool
) -> Fused | None:
    """The longest run of layers from the first on that one kernel computes, or None if the first stands alone.

    `needs_gradient`: whether a gradient must flow on to what they get, which the network's input does not need.
    """
    if not isinstance(layers[0], Conv2D):
        return None
    return (None if needs_gradient else _stem(layers, batch, dtype, training)) or _pooled(layers, batch, dtype)


def _epilogue(layer: Conv2D, pooling: Layer | None = None) -> conv.Epilogue | None:
    """What follows the convolution, as far as a kernel can know it."""
    if not layer.fuse or layer.activation not in (ops.relu, ops.linear):
        return None
    pools = isinstance(pooling, MaxPooling2D) and pooling.fits_epilogue
    return conv.Epilogue(layer.use_bias, layer.activation is ops.relu, pools)


def _pooled(layers: Sequence[Layer], batch: int, dtype: Any) -> Fused | None:
    """A convolution and the pooling that follows it."""
    layer, epilogue = layers[0], _epilogue(layers[0], layers[1] if len(layers) > 1 else None)
    if epilogue is None or not epilogue.pool:
        return None
    geometry = layer.geometry(batch)
    if not conv.select(geometry, dtype, layer.algorithm).fuses(geometry, epilogue):
        return None
    return Fused((layer, layers[1]), lambda x: layer.product(x, relu=epilogue.relu, max_pool=True))


def _stem(layers: Sequence[Layer], batch: int, dtype: Any, training: bool) -> Fused | None:
    """Two convolutions, and the pooling and the dropout that follow them if they do."""
    if len(layers) < 2 or not isinstance(layers[1], Conv2D):
        return None
    first, second = layers[0], layers[1]
    before, after = _epilogue(first), _epilogue(second, layers[2] if len(layers) > 2 else None)
    if before is None or after is None:
        return None
    count = 3 if after.pool else 2
    dropout = layers[count] if training and len(layers) > count and isinstance(layers[count], Dropout) else None
    rate = dropout.rate if dropout else 0.0
    stem = conv.Stem(first.geometry(batch), before.relu, second.geometry(batch), after, rate)
    algorithm = conv.select(stem.second, dtype, second.algorithm)
    if not (stem.is_worthwhile and algorithm.fuses_stem(stem, conv.select(stem.first, dtype, first.algorithm))):
        return None

    def compute(x: Tensor) -> Tensor:
        seed = dropout.next_seed() if dropout else 0
        weights = first.weight, first.bias, second.weight, second.bias
        return ops.conv2d_stem(x, *weights, stem=stem, algorithm=algorithm, seed=seed)

    return Fused(tuple(layers[: count + (dropout is not None)]), compute)
