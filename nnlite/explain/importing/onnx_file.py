"""A chain of ONNX operators, channels first, as layers here, channels last. Needs the package onnx."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nnlite import ops
from nnlite.explain.importing.problems import Problems
from nnlite.layers import Activation, Conv2D, Dense, Dropout, Flatten, Input, Layer, MaxPooling2D
from nnlite.model import Sequential

Attributes = dict[str, Any]


def load_onnx(path: Path) -> Sequential:
    """The network of an ONNX file. Raises ValueError that lists what does not exist here."""
    try:
        import onnx
    except ImportError:
        raise ImportError(f'MODEL {path}: expected the package onnx (pip install "nnlite-conv[onnx]")') from None
    problems = Problems(path)
    try:
        proto = onnx.load(str(path))
    except Exception as error:
        raise problems.unreadable("an ONNX file", f"a file that is none ({type(error).__name__})") from None
    if not proto.HasField("graph"):
        raise problems.unreadable("an ONNX file", "a file without a graph")
    reader = _Reader(proto.graph, problems)
    reader.read()
    problems.raise_any()
    return reader.model


class _Reader:
    """Walks the operators in order; each must read what the one before has written."""

    def __init__(self, graph: Any, problems: Problems):
        from onnx import numpy_helper

        self.graph, self.problems = graph, problems
        self.constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self.current = ""
        self.channels_first = True
        #: what a flattened tensor's elements are in the order of a channels-last one; the next product needs it
        self.order: np.ndarray | None = None
        self.model = Sequential()
        self.weights: list[np.ndarray] = []

    def read(self) -> None:
        """Build the model; what does not exist is added to the problems."""
        inputs = [i for i in self.graph.input if i.name not in self.constants]
        if len(inputs) != 1:
            self.problems.add(f"{len(inputs)} inputs")
            return
        self.current = inputs[0].name
        shape = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim][1:]
        if not shape or min(shape) < 1:
            self.problems.add(f"an input of shape {shape} (sizes other than the batch have to be known)")
            return
        nodes = [n for n in self.graph.node if not self._constant(n)]
        if len(shape) == 3:
            self.channels_first = not (nodes and nodes[0].op_type == "Transpose")
            shape = [*shape[1:], shape[0]] if self.channels_first else shape
        self.model.add(Input(tuple(shape)))
        unknown = [n for n in nodes if n.op_type not in _OPERATORS]
        for node in unknown:
            self.problems.add(f"{node.op_type} {node.name!r}" if node.name else node.op_type)
        if unknown:
            return
        for node in nodes:
            self._follow(node)
            if self.problems.found:
                return
        if self.order is not None:
            self.problems.add("a Flatten that no product follows (its output is in the order of channels first)")
            return
        self.model.set_weights(self.weights)

    def _constant(self, node: Any) -> bool:
        from onnx import numpy_helper

        if node.op_type == "Constant" and node.attribute[0].name == "value":
            self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            return True
        if node.op_type == "Identity" and node.input[0] in self.constants:
            self.constants[node.output[0]] = self.constants[node.input[0]]
            return True
        return False

    def _follow(self, node: Any) -> None:
        from onnx import helper

        read = [name for name in node.input if name and name not in self.constants]
        if read != [self.current]:
            self.problems.add(f"{node.op_type} {node.name!r} that reads {', '.join(read)} (not a chain)")
            return
        if node.op_type != "Add" and node.input[0] != self.current:
            self.problems.add(f"{node.op_type} {node.name!r} whose first operand is constant")
            return
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        values = [self.constants[name] for name in node.input if name in self.constants]
        try:
            _OPERATORS[node.op_type](self, attributes, values)
        except (ValueError, IndexError) as error:
            self.problems.add(f"{node.op_type} {node.name!r}: {error}")
        self.current = node.output[0]

    # what each operator is here

    def conv(self, attributes: Attributes, values: list[np.ndarray]) -> None:
        weight = values[0]  # (k, c / groups, kh, kw)
        if weight.ndim != 4 or not self.channels_first:
            raise ValueError(f"expected 2-D and channels first. Received: a weight of shape {weight.shape}")
        layer = Conv2D(
            weight.shape[0],
            tuple(weight.shape[2:]),
            strides=tuple(attributes.get("strides", (1, 1))),
            padding=_padding(attributes),
            dilation_rate=tuple(attributes.get("dilations", (1, 1))),
            groups=attributes.get("group", 1),
            use_bias=len(values) > 1,
        )
        self._add(layer, [weight.transpose(2, 3, 1, 0), *values[1:]])

    def gemm(self, attributes: Attributes, values: list[np.ndarray]) -> None:
        if attributes.get("transA", 0) or {attributes.get(name, 1.0) for name in ("alpha", "beta")} != {1.0}:
            raise ValueError("expected alpha and beta of 1 and no transA")
        self._dense(values[0].T if attributes.get("transB", 0) else values[0], values[1:])

    def matmul(self, attributes: Attributes, values: list[np.ndarray]) -> None:
        self._dense(values[0], [])

    def _dense(self, weight: np.ndarray, bias: list[np.ndarray]) -> None:
        shape = self.model.output_shape
        if weight.ndim != 2 or (len(shape) == 3 and self.channels_first):
            received = f"(n, {', '.join(map(str, shape))}) by a weight of shape {weight.shape}"
            raise ValueError(f"expected (n, features) by a matrix. Received: {received}")
        if self.order is not None:
            weight, self.order = weight[self.order], None
        self._add(Dense(weight.shape[1], use_bias=bool(bias)), [weight, *(b.reshape(-1) for b in bias)])

    def add(self, attributes: Attributes, values: list[np.ndarray]) -> None:
        """The bias of a MatMul."""
        layer = self.model.layers[-1] if self.model.layers else None
        if not isinstance(layer, Dense) or layer.use_bias or layer.activation is not ops.linear:
            raise ValueError("expected the bias of a MatMul right before it")
        if values[0].size != layer.units or values[0].shape[-1] != layer.units:
            raise ValueError(f"expected a bias of shape ({layer.units},). Received: {values[0].shape}")
        rebuilt = Sequential([Input(self.model.input_shape or ()), *self.model.layers[:-1], Dense(layer.units)])
        self.model = rebuilt
        self.weights.append(values[0].reshape(-1))

    def max_pool(self, attributes: Attributes, values: list[np.ndarray]) -> None:
        if not self.channels_first:
            raise ValueError("expected channels first")
        if attributes.get("ceil_mode", 0) or set(attributes.get("dilations", (1,))) != {1}:
            raise ValueError("expected neither ceil_mode nor dilations")
        kernel = tuple(attributes["kernel_shape"])
        strides = tuple(attributes.get("strides", (1,) * len(kernel)))
        self._add(MaxPooling2D(kernel, strides, padding=_padding(attributes)))

    def dropout(self, attributes: Attributes, values: list[np.ndarray]) -> None:
        self._add(Dropout(float(values[0]) if values else attributes.get("ratio", 0.5)))

    def flatten(self, attributes: Attributes, values: list[np.ndarray]) -> None:
        """Flatten with axis 1, or a Reshape to (n, features)."""
        shape = self.model.output_shape
        if attributes.get("axis", 1) != 1 or (values and (values[0].size != 2 or values[0][0] > 1)):
            raise ValueError("expected (n, ...) -> (n, features)")
        if self.channels_first and len(shape) == 3 and shape[2] > 1:
            h, w, c = shape
            self.order = np.arange(c * h * w).reshape(c, h, w).transpose(1, 2, 0).reshape(-1)
        if len(shape) > 1:
            self._add(Flatten())

    def transpose(self, attributes: Attributes, values: list[np.ndarray]) -> None:
        """From channels last to first and back: nothing here, where they are always last."""
        expected = [0, 2, 3, 1] if self.channels_first else [0, 3, 1, 2]
        if list(attributes.get("perm", ())) != expected:
            raise ValueError(f"expected perm {expected}. Received: {list(attributes.get('perm', ()))}")
        self.channels_first = not self.channels_first

    def identity(self, attributes: Attributes, values: list[np.ndarray]) -> None:
        """Nothing."""

    def activation(self, name: str, attributes: Attributes) -> None:
        """An activation: in the layer before it where that has none, so that it can be fused; else a layer."""
        rank = 1 + len(self.model.output_shape)
        last = 1 if rank == 4 and self.channels_first else rank - 1
        if name == "softmax" and attributes.get("axis", -1) not in (last, last - rank):
            raise ValueError(f"expected the axis of the channels. Received: {attributes['axis']}")
        layer = self.model.layers[-1] if self.model.layers else None
        if isinstance(layer, (Conv2D, Dense)) and layer.activation is ops.linear:
            layer.activation = ops.get_activation(name)
        else:
            self._add(Activation(name))

    def _add(self, layer: Layer, weights: list[np.ndarray] | None = None) -> None:
        self.model.add(layer)
        self.weights += weights or []


def _padding(attributes: Attributes) -> Any:
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto in ("SAME_UPPER", "VALID"):
        return {"SAME_UPPER": "same", "VALID": "valid"}[auto]
    if auto != "NOTSET":
        raise ValueError(f"expected other padding than auto_pad {auto}")
    pads = attributes.get("pads", (0, 0, 0, 0))
    if len(pads) != 4:
        raise ValueError("expected 2-D")
    top, left, bottom, right = pads
    return ((top, bottom), (left, right)) if any(pads) else "valid"


def _activation(name: str) -> Callable[[_Reader, Attributes, list[np.ndarray]], None]:
    return lambda reader, attributes, values: reader.activation(name, attributes)


_OPERATORS: dict[str, Callable[[_Reader, Attributes, list[np.ndarray]], None]] = {
    "Conv": _Reader.conv,
    "Gemm": _Reader.gemm,
    "MatMul": _Reader.matmul,
    "Add": _Reader.add,
    "MaxPool": _Reader.max_pool,
    "Dropout": _Reader.dropout,
    "Flatten": _Reader.flatten,
    "Reshape": _Reader.flatten,
    "Transpose": _Reader.transpose,
    "Identity": _Reader.identity,
    **{name: _activation(name.lower()) for name in ("Relu", "Sigmoid", "Tanh", "Softmax")},
}
