"""Count and time the networks: what explain.json holds, computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from nnlite import conv, cost, datasets, scopes, threads
from nnlite.explain.request import fit_images
from nnlite.model import Sequential
from nnlite.optimizers import RMSprop
from nnlite.profiler import Key, StepProfile, profile


@dataclass
class LayerTime:
    """One part of the step: its exact work beside its measured time. `flops` and `bytes` are None where not counted."""

    name: str
    part: str
    flops: int | None
    bytes: int | None
    ms: float

    @property
    def gflops(self) -> float | None:
        """10**9 floating-point operations a second, where there are any."""
        return self.flops / self.ms / 1e6 if self.flops and self.ms > 0 else None


@dataclass
class Measurement:
    """One network under one algorithm: exact counts, and the times of a training step."""

    name: str
    algorithm: str
    cost: cost.Cost
    profile: StepProfile
    layers: list[LayerTime]
    #: by the name of each Conv2D, how it was computed, and why so
    algorithms: dict[str, conv.Choice] = field(default_factory=dict)

    @property
    def step_ms(self) -> float:
        return self.profile.step_ms


def measure(
    models: Sequence[Sequential],
    *,
    algorithm: str = "auto",
    batch_size: int = 128,
    data: str = "mnist5k",
    data_dir: str | None = None,
    rounds: int = 20,
    seconds: float = 20.0,
) -> list[Measurement]:
    """Train each model for some steps on real images, in turn, and say where the time went."""
    (images, labels), _ = datasets.load(data, data_dir=data_dir)
    if not 1 <= batch_size <= len(images):
        raise ValueError(f"batch_size: expected 1 to {len(images)}, the images there are. Received: {batch_size}")
    with ExitStack() as stack:
        stack.enter_context(conv.use(algorithm))
        if algorithm != "auto" and conv.get(algorithm).uses_blas:
            stack.enter_context(threads.owned_by("blas"))
        steps = [_training_step(model, fit_images(images, model), labels, batch_size) for model in models]
        profiles = profile(steps, rounds=rounds, seconds=seconds)
        algorithms = [model.algorithms(batch_size) for model in models]
    results = []
    for model, result, chosen in zip(models, profiles, algorithms, strict=True):
        counts = model.cost(batch_size)
        layers = _layer_times(counts, result.medians())
        results.append(Measurement(model.name, algorithm, counts, result, layers, chosen))
    return results


def _training_step(model: Sequential, images: np.ndarray, labels: np.ndarray, batch_size: int) -> Callable[[], object]:
    """A function that trains on the next batch each time it is called."""
    model.compile(RMSprop(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    position = 0

    def step() -> object:
        nonlocal position
        if position + batch_size > len(images):
            position = 0
        batch = slice(position, position + batch_size)
        position += batch_size
        return model.train_on_batch(images[batch], labels[batch])

    return step


def _layer_times(counts: cost.Cost, medians: dict[Key, float]) -> list[LayerTime]:
    """Each measured part beside the counts of the layers and passes that it covers, in the network's order."""
    order = [p.layer for p in counts.passes]

    def place(key: Key) -> tuple[int, int]:
        first = key[0].split("+")[0]
        return order.index(first) if first in order else len(order), scopes.PARTS.index(key[1])

    keys = sorted(medians, key=place)
    times = []
    for layer, part in keys:
        # where both gradients are computed at once, the work is theirs, and "grad_input" is what goes on around them
        around = part == "grad_input" and (layer, "gradients") in medians
        flops, moved = (None, None) if around else _counted(counts, layer, part)
        times.append(LayerTime(layer, part, flops, moved, medians[layer, part]))
    return times


def _counted(counts: cost.Cost, layer: str, part: str) -> tuple[int | None, int | None]:
    """FLOPs and unfused least bytes of a part; a fused group's name joins its layers with "+"."""
    if part == "optimizer":
        passes = [p for p in counts.passes if p.part == "optimizer"]
    else:
        parts = ("grad_input", "grad_weight") if part == "gradients" else (part,)
        passes = [p for p in counts.passes if p.layer in layer.split("+") and p.part in parts]
    if not passes:
        return None, None
    return sum(p.flops for p in passes), sum(p.bytes for p in passes)
