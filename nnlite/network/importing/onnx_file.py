"""Read an ONNX file: sort its operators, convert them to layers, and compare the results with onnxruntime's."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from nnlite import ops
from nnlite.autograd import Tensor, no_grad
from nnlite.network.importing.chain import MOST_PARAMETERS, check_size
from nnlite.network.importing.onnx_operators import Reader
from nnlite.network.importing.problems import Problems
from nnlite.network.layers import Conv2D, Dense, Layer
from nnlite.network.sequential import Sequential

#: the largest error of a layer's result, relative to its largest element
_TOLERANCE = 1e-3
_MOST_OPERATORS = 5000


def load_onnx(path: Path, problems: Problems) -> tuple[Sequential, str | None]:
    """(the model; None, or why its weights are newly initialised). Raises ValueError for unsupported operators."""
    try:
        import onnx
    except ImportError:
        raise ImportError(f'{problems.argument}: expected the package onnx (pip install "nnlite-conv[onnx]")') from None
    try:
        proto = onnx.load(str(path), format="protobuf", load_external_data=False)
    except Exception as error:
        raise problems.unreadable("an ONNX file", f"another file ({type(error).__name__})") from None
    if not proto.HasField("graph"):
        raise problems.unreadable("an ONNX file", "a file without a graph")
    check_size("operators", len(proto.graph.node), _MOST_OPERATORS)
    missing = _load_external(proto.graph, path.parent)
    _sort(proto.graph, problems)
    problems.raise_any()
    reader = Reader(proto, problems)
    with np.errstate(all="ignore"):  # weights may be anything
        reader.read()
        problems.raise_any()
        model = reader.chain.build()
        model.set_weights([weight for layer in reader.chain.layers for weight in reader.weights.get(layer, ())])
        difference = _difference(proto, reader, model)
    if difference:
        raise problems.unreadable("a network that computes the same here as in onnxruntime", difference)
    return model, missing


def _load_external(graph: Any, folder: Path) -> str | None:
    """Read the weights in external files. Returns None, or why they are newly initialised."""
    from onnx import external_data_helper as external
    from onnx import numpy_helper
    from onnx.helper import tensor_dtype_to_np_dtype

    missing = None
    rng = np.random.default_rng(0)
    for tensor in [t for t in graph.initializer if external.uses_external_data(t)]:
        count, dtype = prod(tensor.dims), tensor_dtype_to_np_dtype(tensor.data_type)
        check_size(f"numbers in {tensor.name!r}", count, MOST_PARAMETERS)
        try:
            external.load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:
            where = next((e.value for e in tensor.external_data if e.key == "location"), "")
            if dtype.kind != "f":
                raise ValueError(f"expected {where!r} beside it, with {tensor.name!r}. Received: {error}") from None
            why = "cannot be read" if (folder / where).is_file() else "does not exist"
            missing = f"the file of its weights, {where!r}, {why}"
            fan_in = max(1, prod(tensor.dims[1:]))
            values = rng.standard_normal(tuple(tensor.dims)) / fan_in**0.5
            tensor.CopyFrom(numpy_helper.from_array(values.astype(dtype), tensor.name))
    return missing


def _sort(graph: Any, problems: Problems) -> None:
    """Keep the operators that the output needs, in topological order."""
    if len(graph.output) != 1:
        problems.add(f"{len(graph.output)} outputs")
        return
    writers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    if len(writers) < sum(bool(name) for node in graph.node for name in node.output):
        problems.add("two operators that write the same tensor")
        return

    def read(names: Iterable[str]) -> list[int]:
        return [writers[name] for name in names if name in writers]

    needed: dict[int, list[int]] = {}
    waiting = read([graph.output[0].name])
    while waiting:
        i = waiting.pop()
        if i not in needed:
            needed[i] = read(graph.node[i].input)
            waiting += needed[i]
    try:
        order = [graph.node[i] for i in TopologicalSorter(needed).static_order()]
    except CycleError:
        problems.add("a cycle of operators")
        return
    nodes = [type(node).FromString(node.SerializeToString()) for node in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _difference(proto: Any, reader: Reader, model: Sequential) -> str | None:
    """Which layer differs from its operator for random inputs; None if none does."""
    batch = reader.batch
    rng = np.random.default_rng(0)
    given = rng.standard_normal((batch, *reader.given_shape)).astype(reader.dtype)
    values = _run(proto, [name for name, _ in reader.results.values()], given)
    x = np.empty((batch, given[0].size))
    x[:, reader.given] = given.reshape(batch, -1)
    x = x.reshape(batch, *reader.chain.input_shape)
    for layer in model.layers:
        x = _compute(layer, x)
        if layer in reader.results:
            name, positions = reader.results[layer]
            expected = values[name]
            found = x.reshape(batch, -1)[:, positions]
            if found.shape != expected.shape:
                return f"{layer.name} ({name!r}) of shape {found.shape} instead of {expected.shape}"
            finite = np.abs(expected[np.isfinite(expected)])
            allowed = _TOLERANCE * finite.max(initial=0)
            if not np.allclose(found, expected, rtol=_TOLERANCE, atol=allowed, equal_nan=True):
                return f"different results of {layer.name} ({name!r})"
    return None


def _run(proto: Any, names: list[str], given: np.ndarray) -> dict[str, np.ndarray]:
    """The results of onnxruntime, or of onnx's reference evaluator if that is not installed."""
    from onnx import helper

    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    del proto.graph.value_info[:]
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        run = ReferenceEvaluator(proto).run
    else:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        run = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"]).run
    return dict(zip(names, run(names, {_input(proto): given}), strict=True))


def _input(proto: Any) -> str:
    constants = {i.name for i in proto.graph.initializer}
    return next(i.name for i in proto.graph.input if i.name not in constants)


def _compute(layer: Layer, x: np.ndarray) -> np.ndarray:
    """The layer's result in float64, by NumPy: compiling a kernel does not pay for one batch."""
    with no_grad():
        if not isinstance(layer, (Conv2D, Dense)):
            return layer.call(Tensor(x), training=False).data
        weights = [Tensor(p.data.astype(np.float64)) for p in (layer.weight, layer.bias) if p is not None]
        if isinstance(layer, Dense):
            return layer.activation(ops.dense(Tensor(x), *weights)).data
        convolved = ops.conv2d(
            Tensor(x),
            *weights,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            groups=layer.groups,
            algorithm="im2col",
        )
        return layer.activation(convolved).data
