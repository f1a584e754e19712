"""What the report reads from explain.json: one view of the document, tolerant of keys that are null or absent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nnlite.explain.question import BASELINE, REPORTED_SECONDS
from nnlite.explain.report.canvas import Canvas
from nnlite.explain.verdict import ratio_of_steps, within
from nnlite.lab.statistics import Ratio

Model = dict[str, Any]
#: metric -> the key of a model object that holds it
METRICS = {
    "parameters": "parameters",
    "forward MACs": "forward_macs_per_image",
    "training MACs": "training_macs_per_image",
    "unfused least bytes": "unfused_least_bytes_per_step",
    "moved bytes": "moved_bytes_per_step",
    "time model": "predicted_ms",
}


@dataclass
class Figure:
    """A picture of one or more panels, with the sentence that says what to see in it."""

    name: str
    title: str
    caption: str
    panels: list[Canvas] = field(default_factory=list)
    columns: int = 2
    legend: Canvas | None = None
    notes: list[str] = field(default_factory=list)  # what follows from it


@dataclass(frozen=True)
class Variant:
    """The networks of the run under one algorithm."""

    algorithm: str
    models: Sequence[Model]

    @property
    def threads(self) -> int:
        """That the algorithm ran on."""
        return self.models[0]["conditions"]["threads"]

    def find(self, name: str) -> Model | None:
        return next((m for m in self.models if m["name"] == name), None)

    @property
    def baseline(self) -> Model | None:
        """The MLP of the question, to which others are compared, if it was run beside them."""
        return self.find(BASELINE) if len(self.models) > 1 else None

    def others(self) -> list[Model]:
        """The networks that are compared to the baseline."""
        return [m for m in self.models if m is not self.baseline] if self.baseline else []

    @cached_property
    def ratios(self) -> dict[str, Ratio]:
        """By its name, each other network's measured step relative to the baseline's; empty without one."""
        base = self.baseline
        if base is None:
            return {}
        samples = base["step_ms"]["samples"]
        return {
            m["name"]: ratio_of_steps(m["step_ms"]["samples"], samples, step(m) / step(base)) for m in self.others()
        }

    def comparisons(self, metric: str) -> list[Comparison]:
        """What a metric says about each other network's time; empty without a baseline."""
        base, key = self.baseline, METRICS[metric]
        return [Comparison(m, ratio(m, base, key), self.ratios[m["name"]].value) for m in self.others() if base]

    def lands(self, metric: str) -> bool | None:
        """Whether the metric predicts every network's time; None where it was not computed."""
        found = [comparison.lands for comparison in self.comparisons(metric)]
        return None if None in found or not found else all(found)


@dataclass(frozen=True)
class Comparison:
    """What a metric says about a network's time relative to the baseline's, and what was measured."""

    model: Model
    predicted: float | None
    measured: float

    @property
    def lands(self) -> bool | None:
        """Whether it is near enough; None where it was not computed."""
        return None if self.predicted is None else within(self.predicted / self.measured)


@dataclass(frozen=True)
class Ceilings:
    """What a processor does at the most with so many threads."""

    threads: int
    peak_gflops: float
    #: (level, 10**9 bytes a second), the fastest first
    slopes: list[tuple[str, float]]


@dataclass(frozen=True)
class Run:
    """The document, and its networks under each algorithm, the run's own first."""

    document: dict[str, Any]

    @property
    def variants(self) -> list[Variant]:
        own = self.document["algorithm"]
        rest = self.document.get("comparisons") or {}
        return [
            Variant(own, self.document["models"]),
            *(Variant(name, models) for name, models in rest.items() if models and name != own),
        ]

    @property
    def names(self) -> list[str]:
        return [m["name"] for m in self.document["models"]]

    @property
    def machine(self) -> dict[str, Any]:
        return self.document.get("machine") or {}

    def ceilings(self, variant: Variant) -> Ceilings | None:
        """Those of as many threads as the algorithm has; None where they were not measured."""
        if not self.machine:
            return None
        threads = 1 if variant.threads == 1 else self.machine["threads"]
        slopes = [(b["level"], b["copy_gbs"]) for b in self.machine["bandwidths"] if b["threads"] == threads]
        peak = self.machine["fma_gflops_one" if threads == 1 else "fma_gflops_all"]
        return Ceilings(threads, peak, sorted(slopes, key=lambda slope: -slope[1]))

    def index(self, name: str) -> int:
        """The network's place in the run, which decides its colour and marker."""
        return self.names.index(name) if name in self.names else len(self.names)


def step(model: Model) -> float:
    """The median measured step, ms."""
    return model["step_ms"]["median"]


def ratio(model: Model, base: Model, key: str) -> float | None:
    """A count relative to the baseline's; None where it was not computed."""
    return model[key] / base[key] if model.get(key) and base.get(key) else None


def rows(model: Model) -> list[tuple[float | None, float]]:
    """(predicted, measured) ms of each layer's pass."""
    return [(layer.get("predicted_ms"), layer["ms"]) for layer in model["layers"]]


def terms(model: Model) -> dict[str, float] | None:
    """The time model's terms summed over the step, ms; None where it was not predicted."""
    of_layers = [layer["terms_ms"] for layer in model["layers"] if layer.get("terms_ms")]
    if not of_layers or not model.get("predicted_ms"):
        return None
    return {name: sum(terms[name] for terms in of_layers) for name in of_layers[0]}


def asked(model: Model) -> float | None:
    """Seconds an epoch that the question reports for this network."""
    return REPORTED_SECONDS.get(model["name"])


def moved(layer: dict[str, Any]) -> int | None:
    """Bytes of the pass as the algorithm moves them; None where not computed."""
    return layer.get("moved_bytes")
