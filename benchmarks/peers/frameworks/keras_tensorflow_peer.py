"""Keras on TensorFlow: the whole training step as one tf.function, as Keras's guide to custom loops writes it.

That leaves out what `fit` and `train_on_batch` spend in Python on iterators, callbacks and metrics. XLA is off, which
is Keras's own choice on a machine with processors only.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.peers.frameworks.keras_peer import KerasPeer


class KerasTensorflowPeer(KerasPeer):
    packages = ("keras", "tensorflow", "tensorflow-cpu")

    def __init__(self, threads: int, option: str):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        super().__init__(threads, option)

    def _array(self, array: np.ndarray) -> Any:
        return tf.constant(array)

    def _make_step(self, model: keras.Model, optimizer: keras.Optimizer, loss_function: keras.Loss) -> None:
        @tf.function
        def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = loss_function(labels, model(images, training=True))
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            return loss

        self._step = step.get_concrete_function(*self._batch.first)

    def train(self, steps: int) -> list[Any]:
        return [self._step(*self._batch()).numpy() for _ in range(steps)]

    def _make_forward(self, model: keras.Model) -> None:
        forward = tf.function(lambda images: model(images, training=False))
        self._forward = forward.get_concrete_function(self._batch.first)

    def infer(self, steps: int) -> Any:
        for _ in range(steps):
            probabilities = self._forward(self._batch())
        return probabilities.numpy()
