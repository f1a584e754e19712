"""explain.json: the run as data that other programs read. A key that is not computed is null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnlite.explain.measure import LayerTime, Measurement
from nnlite.machine import Machine
from nnlite.profiler import CHANGED

SCHEMA = 1


def document(
    measurements: Sequence[Measurement],
    comparisons: Mapping[str, Sequence[Measurement]],
    machine: Machine | None,
    *,
    batch_size: int,
    threads: int,
    algorithm: str,
    data: str,
) -> dict[str, Any]:
    """The content of explain.json; times in milliseconds, bytes a step, MACs an image."""
    return {
        "schema": SCHEMA,
        "machine": machine.to_dict() if machine else None,
        "batch_size": batch_size,
        "threads": threads,
        "algorithm": algorithm,
        "data": data,
        "models": [_model(m) for m in measurements],
        "comparisons": {name: [_model(m) for m in others] for name, others in comparisons.items()},
    }


def _model(m: Measurement) -> dict[str, Any]:
    return {
        "name": m.name,
        "parameters": m.cost.parameters,
        "forward_macs_per_image": m.cost.forward_macs_per_image,
        "training_macs_per_image": m.cost.training_macs_per_image,
        "unfused_least_bytes_per_step": m.cost.unfused_least_bytes,
        "moved_bytes_per_step": m.moved_bytes,
        "step_ms": {"median": m.step_ms, "min": min(m.profile.steps), "samples": m.profile.steps},
        "predicted_ms": m.predicted_ms,
        "not_predicted": m.prediction.missing if m.prediction else [],
        "convolutions": [
            {"name": name, "algorithm": algorithm, "reason": reason}
            for name, (algorithm, reason) in m.algorithms.items()
        ],
        "epoch_s_60000": m.epoch_s,
        "conditions": _conditions(m),
        "layers": [_layer(layer) for layer in m.layers],
    }


def _conditions(m: Measurement) -> dict[str, Any]:
    """What the verdict's cautions are made from: how far the step and its rates were measured undisturbed."""
    return {
        "threads": m.threads,
        "share_of_processors": m.share,
        "rounds_kept": len(m.profile.steps),
        "rounds_left_out": m.profile.left_out,
        "processors_moved_in_every_round": m.profile.state is CHANGED,
        "processors_lay_as_never_before": m.strayed,
        "rates_disturbed": m.prediction.disturbed if m.prediction else None,
        "rates_of_another_state": m.prediction.borrowed if m.prediction else None,
    }


def _layer(layer: LayerTime) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": layer.name,
        "pass": layer.part,
        "flops": layer.flops,
        "bytes": layer.bytes,
        "moved_bytes": None,
        "ms": layer.ms,
        "predicted_ms": layer.predicted_ms,
        "bound": None,
        "terms_ms": None,
        "stages": [],
    }
    if layer.prediction is None or layer.prediction.missing:
        return result
    terms = layer.prediction.terms
    result |= {
        "moved_bytes": layer.prediction.moved_bytes,
        "bound": terms.bound,
        "terms_ms": {name: 1e3 * getattr(terms, name) for name in ("compute", "memory", "calls", "fresh")},
    }
    result["stages"] = [
        {
            "what": stage.what,
            "kind": stage.kind,
            "size": list(stage.size),
            "calls": stage.calls,
            "flops": stage.flops,
            "bytes": stage.bytes,
            "moved_bytes": stage.moved,
            "amount": stage.amount,
            "rate": rate,
            "ms": 1e3 * stage_terms.seconds,
        }
        for stage, rate, stage_terms in layer.prediction.stages
    ]
    return result
