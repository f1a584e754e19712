"""`--sweep NAME`: time the training step while one property of the networks varies."""

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
#: interleaved rounds per sweep
ROUNDS = 9
FILTERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
KERNELS = (1, 3, 5, 7, 9, 11)
IMAGES = (8, 12, 16, 20, 28, 40, 56)

Point = dict[str, Any]
Crossing = dict[str, Any]
#: network, x (0 for a network that does not vary), the model, images per step
Varied = tuple[str, float, Sequential, int]


@dataclass(frozen=True)
class Sweep:
    """The property that varies, its networks, and the findings in sentences."""

    name: str
    title: str
    x: str
    cases: Callable[[int], Iterator[Varied]]
    findings: Callable[[list[Point], list[Point], list[Crossing]], list[str]]


def names() -> list[str]:
    """The names that --sweep accepts."""
    return list(_SWEEPS)


def chosen(requested: Sequence[str]) -> list[str]:
    """The requested sweeps without duplicates; "all" means every one. Raises ValueError for an unknown name."""
    for name in requested:
        if name not in (*_SWEEPS, "all"):
            raise unknown("sweep", name, [*_SWEEPS, "all"])
    return [name for name in _SWEEPS if name in requested or "all" in requested]


def run(name: str, *, algorithm: str, batch_size: int, seed: int = 0) -> dict[str, Any]:
    """Time a sweep with `algorithm`; if that is auto, also with im2col.

    Images are random: the time depends on shapes only. Baselines are compared with points of the same algorithm.

    Returns an entry of explain.json's "sweeps": points (x, network, algorithm, ms, training MACs per image), baselines
    (networks that do not vary), crossings of the two, and findings in sentences.
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
    """One point per network, all timed in the same rounds."""
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


# The networks of each sweep ------------------------------------------------------------------------------------------


def _network(first: int, second: int, kernel: int = 3, size: int = 28, padding: Any = "valid") -> Sequential:
    """The CNN of the question with other sizes."""
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


# Findings -----------------------------------------------------------------------------------------------------------


def groups(points: list[Point]) -> dict[tuple[str, str], list[Point]]:
    """The points of each network and algorithm, sorted by x."""
    keys = dict.fromkeys((p["network"], p["algorithm"]) for p in points)
    return {
        key: sorted((p for p in points if (p["network"], p["algorithm"]) == key), key=lambda p: p["x"]) for key in keys
    }


def _like(base: Point, points: list[Point]) -> list[Point]:
    """The points with the same algorithm as the baseline."""
    return [p for p in points if p["algorithm"] == base["algorithm"]]


def crossings(points: list[Point], level: float) -> list[Crossing]:
    """Where each line last rises above `level`; between two points it is straight on log axes."""
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
    """(intercept, slope) of the line that minimises the sum of squared relative errors."""
    weights = 1 / np.asarray(ys)
    columns = np.stack([weights, weights * np.asarray(xs)], axis=1)
    intercept, slope = np.linalg.lstsq(columns, np.ones(len(ys)), rcond=None)[0]
    return float(intercept), float(slope)


def _filter_findings(points: list[Point], baselines: list[Point], crossed: list[Crossing]) -> list[str]:
    """The number of filters from which each network takes longer than the baseline."""
    said = []
    found = {(c["network"], c["algorithm"]): c["x"] for c in crossed}
    for base in baselines:
        for (network, algorithm), line in groups(_like(base, points)).items():
            if (network, algorithm) in found:
                said.append(
                    f"With algorithm {algorithm}, the {network} takes longer than the {base['network']} "
                    f"({base['ms']:.2f} ms) with more than {found[network, algorithm]:.1f} filters per convolution."
                )
            else:
                longer = [p["x"] for p in line if p["ms"] > base["ms"]]
                often = {0: "never ", len(line): "always "}.get(len(longer), "")
                numbers = ", ".join(f"{x:g}" for x in longer)
                where = f"with {line[0]['x']:g} to {line[-1]['x']:g}" if often else f"only with {numbers}"
                said.append(
                    f"With algorithm {algorithm}, the {network} {often}takes longer than the {base['network']} "
                    f"({base['ms']:.2f} ms) {where} filters per convolution."
                )
    return said


def _batch_findings(points: list[Point], baselines: list[Point], crossed: list[Crossing]) -> list[str]:
    """The time of a step that does not depend on the batch, and the time per image."""
    said = ["The part that does not depend on the batch is call overhead and the optimizer's update."]
    for (network, algorithm), line in groups(points).items():
        intercept, slope = line_fit([p["x"] for p in line], [p["ms"] for p in line])
        said.append(
            f"{network}, algorithm {algorithm}: {short(intercept)} ms per step plus {short(1e3 * slope)} µs per image."
        )
    return said


def _growth_findings(points: list[Point], baselines: list[Point], crossed: list[Crossing]) -> list[str]:
    """Growth of the MACs and of the time from the first to the last point."""
    said = []
    for (network, algorithm), line in groups(points).items():
        first, last = line[0], line[-1]
        work = last["training_macs_per_image"] / first["training_macs_per_image"]
        said.append(
            f"{network}, algorithm {algorithm}: from {first['x']} to {last['x']}, the training MACs grow "
            f"{short(work)} times and the time {short(last['ms'] / first['ms'])} times."
        )
    return said


_SWEEPS = {
    s.name: s
    for s in (
        Sweep("filters", "filters of both convolutions", "filters", _filters, _filter_findings),
        Sweep("batch", "batch size", "images per step", _batches, _batch_findings),
        Sweep("kernel", "kernel size, with padding 'same'", "kernel size", _kernels, _growth_findings),
        Sweep("image", "image size", "rows and columns of the image", _images, _growth_findings),
    )
}
