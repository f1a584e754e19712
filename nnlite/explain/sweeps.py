"""`--sweep NAME`: the training step as one property of the networks varies, measured, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, log
from statistics import fmean, median
from typing import Any

import numpy as np

from nnlite import models
from nnlite.contention import share_of_processors
from nnlite.errors import unknown
from nnlite.explain.contestant import Contestant, training_step
from nnlite.explain.numbers import short
from nnlite.explain.question import BASELINE
from nnlite.explain.request import fit_images
from nnlite.lab.tables import disturbance
from nnlite.layers import Conv2D, Dense, Dropout, Flatten, Input, MaxPooling2D
from nnlite.model import Sequential
from nnlite.performance.profiler import profile

#: each network is visited so often, in turn with the others, for so many steps and about so many seconds
VISITS, ROUNDS, SECONDS = 3, 3, 0.9
FILTERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
KERNELS = (1, 3, 5, 7, 9, 11)
IMAGES = (8, 12, 16, 20, 28, 40, 56)

Point = dict[str, Any]
Crossing = dict[str, Any]
Case = tuple[str, float, Sequential, int]  # network, x (0 where nothing varies), the model, images a step


@dataclass(frozen=True)
class Sweep:
    """What varies, and the sentences that its points give."""

    name: str
    title: str
    x: str
    cases: Callable[[int], Iterator[Case]]
    findings: Callable[[list[Point], list[Point], list[Crossing]], list[str]]


def names() -> list[str]:
    """What --sweep takes."""
    return list(_SWEEPS)


def chosen(requested: Sequence[str]) -> list[str]:
    """The sweeps of the request, each once; "all" stands for every one. Raises ValueError on an unknown name."""
    for name in requested:
        if name not in (*_SWEEPS, "all"):
            raise unknown("sweep", name, [*_SWEEPS, "all"])
    return [name for name in _SWEEPS if name in requested or "all" in requested]


def run(name: str, images: np.ndarray, labels: np.ndarray, *, algorithm: str, batch_size: int) -> dict[str, Any]:
    """Measure a sweep that `chosen` gave, under `algorithm` and, if that is auto, under im2col as well.

    A network that does not vary is compared with those under the same algorithm. Steps of more images than there are
    are left out.

    The result is an entry of explain.json's "sweeps": points (x, network, algorithm, ms, training MACs an image),
    baselines (networks that do not vary), crossings of the two, and findings in sentences.
    """
    sweep = _SWEEPS[name]
    points: list[Point] = []
    shares: list[float] = []
    for under in ("auto", "im2col") if algorithm == "auto" else (algorithm,):
        cases = (case for case in sweep.cases(batch_size) if case[3] <= len(images))
        points += _measure(cases, under, images, labels, shares)
    baselines = [p for p in points if p["x"] == 0]
    points = [p for p in points if p["x"] != 0]
    crossed = [c for base in baselines for c in crossings(_like(base, points), base["ms"])]
    return {
        "name": name,
        "title": sweep.title,
        "x": sweep.x,
        "points": points,
        "baselines": baselines,
        "crossings": crossed,
        "findings": disturbance(fmean(shares)) + sweep.findings(points, baselines, crossed),
    }


# Measuring ---------------------------------------------------------------------------------------------------------


@dataclass
class _Visited:
    """A case under an algorithm, and the times of its steps, ms."""

    network: str
    x: float
    contestant: Contestant
    batch: int
    step: Callable[[], object]
    steps: list[float] = field(default_factory=list)

    def visit(self) -> None:
        """Time some steps, in the contestant's surroundings; the profiler warms them."""
        self.steps += profile([self.step], warmup=0, rounds=ROUNDS, seconds=SECONDS)[0].steps

    def point(self) -> Point:
        return {
            "x": self.x,
            "network": self.network,
            "algorithm": self.contestant.algorithm,
            "ms": median(self.steps),
            "training_macs_per_image": self.contestant.model.cost(self.batch).training_macs_per_image,
        }


def _measure(
    cases: Iterable[Case], algorithm: str, images: np.ndarray, labels: np.ndarray, shares: list[float]
) -> list[Point]:
    """A point a case, each measured in several visits, so that drift meets all alike.

    To `shares`, the part of the processors that this process got before each visit.
    """
    visited = []
    for network, x, model, batch in cases:
        contestant = Contestant(model, algorithm)
        step = training_step(model, _resized(images[:batch], model), labels[:batch], batch, contestant.fuse)
        visited.append(_Visited(network, x, contestant, batch, step))
    for _ in range(VISITS):
        for v in visited:
            blas, kernels = v.contestant.thread_counts
            with v.contestant.surroundings():
                shares.append(share_of_processors(max(blas, kernels), blas=blas > 1))
                v.visit()
    return [v.point() for v in visited]


def _resized(images: np.ndarray, model: Sequential) -> np.ndarray:
    """The digits at the model's size, nearest pixel: (n, 28, 28, 1) -> (n, h, w, 1)."""
    assert model.input_shape is not None
    if len(model.input_shape) != 3:
        return fit_images(images, model)
    rows, columns = ((np.arange(size) * 28) // size for size in model.input_shape[:2])
    return np.ascontiguousarray(images[:, rows][:, :, columns])


# What varies -------------------------------------------------------------------------------------------------------


def _network(first: int, second: int, kernel: int = 3, size: int = 28, padding: Any = "valid") -> Sequential:
    """The question's CNN with other numbers in it."""
    return Sequential(
        [
            Input((size, size, 1)),
            Conv2D(first, kernel, padding=padding, activation="relu"),
            Conv2D(second, kernel, padding=padding, activation="relu"),
            MaxPooling2D(2),
            Dropout(0.25),
            Flatten(),
            Dense(10, activation="softmax"),
        ]
    )


def _filters(batch: int) -> Iterator[Case]:
    yield BASELINE, 0, models.mlp(), batch
    for count in FILTERS:
        yield "CNN", count, _network(count, count), batch


def _batches(batch: int) -> Iterator[Case]:
    for count in BATCHES:
        for name in ("mlp", "cnn", "small_cnn"):
            yield name, count, getattr(models, name)(), count


def _kernels(batch: int) -> Iterator[Case]:
    for size in KERNELS:
        yield "cnn", size, _network(32, 64, kernel=size, padding="same"), batch
        yield "small_cnn", size, _network(4, 4, kernel=size, padding="same"), batch


def _images(batch: int) -> Iterator[Case]:
    for size in IMAGES:
        yield "cnn", size, _network(32, 64, size=size), batch
        yield "small_cnn", size, _network(4, 4, size=size), batch


# What follows ------------------------------------------------------------------------------------------------------


def groups(points: list[Point]) -> dict[tuple[str, str], list[Point]]:
    """Points by network and algorithm, by x."""
    keys = dict.fromkeys((p["network"], p["algorithm"]) for p in points)
    return {
        key: sorted((p for p in points if (p["network"], p["algorithm"]) == key), key=lambda p: p["x"]) for key in keys
    }


def _like(base: Point, points: list[Point]) -> list[Point]:
    """The points under the same algorithm."""
    return [p for p in points if p["algorithm"] == base["algorithm"]]


def crossings(points: list[Point], level: float) -> list[Crossing]:
    """Where each line last rises through `level`, between two points straight on log axes."""
    found = []
    for (network, algorithm), line in groups(points).items():
        pairs = [(a, b) for a, b in pairwise(line) if a["ms"] <= level < b["ms"]]
        if pairs:
            a, b = pairs[-1]
            part = log(level / a["ms"]) / log(b["ms"] / a["ms"])
            x = exp(log(a["x"]) + part * log(b["x"] / a["x"]))
            found.append({"network": network, "algorithm": algorithm, "x": x, "ms": level})
    return found


def line_fit(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """(intercept, slope) of the line with the least sum of squared relative errors."""
    weights = 1 / np.asarray(ys)
    columns = np.stack([weights, weights * np.asarray(xs)], axis=1)
    intercept, slope = np.linalg.lstsq(columns, np.ones(len(ys)), rcond=None)[0]
    return float(intercept), float(slope)


def _filter_findings(points: list[Point], baselines: list[Point], crossed: list[Crossing]) -> list[str]:
    """Where each network's line crosses the baseline's."""
    said = []
    found = {(c["network"], c["algorithm"]): c["x"] for c in crossed}
    for base in baselines:
        for (network, algorithm), line in groups(_like(base, points)).items():
            if (network, algorithm) in found:
                said.append(
                    f"Under {algorithm}, a {network} with more than {found[network, algorithm]:.1f} filters in each "
                    f"convolution takes longer than the {base['network']} ({base['ms']:.2f} ms)."
                )
            else:
                longer = [p["x"] for p in line if p["ms"] > base["ms"]]
                often = {0: "never ", len(line): "always "}.get(len(longer), "")
                numbers = ", ".join(f"{x:g}" for x in longer)
                where = "" if often else f" only with {numbers} of them"
                said.append(
                    f"Under {algorithm}, a {network} of {line[0]['x']:g} to {line[-1]['x']:g} filters "
                    f"{often}takes longer than the {base['network']} ({base['ms']:.2f} ms){where}."
                )
    return said


def _batch_findings(points: list[Point], baselines: list[Point], crossed: list[Crossing]) -> list[str]:
    """What a step costs before its first image, and what each image adds."""
    said = ["A step's time at no images, the intercept, is that of calls and the optimizer's pass over the parameters."]
    for (network, algorithm), line in groups(points).items():
        intercept, slope = line_fit([p["x"] for p in line], [p["ms"] for p in line])
        said.append(
            f"{network} under {algorithm}: {short(intercept)} ms a step whatever the batch, and {short(1e3 * slope)} "
            "µs an image."
        )
    return said


def _growth_findings(points: list[Point], baselines: list[Point], crossed: list[Crossing]) -> list[str]:
    """Growth of the work beside growth of the time, from one end to the other."""
    said = []
    for (network, algorithm), line in groups(points).items():
        first, last = line[0], line[-1]
        work = last["training_macs_per_image"] / first["training_macs_per_image"]
        said.append(
            f"{network} under {algorithm}: from {first['x']} to {last['x']}, {short(work)} times the training MACs "
            f"take {short(last['ms'] / first['ms'])} times as long."
        )
    return said


_SWEEPS = {
    s.name: s
    for s in (
        Sweep("filters", "filters in both convolutions", "filters", _filters, _filter_findings),
        Sweep("batch", "images in a batch", "images a step", _batches, _batch_findings),
        Sweep("kernel", "kernel size, images padded to keep theirs", "kernel size", _kernels, _growth_findings),
        Sweep("image", "image size", "rows and columns of the image", _images, _growth_findings),
    )
}
