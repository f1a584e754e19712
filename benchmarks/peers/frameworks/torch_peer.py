"""PyTorch: eager in both layouts, and torch.compile.

The step is what PyTorch's guides write: gradients set to None, forward, cross-entropy on logits, backward, step.
torch.compile gets model and loss as one function, channels last, and the optimizer's step as another.

PyTorch's RMSprop adds epsilon outside of the root. Keras's sqrt(v + 1e-7) is nearest to sqrt(v) + sqrt(1e-7): the two
are equal for v = 0 and for large v.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.frameworks.base import Batches, Cycle, Peer
from benchmarks.peers.networks import CLASSES, EPSILON, LEARNING_RATE, RHO, Network


class TorchPeer(Peer):
    packages = ("torch",)

    def __init__(self, threads: int, option: str):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self._compiles = option == "compile"
        self._layout = torch.contiguous_format if option == "contiguous" else torch.channels_last

    def prepare_training(self, network: Network, weights: list[np.ndarray], batches: Batches) -> None:
        self._module = self._make(network, weights).train()
        optimizer = torch.optim.RMSprop(self._module.parameters(), LEARNING_RATE, alpha=RHO, eps=EPSILON**0.5)
        self._batch = Cycle([(self._images(images), torch.from_numpy(labels)) for images, labels in batches])
        self._optimizer, self._update, self._forward = optimizer, optimizer.step, self._loss
        if self._compiles:
            torch._dynamo.reset()
            self._forward, self._update = torch.compile(self._loss), torch.compile(optimizer.step)

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(self._module(images), labels)

    def train(self, steps: int) -> list[Any]:
        losses = []
        for _ in range(steps):
            images, labels = self._batch()
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._forward(images, labels)
            loss.backward()
            self._update()
            losses.append(loss.item())
        return losses

    def prepare_inference(self, network: Network, weights: list[np.ndarray], batches: Batches) -> None:
        module = nn.Sequential(self._make(network, weights), nn.Softmax(dim=1)).eval()
        if self._compiles:
            torch._dynamo.reset()
        self._forward = torch.compile(module) if self._compiles else module
        self._batch = Cycle([self._images(images) for images, _ in batches])

    def infer(self, steps: int) -> Any:
        with torch.inference_mode():
            for _ in range(steps):
                probabilities = self._forward(self._batch())
        return probabilities.numpy()

    def prepare_convolution(self, problem: dict[str, Any], pass_name: str, arrays: list[np.ndarray]) -> str:
        x, weight, dy = arrays
        x_t, dy_t = (torch.from_numpy(a).permute(0, 3, 1, 2) for a in (x, dy))  # channels last in memory
        weight_t = torch.from_numpy(weight).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
        stride, padding, groups = [problem["stride"]] * 2, [problem["padding"]] * 2, problem["groups"]
        if pass_name == "forward":
            self._pass = lambda: functional.conv2d(x_t, weight_t, stride=stride, padding=padding, groups=groups)
            self._to_numpy = lambda y: y.permute(0, 2, 3, 1).numpy()
            return ""
        needs = [pass_name == "grad_input", pass_name == "grad_weight", False]
        which = 0 if needs[0] else 1
        backward = torch.ops.aten.convolution_backward
        rest = None, stride, padding, [1, 1], False, [0, 0], groups, needs
        self._pass = lambda: backward(dy_t, x_t, weight_t, *rest)[which]
        order = (0, 2, 3, 1) if needs[0] else (2, 3, 1, 0)
        self._to_numpy = lambda result: result.permute(*order).numpy()
        return ""

    def convolve(self, steps: int) -> Any:
        with torch.no_grad():
            for _ in range(steps):
                result = self._pass()
        return self._to_numpy(result)

    def instruction_sets(self) -> list[str]:
        return [f"ATen: {torch.backends.cpu.get_cpu_capability()}", *super().instruction_sets()]

    def _images(self, images: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(images)
        if images.ndim == 4:
            tensor = tensor.permute(0, 3, 1, 2).contiguous(memory_format=self._layout)  # (n, c, h, w)
        return tensor

    def _make(self, network: Network, weights: list[np.ndarray]) -> nn.Sequential:
        """The network up to its logits, with `weights` brought into PyTorch's layouts."""
        layers = _convolutional(network) if network.filters else _dense(network)
        module = nn.Sequential(*layers)
        with torch.no_grad():
            for parameter, weight in zip(module.parameters(), network.channels_first(weights), strict=True):
                parameter.copy_(torch.from_numpy(weight.T if weight.ndim == 2 else weight))  # Linear's is (out, in)
        return module.to(memory_format=self._layout)


def _convolutional(network: Network) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = network.input_shape[-1]
    for k in network.filters:
        layers += [nn.Conv2d(channels, k, 3), nn.ReLU()]
        channels = k
    last = nn.Linear(int(np.prod(network.pooled)), CLASSES)
    return [*layers, nn.MaxPool2d(2), nn.Dropout(network.dropout), nn.Flatten(), last]


def _dense(network: Network) -> list[nn.Module]:
    layers: list[nn.Module] = []
    inputs = network.input_shape[0]
    for units in network.units:
        layers += [nn.Linear(inputs, units), nn.ReLU(), nn.Dropout(network.dropout)]
        inputs = units
    return [*layers, nn.Linear(inputs, CLASSES)]
