"""A network that is to be measured under an algorithm, and the surroundings that it runs in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nnlite import conv, threads
from nnlite.explain.request import loss_of, training
from nnlite.lab.timing import owned_by
from nnlite.model import Sequential
from nnlite.optimizers import RMSprop

#: after so long the threads of an idle BLAS sleep
SETTLING_SECONDS = 0.15


@dataclass
class Contestant:
    """A network to be measured under an algorithm."""

    model: Sequential
    algorithm: str
    #: whether BLAS had the threads last: its idle threads spin for a while and would take time from the kernels'
    _spinning: ClassVar[bool] = False

    @property
    def _named(self) -> conv.Algorithm | None:
        """The one algorithm of all convolutions; None if each has its own."""
        return None if self.algorithm == "auto" else conv.get(self.algorithm)

    @property
    def _on_one_thread(self) -> bool:
        return self._named is not None and self._named.one_thread

    @property
    def _owner(self) -> threads.Owner:
        """Who has the threads, where there is more than one: OpenBLAS and kernels never share them."""
        by_blas = self._named is not None and self._named.may_use_blas("forward", "gradients")
        return "blas" if by_blas and not self._on_one_thread else "kernels"

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        """The algorithm in use, and the threads as it wants them."""
        if Contestant._spinning and self._owner == "kernels":
            time.sleep(SETTLING_SECONDS)
        Contestant._spinning = self._owner == "blas"
        with conv.use(self.algorithm), threads.using(1) if self._on_one_thread else owned_by(self._owner):
            yield

    @property
    def thread_counts(self) -> tuple[int, int]:
        """How many threads BLAS has in these surroundings, and the kernels."""
        if self._on_one_thread:
            return 1, 1
        count = threads.get_num_threads()
        return (count, 1) if self._owner == "blas" else (1, count)

    @property
    def fuse(self) -> bool:
        return not self._on_one_thread


def training_step(
    model: Sequential, images: np.ndarray, labels: np.ndarray, batch_size: int, fuse: bool
) -> Callable[[], Any]:
    """A function that trains on the next batch each time it is called."""
    model.compile(RMSprop(), loss_of(model), metrics=["accuracy"], fuse=fuse)
    position = 0

    def step() -> object:
        nonlocal position
        if position + batch_size > len(images):
            position = 0
        batch = slice(position, position + batch_size)
        position += batch_size
        with training(model):
            return model.train_on_batch(images[batch], labels[batch])

    return step
