"""`--sweep NAME`: the training step as one property of the networks varies, measured, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log
from statistics import median
from typing import Any

import numpy as np

from nnlite.explain.case import RANDOM, Case, random_batch
from nnlite.lab.numbers import short
from nnlite.network import models
from nnlite.network.layers import Conv2D, Dense, Dropout, Flatten, Input, MaxPooling2D
from nnlite.network.sequential import Sequential
from nnlite.performance.contention import Contention, caution
from nnlite.performance.rounds import run_rounds
from nnlite.runtime.errors import unknown

BASELINE = "mlp"
#: rounds, in which every network has its turn
ROUNDS = 9
FILTERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
KERNELS = (1, 3, 5, 7, 9, 11)
IMAGES = (8, 12, 16, 20, 28, 40, 56)

Point = dict[str, Any]
Crossing = dict[str, Any]
#: network, x (0 where nothing varies), the model, images per step
Varied = tuple[str, float, Sequential, int]


@dataclass(frozen=True)
class Sweep:
    """What varies, and the sentences that its points give."""

    name: str
    title: str
    x: str
    cases: Callable[[int], Iterator[Varied]]
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


def run(name: str, *, algorithm: str, batch_size: int, seed: int = 0) -> dict[str, Any]:
    """Measure a sweep that `chosen` gave, with `algorithm` and, if that is auto, with im2col as well.

    Images are random: only shapes matter to the time. A network that does not vary is compared with those of the same
    algorithm.

    The result is an entry of explain.json's "sweeps": points (x, network, algorithm, ms, training MACs per image),
    baselines (networks that do not vary), crossings of the two, and findings in sentences.
    """
    sweep = _SWEEPS[name]
    contention = Contention()
    points: list[Point] = []
    for chosen_algorithm in ("auto", "im2col") if algorithm == "auto" else (algorithm,):
        points += _measure(sweep.cases(batch_size), chosen_algorithm, seed)
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
        "findings": caution(contention.share()) + sweep.findings(points, baselines, crossed),
    }


def _measure(varied: Iterator[Varied], algorithm: str, seed: int) -> list[Point]:
    """A point for each network, all timed in the same rounds."""
    labels, cases = [], []
    for network, x, model, batch in varied:
        labels.append((network, x))
        cases.append(Case(model, algorithm, RANDOM, *random_batch(model, batch, seed), batch))
    samples = run_rounds([case.candidate(i) for i, case in enumerate(cases)], rounds=ROUNDS, seed=seed)
    return [
        {
            "x": x,
            "network": network,
            "algorithm": algorithm,
            "ms": 1e3 * median(samples[i]),
            "training_macs_per_image": case.model.cost(case.batch_size).training_macs_per_image,
        }
        for i, ((network, x), case) in enumerate(zip(labels, cases, strict=True))
    ]


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


def _filters(batch: int) -> Iterator[Varied]:
    yield BASELINE, 0, models.mlp(), batch
    for count in FILTERS:
        yield "CNN", count, _network(count, count), batch


def _batches(batch: int) -> Iterator[Varied]:
    for count in BATCHES:
        for name in ("mlp", "cnn", "small_cnn"):
            yield name, count, getattr(models, name)(), count


def _kernels(batch: int) -> Iterator[Varied]:
    for size in KERNELS:
        yield "cnn", size, _network(32, 64, kernel=size, padding="same"), batch
        yield "small_cnn", size, _network(4, 4, kernel=size, padding="same"), batch


def _images(batch: int) -> Iterator[Varied]:
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
                    f"{algorithm}: a {network} with more than {found[network, algorithm]:.1f} filters in each "
                    f"convolution takes longer than the {base['network']} ({base['ms']:.2f} ms)."
                )
            else:
                longer = [p["x"] for p in line if p["ms"] > base["ms"]]
                often = {0: "never ", len(line): "always "}.get(len(longer), "")
                numbers = ", ".join(f"{x:g}" for x in longer)
                where = "" if often else f" only with {numbers} of them"
                said.append(
                    f"{algorithm}: a {network} of {line[0]['x']:g} to {line[-1]['x']:g} filters "
                    f"{often}takes longer than the {base['network']} ({base['ms']:.2f} ms){where}."
                )
    return said


def _batch_findings(points: list[Point], baselines: list[Point], crossed: list[Crossing]) -> list[str]:
    """The overhead of a step, and what each image adds."""
    said = ["The intercept, the time of a step without images, is the overhead of calls and the optimizer's pass."]
    for (network, algorithm), line in groups(points).items():
        intercept, slope = line_fit([p["x"] for p in line], [p["ms"] for p in line])
        said.append(
            f"{network}, {algorithm}: {short(intercept)} ms per step whatever the batch, and {short(1e3 * slope)} "
            "µs per image."
        )
    return said


def _growth_findings(points: list[Point], baselines: list[Point], crossed: list[Crossing]) -> list[str]:
    """Growth of the work beside growth of the time, from one end to the other."""
    said = []
    for (network, algorithm), line in groups(points).items():
        first, last = line[0], line[-1]
        work = last["training_macs_per_image"] / first["training_macs_per_image"]
        said.append(
            f"{network}, {algorithm}: from {first['x']} to {last['x']}, {short(work)} times the training MACs "
            f"take {short(last['ms'] / first['ms'])} times as long."
        )
    return said


_SWEEPS = {
    s.name: s
    for s in (
        Sweep("filters", "filters in both convolutions", "filters", _filters, _filter_findings),
        Sweep("batch", "images in a batch", "images per step", _batches, _batch_findings),
        Sweep("kernel", "kernel size, images padded to keep theirs", "kernel size", _kernels, _growth_findings),
        Sweep("image", "image size", "rows and columns of the image", _images, _growth_findings),
    )
}
