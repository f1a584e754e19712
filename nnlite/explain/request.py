"""What a command was asked to work on: a network and its data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from nnlite import datasets, importing, losses, models, ops
from nnlite.autograd import Tensor
from nnlite.errors import positive_int, unknown
from nnlite.explain import question
from nnlite.lab.loading import load_object, said
from nnlite.model import Sequential

#: what a command's MODEL can be, for --help
MODEL_HELP = f"{', '.join(models.NAMES)}, FILE.py:FUNCTION, {', '.join(f'FILE{s}' for s in importing.SUFFIXES)}"


def resolve_model(spec: str) -> Sequential:
    """The network of that name, of a file that Keras or ONNX wrote, or what FUNCTION of FILE.py returns.

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
    if ".py:" not in spec:
        raise unknown("model", spec, [*models.NAMES, "FILE.py:FUNCTION", *(f"FILE{s}" for s in importing.SUFFIXES)])
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


def resolve_networks(specs: Sequence[str]) -> list[Sequential]:
    """The networks that are to be compared, each under a name of its own.

    One that is called as a network of the question, and is another, has the name that it was asked for by: what was
    reported is not about it. Raises ValueError as `resolve_model` does, and if two have the same name.
    """
    found: dict[str, str] = {}
    networks = []
    for spec in specs:
        model = resolve_model(spec)
        if question.pretends(model.name, model.count_params()):
            model.name = Path(spec).name
        if model.name in found:
            both = f"{found[model.name]} and {spec}, which are both called {model.name}"
            raise ValueError(f"MODEL: expected networks of different names. Received: {both}")
        found[model.name] = spec
        networks.append(model)
    return networks


def loss_of(model: Sequential) -> Callable[..., Tensor]:
    """Cross-entropy of digits, of logits where the model does not end in a softmax, as exported networks do not."""
    ends_in_softmax = getattr(model.layers[-1], "activation", None) is ops.softmax
    loss = losses.sparse_categorical_crossentropy
    return loss if ends_in_softmax else partial(loss, from_logits=True)


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
    except (Exception, SystemExit) as error:
        raise ValueError(f"MODEL {model.name}: a step raised {type(error).__name__}: {error}") from error


def load_images(options: argparse.Namespace) -> datasets.Arrays:
    """The images of --data to train on, and their labels.

    Raises ValueError unless there are as many as --batch-size asks for; what `datasets.load` raises.
    """
    positive_int("--batch-size", options.batch_size)
    (images, labels), _ = datasets.load(options.data, data_dir=options.data_dir)
    if options.batch_size > len(images):
        expected = f"1 to {len(images)}, the images of {options.data}"
        raise ValueError(f"--batch-size: expected {expected}. Received: {options.batch_size}")
    return images, labels


def add_autotune_argument(parser: argparse.ArgumentParser) -> None:
    """--autotune, as every command that trains has it."""
    parser.add_argument(
        "--autotune",
        action="store_true",
        help="measure which algorithm is the fastest for each convolution, and remember it (default: a fixed rule)",
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """--data and --data-dir, as every command that reads images has them."""
    parser.add_argument(
        "--data", default="mnist5k", metavar="NAME", help=f"{', '.join(datasets.names())} (default: mnist5k)"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="the folder of its IDX files")
