"""ONNX Runtime, for inference: the network as an ONNX graph, with every graph optimization that the runtime has.

Its threads spin for some 40 ms after a run, as they do by default (without that, short runs take 5% longer); the
worker waits for their end before it hands over.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from benchmarks.peers.frameworks.base import Batches, Cycle, Peer
from benchmarks.peers.networks import CLASSES, Network

_OPSET, _IR_VERSION = 17, 8  # what onnxruntime reads since 1.15


class OnnxPeer(Peer):
    packages = ("onnx", "onnxruntime")

    def __init__(self, threads: int, option: str):
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL

    def prepare_inference(self, network: Network, weights: list[np.ndarray], batches: Batches) -> None:
        content = _graph(network, weights).SerializeToString()
        self._session = onnxruntime.InferenceSession(content, self._options, providers=["CPUExecutionProvider"])
        if network.filters:  # (n, h, w, c) -> (n, c, h, w)
            batches = [(np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels) for images, labels in batches]
        self._batch = Cycle([images for images, _ in batches])

    def infer(self, steps: int) -> Any:
        for _ in range(steps):
            probabilities = self._session.run(None, {"images": self._batch()})[0]
        return probabilities


def _graph(network: Network, weights: list[np.ndarray]) -> onnx.ModelProto:
    nodes, tensors = [], []
    last = "images"

    def add(operator: str, *parameters: np.ndarray, **attributes: Any) -> None:
        nonlocal last
        names = [f"p{len(tensors) + i}" for i in range(len(parameters))]
        tensors.extend(numpy_helper.from_array(p, name) for p, name in zip(parameters, names, strict=True))
        nodes.append(helper.make_node(operator, [last, *names], [f"t{len(nodes)}"], **attributes))
        last = f"t{len(nodes) - 1}"

    weights = network.channels_first(weights)
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    for weight, bias in pairs[: len(network.filters)]:
        add("Conv", weight, bias)
        add("Relu")
    if network.filters:
        add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        add("Flatten")
    dense = pairs[len(network.filters) :]
    for i, (weight, bias) in enumerate(dense):
        add("Gemm", weight, bias)
        add("Relu" if i < len(dense) - 1 else "Softmax")
    shape = network.input_shape if not network.filters else (network.input_shape[-1], *network.input_shape[:2])
    images = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", *shape])
    output = helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, ["n", CLASSES])
    graph = helper.make_graph(nodes, network.name, [images], [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
