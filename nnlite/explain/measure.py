"""Count, predict and time the networks: what explain.json holds, computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from nnlite import conv, cost, datasets, layers, memory, models, predict, rates, scopes, threads
from nnlite.explain.request import fit_images, loss_of
from nnlite.machine import Machine
from nnlite.model import Sequential
from nnlite.optimizers import RMSprop
from nnlite.predict import PartPrediction, StepPrediction
from nnlite.profiler import Key, StepProfile, profile

#: after so long the threads of an idle BLAS sleep
SETTLING_SECONDS = 0.15
#: images of a usual step
_FEW = 32


@dataclass
class LayerTime:
    """One part of the step: its exact work, its prediction and its measured time.

    `flops` and `bytes` (unfused least) are None where not counted, `prediction` where nothing was predicted.
    """

    name: str
    part: str
    flops: int | None
    bytes: int | None
    ms: float
    prediction: PartPrediction | None = None

    @property
    def gflops(self) -> float | None:
        """10**9 floating-point operations a second, where there are any."""
        return self.flops / self.ms / 1e6 if self.flops and self.ms > 0 else None

    @property
    def predicted_ms(self) -> float | None:
        return None if self.prediction is None or self.prediction.missing else 1e3 * self.prediction.terms.seconds


@dataclass
class Measurement:
    """One network under one algorithm: exact counts, the prediction, and the times of a training step."""

    name: str
    algorithm: str
    cost: cost.Cost
    profile: StepProfile
    layers: list[LayerTime]
    prediction: StepPrediction | None = None
    #: by the name of each Conv2D, how it was computed, and why so
    algorithms: dict[str, conv.Choice] = field(default_factory=dict)

    @property
    def step_ms(self) -> float:
        return self.profile.step_ms

    @property
    def predicted_ms(self) -> float | None:
        """The predicted step; None if a part of it could not be predicted."""
        return None if self.prediction is None or self.prediction.missing else 1e3 * self.prediction.seconds

    @property
    def moved_bytes(self) -> int | None:
        """Bytes that a step really moves; None if a part of it does not say."""
        return None if self.prediction is None or self.prediction.missing else self.prediction.moved_bytes


@dataclass
class Contestant:
    """A network to be measured under an algorithm."""

    model: Sequential
    algorithm: str
    #: whether BLAS had the threads last: its idle threads spin for a while and would take time from the kernels'
    _spinning: ClassVar[bool] = False

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        """The algorithm in use, and the threads as it wants them; OpenBLAS and kernels never share them."""
        algorithm = None if self.algorithm == "auto" else conv.get(self.algorithm)
        before = threads.get_num_threads()
        blas = algorithm is not None and algorithm.uses_blas and not algorithm.one_thread
        if Contestant._spinning and not blas:
            time.sleep(SETTLING_SECONDS)
        Contestant._spinning = blas
        with conv.use(self.algorithm):
            if algorithm is not None and algorithm.one_thread:
                threads.set_num_threads(1)
                try:
                    yield
                finally:
                    threads.set_num_threads(before)
            elif blas:
                with threads.owned_by("blas"):
                    yield
            else:
                yield

    @property
    def fuse(self) -> bool:
        return self.algorithm == "auto" or not conv.get(self.algorithm).one_thread


def measure(
    contestants: Sequence[Contestant],
    machine: Machine | None,
    *,
    batch_size: int = 128,
    data: str = "mnist5k",
    data_dir: str | None = None,
    rounds: int = 20,
    seconds: float = 11.0,
) -> list[Measurement]:
    """Predict a step of each network on real images, then train each for some steps, in turn, and time them.

    Without a `machine` (where kernels are not compiled) nothing is predicted.
    """
    (images, labels), _ = datasets.load(data, data_dir=data_dir)
    if not 1 <= batch_size <= len(images):
        raise ValueError(f"batch_size: expected 1 to {len(images)}, the images there are. Received: {batch_size}")
    steps = [_training_step(c.model, fit_images(images, c.model), labels, batch_size, fuse=c.fuse) for c in contestants]
    predictions = [
        _predict(c, step, machine, batch_size) if machine else None for c, step in zip(contestants, steps, strict=True)
    ]
    memory.trim()  # of what measuring rates left in the pool
    surroundings = [c.surroundings for c in contestants]
    profiles = profile(steps, surroundings=surroundings, rounds=rounds, seconds=seconds)
    results = []
    for c, prediction, result in zip(contestants, predictions, profiles, strict=True):
        counts = c.model.cost(batch_size)
        times = _layer_times(counts, prediction, result.medians())
        with c.surroundings():
            algorithms = c.model.algorithms(batch_size)
        results.append(Measurement(c.model.name, c.algorithm, counts, result, times, prediction, algorithms))
    return results


def _predict(contestant: Contestant, step: Callable[[], object], machine: Machine, batch_size: int) -> StepPrediction:
    """The prediction for a step, made before any step is timed; one step is run to see what it calls."""
    with contestant.surroundings():
        blas = contestant.algorithm != "auto" and conv.get(contestant.algorithm).uses_blas
        known = rates.Rates(machine, threads.get_num_threads() if blas else 1, threads.kernel_parts())
        calls = predict.trace(step)
        optimizer = contestant.model.optimizer
        assert optimizer is not None
        result = predict.predict(calls, optimizer, known, _least_step(batch_size), _usual_step(contestant.fuse))
        known.save()
    return result


def _least_step(batch_size: int) -> Callable[[], object]:
    """A training step of the smallest network for digits: one number in, ten classes out."""
    model = Sequential([layers.Input((1,)), layers.Dense(10, activation="softmax")], name="least")
    images, labels = np.zeros((batch_size, 1), np.float32), np.zeros(batch_size, np.int64)
    return _training_step(model, images, labels, batch_size, fuse=True)


def _usual_step(fuse: bool) -> Callable[[], object]:
    """A training step with all kinds of layers, on few images so that it is short."""
    images = np.zeros((_FEW, 28, 28, 1), np.float32)
    return _training_step(models.small_cnn(), images, np.zeros(_FEW, np.int64), _FEW, fuse)


def _training_step(
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
        return model.train_on_batch(images[batch], labels[batch])

    return step


def _layer_times(counts: cost.Cost, prediction: StepPrediction | None, medians: dict[Key, float]) -> list[LayerTime]:
    """Each measured part beside its counts and its prediction, in the network's order."""
    order = [p.layer for p in counts.passes]

    def place(key: Key) -> tuple[int, int]:
        first = key[0].split("+")[0]
        return order.index(first) if first in order else len(order), scopes.PARTS.index(key[1])

    counted = partial(_counted, counts, medians)
    predicted = prediction.parts if prediction else {}
    return [LayerTime(*key, *counted(key), medians[key], predicted.get(key)) for key in sorted(medians, key=place)]


def _counted(counts: cost.Cost, medians: dict[Key, float], key: Key) -> tuple[int | None, int | None]:
    """FLOPs and unfused least bytes of a part; a fused group's name joins its layers with "+"."""
    layer, part = key
    if part == "grad_input" and (layer, "gradients") in medians:
        return None, None  # both gradients are computed at once: this is what goes on around them
    if part == "optimizer":
        passes = [p for p in counts.passes if p.part == "optimizer"]
    else:
        parts = ("grad_input", "grad_weight") if part == "gradients" else (part,)
        passes = [p for p in counts.passes if p.layer in layer.split("+") and p.part in parts]
    if not passes:
        return None, None
    return sum(p.flops for p in passes), sum(p.bytes for p in passes)
