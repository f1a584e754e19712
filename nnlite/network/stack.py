"""A stack of layers: building, weights and the forward pass."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Sequence
from operator import is_
from typing import Any, ClassVar

import numpy as np

from nnlite import conv
from nnlite.autograd import Tensor, is_recording
from nnlite.network import fusion
from nnlite.network.fusion import Run
from nnlite.network.layers import Conv2D, Dense, Input, Layer
from nnlite.network.layers.base import Shape, as_input, default_name
from nnlite.performance import counts
from nnlite.runtime import replay, scopes
from nnlite.runtime.attributes import KnownAttributes
from nnlite.runtime.errors import boolean, numbers, positive_int, several

#: the most plans that a model keeps, and the most computations that it replays
PLANS, MOST_REPEATED = 64, 8


class Stack(KnownAttributes):
    """A chain of layers: shapes, parameters and the result. `nn.Sequential` adds training."""

    #: copies are deep: layers, optimizer and its state
    __copy__ = copy.deepcopy
    _checks: ClassVar[dict[str, Callable[[str, Any], Any]]] = {"fuse": boolean}

    def __init__(self, layers: Iterable[Layer] = (), name: str = "sequential"):
        self.name = name
        self._layers: list[Layer] = []
        self._names: set[str] = set()
        self._next_numbers: dict[str, int] = {}  # of names such as conv2d_1
        self.input_shape: Shape | None = None
        self.fuse = True
        self._plans: dict[tuple, fusion.Plan] = {}
        self._repeated: dict[tuple, tuple[fusion.Plan, list[np.ndarray], replay.Repeated | None]] = {}
        for layer in several("layers", layers, "layers"):
            self.add(layer)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in order, without Input; `add` appends one."""
        return tuple(self._layers)

    # Building ---------------------------------------------------------------------------------------------------

    def add(self, layer: Layer) -> None:
        """Append a layer; without a name it is named after its class. An Input sets the model's input shape."""
        if not isinstance(layer, Layer):
            raise TypeError(f"layer: expected a layer. Received: {layer!r}")
        if isinstance(layer, Input):
            if self._layers or self.input_shape is not None:
                raise ValueError(
                    "layer: expected Input only as the first layer. Received: a second Input, or one after a layer"
                )
            self.input_shape = layer.shape
            return
        layer.name = self._unique_name(layer)
        if self.input_shape is not None:
            layer.build(self.output_shape)
        self._layers.append(layer)
        self._plans.clear()
        self._names.add(layer.name)
        if isinstance(layer, (Conv2D, Dense)):
            layer.fuse = self.fuse

    def build(self, input_shape: Shape) -> None:
        """Make all parameters for samples of `input_shape` (without the batch); none if there is an error."""
        if self.input_shape is not None and self.input_shape != tuple(input_shape):
            raise ValueError(f"input_shape: expected {self.input_shape}, as when it was built. Received: {input_shape}")
        if self.built:
            return
        shape: Shape = tuple(input_shape)
        unbuilt = [layer for layer in self._layers if not layer.built]
        try:
            for layer in self._layers:
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
        shape = self._layers[-1].output_shape if self._layers else self.input_shape
        assert shape is not None
        return shape

    @property
    def trainable(self) -> bool:
        """Whether any layer is trained. Setting it sets every layer."""
        return any(layer.trainable for layer in self._layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self._layers:
            layer.trainable = boolean("trainable", value)

    def parameters(self) -> list[Tensor]:
        """All parameters, trained or not, layer by layer."""
        return [parameter for layer in self._layers for parameter in layer.parameters()]

    def count_params(self) -> int:
        """The number of elements of all parameters."""
        self._require_built()
        return sum(layer.count_params() for layer in self._layers)

    def cost(self, batch_size: int = 1) -> counts.Cost:
        """Exact counts of a training step of `batch_size` samples: parameters, MACs, minimum traffic (unfused)."""
        self._require_built()
        batch_size = positive_int("batch_size", batch_size)
        layers = [
            counts.Layer(layer.name or "", layer.count_params(), layer.trained_params(), layer.operations(batch_size))
            for layer in self._layers
        ]
        return counts.count(self.name, batch_size, layers)

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all parameters, in Keras's order."""
        self._require_built()
        return [parameter.data.copy() for parameter in self.parameters()]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Copy `weights`, in the order and shapes of get_weights, into the parameters.

        Raises ValueError, and changes nothing, if they do not fit.
        """
        self._require_built()
        parameters = self.parameters()
        arrays = [  # copies, because they may be views of the parameters
            numbers(f"weights[{i}]", weight).copy() for i, weight in enumerate(several("weights", weights, "arrays"))
        ]
        if len(arrays) != len(parameters):
            raise ValueError(f"weights: expected {len(parameters)} arrays. Received: {len(arrays)}")
        for i, (parameter, array) in enumerate(zip(parameters, arrays, strict=True)):
            if array.shape != parameter.shape:
                raise ValueError(f"weights[{i}]: expected shape {parameter.shape}. Received: shape {array.shape}")
            if not parameter.data.flags.writeable:
                raise ValueError(f"weights[{i}]: expected a writable parameter. Received: a read-only array")
        for parameter, array in zip(parameters, arrays, strict=True):
            parameter.data[...] = array

    # Calling ----------------------------------------------------------------------------------------------------

    def __call__(self, x: Any, training: bool = False) -> Tensor:
        """The result for x (n, *input_shape), as a Tensor (n, *output_shape) with gradients."""
        training, x = boolean("training", training), as_input(x)
        self._check_input(x)
        if training or is_recording():
            return self._forward(x, training)
        (result,) = self._again("call", lambda x: [self._forward(Tensor(x), False)._data], x._data, training=False)
        return Tensor(np.array(result))

    def _forward(self, x: Any, training: bool, logits: bool = False) -> Tensor:
        """The forward pass, with fused layers where possible. `logits` omits the last softmax, of a plain Dense."""
        x = as_input(x)
        self._check_input(x)
        runs = self._runs(len(x._data), x._data.dtype, training, x.requires_grad)
        for run in runs[:-1] if logits else runs:
            if run.compute is None:
                x = run.layers[0](x, training)
            else:
                with scopes.scope(run.name, "forward"):
                    x = run.compute(x)
        if logits:
            last = self._layers[-1]
            assert isinstance(last, Dense)
            with scopes.scope(last.name, "forward"):
                x = last.product(x)
        return x

    def _runs(self, batch: int, dtype: Any, training: bool, needs_gradient: bool = False) -> tuple[Run, ...]:
        """The layers in fused runs, or one by one with `fuse=False`."""
        return self._plan(batch, dtype, training, needs_gradient).runs

    def _plan(self, batch: int, dtype: Any, training: bool, needs_gradient: bool = False) -> fusion.Plan:
        problem = batch, dtype, training, needs_gradient, self.fuse
        plan = self._plans.get(problem)
        if plan is None or not plan.is_current():
            found = fusion.runs(self._layers, batch, dtype, training=training, needs_gradient=needs_gradient)
            if len(self._plans) >= PLANS:
                self._plans.clear()
            alone = (Run((layer,)) for layer in self._layers)
            plan = fusion.Plan(tuple(self._layers), batch, dtype, found if self.fuse else alone)
            self._plans[problem] = plan
        return plan

    @property
    def is_replayed(self) -> bool:
        """Whether a step or prediction that was computed lately may be replayed (nnlite.runtime.replay)."""
        return any(one is not None and one.is_replayed for *_, one in list(self._repeated.values()))

    def _again(
        self,
        name: object,
        compute: Callable[..., replay.Results],
        *inputs: np.ndarray,
        training: bool,
        is_repeatable: Callable[[], bool] = lambda: True,
    ) -> replay.Results:
        """`compute(*inputs)`, which `name` tells; replayed where it was called before and nothing else has changed.

        The next call may overwrite the results. `is_repeatable` tells whether kernels compute what the layers do not.
        """
        plan = self._plan(len(inputs[0]), inputs[0].dtype, training) if self._layers and self.built else None
        if plan is None or scopes.current_tracer() is not None:
            return compute(*inputs)
        key = name, training, threading.get_ident(), *((array.shape, array.dtype) for array in inputs)
        of_plan, of_arrays, repeated = self._repeated.get(key, (None, [], None))
        arrays = plan.arrays()
        if of_plan is not plan or not all(map(is_, arrays, of_arrays)):
            self._repeated.pop(key, None)
            if len(self._repeated) >= MOST_REPEATED:
                oldest, *_ = self._repeated
                self._repeated.pop(oldest, None)  # another thread may do this, too
            is_ours = plan.is_repeatable() and is_repeatable()
            repeated = replay.Repeated(plan.positions, plan.set_positions) if is_ours else None
            self._repeated[key] = plan, arrays, repeated
        return compute(*inputs) if repeated is None else repeated(compute, *inputs)

    def _check_input(self, x: Tensor) -> None:
        if not self._layers:
            raise ValueError("model: expected at least one layer. Received: none")
        if self.input_shape is None:
            self.build(x.shape[1:])
        elif x._data.shape[1:] != self.input_shape:
            sizes = "".join(f", {size}" for size in self.input_shape)
            raise ValueError(f"x: expected shape (n{sizes}). Received: shape {x.shape}")

    # Algorithms and fusion -------------------------------------------------------------------------------------------

    def algorithms(self, batch_size: int = 32) -> dict[str, conv.Choice]:
        """By the name of each Conv2D: its algorithm for `batch_size` float32 samples, and why it was chosen."""
        self._require_built()
        dtype = np.dtype(np.float32)
        return {
            layer.name or "": conv.why(layer.geometry(batch_size), dtype, layer.algorithm, tuned=not run.is_pair)
            for run in self._runs(positive_int("batch_size", batch_size), dtype, training=True)
            for layer in run.layers
            if isinstance(layer, Conv2D)
        }

    def fused(self, batch_size: int = 32) -> list[Run]:
        """The runs of layers that are fused in a training step of `batch_size` samples."""
        self._require_built()
        found = self._runs(positive_int("batch_size", batch_size), np.dtype(np.float32), training=True)
        return [run for run in found if run.compute is not None]

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: no plans, which are functions."""
        return {**vars(self), "_plans": {}, "_repeated": {}}

    def _fixed(self) -> tuple[str, ...]:
        return ("input_shape",) if self.__dict__.get("input_shape") else ()

    def __repr__(self) -> str:
        first = [] if self.input_shape is None else [Input(self.input_shape)]
        lines = "".join(f"    {layer!r},\n" for layer in [*first, *self._layers])
        return f"{type(self).__name__}([\n{lines}], name={self.name!r})"

    # Checks -----------------------------------------------------------------------------------------------------

    def _require_built(self) -> None:
        if not self.built:
            raise ValueError(
                f"model {self.name!r}: expected an input shape. Add an Input as its first layer, or call it once"
            )

    def _unique_name(self, layer: Layer) -> str:
        """The layer's own name, or conv2d, conv2d_1, ...; names are unique within a model."""
        if layer.name is not None:
            if layer.name in self._names:
                raise ValueError(f"name: expected a unique layer name. Received: {layer.name!r} twice")
            name = layer.name
        else:
            base = default_name(type(layer).__name__)
            number = self._next_numbers.get(base, 0)
            while (name := f"{base}_{number}" if number else base) in self._names:
                number += 1
            self._next_numbers[base] = number + 1
        self._names.add(name)
        return name
