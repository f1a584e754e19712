"""Save a model as one safetensors file: weights and the optimizer's state, and in its metadata the architecture, the
compile arguments and a digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnlite.network import layers as layer_classes
from nnlite.network import losses, metrics, optimizers
from nnlite.network.layers import Dropout, Input, Layer
from nnlite.network.layers.base import Shape
from nnlite.runtime.errors import existing_file, positive_int, printable, unknown, writable_file
from nnlite.runtime.files import write_whole

if TYPE_CHECKING:
    from nnlite.network.sequential import Sequential

FORMAT = "nnlite-sequential-3"
#: the one before it has no state: neither the optimizer's nor that of dropout layers
_READABLE = (FORMAT, "nnlite-sequential-2")
#: arrays `optimizer/SLOT/I`: a slot's state of the I-th parameter
_OPTIMIZER = "optimizer/"
_UNSEALED = "0" * 64
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')
#: suffixes of other frameworks' formats, which `load_model` reads and `save` does not write
OTHER_SUFFIXES = (".keras", ".json", ".h5", ".hdf5", ".onnx")


def writable_model(argument: str, path: str | Path) -> None:
    """Raises FileNotFoundError or ValueError if no model can be written at `path`. Nothing is written."""
    if (suffix := Path(path).suffix.lower()) in OTHER_SUFFIXES:
        received = f"{str(path)!r}, the name of {'an ONNX' if suffix == '.onnx' else 'a Keras'} file"
        raise ValueError(
            f"{argument}: expected a name that ends in .safetensors, the format that is written. Received: {received}"
        )
    writable_file(argument, path)


def save_model(model: Sequential, path: str | Path) -> None:
    """Write `model` to `path`. On an error the old file remains.

    Warns if the compile arguments cannot be saved. Raises FileNotFoundError or ValueError if the path cannot be written
    or a layer cannot be saved.
    """
    path = _path(path)
    writable_model("path", path)
    description = describe(model)
    arrays = {f"{i:06d}.{p.name}": np.ascontiguousarray(p.data, np.float32) for i, p in enumerate(model.parameters())}
    if lost := _unsaved(model):
        warnings.warn(
            f"model {model.name!r}: saved without its compile arguments, because {lost} is not nnlite's own. "
            "Call compile after load_model",
            stacklevel=3,
        )
    elif model.optimizer is not None:
        arrays |= _slots(model, model.optimizer)
    write_whole(path, sealed(arrays, {"format": FORMAT, "model": description}))


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
    if received not in _READABLE:
        raise ValueError(f"path: expected a file of format {FORMAT!r}. Received: {str(path)!r}, of {received!r:.200}")
    if not _is_sealed(content):
        raise ValueError(
            f"path: expected an unchanged file. Received: {str(path)!r}, changed or damaged after it was saved"
        )
    if not dtypes <= {"F32"}:
        raise ValueError(f"path: expected weights of dtype F32. Received: {str(path)!r}, of {sorted(dtypes)!r:.200}")
    try:
        described = json.loads(metadata["model"])
        arrays = load(content)
        state = {name: arrays.pop(name) for name in list(arrays) if name.startswith(_OPTIMIZER)}
        weights = [array for _, array in sorted(arrays.items())]
        model = make(_layers(described, weights), name=printable(described["name"]))
        chosen = described["compile"]
        if chosen is not None:
            optimizer = optimizers.get(chosen["optimizer"]["name"], **chosen["optimizer"]["config"])
            model.compile(optimizer, chosen["loss"], chosen["metrics"], fuse=chosen["fuse"])
            optimizer.iterations = positive_int("iterations", chosen["optimizer"].get("iterations", 0), minimum=0)
            _set_slots(optimizer, state)
    except Exception as error:
        raise ValueError(f"path: expected a description of a model. Received: {str(path)!r} ({error!r:.200})") from None
    return model


def _path(path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"path: expected a file name. Received: {path!r}")
    return Path(path)


def describe(model: Sequential) -> str:
    """The architecture and the compile arguments as JSON. Raises ValueError if a layer cannot be saved."""
    names: set[str | None] = set()
    for layer in model.layers:
        if getattr(layer_classes, type(layer).__name__, None) is not type(layer):
            raise ValueError(f"model: expected only layers of nn.layers; others cannot be saved. Received: {layer!r}")
        if layer.name in names or not isinstance(layer.name, str):
            raise ValueError(f"model: expected a unique name for each layer. Received: {layer.name!r} for {layer!r}")
        names.add(layer.name)
    assert model.input_shape is not None
    described = {
        "name": model.name,
        "input_shape": list(model.input_shape),
        "layers": [_entry(layer) for layer in model.layers],
        "compile": _compiled(model),
    }
    return json.dumps(described)


def _entry(layer: Layer) -> dict[str, Any]:
    entry = {"class": type(layer).__name__, "config": layer.get_config()}
    return entry | {"masks": [layer._stream, layer._calls]} if isinstance(layer, Dropout) else entry


def _unsaved(model: Sequential) -> str | None:
    """The optimizer, the loss or the metric of compile that is the user's own; None if all are nnlite's."""
    if model.optimizer is not None and not optimizers.is_known(model.optimizer):
        return f"the optimizer {type(model.optimizer).__name__}"
    if model.loss is not None and losses.name_of(model.loss) is None:
        return f"the loss {getattr(model.loss, '__name__', model.loss)}"
    return next((f"the metric {name}" for name, metric in model._metrics if not metrics.is_known(name, metric)), None)


def _compiled(model: Sequential) -> dict[str, Any] | None:
    """The arguments of compile, and the number of steps; None if there are none that can be saved."""
    optimizer = model.optimizer
    if optimizer is None or model.loss is None or _unsaved(model):
        return None
    return {
        "optimizer": {"name": optimizer.name, "config": optimizer.get_config(), "iterations": optimizer.iterations},
        "loss": losses.name_of(model.loss),
        "metrics": [name for name, _ in model._metrics],
        "fuse": model.fuse,
    }


def _slots(model: Sequential, optimizer: optimizers.Optimizer) -> dict[str, np.ndarray]:
    """The optimizer's state, an array for each slot and parameter."""
    places = dict(zip(map(id, optimizer.parameters or ()), optimizer._places, strict=True))
    return {
        f"{_OPTIMIZER}{slot}/{i}": np.asarray(
            memory[place.begin : place.begin + prod(place.shape)].reshape(place.shape), np.float32
        )
        for (slot, dtype), memory in optimizer._memory.items()
        for i, parameter in enumerate(model.parameters())
        if (place := places.get(id(parameter))) and place.dtype == dtype
    }


def _set_slots(optimizer: optimizers.Optimizer, state: dict[str, np.ndarray]) -> None:
    """Set the state that `_slots` returned. Raises ValueError if it does not fit the optimizer."""
    size = sum(prod(place.shape) for place in optimizer._places)
    for name, array in state.items():
        _, slot, number = name.split("/")
        place = optimizer._places[int(number)]
        if slot not in optimizer.slots or array.shape != place.shape:
            raise ValueError(f"expected slots of {optimizer.name}. Received: {name!r} of shape {array.shape}")
        if (slot, place.dtype) not in optimizer._memory:
            optimizer._memory[slot, place.dtype] = np.zeros(size, place.dtype)
        optimizer._memory[slot, place.dtype][place.begin : place.begin + array.size] = array.reshape(-1)


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
    layer = getattr(layer_classes, entry["class"])(**config)
    if isinstance(layer, Dropout) and "masks" in entry:
        layer._stream, layer._calls = (positive_int("masks", number, minimum=0) for number in entry["masks"])
    return layer


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value
