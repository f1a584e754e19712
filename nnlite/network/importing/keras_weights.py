"""Read the weights of Keras's files, which are stored by layer name or by numbered class name."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nnlite.network.importing.problems import Problems, Unreadable
from nnlite.network.layers import Conv2D, Dense
from nnlite.network.sequential import Sequential

if TYPE_CHECKING:
    from nnlite.network.importing.keras_file import Entry


class Source(Protocol):
    """The weights of a file."""

    size: int  # bytes

    def arrays(self, entries: Sequence[Entry]) -> list[list[Any]]:
        """The weights of each layer of `entries`, as array-likes that are read on conversion."""


def write(source: Source, model: Sequential, entries: Sequence[Entry]) -> str | None:
    """Set the model's weights. Returns None, or why they remain newly initialised. `entries` describe its layers."""
    both = [(m, e) for m, e in zip(model.layers, entries, strict=True) if isinstance(m, (Conv2D, Dense))]
    try:
        read: list[np.ndarray] = []
        for (layer, entry), arrays in zip(both, source.arrays([entry for _, entry in both]), strict=True):
            expected = [p.shape for p in (layer.weight, layer.bias) if p is not None]
            found = [tuple(array.shape) for array in arrays]
            if found != expected:
                return f"the weights of {entry.name!r} have shapes {found} instead of {expected}"
            if any(array.dtype.kind != "f" for array in arrays):
                return f"the weights of {entry.name!r} are of {arrays[0].dtype}"
            read += [np.asarray(array, np.float32) for array in arrays]
        model.set_weights(read)
    except Exception as error:  # a malformed file may raise anything
        return str(Unreadable(f"its weights are damaged ({type(error).__name__}: {error})"))
    return None


class InArchive:
    """model.weights.h5 of a .keras file (layers/conv2d_1/vars/0), or why there is none."""

    def __init__(self, content: bytes | str):
        self.content = content
        self.size = len(content)

    def arrays(self, entries: Sequence[Entry]) -> list[list[Any]]:
        if isinstance(self.content, str):
            raise ValueError(self.content)
        found: dict[str, list[Any]] = {}
        for name, dataset in _datasets(_h5py().File(io.BytesIO(self.content), "r")).items():
            # Keras 2.12 has other container names, Windows another separator
            parts = re.split(r"[/\\]", name)
            parts = [part for part in parts if part not in ("layers", "_layer_checkpoint_dependencies")]
            if len(parts) > 2 and parts[-2] == "vars":
                found.setdefault("/".join(parts[:-2]), []).append(dataset)  # 0, 1: in the order of HDF5
        return [found.get("/".join(entry.keys), []) for entry in entries]


class H5Model:
    """A whole model in HDF5, Keras's format before .keras: model_weights/NAME, with the order in an attribute."""

    def __init__(self, file: Any, size: int):
        self.file = file
        self.size = size

    def arrays(self, entries: Sequence[Entry]) -> list[list[Any]]:
        found = _datasets(self.file)
        flipped = _text(self.file.attrs.get("backend", "")) == "theano"  # Theano's kernels are flipped
        read = []
        for entry in entries:
            group = f"model_weights/{entry.names[0]}"
            names = [_text(name) for name in self.file[group].attrs["weight_names"]]
            if len(entry.names) > 1:
                names = [name for name in names if entry.name in name.split("/")]
            arrays = [found[f"{group}/{name}"] for name in names]
            if flipped:
                arrays = [np.asarray(array)[::-1, ::-1] if len(array.shape) == 4 else array for array in arrays]
            read.append(arrays)
        return read


class TensorFlowJS:
    """The weight files of a model.json, described by its manifest."""

    def __init__(self, folder: Path, manifest: Any):
        self.folder, self.manifest = folder, manifest
        names = [name for group in manifest for name in group["paths"]]
        if any(Path(name).name != name for name in names):
            raise ValueError("weightsManifest has paths outside of its folder")
        self.size = sum((folder / name).stat().st_size for name in names if (folder / name).is_file())

    def arrays(self, entries: Sequence[Entry]) -> list[list[Any]]:
        found: dict[str, list[np.ndarray]] = {}
        for group in self.manifest:
            missing = [name for name in group["paths"] if not (self.folder / name).is_file()]
            if missing:
                raise ValueError(f"there is no {missing[0]}")
            content, at = b"".join((self.folder / name).read_bytes() for name in group["paths"]), 0
            for weight in group["weights"]:
                if weight["dtype"] != "float32" or "quantization" in weight:
                    raise ValueError(f"{weight['name']!r} is not of float32")
                array = np.frombuffer(content, "<f4", prod(weight["shape"]), at).reshape(weight["shape"])
                at += array.nbytes
                found.setdefault(weight["name"].split("/")[-2], []).append(array)
        return [found.get(entry.name, []) for entry in entries]


def open_h5(path: Path, problems: Problems) -> tuple[str, H5Model]:
    """(the JSON of the description, the weights). Raises ValueError for a file without a whole model."""
    try:
        h5py = _h5py()
    except ImportError:
        raise ImportError(
            f'{problems.argument}: expected the package h5py (pip install "nnlite-conv[keras]")'
        ) from None
    try:
        content = path.read_bytes()
        file = h5py.File(io.BytesIO(content), "r")
        if "model_config" in file.attrs:
            return _text(file.attrs["model_config"]), H5Model(file, len(content))
    except Exception as error:
        raise problems.unreadable("an HDF5 file", f"another file ({error})") from None
    raise problems.unreadable("a whole model, as model.save writes it", "HDF5 with weights only")


def snake_case(kind: str) -> str:
    """MaxPooling2D -> max_pooling2d: Keras's rule."""
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", kind)).lower()


def _datasets(file: Any) -> dict[str, Any]:
    """The file's arrays by path. Links and external files are ignored."""
    found = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, _h5py().Dataset) and not item.is_virtual and not item.external:
            found[name] = item

    file.visititems(visit)
    return found


def _h5py() -> Any:
    import h5py

    return h5py


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
