"""The networks in Keras 3, for either of its backends."""

from __future__ import annotations

import keras
import numpy as np

from benchmarks.peers.networks import CLASSES, Network


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
