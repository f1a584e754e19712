"""explain.json as typed data: the result of a measurement, and the only input of the terminal and the report.

Tables, sentences, figures and page read a `Document` and nothing else. Times are in milliseconds, bytes are per step,
MACs per image. A value that was not computed is None (null).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from nnlite.performance.counts import Operation
from nnlite.performance.statistics import Ratio

SCHEMA = 1


@dataclass
class WorkItem:
    """One kind of work in a pass, and the rate it is predicted to run at.

    `ms` is `amount` / `rate`, or what its memory traffic, `moved_bytes`, takes, if that is longer. `rate` is in FLOPs,
    bytes or calls per second.
    """

    what: str
    kind: str
    size: list[int]
    calls: int
    flops: int
    moved_bytes: int
    amount: float
    rate: float
    ms: float


@dataclass
class Row:
    """One pass of one layer, or of layers fused in one kernel ("+" joins their names); "other" is the rest of the step.

    `part` is "pass" in the file. `bytes` is the minimum traffic, unfused; `moved_bytes` is the memory traffic of the
    algorithm. `bound` is "compute", "memory" or "overhead".
    """

    name: str
    part: str
    flops: int | None
    bytes: int | None
    ms: float
    moved_bytes: int | None = None
    predicted_ms: float | None = None
    bound: str | None = None
    terms_ms: dict[str, float] | None = None  # compute, memory, overhead; their sum is predicted_ms
    work: list[WorkItem] = field(default_factory=list)


@dataclass
class Samples:
    """The step time of each round, ms, with median and minimum."""

    median: float
    min: float
    samples: list[float]

    @classmethod
    def of(cls, samples: list[float]) -> Samples:
        return cls(median(samples), min(samples), samples)


@dataclass
class Convolution:
    """The algorithm of a layer's convolution, and why it was chosen."""

    name: str
    algorithm: str
    reason: str


@dataclass
class LayerShape:
    """A layer; shapes do not include the batch."""

    name: str
    class_name: str
    input_shape: list[int]
    output_shape: list[int]
    parameters: int
    weight_shape: list[int] | None
    operations: list[Operation]


@dataclass
class Network:
    """A network with one algorithm: counts, times and prediction."""

    name: str
    algorithm: str
    data: str  # the data set it was trained on, or "random"
    input_shape: list[int]
    threads: int  # of its step
    parameters: int
    forward_macs_per_image: int
    training_macs_per_image: int
    unfused_least_bytes_per_step: int
    moved_bytes_per_step: int | None
    step_ms: Samples
    predicted_ms: float | None
    prediction_error: Ratio | None  # predicted / measured - 1
    ratio: Ratio | None  # step / the baseline's step with the same algorithm; None for the baseline
    epoch_s_60000: float
    not_predicted: list[str]  # operations and algorithms that do not declare their work
    convolutions: list[Convolution]
    structure: list[LayerShape]
    layers: list[Row]


@dataclass
class Document:
    """One run of `nnlite explain`."""

    machine: dict[str, Any] | None
    batch_size: int
    threads: int
    algorithm: str
    data: str
    baseline: str  # the network that ratios are relative to
    rounds: int  # completed
    rounds_asked: int
    cautions: list[str]  # reasons to trust these times less
    models: list[Network]  # with `algorithm`
    comparisons: dict[str, list[Network]]  # the same networks with other algorithms
    case_study: bool  # whether these are the networks of the question
    run: dict[str, Any] = field(default_factory=dict)  # command, date, processor, versions
    sweeps: list[dict[str, Any]] = field(default_factory=list)
    ladder_layer: str | None = None
    ladder: list[dict[str, Any]] | None = None
    schema: int = SCHEMA

    @property
    def by_algorithm(self) -> dict[str, list[Network]]:
        """The networks by algorithm; the one that was asked for comes first."""
        return {self.algorithm: self.models, **self.comparisons}

    @property
    def everything(self) -> list[Network]:
        """Each network with each algorithm."""
        return [network for networks in self.by_algorithm.values() for network in networks]

    def base_of(self, network: Network) -> Network | None:
        """The baseline with the same algorithm; None for the baseline itself."""
        found = next(n for n in self.by_algorithm[network.algorithm] if n.name == self.baseline)
        return None if found is network else found

    def find(self, name: str, algorithm: str) -> Network | None:
        """The network of that name with that algorithm; None if it was not timed."""
        return next((n for n in self.by_algorithm.get(algorithm, []) if n.name == name), None)

    def peak_rates(self, threads: int) -> tuple[float, dict[str, float]]:
        """(GFLOP/s, GB/s of a copy by level) of one thread or of all; 0 and none if they were not measured."""
        if self.machine is None:
            return 0.0, {}
        count = 1 if threads == 1 else self.machine["threads"]
        copies = {b["level"]: b["copy_gbs"] for b in self.machine["bandwidths"] if b["threads"] == count}
        return self.machine["fma_gflops_one" if threads == 1 else "fma_gflops_all"], copies

    def to_json(self) -> dict[str, Any]:
        """The content of explain.json."""
        content = {"schema": SCHEMA, **asdict(self)}
        for networks in (content["models"], *content["comparisons"].values()):
            for row in (row for network in networks for row in network["layers"]):
                row["pass"] = row.pop("part")
        return content
