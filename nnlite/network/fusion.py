"""Layer fusion: which adjacent layers one kernel computes, and how it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard, TypeVar

import numpy as np

from nnlite import conv, ops
from nnlite.autograd import Tensor
from nnlite.conv import choice
from nnlite.network.layers import Conv2D, Dense, Dropout, Layer, MaxPooling2D
from nnlite.network.layers.base import changes
from nnlite.ops.dense import drops_in_kernel
from nnlite.runtime.random import Seed

LayerType = TypeVar("LayerType", bound=Layer)


@dataclass(frozen=True)
class Run:
    """Adjacent layers that are computed together, or a single layer."""

    layers: tuple[Layer, ...]
    #: computes the last layer's result from the first layer's input; None for a single layer
    compute: Callable[[Tensor], Tensor] | None = None

    def __reduce__(self) -> tuple:
        raise TypeError("run of layers: cannot be copied or pickled. Copy the model and call its fused()")

    @cached_property
    def name(self) -> str:
        """The layers' names, joined by "+"."""
        return "+".join(layer.name or "" for layer in self.layers)

    @property
    def is_pair(self) -> bool:
        """Whether it is a network's first two convolutions and what follows them."""
        return len(self.layers) > 1 and isinstance(self.layers[1], Conv2D)


def runs(
    layers: Sequence[Layer], batch: int, dtype: Any, *, training: bool, needs_gradient: bool = False
) -> Iterator[Run]:
    """The layers of a network in runs, as they are computed for `batch` samples; the longest fused runs are preferred.

    `needs_gradient`: whether the network's input does.
    """
    rest = list(layers)
    while rest:
        pair = None if needs_gradient else _pair(rest, batch, dtype, training)
        run = pair or _pooled(rest, batch, dtype) or (_dropped(rest, dtype) if training else None) or Run((rest[0],))
        yield run
        needs_gradient = needs_gradient or any(p.requires_grad for layer in run.layers for p in layer.parameters())
        del rest[: len(run.layers)]


class Plan:
    """The runs of a network for batches of some size, kept until something that they follow from changes."""

    def __init__(self, layers: Sequence[Layer], batch: int, dtype: Any, found: Iterable[Run]):
        self._parameters = [parameter for layer in layers for parameter in layer.parameters()]
        self._dropouts = [layer for layer in layers if isinstance(layer, Dropout)]
        self._state = self._state_now()
        self.runs = tuple(found)
        self._layers, self._batch, self._dtype = layers, batch, dtype

    def is_current(self) -> bool:
        """Whether the same runs would be found now."""
        return self._state == self._state_now()

    def arrays(self) -> list[np.ndarray]:
        """The parameters' arrays, which are replaced where somebody sets their `data`."""
        return [parameter._data for parameter in self._parameters]

    def is_repeatable(self) -> bool:
        """Whether nnlite's kernels alone compute it, so that a replay does the same."""
        from nnlite.compiler.compilation import ENABLED

        parts: list[Any] = [conv.get(name) for name in choice.ESTIMATED]
        for layer in self._layers:
            parts += layer, layer.call, getattr(layer, "product", layer), getattr(layer, "activation", layer)
            if isinstance(layer, Conv2D):
                algorithm = conv.select(layer.geometry(self._batch), self._dtype, layer.algorithm)
                if algorithm.name.partition("(")[0] not in choice.ESTIMATED:
                    return False
        package = __name__.partition(".")[0]
        return (
            ENABLED
            and self._dtype == np.float32
            and all(part.__module__.partition(".")[0] == package for part in parts)
        )

    def positions(self) -> list[int]:
        """The positions of the random streams."""
        return [dropout._calls for dropout in self._dropouts]

    def set_positions(self, positions: list[int]) -> None:
        """Set the positions of the random streams."""
        for dropout, calls in zip(self._dropouts, positions, strict=True):
            dropout._calls = calls

    def _state_now(self) -> tuple:
        return changes(), choice.state(), [parameter.requires_grad for parameter in self._parameters]


def is_plain(layer: Layer | None, kind: type[LayerType]) -> TypeGuard[LayerType]:
    """Whether a layer computes what `kind` does. A subclass with its own `call` must not use the fused kernel."""
    if type(layer) is kind:
        return True
    return isinstance(layer, kind) and all(
        getattr(type(layer), method, None) is getattr(kind, method, None) for method in ("call", "product")
    )


def _epilogue(layer: Conv2D, pooling: Layer | None = None) -> conv.Epilogue | None:
    """The epilogue of a convolution: bias, ReLU and pooling; None if it cannot be fused."""
    if not layer.fuse or layer.activation not in (ops.relu, ops.linear):
        return None
    pools = is_plain(pooling, MaxPooling2D) and pooling.fits_epilogue
    return conv.Epilogue(layer.use_bias, layer.activation is ops.relu, pools)


def _pooled(layers: Sequence[Layer], batch: int, dtype: Any) -> Run | None:
    """A convolution fused with the pooling after it; None if that is not possible."""
    layer, following = layers[0], layers[1] if len(layers) > 1 else None
    if following is None or not is_plain(layer, Conv2D):
        return None
    epilogue = _epilogue(layer, following)
    if epilogue is None or not epilogue.pool:
        return None
    geometry = layer.geometry(batch)
    if not conv.select(geometry, dtype, layer.algorithm).fuses(geometry, epilogue):
        return None
    return Run((layer, following), lambda x: layer.product(x, relu=epilogue.relu, max_pool=True))


def _dropped(layers: Sequence[Layer], dtype: Any) -> Run | None:
    """A dense layer with ReLU fused with the dropout after it; None if that is not possible."""
    if len(layers) < 2:
        return None
    layer, dropout = layers[:2]
    if not is_plain(layer, Dense) or not is_plain(dropout, Dropout) or not dropout.rate:
        return None
    if not layer.fuse or layer.activation is not ops.relu or not drops_in_kernel(layer.units, dtype):
        return None
    return Run(
        (layer, dropout),
        lambda x: layer.product(x, relu=True, dropout=dropout.rate, seed=dropout.next_seed()),
    )


def _pair(layers: Sequence[Layer], batch: int, dtype: Any, training: bool) -> Run | None:
    """Two convolutions, and the pooling and the dropout that follow them if they do."""
    if len(layers) < 2:
        return None
    (first, second), rest = layers[:2], list(layers[2:4])
    if not is_plain(first, Conv2D) or not is_plain(second, Conv2D):
        return None
    before, after = _epilogue(first), _epilogue(second, rest[0] if rest else None)
    if before is None or after is None:
        return None
    if len({p.requires_grad for layer in (first, second) for p in layer.parameters()}) > 1:
        return None  # its backward computes all gradients or none
    following = [rest.pop(0)] if after.pool else []
    dropout = rest[0] if training and rest and is_plain(rest[0], Dropout) else None
    rate = dropout.rate if dropout else 0.0
    pair = conv.FusedPair(first.geometry(batch), before.relu, second.geometry(batch), after, rate)
    # by estimates, because `autotune` measures passes by themselves, of which this saves some
    before_it = conv.select(pair.first, dtype, first.algorithm, tuned=False)
    algorithm = conv.select(pair.second, dtype, second.algorithm, tuned=False)
    if not (pair.is_worthwhile and algorithm.fuses_pair(pair, before_it)):
        return None

    def compute(x: Tensor) -> Tensor:
        if x.requires_grad:  # by a layer before it that does not list its parameters
            for layer in fused:
                x = layer(x, training)
            return x
        seed: Seed = dropout.next_seed() if dropout else 0
        weights = first.weight, first.bias, second.weight, second.bias
        return ops.conv2d_pair(x, *weights, pair=pair, algorithm=algorithm, seed=seed)

    fused = (first, second, *following, *([dropout] if dropout else []))
    return Run(fused, compute)
