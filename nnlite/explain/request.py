"""The networks and the data that a command is asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from nnlite.explain import case_study
from nnlite.lab.loading import load_object, said
from nnlite.network import datasets, importing, models
from nnlite.network.sequential import Sequential, load_model
from nnlite.runtime.errors import unknown

#: the forms of MODEL, for --help
KINDS = (
    *models.NAMES,
    "FILE.py:FUNCTION",
    "FILE.safetensors (saved by nnlite)",
    *(f"FILE{suffix}" for suffix in importing.SUFFIXES),
)
MODEL_HELP = ", ".join(KINDS)


def resolve_model(spec: str) -> Sequential:
    """The network of that name, of a file by nnlite, Keras or ONNX, or the result of FUNCTION in FILE.py.

    Raises ValueError, in one line, for an unknown name, for a file that cannot be read or holds an unsupported layer,
    and for a function that does not return a built Sequential.
    """
    if spec in models.NAMES:
        return getattr(models, spec)()
    if spec.endswith(importing.SUFFIXES):
        model, missing = importing.read(Path(spec), f"MODEL {spec}")
        if missing:
            print(f"{spec}: weights newly initialised: {missing}. Counts and times do not change", file=sys.stderr)
        return model
    if spec.endswith(".safetensors"):
        return _saved(spec)
    if ".py:" not in spec:
        raise unknown("model", spec, KINDS)
    function = load_object(spec, "MODEL")
    if not callable(function):
        raise ValueError(f"MODEL {spec}: expected a function. Received: {type(function).__name__}")
    try:
        model = function()
    except (Exception, SystemExit) as error:
        raise ValueError(f"MODEL {spec}: it raised {said(error, Path(spec.rpartition(':')[0]))}") from error
    if not isinstance(model, Sequential) or not model.built or not model.layers:
        received = repr(model)
        if isinstance(model, Sequential):
            received = "one without an Input as its first layer" if model.layers else "one without layers"
        raise ValueError(f"MODEL {spec}: expected it to return a built Sequential with layers. Received: {received}")
    if model.name == "sequential":
        model.name = spec.rpartition(":")[2]
    return model


def _saved(spec: str) -> Sequential:
    try:
        model = load_model(spec)
        if not model.layers:
            raise ValueError("expected at least one layer. Received: none")
    except (ValueError, OSError) as error:
        raise ValueError(f"MODEL {spec}: {str(error).removeprefix('path: ')}") from error
    model.name = Path(spec).stem
    return model


def resolve_networks(specs: Sequence[str]) -> list[Sequential]:
    """The networks to compare, each with a unique name.

    A network is renamed to its MODEL argument if another has the same name, or if it has the name of a network of the
    2017 question but other parameters: the case study is not about it. Raises ValueError as `resolve_model` does, and
    if a network is given twice.
    """
    networks: dict[str, Sequential] = {}
    for i, spec in enumerate(specs):
        if spec in specs[:i]:
            raise ValueError(f"MODEL: expected different networks. Received: {spec} twice")
        model = resolve_model(spec)
        if case_study.pretends(model.name, model.count_params()):
            model.name = Path(spec).name
        model.name = next(n for n in (model.name, Path(spec).name, spec) if n not in networks)
        networks[model.name] = model
    return list(networks.values())


def fit_images(x: np.ndarray, model: Sequential) -> np.ndarray:
    """Images (n, 28, 28, 1) as (n, *input_shape). Raises ValueError if the sizes differ."""
    assert model.input_shape is not None
    if prod(x.shape[1:]) != prod(model.input_shape):
        raise ValueError(
            f"MODEL {model.name}: expected an input shape of {prod(x.shape[1:])} elements, the size of an image. "
            f"Received: {model.input_shape}"
        )
    return np.ascontiguousarray(x.reshape(len(x), *model.input_shape))


def check_outputs(model: Sequential, labels: np.ndarray) -> None:
    """Raises ValueError unless the model has at least one output per class of the labels."""
    classes, shape = int(labels.max()) + 1, model.layers[-1].output_shape
    if shape is None or len(shape) != 1 or shape[0] < classes:
        raise ValueError(
            f"MODEL {model.name}: expected at least {classes} outputs, one per class of the data. Received: {shape}"
        )


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add MODEL, for the commands of one network."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)


def add_autotune_argument(parser: argparse.ArgumentParser) -> None:
    """Add --autotune, for the commands that train."""
    parser.add_argument(
        "--autotune",
        action="store_true",
        help="time all algorithms for each new convolution and store the fastest (default: a fixed rule)",
    )


def add_data_arguments(parser: argparse.ArgumentParser, *also: str) -> None:
    """Add --data and --data-dir, for the commands that read images."""
    known = ", ".join((*datasets.names(), *also))
    parser.add_argument("--data", default="mnist5k", metavar="NAME", help=f"data set: {known} (default: mnist5k)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the IDX files of the data set")
