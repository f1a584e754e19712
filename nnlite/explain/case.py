"""A network and the algorithm it is timed with: its data, its training step, and the threads it needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import numpy as np

from nnlite import conv, ops
from nnlite.autograd import Tensor
from nnlite.network import layers, losses
from nnlite.network.datasets import Arrays
from nnlite.network.optimizers import RMSprop
from nnlite.network.sequential import Sequential
from nnlite.performance.profiler import StepProfile
from nnlite.performance.rounds import Candidate, Team

RANDOM = "random"
#: seconds of untimed steps before each sample, to warm up caches and branch predictors (the small CNN takes five steps
#: to reach its time, others one); a step of LONG seconds or more needs no warm-up
WARMING, LONG = 0.015, 0.05


@contextmanager
def training(model: Sequential) -> Iterator[None]:
    """Turns an exception of a custom layer, raised during training inside, into a ValueError of one line."""
    try:
        yield
    except BrokenPipeError:  # by what is printed during training
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(f"MODEL {model.name}: a step raised {type(error).__name__}: {error}") from error


@dataclass
class Case:
    """A network, the algorithm of its convolutions, and the batches that it is trained on."""

    model: Sequential
    algorithm: str
    data: str  # the data set's name, or "random"
    images: np.ndarray
    labels: np.ndarray
    batch_size: int
    profile: StepProfile = field(default_factory=StepProfile)

    def __post_init__(self) -> None:
        loss = loss_of(self.model)
        metrics = ["accuracy"] if np.issubdtype(self.labels.dtype, np.integer) else []
        self.model.compile(RMSprop(), loss, metrics=metrics, fuse=not self._on_one_thread)
        self._position = 0

    @property
    def _named(self) -> conv.Algorithm | None:
        """The algorithm of all convolutions; None if `auto` chooses one for each."""
        return None if self.algorithm == "auto" else conv.get(self.algorithm)

    @property
    def _on_one_thread(self) -> bool:
        return self._named is not None and self._named.one_thread

    @property
    def team(self) -> Team:
        """The threads of its step: BLAS and kernel threads never run together."""
        if self._on_one_thread:
            return Team("kernels", 1)
        by_blas = self._named is not None and self._named.may_use_blas("forward", "gradients")
        return Team("blas" if by_blas else "kernels")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Inside, the algorithm is in use and the threads are those it needs."""
        with self.team.at_work(), conv.use(self.algorithm):
            yield

    def step(self) -> None:
        """Train on the next batch. An exception of a custom layer becomes a ValueError of one line."""
        first = self._position if self._position + self.batch_size <= len(self.images) else 0
        self._position = first + self.batch_size
        batch = slice(first, self._position)
        with training(self.model):
            self.model.train_on_batch(self.images[batch], self.labels[batch])

    def candidate(self, name: object) -> Candidate:
        """The profiled step, for paired rounds."""
        return Candidate(
            name,
            partial(self.profile.record, self.step),
            self.team,
            before=self._warm,
            around=partial(conv.use, self.algorithm),
        )

    def _warm(self) -> None:
        if self.profile.steps and self.profile.steps[-1] >= LONG:
            return
        end = time.perf_counter() + WARMING
        self.step()
        while time.perf_counter() < end:
            self.step()


def batches(model: Sequential, name: str, data: Arrays | None, batch_size: int, seed: int) -> tuple[str, Arrays]:
    """The data of a network: the data set's images if they fit it, else a random batch.

    Returns the data set's name, or "random", and (images, labels).
    """
    if data is not None:
        images, labels = data
        outputs = model.output_shape
        fits = prod(images.shape[1:]) == prod(model.input_shape or ())
        if fits and len(outputs) == 1 and outputs[0] > labels.max():
            return name, (np.ascontiguousarray(images.reshape(len(images), *(model.input_shape or ()))), labels)
    return RANDOM, random_batch(model, batch_size, seed)


def random_batch(model: Sequential, batch_size: int, seed: int) -> Arrays:
    """Images (batch_size, *input_shape) in [0, 1), and targets for its output: labels (batch_size), or numbers."""
    generator = np.random.default_rng(seed)
    images = generator.random((batch_size, *(model.input_shape or ())), np.float32)
    outputs = model.output_shape
    if _classifies(model):
        return images, generator.integers(0, outputs[0], batch_size)
    return images, generator.random((batch_size, *outputs), np.float32)


def loss_of(model: Sequential) -> Callable[..., Tensor]:
    """Cross-entropy if the output is a vector (from logits if there is no last softmax), else mean squared error."""
    if not _classifies(model):
        return losses.mean_squared_error
    loss = losses.sparse_categorical_crossentropy
    return loss if _ends_in_softmax(model) else partial(loss, from_logits=True)


def _classifies(model: Sequential) -> bool:
    return len(model.output_shape) == 1 and model.output_shape[0] > 1


def _ends_in_softmax(model: Sequential) -> bool:
    return getattr(model.layers[-1], "activation", None) is ops.softmax


def least_step(batch_size: int) -> Callable[[], Any]:
    """A training step of the smallest classifier: one input, ten classes."""
    model = Sequential([layers.Input((1,)), layers.Dense(10, activation="softmax")], name="least")
    images, labels = np.zeros((batch_size, 1), np.float32), np.zeros(batch_size, np.int64)
    return Case(model, "auto", RANDOM, images, labels, batch_size).step
