"""What either backend of Keras 3 is driven with: the network, its optimizer and its loss."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from benchmarks.peers.frameworks.base import Batches, Cycle, Peer
from benchmarks.peers.networks import CLASSES, EPSILON, LEARNING_RATE, RHO, Network


class KerasPeer(Peer):
    """A backend writes `_array`, and `_make_step` and `_make_forward`, which make what its `train` and `infer` call."""

    def __init__(self, threads: int, option: str):
        keras.utils.set_random_seed(0)

    def prepare_training(self, network: Network, weights: list[np.ndarray], batches: Batches) -> None:
        model = make(network, weights)
        optimizer = keras.optimizers.RMSprop(LEARNING_RATE, rho=RHO, epsilon=EPSILON)
        optimizer.build(model.trainable_variables)
        self._batch = Cycle([(self._array(images), self._array(labels)) for images, labels in batches])
        self._make_step(model, optimizer, keras.losses.SparseCategoricalCrossentropy())

    def prepare_inference(self, network: Network, weights: list[np.ndarray], batches: Batches) -> None:
        self._batch = Cycle([self._array(images) for images, _ in batches])
        self._make_forward(make(network, weights))

    def _array(self, array: np.ndarray) -> Any:
        """The backend's own array of these numbers."""
        raise NotImplementedError

    def _make_step(self, model: keras.Model, optimizer: keras.Optimizer, loss_function: keras.Loss) -> None:
        """Compile a whole training step."""
        raise NotImplementedError

    def _make_forward(self, model: keras.Model) -> None:
        """Compile the model as one uses it that is trained."""
        raise NotImplementedError


def make(network: Network, weights: list[np.ndarray]) -> keras.Model:
    """As the Keras examples write it, channels last, with a softmax at its end; begins with `weights`."""
    layers = [keras.layers.Input(network.input_shape)]
    layers += [keras.layers.Conv2D(k, 3, activation="relu") for k in network.filters]
    if network.filters:
        layers += [keras.layers.MaxPooling2D(2), keras.layers.Dropout(network.dropout), keras.layers.Flatten()]
    for units in network.units:
        layers += [keras.layers.Dense(units, activation="relu"), keras.layers.Dropout(network.dropout)]
    model = keras.Sequential([*layers, keras.layers.Dense(CLASSES, activation="softmax")])
    model.set_weights(weights)
    return model
