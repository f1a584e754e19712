"""Images to train on: digits that come with the package, and any set in IDX files (the format of MNIST)."""

from __future__ import annotations

import os
import struct
import zlib
from math import prod
from pathlib import Path

import numpy as np

from nnlite.errors import unknown

Arrays = tuple[np.ndarray, np.ndarray]

#: name -> folders to look in when `data_dir` is not given
_FOLDERS: dict[str, tuple[Path, ...]] = {
    "mnist5k": (Path(__file__).parent / "data" / "mnist5k",),
    "mnist": (),
    "fashion_mnist": (Path("/usr/share/datasets/fashion-mnist"),),  # where Debian's package puts it
}
_CLASSES = 10
_SIZE = (28, 28)
#: the third byte of an IDX file -> what its elements are; numbers are big-endian
_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def names() -> list[str]:
    """The names that `load` knows."""
    return list(_FOLDERS)


def load(name: str, data_dir: str | os.PathLike | None = None) -> tuple[Arrays, Arrays]:
    """((x_train, y_train), (x_test, y_test)): images float32 in [0, 1], (n, 28, 28, 1); labels int64, (n).

    "mnist5k" comes with the package. "mnist" and "fashion_mnist" are read from IDX files (gzipped or not, under
    their usual names) in `data_dir`, or in NNLITE_DATA_DIR/name.

    Raises ValueError on an unknown name or a damaged file, FileNotFoundError that says where it looked.
    """
    if name not in _FOLDERS:
        raise unknown("data set", name, _FOLDERS)
    folders = _folders(name, data_dir)
    return _part("train", name, folders), _part("t10k", name, folders)


def _folders(name: str, data_dir: str | os.PathLike | None) -> list[Path]:
    if data_dir is not None:
        return [Path(data_dir)]
    ours = os.environ.get("NNLITE_DATA_DIR")
    return [*([Path(ours) / name] if ours else []), *_FOLDERS[name]]


def _part(prefix: str, name: str, folders: list[Path]) -> Arrays:
    images_path = _find(f"{prefix}-images", "idx3-ubyte", name, folders)
    labels_path = _find(f"{prefix}-labels", "idx1-ubyte", name, folders)
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != _SIZE:
        raise ValueError(f"{images_path}: expected uint8 images of 28x28. Received: {images.dtype} of shape {images.shape}")
    if labels.ndim != 1 or len(labels) != len(images):
        raise ValueError(f"{labels_path}: expected {len(images)} labels, one an image. Received: shape {labels.shape}")
    if len(labels) and labels.max() >= _CLASSES:
        raise ValueError(f"{labels_path}: expected labels 0 to {_CLASSES - 1}. Received: {labels.max()}")
    x = images[..., None].astype(np.float32) / np.float32(255)  # (n, 28, 28, 1)
    return x, labels.astype(np.int64)


def _find(stem: str, kind: str, name: str, folders: list[Path]) -> Path:
    """The file of that stem, gzipped or not, with "-" or "." before the kind."""
    candidates = [f"{stem}{separator}{kind}{ending}" for separator in "-." for ending in (".gz", "")]
    for folder in folders:
        for candidate in candidates:
            if (folder / candidate).is_file():
                return folder / candidate
    places = " or ".join(str(folder) for folder in folders) or "any folder"
    raise FileNotFoundError(
        f"data {name!r}: expected {candidates[0]} or {candidates[1]} in {places}, found neither. "
        "Give the folder of the IDX files as data_dir (--data-dir)"
    )


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """The array in an IDX file, gzipped if its name ends in .gz, in the machine's byte order.

    Format: two zero bytes, a byte for the dtype, a byte for the number of dimensions, each size as a big-endian
    uint32, then the elements (Y. LeCun's MNIST page). Raises ValueError that names the file and what is wrong with it.
    """
    path = Path(path)
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = _decompressed(path, content)
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(f"{path}: expected an IDX file, beginning with two zero bytes. Received: {content[:4]!r}")
    code, dimensions = content[2], content[3]
    if code not in _IDX_DTYPES:
        known = ", ".join(f"0x{c:02X}" for c in _IDX_DTYPES)
        raise ValueError(f"{path}: expected an IDX dtype, one of {known}. Received: 0x{code:02X}")
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise ValueError(f"{path}: expected {dimensions} sizes in its header. Received: a file of {len(content)} bytes")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    dtype = np.dtype(_IDX_DTYPES[code])
    expected, received = prod(shape) * dtype.itemsize, len(content) - start
    if received != expected:
        what = "truncated" if received < expected else "with bytes left over"
        raise ValueError(f"{path}: expected {expected} bytes of data for shape {shape}. Received: {received} ({what})")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _decompressed(path: Path, content: bytes) -> bytes:
    """The content of a gzip file; zlib tells apart what the gzip module reports as several kinds of error."""
    decompressor = zlib.decompressobj(wbits=31)
    try:
        result = decompressor.decompress(content) + decompressor.flush()
    except zlib.error as error:
        raise ValueError(f"{path}: expected a gzip file. Received: {error}") from None
    if not decompressor.eof:
        raise ValueError(f"{path}: expected a complete gzip file. Received: a truncated one of {len(content)} bytes")
    return result
