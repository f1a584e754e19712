"""What every peer can be asked to do."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from threadpoolctl import threadpool_info

from benchmarks.peers.networks import Network

Batches = list[tuple[np.ndarray, np.ndarray]]


class Peer:
    """Drives one framework. `train` and `infer` are what is timed; all preparation is done before.

    Data are the framework's own arrays, cut into batches, before anything is timed. A result is there when a method
    returns: a framework that works in the background is waited for at the end of a burst, not after each step.
    """

    #: the distributions whose versions a report names
    packages: ClassVar[tuple[str, ...]] = ()

    def prepare_training(self, network: Network, weights: list[np.ndarray], batches: Batches) -> None:
        """Make the network with `weights` (Keras's layouts) and its optimizer, with nothing remembered."""
        raise NotImplementedError

    def train(self, steps: int) -> list[Any]:
        """So many training steps, on the batches in order; the loss of each."""
        raise NotImplementedError

    def prepare_inference(self, network: Network, weights: list[np.ndarray], batches: Batches) -> None:
        """Make the network for inference."""
        raise NotImplementedError

    def infer(self, steps: int) -> Any:
        """The probabilities for `steps` batches, in order; the last ones are returned."""
        raise NotImplementedError

    def prepare_convolution(self, problem: dict[str, Any], pass_name: str, arrays: list[np.ndarray]) -> str:
        """One pass of one convolution: `arrays` are x, weight and dy, channels last.

        Returns the name of the algorithm, or nothing if it has none.
        """
        raise NotImplementedError

    def convolve(self, steps: int) -> Any:
        """Run the pass `steps` times; the last result is returned."""
        raise NotImplementedError

    def instruction_sets(self) -> list[str]:
        """What the framework's libraries say of the instructions that they use, one line each."""
        return [
            f"{pool['internal_api']}: {pool['architecture']}" for pool in threadpool_info() if "architecture" in pool
        ]


class Cycle:
    """Batches one after the other, for ever."""

    def __init__(self, batches: list[Any]):
        self._batches = batches
        self._next = 0

    @property
    def first(self) -> Any:
        """The first batch, as an example; the next one taken is not changed by it."""
        return self._batches[0]

    def __call__(self) -> Any:
        batch = self._batches[self._next]
        self._next = (self._next + 1) % len(self._batches)
        return batch
