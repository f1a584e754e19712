"""Count, predict and time the networks: what explain.json holds, computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

import numpy as np

from nnlite import conv, cost, memory, scopes
from nnlite.contention import share_of_processors
from nnlite.explain.contestant import Contestant, training_step
from nnlite.explain.forecast import forecast
from nnlite.explain.question import EPOCH_IMAGES
from nnlite.explain.request import check_outputs, fit_images
from nnlite.machine import Machine
from nnlite.model import Sequential
from nnlite.predict import PartPrediction, StepPrediction
from nnlite.profiler import CHANGED, Key, StepProfile, profile


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
    #: that BLAS or the kernels had, whichever were more
    threads: int = 1
    #: of the processors' time, that this process got between the rounds; 1 if it was not asked for
    share: float = 1.0
    #: whether the processors lay as they had not before the steps were timed, so that the prediction is not for that
    strayed: bool = False

    @property
    def step_ms(self) -> float:
        return self.profile.step_ms

    @property
    def epoch_s(self) -> float:
        """Seconds that an epoch as long as the question's takes."""
        return -(-EPOCH_IMAGES // self.cost.batch_size) * self.step_ms / 1e3

    @property
    def predicted_ms(self) -> float | None:
        """The predicted step; None if a part of it could not be predicted."""
        return None if self.prediction is None or self.prediction.missing else 1e3 * self.prediction.seconds

    @property
    def moved_bytes(self) -> int | None:
        """Bytes that a step really moves; None if a part of it does not say."""
        return None if self.prediction is None or self.prediction.missing else self.prediction.moved_bytes

    def rows(self) -> list[tuple[float | None, float]]:
        """(predicted, measured) ms of each layer's pass."""
        return [(row.predicted_ms, row.ms) for row in self.layers]


def training_steps(
    contestants: Sequence[Contestant], images: np.ndarray, labels: np.ndarray, batch_size: int
) -> list[Callable[[], object]]:
    """A training step of each network on batches of these images. Raises ValueError if a network does not fit them."""
    for c in contestants:
        check_outputs(c.model, labels)
    return [training_step(c.model, fit_images(images, c.model), labels, batch_size, fuse=c.fuse) for c in contestants]


def measure(
    contestants: Sequence[Contestant],
    steps: Sequence[Callable[[], object]],
    machine: Machine | None,
    *,
    batch_size: int = 128,
    rounds: int = 20,
    seconds: float = 8.0,
) -> list[Measurement]:
    """Predict each network's step, then train each for some steps of `batch_size` images, in turn, and time them.

    Without a `machine` (where kernels are not compiled) nothing is predicted.
    """
    forecasts = forecast(contestants, steps, machine, batch_size) if machine else []
    memory.trim()  # of what measuring rates left in the pool
    first, *others = contestants
    shares: list[float] = []
    profiles = profile(
        steps,
        surroundings=[partial(_asking, first, shares), *(c.surroundings for c in others)],
        states=[f.where for f in forecasts],
        preferred=[f.knows for f in forecasts],
        rounds=rounds,
        seconds=seconds,
    )
    results = []
    for i, (c, result) in enumerate(zip(contestants, profiles, strict=True)):
        prediction = forecasts[i].at(result.state) if forecasts else None
        counts = c.model.cost(batch_size)
        times = _layer_times(c.model, counts, prediction, result.medians())
        with c.surroundings():
            algorithms = c.model.algorithms(batch_size)
        results.append(
            Measurement(
                c.model.name,
                c.algorithm,
                counts,
                result,
                times,
                prediction,
                algorithms,
                threads=max(c.thread_counts),
                share=fmean(shares),
                strayed=bool(forecasts) and result.state is not CHANGED and not forecasts[i].has(result.state),
            )
        )
    return results


@contextmanager
def _asking(c: Contestant, shares: list[float]) -> Iterator[None]:
    """A contestant's surroundings, in which it is first asked for its share of the processors."""
    with c.surroundings():
        shares.append(share_of_processors(max(c.thread_counts), blas=c.thread_counts[0] > 1))
        yield


def _layer_times(
    model: Sequential, counts: cost.Cost, prediction: StepPrediction | None, medians: dict[Key, float]
) -> list[LayerTime]:
    """Each measured part beside its counts and its prediction, in the network's order."""
    order = [layer.name for layer in model.layers]

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
