"""Save a model as one safetensors file: weights, and in its metadata architecture, compile arguments and a digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnlite.network import layers as layer_classes
from nnlite.network import losses, metrics, optimizers
from nnlite.network.layers import Input, Layer
from nnlite.network.layers.base import Shape
from nnlite.runtime.errors import existing_file, printable, unknown, writable_file
from nnlite.runtime.files import write_whole

if TYPE_CHECKING:
    from nnlite.network.sequential import Sequential

FORMAT = "nnlite-sequential-2"
_UNSEALED = "0" * 64
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')
#: suffixes of Keras's formats, which nnlite does not write
_OF_KERAS = (".keras", ".h5", ".hdf5")


def writable_model(argument: str, path: str | Path) -> None:
    """Raises FileNotFoundError or ValueError if no model can be written at `path`. Nothing is written."""
    if Path(path).suffix.lower() in _OF_KERAS:
        received = f"{str(path)!r}, the name of a Keras file"
        raise ValueError(
            f"{argument}: expected a name that ends in .safetensors, the format that is written. Received: {received}"
        )
    writable_file(argument, path)


def save_model(model: Sequential, path: str | Path) -> None:
    """Write `model` to `path`. On an error the old file remains.

    Raises FileNotFoundError or ValueError if the path cannot be written or a layer cannot be saved.
    """
    path = _path(path)
    writable_model("path", path)
    arrays = {f"{i:06d}.{p.name}": np.ascontiguousarray(p.data, np.float32) for i, p in enumerate(model.parameters())}
    write_whole(path, sealed(arrays, {"format": FORMAT, "model": json.dumps(_architecture(model))}))


def sealed(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """A safetensors file with a SHA-256 digest of its bytes in the metadata, computed with zeros in its place."""
    from safetensors.numpy import save

    content = save(arrays, metadata=metadata | {"sha256": _UNSEALED})
    return _DIGEST.sub(b'"sha256":"%s"' % hashlib.sha256(content).hexdigest().encode(), content, count=1)


def _is_sealed(content: bytes) -> bool:
    found = _DIGEST.search(content)
    if found is None:
        return False
    begin, end = found.span(1)
    whole = hashlib.sha256(content[:begin])
    whole.update(_UNSEALED.encode() + content[end:])
    return whole.hexdigest().encode() == found[1]


def read_model(path: str | Path, make: type[Sequential]) -> Sequential:
    """See `load_model` in nnlite.network.sequential."""
    from safetensors.numpy import load

    path = _path(path)
    existing_file("path", path, "a file written by model.save")
    content = path.read_bytes()
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.pop("__metadata__", {})
        received = metadata.get("format")
        dtypes = {entry["dtype"] for entry in header.values()}
    except Exception as error:  # malformed bytes may raise anything
        raise ValueError(f"path: expected a safetensors file. Received: {str(path)!r} ({error!r:.200})") from None
    if received != FORMAT:
        raise ValueError(f"path: expected a file of format {FORMAT!r}. Received: {str(path)!r}, of {received!r:.200}")
    if not _is_sealed(content):
        raise ValueError(
            f"path: expected an unchanged file. Received: {str(path)!r}, changed or damaged after it was saved"
        )
    if not dtypes <= {"F32"}:
        raise ValueError(f"path: expected weights of dtype F32. Received: {str(path)!r}, of {sorted(dtypes)!r:.200}")
    try:
        described = json.loads(metadata["model"])
        weights = [array for _, array in sorted(load(content).items())]
        model = make(_layers(described, weights), name=printable(described["name"]))
        chosen = described["compile"]
        if chosen is not None:
            optimizer = optimizers.get(chosen["optimizer"]["name"], **chosen["optimizer"]["config"])
            model.compile(optimizer, chosen["loss"], chosen["metrics"], fuse=chosen["fuse"])
    except Exception as error:
        raise ValueError(f"path: expected a description of a model. Received: {str(path)!r} ({error!r:.200})") from None
    return model


def _path(path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"path: expected a file name. Received: {path!r}")
    return Path(path)


def _architecture(model: Sequential) -> dict[str, Any]:
    for layer in model.layers:
        if getattr(layer_classes, type(layer).__name__, None) is not type(layer):
            raise ValueError(f"model: expected only layers of nn.layers; others cannot be saved. Received: {layer!r}")
    assert model.input_shape is not None
    return {
        "name": model.name,
        "input_shape": list(model.input_shape),
        "layers": [{"class": type(layer).__name__, "config": layer.get_config()} for layer in model.layers],
        "compile": _compiled(model),
    }


def _compiled(model: Sequential) -> dict[str, Any] | None:
    """The arguments of compile; None if it was not called, or with a custom loss, metric or optimizer."""
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


def _layers(described: dict[str, Any], weights: list[np.ndarray]) -> list[Layer]:
    """The layers of a description, Input first, built with `weights`. Raises ValueError if the shapes differ."""
    first = Input(tuple(described["input_shape"]))
    layers: list[Layer] = [first]
    shape = first.shape
    left = iter(weights)

    def next_weight(shape: Shape, _: np.random.Generator) -> np.ndarray:
        """An initializer that returns the file's weights: no memory is allocated for other shapes."""
        weight = next(left, None)
        if weight is None or weight.shape != shape:
            received = "none" if weight is None else f"shape {weight.shape}"
            raise ValueError(f"expected weights of shape {shape}. Received: {received}")
        return weight.copy()

    for entry in described["layers"]:
        layer = _layer(entry)
        initializers = {name: value for name, value in vars(layer).items() if name.endswith("_initializer")}
        vars(layer).update(dict.fromkeys(initializers, next_weight))
        layer.build(shape)
        vars(layer).update(initializers)
        layers.append(layer)
        shape = layer.output_shape or ()
    if next(left, None) is not None:
        raise ValueError(f"expected as many arrays as the layers have. Received: {len(weights)}, which is more")
    return layers


def _layer(entry: dict[str, Any]) -> Layer:
    if entry["class"] not in layer_classes.__all__:
        raise unknown("layer class", entry["class"], layer_classes.__all__)
    config = {key: _tupled(value) for key, value in entry["config"].items()}
    config["name"] = printable(config["name"])
    return getattr(layer_classes, entry["class"])(**config)


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value
