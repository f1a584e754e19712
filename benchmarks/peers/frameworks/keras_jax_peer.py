"""Keras on JAX: the whole training step as one jitted pure function whose state is donated, as Keras's guide to
custom loops in JAX writes it.

That leaves out what `fit` and `train_on_batch` spend in Python, and lets JAX prepare a step while the last one runs.
XLA takes as many threads as the process has processors, and the worker was given those it may use.
"""

from __future__ import annotations

from typing import Any

import jax
import keras
import numpy as np

from benchmarks.peers.frameworks.keras_peer import KerasPeer


class KerasJaxPeer(KerasPeer):
    packages = ("keras", "jax", "jaxlib")

    def _array(self, array: np.ndarray) -> Any:
        return jax.device_put(array)

    def _make_step(self, model: keras.Model, optimizer: keras.Optimizer, loss_function: keras.Loss) -> None:
        def loss_of(trainable: Any, others: Any, images: Any, labels: Any) -> Any:
            probabilities, others = model.stateless_call(trainable, others, images, training=True)
            return loss_function(labels, probabilities), others

        def step(state: Any, images: Any, labels: Any) -> Any:
            trainable, others, remembered = state
            (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable, others, images, labels)
            trainable, remembered = optimizer.stateless_apply(remembered, gradients, trainable)
            return loss, (trainable, others, remembered)

        variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
        self._state = tuple([v.value for v in group] for group in variables)
        self._step = jax.jit(step, donate_argnums=0)

    def train(self, steps: int) -> list[Any]:
        losses = []
        for _ in range(steps):
            loss, self._state = self._step(self._state, *self._batch())
            losses.append(loss)
        jax.block_until_ready((losses, self._state))
        return losses

    def _make_forward(self, model: keras.Model) -> None:
        trainable, others = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
        self._forward = jax.jit(lambda images: model.stateless_call(trainable, others, images, training=False)[0])

    def infer(self, steps: int) -> Any:
        results = [self._forward(self._batch()) for _ in range(steps)]
        jax.block_until_ready(results)
        return np.asarray(results[-1])
