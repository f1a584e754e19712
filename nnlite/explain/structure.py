"""What the layers of a network are, as explain.json describes them: shapes, what operations read and write."""

from __future__ import annotations

from typing import Any

from nnlite.layers import Layer
from nnlite.model import Sequential


def structure(model: Sequential, batch: int) -> list[dict[str, Any]]:
    """One entry a layer. Shapes leave the batch out; the counts of operations are of a batch, in elements."""
    return [_layer(layer, batch) for layer in model.layers]


def _layer(layer: Layer, batch: int) -> dict[str, Any]:
    weights = [list(p.shape) for p in layer.parameters() if p.name == "weight"]
    return {
        "name": layer.name,
        "class": type(layer).__name__,
        "input_shape": list(layer.input_shape or ()),
        "output_shape": list(layer.output_shape or ()),
        "parameters": layer.count_params(),
        "weight_shape": weights[0] if weights else None,
        "operations": [
            {
                "kind": operation.kind,
                "macs": operation.macs,
                "forward": operation.forward,
                "grad_input": operation.grad_input,
                "grad_weight": operation.grad_weight,
            }
            for operation in layer.operations(batch)
        ],
    }
