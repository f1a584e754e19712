"""Convert ONNX's operators (channels first) to nnlite's layers (channels last)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from nnlite import ops
from nnlite.network.importing.chain import MOST_RESULTS, Chain, check_size
from nnlite.network.importing.problems import Problems
from nnlite.network.layers import Activation, Conv2D, Dense, Dropout, Flatten, Layer, MaxPooling2D

Attributes = dict[str, Any]
#: an operator's operands: None for the chain's tensor, and for a missing one
Values = list[np.ndarray | None]

#: operators that only move elements
_MOVES = {"Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Cast"}
#: those of a constant scale and shift: the constant -> (scale, shift)
_AFFINE: dict[str, Callable[[np.ndarray], tuple[Any, Any]]] = {
    "Add": lambda value: (1, value),
    "Sub": lambda value: (1, -value),
    "Mul": lambda value: (value, 0),
    "Div": lambda value: (1 / value, 0),
}
#: those that are evaluated if their operands are constant: of any size, and small ones, as in computations of shapes
_EVALUATED = _MOVES | {"Constant"}
_EVALUATED_IF_SMALL = {"Gather", "Concat", "Slice", *_AFFINE}
_MOST_OF_SHAPES = 1000  # elements
#: of an image whose channel axis no operator determines
_MOST_CHANNELS = 4
#: the batch size if the file does not set it
_BATCH = 2


class Reader:
    """Reads the operators in order; each must read the result of the one before.

    `positions` maps the current tensor's layout in ONNX to nnlite's: for each element of a sample in ONNX, its position
    in nnlite's sample. An operator that only moves elements changes `positions` and is no layer.
    """

    def __init__(self, proto: Any, problems: Problems):
        from onnx import numpy_helper

        self.opsets, self.graph, self.problems = proto.opset_import, proto.graph, problems
        self.constants = {i.name: numpy_helper.to_array(i) for i in self.graph.initializer}
        self.shapes: dict[str, tuple[int, ...]] = {}
        #: weight and bias of each Conv2D and Dense
        self.weights: dict[Layer, list[np.ndarray]] = {}
        #: the name in ONNX of each layer's result, and its positions
        self.results: dict[Layer, tuple[str, np.ndarray]] = {}

    def read(self) -> None:
        """Read the chain. Unsupported operators are added to the problems."""
        from onnx.helper import tensor_dtype_to_np_dtype

        inputs = [i for i in self.graph.input if i.name not in self.constants]
        if len(inputs) != 1:
            self.problems.add(f"{len(inputs)} inputs")
            return
        self.input = self.current = inputs[0].name
        tensor = inputs[0].type.tensor_type
        batch, *shape = [d.dim_value for d in tensor.shape.dim] or [0]
        if not shape or min(shape) < 1 or batch < 0:
            self.problems.add(f"an input of shape {shape} (all sizes except the batch must be known)")
            return
        self.dtype = np.dtype(tensor_dtype_to_np_dtype(tensor.elem_type))
        if self.dtype not in (np.float32, np.float64):
            self.problems.add(f"an input of {self.dtype}")
            return
        self.batch = batch or _BATCH
        self.given_shape = tuple(shape)
        self.chain = Chain(self.given_shape)
        check_size("numbers in a batch", self.batch * prod(shape), 2 * MOST_RESULTS)
        self.positions = np.arange(prod(shape)).reshape(shape)
        #: the position of each element of the file's input in nnlite's input
        self.given = self.positions.reshape(-1)
        self.shapes[self.current] = (self.batch, *shape)
        known = _OPERATORS.keys() | _AFFINE.keys() | _EVALUATED | _EVALUATED_IF_SMALL | {"Shape"}
        for node in self.graph.node:
            if node.op_type not in known or node.domain not in ("", "ai.onnx"):
                self.problems.add(_label(node), instead_of=(*_OPERATORS, *_AFFINE, *sorted(_MOVES)))
        for node in self.graph.node:
            if self.problems.found:
                return
            try:
                self._follow(node)
            except (ValueError, IndexError) as error:
                self.problems.add(f"{_label(node)}: {error}")
        if self.chain.layers and not self.problems.found:
            self._finish()

    def _follow(self, node: Any) -> None:
        """Read one operator: of constants, or the next of the chain."""
        from onnx import helper

        kind, (output,) = node.op_type, node.output[:1]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        read = [name for name in node.input if name and name not in self.constants]
        if kind == "Shape" and set(read) <= self.shapes.keys():
            shape = self.shapes[read[0]] if read else self.constants[node.input[0]].shape
            self.constants[output] = np.array(shape)[attributes.get("start", 0) : attributes.get("end")]
        elif not read and (kind in _EVALUATED or kind in _EVALUATED_IF_SMALL):
            size = sum(self.constants[name].size for name in node.input if name)
            if kind not in _EVALUATED and size > _MOST_OF_SHAPES:
                raise ValueError("expected small constant operands")
            self.constants[output] = self._evaluate(node)
        elif read != [self.current]:
            self.problems.add(f"{_label(node)} that reads {', '.join(read)} (not a chain)")
        else:
            self._next(node, attributes)
            check_size("numbers in a batch", self.batch * self.positions.size, 2 * MOST_RESULTS)
            self.current = output
            self.shapes[output] = (self.batch, *self.positions.shape)
            if kind == "Dropout":  # as in inference
                node.CopyFrom(helper.make_node("Identity", node.input[:1], [output]))

    def _next(self, node: Any, attributes: Attributes) -> None:
        """Read an operator on the chain's tensor."""
        kind = node.op_type
        values = [self.constants.get(name) if name else None for name in node.input]
        if kind not in _OPERATORS and kind not in _AFFINE and kind not in _MOVES:
            raise ValueError("expected constant operands")
        if node.input[0] != self.current and kind not in ("Add", "Mul"):
            raise ValueError("expected a computed first operand. Received: a constant")
        if kind in _MOVES:
            self._move(node)
            return
        if kind in _AFFINE:
            self._scale(*_AFFINE[kind](_weight(next((value for value in values if value is not None), None))))
        else:
            _OPERATORS[kind](self, attributes, values)
        if self.chain.layers:
            self.results[self.chain.layers[-1]] = (node.output[0], self.positions)

    def _finish(self) -> None:
        """Check that the output has nnlite's layout, or channels first."""
        if self.positions.ndim == 1:
            self._flatten()
        for order in (self.positions, np.moveaxis(self.positions, 0, -1)):
            if order.shape == self.chain.shape and _in_order(order):
                return
        shape = ", ".join(map(str, self.positions.shape))
        self.problems.add(f"an output (n, {shape}) whose elements are in an unsupported order")

    def _evaluate(self, node: Any, current: np.ndarray | None = None) -> np.ndarray:
        """The result of one operator, by onnx's reference evaluator; `current` is the value of the chain's tensor."""
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        given = {name: self.constants.get(name, current) for name in node.input if name}
        alone = helper.make_function("nnlite", "one", list(given), node.output[:1], [node], self.opsets)
        try:
            (result,) = ReferenceEvaluator(alone).run(None, given, {})
        except Exception as error:
            raise ValueError(f"onnx cannot compute it ({error})") from None
        return np.asarray(result)

    # operators that only move elements -------------------------------------------------------------------------------

    def _move(self, node: Any) -> None:
        """Apply Reshape, Transpose and similar operators to the positions of a batch."""
        if node.op_type in ("Identity", "Cast"):
            return
        size = self.positions.size
        samples = np.arange(self.batch) * size
        batch = samples.reshape(-1, *[1] * self.positions.ndim) + self.positions
        moved = self._evaluate(node, batch)
        alone = moved.ndim > 1 and len(moved) == self.batch and moved.size == self.batch * size
        if not alone or (moved.reshape(self.batch, -1) // size != np.arange(self.batch)[:, None]).any():
            raise ValueError(f"expected (n, ...) -> (n, ...), sample by sample. Received: a result {moved.shape}")
        self.positions = moved[0]

    def _image(self) -> None:
        """Raises ValueError unless ONNX's tensor is channels first where nnlite's is channels last."""
        if self.positions.ndim != 3:
            raise ValueError(f"expected (n, c, h, w). Received: (n, {', '.join(map(str, self.positions.shape))})")
        c, h, w = self.positions.shape
        if not self.chain.layers and (self.given_shape == (c, h, w) or c == 1) and _in_order(self.positions):
            self.chain = Chain((h, w, c))  # the first operator that determines the channel axis of the input
            self.positions = _channels_first((h, w, c))
            self.given = self.positions.reshape(-1)
        if self.chain.shape != (h, w, c) or (self.positions != _channels_first((h, w, c))).any():
            raise ValueError("expected channels first. Received: a tensor with another order of axes")

    def _orient(self) -> None:
        """Make an image channels last if no operator determined its channel axis: the one of at most 4 sizes."""
        if self.chain.layers or len(self.given_shape) != 3 or self.chain.shape != self.given_shape:
            return
        first, last = self.given_shape[0] <= _MOST_CHANNELS, self.given_shape[-1] <= _MOST_CHANNELS
        if first == last and 1 in (self.given_shape[0], self.given_shape[-1]):
            return  # both ways have one order of elements
        if first == last:
            raise ValueError(
                f"expected images whose channel axis is known: the first or the last, of at most {_MOST_CHANNELS}, or "
                f"that of a Conv. Received: an input of shape {self.given_shape}"
            )
        if first:
            c, h, w = self.given_shape
            self.chain = Chain((h, w, c))
            self.given = _channels_first((h, w, c)).reshape(-1)
            self.positions = self.given[self.positions]

    def _flatten(self) -> None:
        """Add a Flatten if ONNX's tensor is flat and nnlite's is not."""
        self._orient()
        if self.positions.ndim == 1 and len(self.chain.shape) > 1:
            self.chain.add(Flatten())

    # operators with weights ------------------------------------------------------------------------------------------

    def conv(self, attributes: Attributes, values: Values) -> None:
        weight = _weight(values[1])  # (k, c / groups, kh, kw)
        self._image()
        if weight.ndim != 4:
            raise ValueError(f"expected a weight (k, c, h, w). Received: shape {weight.shape}")
        layer = Conv2D(
            weight.shape[0],
            tuple(weight.shape[2:]),
            strides=tuple(attributes.get("strides", (1, 1))),
            padding=_padding(attributes),
            dilation_rate=tuple(attributes.get("dilations", (1, 1))),
            groups=attributes.get("group", 1),
            use_bias=False,
        )
        self._add(layer, weight.transpose(2, 3, 1, 0))
        self.positions = _channels_first(self.chain.shape)
        self._bias(values, lambda bias: bias.reshape(-1, 1, 1))

    def gemm(self, attributes: Attributes, values: Values) -> None:
        if attributes.get("transA", 0) or self.positions.ndim != 1:
            raise ValueError("expected (n, features), and no transA")
        weight = _weight(values[1])
        self._dense(attributes.get("alpha", 1.0) * (weight.T if attributes.get("transB", 0) else weight))
        self._bias(values, lambda bias: attributes.get("beta", 1.0) * bias)

    def matmul(self, attributes: Attributes, values: Values) -> None:
        self._dense(_weight(values[1]))

    def _dense(self, weight: np.ndarray) -> None:
        shape = self.positions.shape
        fits = len(shape) == 1 or (shape == self.chain.shape and _in_order(self.positions))
        if not fits or weight.ndim != 2 or len(weight) != shape[-1]:
            received = f"(n, {', '.join(map(str, shape))}) by a weight of shape {weight.shape}"
            raise ValueError(f"expected (n, features) by a matrix. Received: {received}")
        if len(shape) == 1:
            self._flatten()
            rows = np.empty_like(weight)
            rows[self.positions] = weight
            weight = rows
        self._add(Dense(weight.shape[1], use_bias=False), weight)
        self.positions = np.arange(prod(self.chain.shape)).reshape(self.chain.shape)

    def _add(self, layer: Conv2D | Dense, weight: np.ndarray) -> None:
        self.chain.add(layer)
        self.weights[layer] = [np.array(weight)]

    def _bias(self, values: Values, converted: Callable[[np.ndarray], np.ndarray]) -> None:
        if len(values) > 2 and values[2] is not None:
            self._scale(1, converted(_weight(values[2])))

    def batch_normalization(self, attributes: Attributes, values: Values) -> None:
        """Folded into the product before it, as is usual for inference."""
        if attributes.get("training_mode", 0):
            raise ValueError("expected no training_mode")
        gamma, beta, mean, variance = (
            _weight(value).reshape(-1, *[1] * (self.positions.ndim - 1)) for value in values[1:5]
        )
        scale = gamma / np.sqrt(variance + attributes.get("epsilon", 1e-5))
        self._scale(scale, beta - mean * scale)

    def _scale(self, scale: Any, shift: Any) -> None:
        """Fold scale * x + shift into the weight and bias of the product before it."""
        layer = self._product()
        if layer is None:
            raise ValueError("expected a Conv, Gemm or MatMul right before it")
        weight, *bias = self.weights[layer]
        scale, shift = self._by_channel(scale), self._by_channel(shift)
        if shift.any() or bias:
            layer.use_bias = True
            bias = [(bias[0] if bias else 0) * scale + shift]
        self.weights[layer] = [weight * scale, *bias]

    def _by_channel(self, value: Any) -> np.ndarray:
        """A constant that ONNX broadcasts over its tensor, as one number per channel."""
        try:
            full = np.broadcast_to(value, (1, *self.positions.shape))[0]
        except ValueError:
            full = None
        if full is not None:
            spread = np.empty(self.positions.size)
            spread[self.positions.reshape(-1)] = full.reshape(-1)
            rows = spread.reshape(-1, self.chain.shape[-1])
            if (rows == rows[0]).all():
                return rows[0]
        channels, shape = self.chain.shape[-1], np.shape(value)
        raise ValueError(f"expected one number for each of {channels} channels. Received: shape {shape}")

    def _product(self) -> Conv2D | Dense | None:
        """The last layer if it is a product without an activation, else None."""
        layer = self.chain.layers[-1] if self.chain.layers else None
        return layer if isinstance(layer, (Conv2D, Dense)) and layer.activation is ops.linear else None

    # other operators -------------------------------------------------------------------------------------------------

    def max_pool(self, attributes: Attributes, values: Values) -> None:
        self._image()
        if attributes.get("ceil_mode", 0) or set(attributes.get("dilations", (1,))) != {1}:
            raise ValueError("expected neither ceil_mode nor dilations")
        kernel = tuple(attributes.get("kernel_shape", ()))
        strides = tuple(attributes.get("strides", (1,) * len(kernel)))
        self.chain.add(MaxPooling2D(kernel, strides, padding=_padding(attributes)))
        self.positions = _channels_first(self.chain.shape)

    def dropout(self, attributes: Attributes, values: Values) -> None:
        self._flatten()
        given = values[1] if len(values) > 1 else attributes.get("ratio")
        self.chain.add(Dropout(0.5 if given is None else float(given)))

    def activation(self, name: str) -> None:
        """Set the activation of the product before it, so that it can be fused; else add a layer."""
        layer = self._product()
        if layer is not None:
            layer.activation = ops.get_activation(name)
        else:
            self._flatten()
            self.chain.add(Activation(name))

    def softmax(self, attributes: Attributes, values: Values) -> None:
        """Over the channels: nnlite's last axis."""
        self._flatten()
        rank = self.positions.ndim + 1
        opset = next(o.version for o in self.opsets if o.domain in ("", "ai.onnx"))
        axis = attributes.get("axis", -1 if opset >= 13 else 1) % rank
        if axis and opset >= 13:
            rows = np.moveaxis(self.positions, axis - 1, -1).reshape(-1, self.positions.shape[axis - 1])
        elif axis:  # over all axes from this one on
            rows = self.positions.reshape(prod(self.positions.shape[: axis - 1]), -1)
        channels = self.chain.shape[-1]
        if not axis or rows.shape[1] != channels or (rows // channels != rows[:, :1] // channels).any():
            raise ValueError(f"expected a softmax over {channels} channels. Received: axis {axis}")
        self.activation("softmax")


def _label(node: Any) -> str:
    return f"{node.op_type} {node.name!r}" if node.name else node.op_type


def _channels_first(shape: tuple[int, ...]) -> np.ndarray:
    """The positions of a tensor (h, w, c), in the order (c, h, w)."""
    return np.arange(prod(shape)).reshape(shape).transpose(2, 0, 1)


def _in_order(positions: np.ndarray) -> bool:
    return bool((positions.reshape(-1) == np.arange(positions.size)).all())


def _weight(value: np.ndarray | None) -> np.ndarray:
    """A constant operand of floating-point numbers."""
    if value is None or value.dtype not in (np.float32, np.float64):
        received = "one that is computed" if value is None else f"dtype {value.dtype}"
        raise ValueError(f"expected weights of float32. Received: {received}")
    return value


def _padding(attributes: Attributes) -> Any:
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto in ("SAME_UPPER", "VALID"):
        return {"SAME_UPPER": "same", "VALID": "valid"}[auto]
    if auto != "NOTSET":
        raise ValueError(f"auto_pad: expected NOTSET, VALID or SAME_UPPER. Received: {auto}")
    pads = attributes.get("pads", (0, 0, 0, 0))
    if len(pads) != 4:
        raise ValueError("expected 2-D")
    top, left, bottom, right = pads
    return ((top, bottom), (left, right)) if any(pads) else "valid"


_OPERATORS: dict[str, Callable[[Reader, Attributes, Values], None]] = {
    "Conv": Reader.conv,
    "Gemm": Reader.gemm,
    "MatMul": Reader.matmul,
    "BatchNormalization": Reader.batch_normalization,
    "MaxPool": Reader.max_pool,
    "Dropout": Reader.dropout,
    "Softmax": Reader.softmax,
    "Relu": lambda reader, *_: reader.activation("relu"),
    "Sigmoid": lambda reader, *_: reader.activation("sigmoid"),
    "Tanh": lambda reader, *_: reader.activation("tanh"),
}
