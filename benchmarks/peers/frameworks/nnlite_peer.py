"""nnlite: `train_on_batch`, the step that `fit` makes, and the model called under `no_grad`."""

from __future__ import annotations

from typing import Any

import numpy as np

import nnlite as nn
from benchmarks.peers.frameworks.base import Batches, Cycle, Peer
from benchmarks.peers.networks import EPSILON, LEARNING_RATE, RHO, Network


class NnlitePeer(Peer):
    packages = ("nnlite-conv", "numpy", "numba")

    def __init__(self, threads: int, option: str):
        nn.set_num_threads(threads)
        nn.seed(0)

    def prepare_training(self, network: Network, weights: list[np.ndarray], batches: Batches) -> None:
        self._model = getattr(nn.models, network.name)()
        self._model.set_weights(weights)
        self._model.compile(nn.RMSprop(LEARNING_RATE, RHO, epsilon=EPSILON), "sparse_categorical_crossentropy")
        self._batch = Cycle(batches)

    def train(self, steps: int) -> list[Any]:
        return [self._model.train_on_batch(*self._batch())["loss"] for _ in range(steps)]

    def prepare_inference(self, network: Network, weights: list[np.ndarray], batches: Batches) -> None:
        self._model = getattr(nn.models, network.name)()
        self._model.set_weights(weights)
        self._batch = Cycle([images for images, _ in batches])

    def infer(self, steps: int) -> Any:
        with nn.no_grad():
            for _ in range(steps):
                probabilities = self._model(self._batch())
        return probabilities.numpy()

    def prepare_convolution(self, problem: dict[str, Any], pass_name: str, arrays: list[np.ndarray]) -> str:
        x, weight, dy = arrays
        geometry = nn.conv.Geometry.of(
            x.shape, weight.shape, strides=problem["stride"], padding=problem["padding"], groups=problem["groups"]
        )
        algorithm = nn.conv.select(geometry, x.dtype, pass_name=pass_name)
        operands = {"forward": (x, weight), "grad_input": (dy, weight), "grad_weight": (x, dy)}[pass_name]
        self._pass = lambda: getattr(algorithm, pass_name)(*operands, geometry)
        return algorithm.name

    def convolve(self, steps: int) -> Any:
        for _ in range(steps):
            result = self._pass()
        return result

    def instruction_sets(self) -> list[str]:
        from nnlite.compiler import target

        return [f"nnlite's kernels: vectors of {target.LANES} float32", *super().instruction_sets()]
