"""What a command was asked to work on: a network and its data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np

from nnlite.explain import case_study
from nnlite.lab.loading import load_object, said
from nnlite.network import datasets, importing, models
from nnlite.network.sequential import Sequential, load_model
from nnlite.runtime.errors import unknown

#: what a command's MODEL can be, for --help
KINDS = (
    *models.NAMES,
    "FILE.py:FUNCTION",
    "FILE.safetensors, that nnlite saved",
    *(f"FILE{suffix}" for suffix in importing.SUFFIXES),
)
MODEL_HELP = ", ".join(KINDS)


def resolve_model(spec: str) -> Sequential:
    """The network of that name, of a file that nnlite, Keras or ONNX wrote, or what FUNCTION of FILE.py returns.

    Raises ValueError, in one line, on an unknown name, on a file that can not be read or has what does not exist
    here, or if the function returns anything but a built Sequential.
    """
    if spec in models.NAMES:
        return getattr(models, spec)()
    if spec.endswith(importing.SUFFIXES):
        model, missing = importing.read(Path(spec), f"MODEL {spec}")
        if missing:
            print(f"{spec}: its weights are new ones: {missing}. Counts and times do not change", file=sys.stderr)
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
    """The networks that are to be compared, each under a name of its own.

    One that is called as a network of the question, and is another, has the name that it was asked for by: what was
    reported is not about it; one that is called as another, too. Raises ValueError as `resolve_model` does, and if one
    is asked for twice.
    """
    networks: dict[str, Sequential] = {}
    for spec in specs:
        model = resolve_model(spec)
        if case_study.pretends(model.name, model.count_params()):
            model.name = Path(spec).name
        name = next((n for n in (model.name, Path(spec).name, spec) if n not in networks), None)
        if name is None:
            raise ValueError(f"MODEL: expected different networks. Received: {spec} twice")
        model.name = name
        networks[name] = model
    return list(networks.values())


def fit_images(x: np.ndarray, model: Sequential) -> np.ndarray:
    """Images (n, 28, 28, 1) in the model's input shape, if it has as many elements. Raises ValueError if not."""
    assert model.input_shape is not None
    if prod(x.shape[1:]) != prod(model.input_shape):
        raise ValueError(
            f"MODEL {model.name}: expected an input shape of {prod(x.shape[1:])} elements, as images have. "
            f"Received: {model.input_shape}"
        )
    return np.ascontiguousarray(x.reshape(len(x), *model.input_shape))


def check_outputs(model: Sequential, labels: np.ndarray) -> None:
    """Raises ValueError unless the model gives one number for each class of the labels."""
    classes, shape = int(labels.max()) + 1, model.layers[-1].output_shape
    if shape is None or len(shape) != 1 or shape[0] < classes:
        raise ValueError(
            f"MODEL {model.name}: expected at least {classes} outputs, one a class of the data. Received: {shape}"
        )


@contextmanager
def training(model: Sequential) -> Iterator[None]:
    """Raises ValueError, in one line, for what a layer of the user's own raises while the model is trained inside."""
    try:
        yield
    except BrokenPipeError:  # of what is printed meanwhile
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(f"MODEL {model.name}: a step raised {type(error).__name__}: {error}") from error


def add_autotune_argument(parser: argparse.ArgumentParser) -> None:
    """--autotune, as every command that trains has it."""
    parser.add_argument(
        "--autotune",
        action="store_true",
        help="measure which algorithm is the fastest for each convolution, and remember it (default: a fixed rule)",
    )


def add_data_arguments(parser: argparse.ArgumentParser, *also: str) -> None:
    """--data and --data-dir, as every command that reads images has them."""
    known = ", ".join((*datasets.names(), *also))
    parser.add_argument("--data", default="mnist5k", metavar="NAME", help=f"{known} (default: mnist5k)")
    parser.add_argument("--data-dir", metavar="DIR", help="the folder of its IDX files")
