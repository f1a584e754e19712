"""Read Keras's files without Keras: .keras (a zip archive), .h5, the JSON of `to_json()`, TF.js's model.json."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from nnlite import ops
from nnlite.network.importing import keras_initializers, keras_weights
from nnlite.network.importing.chain import MOST_LAYERS, Chain
from nnlite.network.importing.keras_weights import Weights
from nnlite.network.importing.problems import Problems
from nnlite.network.layers import Activation, Conv2D, Dense, Dropout, Flatten, Layer, MaxPooling2D
from nnlite.network.layers.base import default_name
from nnlite.network.sequential import Sequential
from nnlite.ops.activation import ACTIVATIONS

Config = dict[str, Any]

#: Keras's class -> (nnlite's layer, the options with the same meaning)
_LAYERS: dict[str, tuple[Callable[..., Layer], tuple[str, ...]]] = {
    "Conv2D": (
        Conv2D,
        ("filters", "kernel_size", "strides", "padding", "dilation_rate", "groups", "activation", "use_bias"),
    ),
    "Dense": (Dense, ("units", "activation", "use_bias")),
    "MaxPooling2D": (MaxPooling2D, ("pool_size", "strides", "padding")),
    "Dropout": (Dropout, ("rate", "seed")),
    "Flatten": (Flatten, ()),
    "Activation": (Activation, ("activation",)),
    "ReLU": (lambda: Activation("relu"), ()),
    "Softmax": (lambda: Activation("softmax"), ()),
}
#: options that change what a layer computes -> the supported values
_REQUIRED = {
    "data_format": ("channels_last", None),
    "max_value": (None,),
    "negative_slope": (0, None),
    "threshold": (0, None),
    "axis": (-1,),
    "noise_shape": (None,),
    "dtype": ("float32", None),
}
_INITIALIZED = ("kernel_initializer", "bias_initializer")
#: options that do not change what a layer computes, or are read elsewhere
_HARMLESS = {
    *("name", "trainable", "sparse", "ragged", "batch_shape", "batch_input_shape", "input_shape"),
    *("input_dim", "input_length", "input_dtype", "nb_row", "nb_col"),
}
#: the first parts of Keras's modules; tf.keras and Keras 2 have written several
_OF_KERAS = ("keras", "tf_keras", "keras_core", "tensorflow")
#: Keras 1's names -> Keras 3's
_OF_KERAS_1 = {
    "nb_filter": "filters",
    "output_dim": "units",
    "subsample": "strides",
    "border_mode": "padding",
    "atrous_rate": "dilation_rate",
    "p": "rate",
    "init": "kernel_initializer",
    "bias": "use_bias",
    "dim_ordering": "data_format",
}
_ORDERS_OF_KERAS_1 = {"tf": "channels_last", "th": "channels_first"}
_MODELS = ("Sequential", "Functional", "Model")

#: a member of an archive larger than _SMALL bytes may inflate at most _RATIO times
_SMALL, _RATIO = 2**20, 20
#: parameters that may be newly initialised whatever the size of the file's weights
_FEW = 2**22


class Entry(NamedTuple):
    """A layer in the model's description."""

    kind: str
    name: str
    config: Config
    #: names and Keras's numbered class names, of the enclosing models and of the layer
    names: tuple[str, ...]
    keys: tuple[str, ...]
    #: the name of a custom class
    custom: str | None = None


def load_keras(path: Path, problems: Problems) -> tuple[Sequential, str | None]:
    """(the model; None, or why its weights are newly initialised). Raises ValueError for unsupported layers."""
    description, weights = _read(path, problems)
    description = _topology(description, problems)
    entries = list(islice(_entries(description, problems), MOST_LAYERS + 1))
    if len(entries) > MOST_LAYERS:
        raise problems.unreadable(f"at most {MOST_LAYERS:,} layers", "more")
    made = [(entry, layer) for entry in entries if (layer := _layer(entry, problems, weights is None))]
    problems.raise_any()
    shape = _input_shape(description, entries)
    if shape is None:
        raise problems.unreadable("an input shape without unknown sizes", "none")
    chain = Chain(shape, None if weights is None else max(weights.size, _FEW))
    for _, layer in made:
        chain.add(layer)
    model = chain.build()
    return model, None if weights is None else keras_weights.write(weights, model, [entry for entry, _ in made])


def _read(path: Path, problems: Problems) -> tuple[Config, Weights | None]:
    """(the description; the weights, None if the format has none)."""
    suffix = path.suffix.lower()
    text: bytes | str
    weights: Weights | None = None
    if suffix in (".h5", ".hdf5"):
        text, weights = keras_weights.open_h5(path, problems)
    elif suffix == ".keras":
        text, weights = _unzip(path, problems)
    else:
        text = path.read_bytes()
    try:
        description = json.loads(text)
    except (RecursionError, ValueError) as error:
        received = "JSON that is nested too deep" if isinstance(error, RecursionError) else f"invalid JSON ({error})"
        raise problems.unreadable("the JSON of a Keras model", received) from None
    return description, weights or keras_weights.of_json(description, path.parent)


def _unzip(path: Path, problems: Problems) -> tuple[bytes, Weights]:
    def read(entries: Sequence[Entry]) -> keras_weights.Arrays:
        with zipfile.ZipFile(path) as archive:
            return keras_weights.in_archive(_member(archive, "model.weights.h5"), entries)

    try:
        with zipfile.ZipFile(path) as archive:
            return _member(archive, "config.json"), Weights(_RATIO * path.stat().st_size, read)
    except Exception as error:  # another file, encrypted, another compression, truncated, too large
        expected = "a .keras file, which is a zip archive with a config.json"
        raise problems.unreadable(expected, f"another file ({error})") from None


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > max(_SMALL, _RATIO * info.compress_size):
        raise ValueError(f"{name} inflates from {info.compress_size:,} to {info.file_size:,} bytes")
    return archive.read(name)


def _topology(description: Any, problems: Problems) -> Config:
    """The model's class_name and config, which TF.js and .h5 nest."""
    for key in ("modelTopology", "model_config"):
        if isinstance(description, dict) and isinstance(description.get(key), dict):
            description = description[key]
    if not isinstance(description, dict) or not isinstance(description.get("config"), (dict, list)):
        raise problems.unreadable("the description of a Keras model", "JSON without class_name and config")
    return description


def _entries(
    description: Config, problems: Problems, names: tuple[str, ...] = (), keys: tuple[str, ...] = ()
) -> Iterator[Entry]:
    """The layers' descriptions in order; nested models are flattened."""
    kind, config = description.get("class_name"), description["config"]
    if kind not in _MODELS or (custom := _custom(description)):
        problems.add(f"a model of class {kind if kind not in _MODELS else custom}")
        return
    # before Keras 2.2.3 a Sequential's config was the list of its layers
    described = config if isinstance(config, list) else config.get("layers", [])
    counts: dict[str, int] = {}
    previous = None
    for entry in described:
        layer_kind = entry["class_name"]
        name = str(entry.get("name") or entry.get("config", {}).get("name"))
        sources = list(_sources(entry.get("inbound_nodes", [])))
        if sources and sources != [previous]:
            problems.add(f"{layer_kind} {name!r} with inputs {', '.join(sources)} (not a chain)")
        previous = name
        number = counts[layer_kind] = counts.get(layer_kind, -1) + 1
        key = default_name(layer_kind) + (f"_{number}" if number else "")
        if layer_kind in _MODELS:
            yield from _entries(entry, problems, (*names, name), (*keys, key))
        else:
            yield Entry(layer_kind, name, _today(entry["config"]), (*names, name), (*keys, key), _custom(entry))
    outputs = list(_sources([config.get("output_layers")])) if isinstance(config, dict) else []
    if outputs and outputs != [previous]:
        problems.add(f"the outputs {', '.join(outputs)} (not the end of a chain)")


def _custom(entry: Config) -> str | None:
    """The full name of a custom class or function; None for one of Keras's."""
    module, registered = entry.get("module"), entry.get("registered_name")
    package = registered.split(">")[0] if isinstance(registered, str) and ">" in registered else None
    if all(part is None or str(part).split(".")[0] in _OF_KERAS for part in (module, package)):
        return None
    return str(registered) if package else f"{module}.{entry.get('class_name')}"


def _sources(node: Any) -> Iterator[str]:
    """The inputs of a functional layer: Keras 3's keras_history, Keras 2's [name, 0, 0, {}]."""
    if isinstance(node, dict):
        history = node.get("keras_history")
        if history:
            yield str(history[0])
        else:
            for value in node.values():
                yield from _sources(value)
    elif isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and node[1:3] == [0, 0]:
            yield node[0]
        else:
            for value in node:
                yield from _sources(value)


def _today(config: Config) -> Config:
    """A layer's options with Keras 3's names."""
    renamed = {_OF_KERAS_1.get(option, option): value for option, value in config.items()}
    if "nb_row" in config and "nb_col" in config:
        renamed["kernel_size"] = [config["nb_row"], config["nb_col"]]
    if "dim_ordering" in config:
        renamed["data_format"] = _ORDERS_OF_KERAS_1.get(config["dim_ordering"], config["dim_ordering"])
    return renamed


def _layer(entry: Entry, problems: Problems, initialised: bool = False) -> Layer | None:
    """The layer, None if it is added to the problems; `initialised`: its weights are not in the file."""
    kind = {"Convolution2D": "Conv2D"}.get(entry.kind, entry.kind)
    if kind == "InputLayer":
        return None
    what = f"{kind} {entry.name!r}"
    if kind not in _LAYERS or entry.custom:
        problems.add(f"{what} of the class {entry.custom}" if entry.custom else what, instead_of=_LAYERS)
        return None
    make, options = _LAYERS[kind]
    before = len(problems.found)
    for option, value in entry.config.items():
        if option in _REQUIRED:
            plain = value["config"].get("name") if isinstance(value, dict) else value  # in Keras 3 a dtype is an object
            if plain not in _REQUIRED[option]:
                problems.add(f"{what} with {option} {plain!r}")
        elif re.search("_(regularizer|constraint)$", option):
            if value is not None:
                problems.add(f"{what} with a {option}")
        elif option not in {*options, *_HARMLESS, *_INITIALIZED} and value is not None:
            problems.add(f"{what} with the unknown option {option} {value!r:.60}")
    given = {name: _tupled(entry.config[name]) for name in options if entry.config.get(name) is not None}
    if "activation" in given:
        given["activation"] = _activation(given["activation"])
        if given["activation"] is None:
            activation = entry.config["activation"]
            named = f"of the class {activation.get('class_name')!r}" if isinstance(activation, dict) else activation
            problems.add(f"{what} with the activation {named}")
    for option in filter(signature(make).parameters.__contains__, _INITIALIZED):
        if (described := entry.config.get(option)) is not None:
            custom = isinstance(described, dict) and _custom(described)
            initializer = None if custom else keras_initializers.named(described)
            if initializer is not None:
                given[option] = initializer
            elif initialised and (option != "bias_initializer" or given.get("use_bias", True)):
                problems.add(f"{what} with the {option} {keras_initializers.said(described)}")
    if len(problems.found) > before:
        return None
    if entry.config.get("trainable") is False and "trainable" in signature(make).parameters:
        given["trainable"] = False
    try:
        return make(**given)
    except ValueError as error:
        problems.add(f"{what}: {error}")
        return None


def _activation(given: Any) -> str | None:
    """The name of a supported activation; None for others.

    Keras writes a name, or an object for a function ({"class_name": "function", "config": "relu"}) or for a layer.
    """
    if isinstance(given, dict) and isinstance(given.get("config"), dict):
        described = Entry(str(given.get("class_name")), "", given["config"], (), (), _custom(given))
        layer = _layer(described, Problems(""))
        return ops.activation_name(layer.activation) if type(layer) is Activation else None
    name = given
    if isinstance(given, dict) and given.get("class_name") == "function":
        module = None if given.get("module") == "builtins" else given.get("module")
        name = None if _custom(given | {"module": module}) else given.get("config")
    return name if isinstance(name, str) and name in ACTIVATIONS else None


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _input_shape(description: Config, entries: list[Entry]) -> tuple[int, ...] | None:
    """The input shape without the batch; None if a size is unknown."""
    config = description["config"]
    shapes: list[Any] = [[None, entry.config["input_dim"]] for entry in entries[:1] if "input_dim" in entry.config]
    shapes += [entry.config.get(key) for entry in entries[:1] for key in ("batch_shape", "batch_input_shape")]
    shapes += [config.get("build_input_shape")] if isinstance(config, dict) else []
    for shape in shapes:
        if shape and None not in shape[1:]:
            return tuple(shape[1:])
    return None
