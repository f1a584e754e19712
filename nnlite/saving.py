"""One safetensors file a model: the weights, and in its metadata the architecture and what compile chose."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnlite import layers as layer_classes
from nnlite import losses, metrics, optimizers
from nnlite.errors import existing_file, unknown, writable_file
from nnlite.files import write_whole
from nnlite.layers import Layer

if TYPE_CHECKING:
    from nnlite.model import Sequential

FORMAT = "nnlite-sequential-1"
#: how names of Keras's own files end: other programs would take one of nnlite's for theirs
_OF_KERAS = (".keras", ".h5", ".hdf5")


def writable_model(argument: str, path: str | Path) -> None:
    """Raises FileNotFoundError or ValueError if no model can be written at `path`. Nothing is written."""
    if Path(path).suffix.lower() in _OF_KERAS:
        received = f"{str(path)!r}, a name of Keras's own format"
        raise ValueError(
            f"{argument}: expected a name that ends in .safetensors, what is written. Received: {received}"
        )
    writable_file(argument, path)


def save_model(model: Sequential, path: str | Path) -> None:
    """Write `model` to `path`: under a temporary name beside it, renamed when complete."""
    from safetensors.numpy import save

    path = _path(path)
    writable_model("path", path)
    tensors = {f"{i:06d}.{p.name}": np.ascontiguousarray(p.data) for i, p in enumerate(model.parameters())}
    content = save(tensors, metadata={"format": FORMAT, "model": json.dumps(_architecture(model))})
    write_whole(path, content)


def read_model(path: str | Path) -> tuple[dict[str, Any], list[Layer], list[np.ndarray]]:
    """(what is known of the model, its layers, its weights) from a file that `save_model` wrote.

    Raises FileNotFoundError if there is no file, ValueError if it is not one of nnlite's.
    """
    from safetensors import SafetensorError, safe_open

    path = _path(path)
    existing_file("path", path, "a file that model.save wrote")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            weights = [file.get_tensor(key) for key in sorted(file.keys())]
    except SafetensorError as error:
        raise ValueError(f"path: expected a safetensors file. Received: {str(path)!r} ({error})") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"path: expected a file of format {FORMAT!r}. Received: {metadata.get('format')!r}")
    try:
        described = json.loads(metadata["model"])
        return described, [_layer(entry) for entry in described["layers"]], weights
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path: expected a description of a model. Received: {str(path)!r} ({error!r})") from None


def _path(path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"path: expected the name of a file. Received: {path!r}")
    return Path(path)


def _architecture(model: Sequential) -> dict[str, Any]:
    for layer in model.layers:
        if getattr(layer_classes, type(layer).__name__, None) is not type(layer):
            raise ValueError(f"model: expected layers of nn.layers alone, to save it. Received: {layer!r}")
    assert model.input_shape is not None
    return {
        "name": model.name,
        "input_shape": list(model.input_shape),
        "layers": [{"class": type(layer).__name__, "config": layer.get_config()} for layer in model.layers],
        "compile": _compiled(model),
    }


def _compiled(model: Sequential) -> dict[str, Any] | None:
    """What compile chose; None if that is nothing, or has a loss, metric or optimizer of the user's own."""
    loss = losses.name_of(model.loss)
    named = all(metrics.is_known(name, metric) for name, metric in model._metrics)
    if model.optimizer is None or loss is None or not named or not optimizers.is_known(model.optimizer):
        return None
    return {
        "optimizer": {"name": model.optimizer.name, "config": model.optimizer.get_config()},
        "loss": loss,
        "metrics": [name for name, _ in model._metrics],
        "fuse": model.fuse,
    }


def _layer(entry: dict[str, Any]) -> Layer:
    if entry["class"] not in layer_classes.__all__:
        raise unknown("layer class", entry["class"], layer_classes.__all__)
    config = {key: _tupled(value) for key, value in entry["config"].items()}
    return getattr(layer_classes, entry["class"])(**config)


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value
