"""Read the weights of Keras's files, which are stored by layer name or by numbered class name."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nnlite.network.importing.problems import Problems, Unreadable
from nnlite.network.layers import Conv2D, Dense
from nnlite.network.sequential import Sequential

if TYPE_CHECKING:
    from nnlite.network.importing.keras_file import Entry

#: of each layer, its weights as array-likes that are read on conversion
Arrays = list[list[Any]]


class Weights(NamedTuple):
    """The weights of a file."""

    size: int  # bytes
    #: the weights of layers. Raises an exception if they cannot be read
    read: Callable[[Sequence[Entry]], Arrays]


def write(weights: Weights, model: Sequential, entries: Sequence[Entry]) -> str | None:
    """Set the model's weights. Returns None, or why they remain newly initialised. `entries` describe its layers."""
    both = [(m, e) for m, e in zip(model.layers, entries, strict=True) if isinstance(m, (Conv2D, Dense))]
    try:
        read: list[np.ndarray] = []
        for (layer, entry), arrays in zip(both, weights.read([entry for _, entry in both]), strict=True):
            expected = [p.shape for p in layer.parameters()]
            found = [tuple(array.shape) for array in arrays]
            if found != expected:
                return f"the weights of {entry.name!r} have shapes {found} instead of {expected}"
            if any(array.dtype.kind != "f" for array in arrays):
                return f"the weights of {entry.name!r} are of {arrays[0].dtype}"
            read += [np.asarray(array, np.float32) for array in arrays]
        model.set_weights(read)
    except Exception as error:  # a malformed file may raise anything
        return str(Unreadable(f"its weights are missing or damaged ({type(error).__name__}: {error})"))
    return None


def in_archive(content: bytes, entries: Sequence[Entry]) -> Arrays:
    """From model.weights.h5 of a .keras file: layers/conv2d_1/vars/0."""
    import h5py

    found: dict[str, list[Any]] = {}
    for name, dataset in _datasets(h5py.File(io.BytesIO(content), "r")).items():
        # Keras 2.12 has other container names, Windows another separator
        parts = [p for p in re.split(r"[/\\]", name) if p not in ("layers", "_layer_checkpoint_dependencies")]
        if len(parts) > 2 and parts[-2] == "vars":
            found.setdefault("/".join(parts[:-2]), []).append(dataset)  # 0, 1: in the order of HDF5
    return [found.get("/".join(entry.keys), []) for entry in entries]


def in_h5(file: Any, entries: Sequence[Entry]) -> Arrays:
    """From a whole model in HDF5, Keras's format before .keras: model_weights/NAME, with the order in an attribute."""
    found = _datasets(file)
    flipped = _text(file.attrs.get("backend", "")) == "theano"  # Theano's kernels are flipped
    read = []
    for entry in entries:
        group = f"model_weights/{entry.names[0]}"
        names = [_text(name) for name in file[group].attrs["weight_names"]]
        if len(entry.names) > 1:
            names = [name for name in names if entry.name in name.split("/")]
        arrays = [found[f"{group}/{name}"] for name in names]
        if flipped:
            arrays = [np.asarray(array)[::-1, ::-1] if len(array.shape) == 4 else array for array in arrays]
        read.append(arrays)
    return read


def in_tensorflow_js(folder: Path, manifest: Any, entries: Sequence[Entry]) -> Arrays:
    """From the weight files beside a model.json, described by its manifest."""
    found: dict[str, list[np.ndarray]] = {}
    for group in manifest:
        content, at = b"".join((folder / name).read_bytes() for name in group["paths"]), 0
        for weight in group["weights"]:
            if weight["dtype"] != "float32" or "quantization" in weight:
                raise ValueError(f"{weight['name']!r} is not of float32")
            array = np.frombuffer(content, "<f4", prod(weight["shape"]), at).reshape(weight["shape"])
            at += array.nbytes
            found.setdefault(weight["name"].split("/")[-2], []).append(array)
    return [found.get(entry.name, []) for entry in entries]


def of_json(description: Any, folder: Path) -> Weights | None:
    """The weights of a JSON file in `folder`: those of TensorFlow.js. None for Keras's JSON, which has none."""
    if not isinstance(description, dict):
        return None
    manifest = description.get("weightsManifest")
    inline = [key for key in ("weightData", "weightSpecs") if key in description]
    if "weightsManifest" not in description and not inline:
        return None
    groups = [group for group in manifest if isinstance(group, dict)] if isinstance(manifest, list) else []
    names = [name for group in groups for name in group.get("paths", ())]
    if any(Path(name).name != name for name in names):
        raise ValueError("weightsManifest has paths outside of its folder")

    def read(entries: Sequence[Entry]) -> Arrays:
        if inline:
            raise ValueError(f"{inline[0]} inside the JSON, expected a weightsManifest with files")
        return in_tensorflow_js(folder, manifest, entries)

    return Weights(sum((folder / name).stat().st_size for name in names if (folder / name).is_file()), read)


def open_h5(path: Path, problems: Problems) -> tuple[str, Weights]:
    """(the JSON of the description, the weights). Raises ValueError for a file without a whole model."""
    try:
        import h5py
    except ImportError:
        raise ImportError(
            f'{problems.argument}: expected the package h5py (pip install "nnlite-conv[keras]")'
        ) from None
    try:
        content = path.read_bytes()
        file = h5py.File(io.BytesIO(content), "r")
        if "model_config" in file.attrs:
            return _text(file.attrs["model_config"]), Weights(len(content), lambda entries: in_h5(file, entries))
    except Exception as error:
        raise problems.unreadable("an HDF5 file", f"another file ({error})") from None
    raise problems.unreadable("a whole model, as model.save writes it", "HDF5 with weights only")


def _datasets(file: Any) -> dict[str, Any]:
    """The file's arrays by path. Links and external files are ignored."""
    found = {}

    def visit(name: str, item: Any) -> None:
        if hasattr(item, "dtype") and not item.is_virtual and not item.external:
            found[name] = item

    file.visititems(visit)
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
