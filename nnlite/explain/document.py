"""explain.json: the run as data that other programs read. A key that is not computed is null."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnlite.explain.measure import Measurement
from nnlite.explain.question import EPOCH_IMAGES

SCHEMA = 1


def document(
    measurements: Sequence[Measurement], *, batch_size: int, threads: int, algorithm: str, data: str
) -> dict[str, Any]:
    """The content of explain.json; times in milliseconds, bytes a step, MACs an image."""
    return {
        "schema": SCHEMA,
        "machine": None,
        "batch_size": batch_size,
        "threads": threads,
        "algorithm": algorithm,
        "data": data,
        "models": [_model(m) for m in measurements],
        "comparisons": {},
    }


def _model(m: Measurement) -> dict[str, Any]:
    return {
        "name": m.name,
        "parameters": m.cost.parameters,
        "forward_macs_per_image": m.cost.forward_macs_per_image,
        "training_macs_per_image": m.cost.training_macs_per_image,
        "unfused_least_bytes_per_step": m.cost.unfused_least_bytes,
        "moved_bytes_per_step": None,
        "step_ms": {"median": m.step_ms, "min": min(m.profile.steps), "samples": m.profile.steps},
        "predicted_ms": None,
        "convolutions": [
            {"name": name, "algorithm": algorithm, "reason": reason}
            for name, (algorithm, reason) in m.algorithms.items()
        ],
        "epoch_s_60000": -(-EPOCH_IMAGES // m.cost.batch_size) * m.step_ms / 1e3,
        "layers": [
            {
                "name": layer.name,
                "pass": layer.part,
                "flops": layer.flops,
                "bytes": layer.bytes,
                "ms": layer.ms,
                "predicted_ms": None,
                "bound": None,
            }
            for layer in m.layers
        ],
    }
