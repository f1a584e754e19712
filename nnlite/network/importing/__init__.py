"""Read models from files of Keras (.keras, .h5, JSON, TF.js) and ONNX, if nnlite has their layers."""

from __future__ import annotations

import os
from pathlib import Path

from nnlite.network import sequential as own
from nnlite.network.importing.problems import Problems, Unreadable
from nnlite.network.saving import OTHER_SUFFIXES
from nnlite.network.sequential import Sequential
from nnlite.runtime.errors import existing_file

SUFFIXES = OTHER_SUFFIXES


def load_model(path: str | Path) -> Sequential:
    """The model in a file by `model.save`, Keras (.keras, .h5, .json) or ONNX (.onnx).

    The model is built and has the file's weights. A model by `save` is compiled if it was compiled when saved and
    its optimizer, loss and metrics are nnlite's; training then goes on from the optimizer's saved state. JSON by
    `keras.Model.to_json` has no weights: they are newly initialised. Images are channels last, whatever the format.

    Raises FileNotFoundError if there is no file, ValueError if it is damaged or has an unsupported layer, ImportError
    if a package for this format is missing.
    """
    if not isinstance(path, (str, os.PathLike)) or Path(path).suffix.lower() not in SUFFIXES:
        return own.load_model(path)
    model, missing = read(Path(path), "path")
    if missing:
        raise ValueError(f"path: expected weights that can be read. Received: {str(path)!r}: {missing}")
    return model


def read(path: Path, argument: str) -> tuple[Sequential, str | None]:
    """(the model of another framework's file; None, or why its weights are newly initialised).

    Raises as `load_model` does, except for weights that cannot be read. Messages begin with `argument`.
    """
    existing_file(argument, path, "a file")
    problems = Problems(f"{argument} {str(path)!r}" if argument == "path" else argument)
    if path.suffix.lower() == ".onnx":
        from nnlite.network.importing.onnx_file import load_onnx as load_file
    else:
        from nnlite.network.importing.keras_file import load_keras as load_file
    try:
        model, missing = load_file(path, problems)
    except (Unreadable, ImportError):
        raise
    except ValueError as error:
        raise problems.unreadable("layers that fit together", error) from error
    except Exception as error:  # a malformed file may raise anything
        raise problems.unreadable("a consistent file", f"one with {type(error).__name__}: {error}") from error
    model.name = path.stem
    return model, missing
