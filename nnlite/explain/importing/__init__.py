"""Networks that other frameworks saved, as far as their layers exist here: Keras's .keras and JSON, and ONNX."""

from __future__ import annotations

from pathlib import Path

from nnlite.errors import existing_file
from nnlite.model import Sequential

SUFFIXES = (".keras", ".json", ".onnx")


def load(path: Path) -> Sequential:
    """The network of a file, with its weights where they can be read.

    Raises ValueError, in one line, if the file can not be read or has something that does not exist here (all of it
    is listed), FileNotFoundError if there is no file, ImportError if reading it needs a package that is missing.
    """
    existing_file(f"MODEL {path}", path, "a file")
    if path.suffix == ".onnx":
        from nnlite.explain.importing.onnx_file import load_onnx as load_file
    else:
        from nnlite.explain.importing.keras_file import load_keras as load_file
    try:
        model = load_file(path)
    except (AttributeError, LookupError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"MODEL {path}: expected a file that holds together. Received: one with {reason}") from error
    if not model.layers:
        raise ValueError(f"MODEL {path}: expected at least one layer. Received: none")
    model.name = path.stem
    return model
