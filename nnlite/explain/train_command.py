"""`nnlite train MODEL`: train on a data set, show progress, and save the model."""

from __future__ import annotations

import argparse
import sys
from math import ceil
from pathlib import Path

from nnlite import conv
from nnlite.explain.case import loss_of, training
from nnlite.explain.request import (
    add_autotune_argument,
    add_data_arguments,
    add_model_argument,
    check_outputs,
    fit_images,
    resolve_model,
)
from nnlite.network import datasets, optimizers
from nnlite.network.progress import announce_compilation
from nnlite.network.saving import describe, writable_model
from nnlite.runtime.errors import positive_int
from nnlite.runtime.files import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="passes over the data (default: 3)")
    parser.add_argument(
        "--optimizer", default="rmsprop", metavar="NAME", help="rmsprop, sgd, adam or adadelta (default: rmsprop)"
    )
    parser.add_argument("--learning-rate", type=float, metavar="RATE", help="learning rate (default: the optimizer's)")
    parser.add_argument("--out", metavar="PATH", help="file for the model (default: MODEL.safetensors)")
    add_autotune_argument(parser)
    add_data_arguments(parser)


def run(options: argparse.Namespace) -> int:
    positive_int("--batch-size", options.batch_size)
    positive_int("--epochs", options.epochs)
    model = resolve_model(options.model)
    path = Path(options.out or f"{model.name}.safetensors")
    writable_model("--out", path)
    try:
        describe(model)
    except ValueError as error:
        raise ValueError(f"MODEL {options.model}: {error}") from error
    (x_train, y_train), (x_test, y_test) = datasets.load(options.data, data_dir=options.data_dir)
    check_outputs(model, y_train)
    x_train, x_test = fit_images(x_train, model), fit_images(x_test, model)
    rate = {} if options.learning_rate is None else {"learning_rate": options.learning_rate}
    optimizer = optimizers.get(options.optimizer, **rate)
    model.compile(optimizer, loss_of(model), metrics=["accuracy"])
    print(f"{model.name}: {model.count_params():,} parameters; {options.data}: {len(x_train):,} training images")
    announce_compilation()
    conv.autotune(options.autotune)
    try:
        with training(model):
            history = model.fit(
                x_train, y_train, options.batch_size, options.epochs, verbose=1, validation_data=(x_test, y_test)
            )
    except (KeyboardInterrupt, BrokenPipeError):
        if optimizer.iterations:  # an untrained model does not overwrite the file of an earlier run
            model.save(path)
            epochs = optimizer.iterations / ceil(len(x_train) / options.batch_size)
            print(f"stopped after {epochs:.1f} of {options.epochs} epochs; saved as {path}", file=sys.stderr)
        raise
    model.save(path)
    print(f"saved as {path}")
    if options.json:
        write_json(options.json, history.history)
    return 0
