"""Read an ONNX file: convert its operators to layers, and compare the results with onnxruntime's."""

from __future__ import annotations

import copy
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from nnlite import conv
from nnlite.autograd import Tensor, no_grad
from nnlite.network.importing.chain import MOST_PARAMETERS, check_size
from nnlite.network.importing.onnx_operators import Reader
from nnlite.network.importing.problems import Problems
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
    if len(proto.graph.output) != 1:
        problems.add(f"{len(proto.graph.output)} outputs")
    problems.raise_any()
    missing = _load_external(proto.graph, path.parent)
    _keep_needed(proto.graph)
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
            values = rng.standard_normal(tuple(tensor.dims)) / max(1, prod(tensor.dims[1:])) ** 0.5
            tensor.CopyFrom(numpy_helper.from_array(values.astype(dtype), tensor.name))
    return missing


def _keep_needed(graph: Any) -> None:
    """Keep the operators that the output needs. As ONNX requires, each comes after those whose results it reads."""
    needed, nodes = {graph.output[0].name}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(type(node).FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(reversed(nodes))


def _difference(proto: Any, reader: Reader, model: Sequential) -> str | None:
    """Which layer differs from its operator for random inputs; None if none does."""
    batch = reader.batch
    given = np.random.default_rng(0).standard_normal((batch, *reader.given_shape)).astype(reader.dtype)
    values = _run(proto, [name for name, _ in reader.results.values()], {reader.input: given})
    x = np.empty((batch, given[0].size))
    x[:, reader.given] = given.reshape(batch, -1)
    result = Tensor(x.reshape(batch, *reader.chain.input_shape))
    for layer in model.layers:
        in_float64 = copy.copy(layer)
        for parameter in in_float64.parameters():
            parameter._data = parameter.data.astype(np.float64)
        with no_grad(), conv.use("im2col"):  # by NumPy: compiling a kernel does not pay for one batch
            result = in_float64(result)
        if layer in reader.results:
            name, positions = reader.results[layer]
            expected = values[name]
            found = result.data.reshape(batch, -1)[:, positions]
            if found.shape != expected.shape:
                return f"{layer.name} ({name!r}) of shape {found.shape} instead of {expected.shape}"
            allowed = _TOLERANCE * np.abs(expected[np.isfinite(expected)]).max(initial=0)
            if not np.allclose(found, expected, rtol=_TOLERANCE, atol=allowed, equal_nan=True):
                return f"different results of {layer.name} ({name!r})"
    return None


def _run(proto: Any, names: list[str], given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The results of onnxruntime, or of onnx's reference evaluator if that is not installed or lacks an operator."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    del proto.graph.value_info[:]
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = session.run(names, given)
    except Exception as error:
        if not isinstance(error, ImportError) and type(error).__name__ != "NotImplemented":  # of Conv in float64, say
            raise
        results = ReferenceEvaluator(proto).run(names, given)
    return dict(zip(names, results, strict=True))
