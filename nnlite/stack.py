"""A stack of layers: what is built and computed of them together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from nnlite import conv, cost, scopes
from nnlite.autograd import Tensor
from nnlite.errors import boolean, numbers, positive_int, several
from nnlite.fusion import Run, is_plain, runs
from nnlite.layers import Conv2D, Dense, Input, Layer
from nnlite.layers.base import Shape


class Stack:
    """Layers one after the other: shapes, parameters and the result. `nn.Sequential` is one that trains."""

    def __init__(self, layers: Iterable[Layer] = (), name: str = "sequential"):
        self.name = name
        self.layers: list[Layer] = []
        self._names: set[str] = set()
        self.input_shape: Shape | None = None
        self.fuse = True
        for layer in several("layers", layers, "layers"):
            self.add(layer)

    # Building ---------------------------------------------------------------------------------------------------

    def add(self, layer: Layer) -> None:
        """Append a layer, named after its class if it has no name; an Input gives the model its input shape."""
        if not isinstance(layer, Layer):
            raise TypeError(f"layer: expected a layer. Received: {layer!r}")
        if isinstance(layer, Input):
            if self.layers or self.input_shape is not None:
                raise ValueError("layer: expected Input as the first layer only")
            self.input_shape = layer.shape
            return
        layer.name = self._unique_name(layer)
        if self.input_shape is not None:
            layer.build(self.output_shape)
        self.layers.append(layer)
        self._names.add(layer.name)
        if isinstance(layer, (Conv2D, Dense)):
            layer.fuse = self.fuse

    def build(self, input_shape: Shape) -> None:
        """Make all parameters for samples of `input_shape`, without the batch; on an error, none."""
        if self.input_shape is not None and self.input_shape != tuple(input_shape):
            raise ValueError(
                f"input_shape: expected {self.input_shape}, for which it is built. Received: {input_shape}"
            )
        if self.built:
            return
        shape: Shape = tuple(input_shape)
        unbuilt = [layer for layer in self.layers if not layer.built]
        try:
            for layer in self.layers:
                layer.build(shape)
                shape = layer.output_shape or ()
        except BaseException:
            for layer in unbuilt:
                layer.unbuild()
            raise
        self.input_shape = tuple(input_shape)

    @property
    def built(self) -> bool:
        return self.input_shape is not None

    @property
    def output_shape(self) -> Shape:
        """The shape of the result, without the batch."""
        self._require_built()
        shape = self.layers[-1].output_shape if self.layers else self.input_shape
        assert shape is not None
        return shape

    def parameters(self) -> list[Tensor]:
        """All trainable parameters, layer by layer."""
        return [parameter for layer in self.layers for parameter in layer.parameters()]

    def count_params(self) -> int:
        """How many numbers the parameters hold."""
        self._require_built()
        return sum(layer.count_params() for layer in self.layers)

    def cost(self, batch_size: int = 1) -> cost.Cost:
        """Exact counts of a training step of `batch_size` samples: parameters, MACs, unfused least bytes."""
        self._require_built()
        entries = ((layer.name or "", layer.count_params(), layer.operations(batch_size)) for layer in self.layers)
        return cost.count(self.name, batch_size, entries)

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all parameters, in Keras's order."""
        self._require_built()
        return [parameter.data.copy() for parameter in self.parameters()]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Write `weights`, in the order and shapes of get_weights, into the parameters; all or, on an error, none."""
        self._require_built()
        parameters = self.parameters()
        arrays = [numbers(f"weights[{i}]", weight) for i, weight in enumerate(several("weights", weights, "arrays"))]
        if len(arrays) != len(parameters):
            raise ValueError(f"weights: expected {len(parameters)} arrays. Received: {len(arrays)}")
        for i, (parameter, array) in enumerate(zip(parameters, arrays, strict=True)):
            if array.shape != parameter.shape:
                raise ValueError(f"weights[{i}]: expected shape {parameter.shape}. Received: shape {array.shape}")
        for parameter, array in zip(parameters, arrays, strict=True):
            parameter.data[...] = array

    # Calling ----------------------------------------------------------------------------------------------------

    def __call__(self, x: Any, training: bool = False) -> Tensor:
        """The result for x (n, *input_shape), as a Tensor through which gradients flow."""
        return self._forward(x, boolean("training", training))

    def _forward(self, x: Any, training: bool, logits: bool = False) -> Tensor:
        """The layers one after the other, neighbours at once where a kernel can; `logits` leaves out a last softmax."""
        x = x if isinstance(x, Tensor) else Tensor(numbers("x", x).astype(np.float32, copy=False))
        self._check_input(x)

        def flows_back() -> bool:
            return x.requires_grad  # of what has been reached

        for run in self._runs(len(x), x.dtype, training, flows_back):
            layer = run.layers[-1]
            if run.compute is not None:
                with scopes.scope(run.name, "forward"):
                    x = run.compute(x)
            elif logits and layer is self.layers[-1] and is_plain(layer, Dense):
                with scopes.scope(layer.name, "forward"):
                    x = layer.product(x)
            else:
                x = layer(x, training)
        return x

    def _runs(
        self, batch: int, dtype: Any, training: bool, needs_gradient: Callable[[], bool] = lambda: False
    ) -> Iterable[Run]:
        """The layers as they are computed: some at once, or, with `fuse=False`, each by itself."""
        if not self.fuse:
            return (Run((layer,)) for layer in self.layers)
        return runs(self.layers, batch, dtype, training=training, needs_gradient=needs_gradient)

    def _check_input(self, x: Tensor) -> None:
        if not self.layers:
            raise ValueError("model: expected at least one layer. Received: none")
        if self.input_shape is None:
            self.build(x.shape[1:])
        elif x.shape[1:] != self.input_shape:
            sizes = "".join(f", {size}" for size in self.input_shape)
            raise ValueError(f"x: expected shape (n{sizes}). Received: shape {x.shape}")

    # How it is computed --------------------------------------------------------------------------------------------

    def algorithms(self, batch_size: int = 32) -> dict[str, conv.Choice]:
        """By the name of each Conv2D: the algorithm that computes `batch_size` float32 samples, and why that one."""
        self._require_built()
        dtype = np.dtype(np.float32)
        return {
            layer.name or "": conv.why(layer.geometry(batch_size), dtype, layer.algorithm, tuned=not run.is_stem)
            for run in self._runs(positive_int("batch_size", batch_size), dtype, training=True)
            for layer in run.layers
            if isinstance(layer, Conv2D)
        }

    def fused(self, batch_size: int = 32) -> list[Run]:
        """The layers that one kernel computes together in a training step of `batch_size` samples."""
        self._require_built()
        found = self._runs(positive_int("batch_size", batch_size), np.dtype(np.float32), training=True)
        return [run for run in found if run.compute is not None]

    # Checks -----------------------------------------------------------------------------------------------------

    def _require_built(self) -> None:
        if not self.built:
            raise ValueError(f"model {self.name!r}: expected an input shape. Give it an Input first, or call it once")

    def _unique_name(self, layer: Layer) -> str:
        """The layer's own name, or conv2d, conv2d_1, ...; names are unique within a model."""
        if layer.name is not None:
            if layer.name in self._names:
                raise ValueError(f"name: expected one that no other layer has. Received: {layer.name!r} twice")
            return layer.name
        base = layer.default_name()
        candidates = (base if i == 0 else f"{base}_{i}" for i in range(len(self._names) + 1))
        return next(name for name in candidates if name not in self._names)
