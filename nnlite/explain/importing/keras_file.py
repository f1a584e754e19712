"""Keras's .keras file (a zip archive) and the JSON of `model.to_json()`, read without Keras."""

from __future__ import annotations

import io
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nnlite import ops
from nnlite.explain.importing.problems import Problems
from nnlite.layers import Activation, Conv2D, Dense, Dropout, Flatten, Input, Layer, MaxPooling2D
from nnlite.model import Sequential

Config = dict[str, Any]

#: Keras's class -> (its layer here, the options that mean the same)
_LAYERS: dict[str, tuple[Callable[..., Layer], tuple[str, ...]]] = {
    "Conv2D": (
        Conv2D,
        ("filters", "kernel_size", "strides", "padding", "dilation_rate", "groups", "activation", "use_bias"),
    ),
    "Dense": (Dense, ("units", "activation", "use_bias")),
    "MaxPooling2D": (MaxPooling2D, ("pool_size", "strides", "padding")),
    "Dropout": (Dropout, ("rate",)),
    "Flatten": (Flatten, ()),
    "Activation": (Activation, ("activation",)),
    "ReLU": (lambda: Activation("relu"), ()),
    "Softmax": (lambda: Activation("softmax"), ()),
}
#: options that change what a layer computes -> the value with which it exists here
_REQUIRED = {
    "data_format": ("channels_last", None),
    "max_value": (None,),
    "negative_slope": (0, None),
    "threshold": (0, None),
    "axis": (-1,),
    "noise_shape": (None,),
    "dtype": ("float32", None),
}


def load_keras(path: Path) -> Sequential:
    """The network of a .keras or JSON file. Raises ValueError that lists what does not exist here."""
    problems = Problems(path)
    description, weights = _read(path, problems)
    entries = _entries(description, problems)
    layers = [layer for entry in entries if (layer := _layer(entry, problems))]
    problems.raise_any()
    shape = _input_shape(entries)
    if shape is None:
        raise problems.unreadable("an input shape without unknown sizes", "none")
    try:
        model = Sequential([Input(shape), *layers])
    except ValueError as error:
        raise ValueError(f"MODEL {path}: {error}") from error
    if weights is not None:
        _set_weights(model, weights, problems)
    return model


def _read(path: Path, problems: Problems) -> tuple[Config, bytes | None]:
    """(the description, the HDF5 file with the weights)"""
    try:
        if path.suffix == ".json":
            description, weights = json.loads(path.read_text(encoding="utf-8")), None
        else:
            with zipfile.ZipFile(path) as archive:
                description = json.loads(archive.read("config.json"))
                weights = archive.read("model.weights.h5") if "model.weights.h5" in archive.namelist() else None
    except zipfile.BadZipFile:
        raise problems.unreadable("a .keras file, which is a zip archive", "a file that is none") from None
    except KeyError:
        raise problems.unreadable("a .keras file with a config.json", "a zip archive without it") from None
    except ValueError as error:
        raise problems.unreadable("the JSON of a Keras model", f"text that is none ({error})") from None
    if not isinstance(description, dict) or not isinstance(description.get("config"), dict):
        raise problems.unreadable("the description of a Keras model", "JSON without class_name and config")
    return description, weights


def _entries(description: Config, problems: Problems) -> list[Config]:
    """The layers' descriptions, in order, nested chains taken apart."""
    kind = description.get("class_name")
    if kind not in ("Sequential", "Functional", "Model"):
        problems.add(f"a model of class {kind}")
        return []
    entries: list[Config] = []
    previous = None
    for entry in description["config"].get("layers", []):
        name = _name(entry)
        sources = list(_sources(entry.get("inbound_nodes", [])))
        if sources and sources != [previous]:
            problems.add(f"{entry['class_name']} {name!r} with inputs {', '.join(sources)} (not a chain)")
        if entry["class_name"] in ("Sequential", "Functional"):
            entries += _entries(entry, problems)
        else:
            entries.append(entry)
        previous = name
    return entries


def _name(entry: Config) -> str:
    return str(entry.get("name") or entry.get("config", {}).get("name"))


def _sources(node: Any) -> Iterator[str]:
    """The names of the layers that a functional layer reads: Keras 3's keras_history, Keras 2's [name, 0, 0, {}]."""
    if isinstance(node, dict):
        history = node.get("keras_history")
        if history:
            yield history[0]
        else:
            for value in node.values():
                yield from _sources(value)
    elif isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and node[1:3] == [0, 0]:
            yield node[0]
        else:
            for value in node:
                yield from _sources(value)


def _layer(entry: Config, problems: Problems) -> Layer | None:
    kind, config = entry["class_name"], entry["config"]
    if kind == "InputLayer":
        return None
    what = f"{kind} {_name(entry)!r}"
    if kind not in _LAYERS:
        problems.add(what)
        return None
    before = len(problems.found)
    for option, value in config.items():
        plain = value["config"].get("name") if isinstance(value, dict) and "config" in value else value
        if option in _REQUIRED and plain not in _REQUIRED[option]:
            problems.add(f"{what} with {option} {plain!r}")
        if re.search("_(regularizer|constraint)$", option) and value is not None:
            problems.add(f"{what} with a {option}")
    activation = config.get("activation")
    if activation is not None and not _exists(activation):
        problems.add(
            f"{what} with the activation {activation if isinstance(activation, str) else 'of a custom object'}"
        )
    if len(problems.found) > before:
        return None
    make, options = _LAYERS[kind]
    try:
        return make(**{option: _tupled(config[option]) for option in options if config.get(option) is not None})
    except ValueError as error:
        problems.add(f"{what}: {error}")
        return None


def _exists(activation: Any) -> bool:
    try:
        ops.get_activation(activation)
    except (ValueError, TypeError):
        return False
    return isinstance(activation, str)


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _input_shape(entries: list[Config]) -> tuple[int, ...] | None:
    """Without the batch; None where a size is unknown."""
    for entry in entries[:1]:
        config = entry["config"]
        shape = config.get("batch_shape") or config.get("batch_input_shape")
        shape = shape or (entry.get("build_config") or {}).get("input_shape")
        if shape and None not in shape[1:]:
            return tuple(shape[1:])
    return None


def _set_weights(model: Sequential, content: bytes, problems: Problems) -> None:
    """Keras numbers the layers of each class: layers/conv2d_1/vars/0."""
    try:
        import h5py
    except ImportError:
        print(f"{problems.path}: h5py is missing, so weights are new ones; times do not change", file=sys.stderr)
        return
    arrays: list[np.ndarray] = []
    seen: dict[str, int] = {}
    try:
        with h5py.File(io.BytesIO(content)) as file:
            for layer in model.layers:
                number = seen[layer.default_name()] = seen.get(layer.default_name(), -1) + 1
                group = f"layers/{layer.default_name()}" + (f"_{number}" if number else "")
                arrays += [np.asarray(file[f"{group}/vars/{i}"]) for i in range(len(layer.parameters()))]
        model.set_weights(arrays)
    except (KeyError, OSError, ValueError) as error:
        raise problems.unreadable("the weights of these layers", f"others ({error})") from None
