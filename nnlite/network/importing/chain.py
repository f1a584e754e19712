"""A chain of layers. Each one's size is checked before memory is allocated for it."""

from __future__ import annotations

from math import prod

from nnlite.network.layers import Conv2D, Dense, Input, Layer, MaxPooling2D
from nnlite.network.layers.base import Shape, expect_rank
from nnlite.network.sequential import Sequential

#: limits for a file: parameters (1 GiB of float32), elements in one layer's result per sample, layers
MOST_PARAMETERS = 2**28
MOST_RESULTS = 2**24
MOST_LAYERS = 1000


class Chain:
    """Layers that are not built yet, and the shape after each.

    `capacity` is the most parameters that the file can hold; None if they are not in the file.
    """

    def __init__(self, input_shape: Shape, capacity: int | None = None):
        self.input_shape = self.shape = tuple(input_shape)
        self.layers: list[Layer] = []
        self.most = MOST_PARAMETERS if capacity is None else min(MOST_PARAMETERS, capacity)
        self.parameters = 0
        check_size("numbers in the input", prod(input_shape), MOST_RESULTS)

    def add(self, layer: Layer) -> None:
        """Append a layer. Raises ValueError if it does not fit the shape before it or is too large."""
        if isinstance(layer, (Conv2D, MaxPooling2D)):
            expect_rank(layer, self.shape, 3, "(n, h, w, c)")
        self.parameters += _parameters(layer, self.shape)
        check_size("parameters", self.parameters, self.most)
        self.shape = layer.output_shape_for(self.shape)
        check_size(f"numbers in the result of {layer.label}", prod(self.shape), MOST_RESULTS)
        check_size("layers", len(self.layers) + 1, MOST_LAYERS)
        self.layers.append(layer)

    def build(self) -> Sequential:
        """The model, with newly initialised weights."""
        if not self.layers:
            raise ValueError("expected at least one layer. Received: none")
        return Sequential([Input(self.input_shape), *self.layers])


def _parameters(layer: Layer, shape: Shape) -> int:
    if isinstance(layer, Conv2D):
        return (prod(layer.kernel_size) * (shape[-1] // layer.groups) + 1) * layer.filters
    if isinstance(layer, Dense):
        return (shape[-1] + 1) * layer.units if shape else 0
    return 0


def check_size(what: str, count: int, most: int) -> None:
    """Raises ValueError if a file declares more than `most`."""
    if count > most:
        raise ValueError(f"expected at most {most:,} {what}. Received: {count:,}")
