"""Images of digits and clothes, read from IDX files: `load("mnist5k" | "mnist" | "fashion_mnist")`.

The 5,000 digits of mnist5k come with the package (data/mnist5k/README.md holds their attribution). The two full sets
are read from local files, or downloaded where there are none (nnlite.network.downloads).
"""

from __future__ import annotations

import gzip
import os
import zlib
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from nnlite.network import downloads
from nnlite.runtime.errors import unknown

Arrays = tuple[np.ndarray, np.ndarray]

#: the four files of a set, by their standard names; `_spelled` knows the other spellings in use
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

#: environment variable: the folder that has a folder for each set
DATA_DIR_VARIABLE = "NNLITE_DATA_DIR"

#: where each set may be installed
_INSTALLED: dict[str, Path | None] = {
    "mnist5k": Path(__file__).parent / "data" / "mnist5k",
    "mnist": None,
    "fashion_mnist": Path("/usr/share/datasets/fashion-mnist"),  # Debian's package dataset-fashion-mnist
}

#: the third byte of an IDX file: the type of its elements, big-endian
_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 64  # NumPy's limit
_GZIP_MAGIC = b"\x1f\x8b"
#: the most that a gzip file may inflate, as protection against decompression bombs; digits inflate 5 times
_MOST_INFLATION = 200


def names() -> list[str]:
    """The names that `load` accepts."""
    return list(_INSTALLED)


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> tuple[Arrays, Arrays]:
    """A set of labelled images: `((x_train, y_train), (x_test, y_test))`.

    Images are float32 in [0, 1], shape (n, 28, 28, 1), C-contiguous; labels are int64 in 0..9, shape (n,).

    The four IDX files, gzipped or not, are read from `data_dir` if it is given. Otherwise they are read from
    `$NNLITE_DATA_DIR/<name>` or from where the set is installed, whichever has all four first; mnist5k is in the
    package. If neither has them, they are downloaded once into the user's cache folder.

    Raises ValueError for an unknown name or a malformed file, FileNotFoundError if the files are in no folder and
    cannot be downloaded.
    """
    if name not in names():
        raise unknown("data set", name, names())
    folders = _folders(name, data_dir)
    files = _in_first(folders)
    if files is None and data_dir is None and name in downloads.SOURCES:
        files = _downloaded(name, folders)
    if files is None:
        raise _missing(name, folders)
    train_images, train_labels, test_images, test_labels = files
    return _read_pair(train_images, train_labels), _read_pair(test_images, test_labels)


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an IDX file, gzipped or not, in native byte order, C-contiguous and writable.

    The format: two zero bytes, the code of the dtype, the number of dimensions, each dimension as a big-endian
    uint32, then the elements, big-endian, last dimension fastest (Y. LeCun, yann.lecun.com/exdb/mnist).

    Raises FileNotFoundError for a missing file, ValueError for a malformed one.
    """
    path = Path(path)
    try:
        with _opened(path) as file:
            return _read(path, file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: expected an IDX file. Received: no such file") from None
    except EOFError:
        received = f"{path.stat().st_size} bytes (truncated)"
        raise _malformed(path, "a whole gzip stream", received) from None
    except (gzip.BadGzipFile, zlib.error) as fault:
        raise _malformed(path, "a gzip stream", f"a damaged one ({fault})") from None


def _read(path: Path, file: IO[bytes]) -> np.ndarray:
    """The array in an IDX file. Never reads or inflates more than its header declares."""
    begin = file.read(4)
    if len(begin) < 4:
        raise _malformed(path, "the 4 bytes at the beginning of an IDX file", f"{len(begin)} bytes")
    zeros, code, dimensions = begin[:2], begin[2], begin[3]
    if zeros != b"\0\0":
        raise _malformed(path, "an IDX file, which begins with two zero bytes", f"0x{zeros.hex()}")
    if code not in _IDX_DTYPES:
        raise _malformed(
            path, f"a dtype code among {', '.join(f'0x{known:02x}' for known in _IDX_DTYPES)}", f"0x{code:02x}"
        )
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise _malformed(path, f"1 to {_MAX_DIMENSIONS} dimensions", dimensions)
    sizes = file.read(4 * dimensions)
    header = 4 + 4 * dimensions
    if len(sizes) < header - 4:
        received = f"{4 + len(sizes)} bytes (truncated)"
        raise _malformed(path, f"a header of {header} bytes for {dimensions} dimensions", received)
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    dtype = np.dtype(_IDX_DTYPES[code])
    size, stored = prod(shape) * dtype.itemsize, path.stat().st_size
    expected = f"{header + size} bytes for {dtype.name} of shape {shape}"
    if isinstance(file, gzip.GzipFile):
        if size > _MOST_INFLATION * stored:
            raise _malformed(path, f"at most {_MOST_INFLATION} times the {stored} bytes of the gzip file", expected)
    elif header + size != stored:
        fault = "truncated" if stored < header + size else "trailing bytes"
        raise _malformed(path, expected, f"{stored} bytes ({fault})")
    content = file.read(size)
    if len(content) < size or file.read(1):
        fault = f"{header + len(content)} bytes (truncated)" if len(content) < size else "more (trailing bytes)"
        raise _malformed(path, expected, fault)
    try:
        return np.frombuffer(content, dtype).astype(dtype.newbyteorder("=")).reshape(shape)  # shape
    except ValueError as fault:
        raise _malformed(path, "a valid shape", f"{shape} ({fault})") from None


def _opened(path: Path) -> IO[bytes]:
    """The opened file, decompressed if it is gzipped."""
    with path.open("rb") as file:
        magic = file.read(2)
    if not magic:
        raise _malformed(path, "an IDX file", "an empty file")
    if magic == _GZIP_MAGIC:
        return gzip.open(path)  # type: ignore[return-value]
    if path.suffix == ".gz":
        raise _malformed(path, f"a gzip file, which begins with 0x{_GZIP_MAGIC.hex()}", f"0x{magic.hex()}")
    return path.open("rb")


def _read_pair(image_path: Path, label_path: Path) -> Arrays:
    """(images, float32 (n, 28, 28, 1) in [0, 1]; labels, int64 (n,))."""
    images = read_idx(image_path)  # (n, 28, 28)
    labels = read_idx(label_path)  # (n,)
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28) or len(images) == 0:
        raise _malformed(
            image_path, "uint8 images of shape (n, 28, 28), n at least 1", f"{images.dtype} {images.shape}"
        )
    if labels.dtype != np.uint8 or labels.ndim != 1:
        raise _malformed(label_path, "uint8 labels of shape (n,)", f"{labels.dtype} {labels.shape}")
    if len(labels) != len(images):
        raise _malformed(label_path, f"{len(images)} labels, one for each image of {image_path.name}", len(labels))
    if labels.max() > 9:
        first = int(np.argmax(labels > 9))
        raise _malformed(label_path, "labels in 0..9", f"{labels[first]} at index {first}")
    x = np.divide(images, 255, dtype=np.float32)[..., np.newaxis]  # (n, 28, 28, 1)
    return x, labels.astype(np.int64)


def _folders(name: str, data_dir: str | os.PathLike[str] | None) -> list[Path]:
    """The folders to search for a set, in order."""
    if data_dir is not None:
        return [Path(data_dir).expanduser()]
    folders = []
    if root := os.environ.get(DATA_DIR_VARIABLE):
        folders.append(Path(root).expanduser() / name)
    installed = _INSTALLED[name]
    if installed is not None:
        folders.append(installed)
    return folders


def _in_first(folders: list[Path]) -> list[Path] | None:
    """The four files, in the order of FILES, of the first folder that has all of them; None if there is none."""
    for folder in folders:
        found = [path for file in FILES if (path := _spelled(folder, file)) is not None]
        if len(found) == len(FILES):
            return found
    return None


def _downloaded(name: str, folders: list[Path]) -> list[Path] | None:
    """The four files in the cache folder, downloaded if needed."""
    try:
        return _in_first([downloads.download(name)])
    except OSError as fault:
        raise _missing(name, folders, f"and {fault}") from None


def _missing(name: str, folders: list[Path], download: str = "") -> FileNotFoundError:
    """The error for a set that was not found; it says where files may be put."""
    looked = []
    for folder in folders:
        missing = [file for file in FILES if _spelled(folder, file) is None]
        which = "all four" if len(missing) == len(FILES) else ", ".join(missing)
        looked.append(f"{folder} ({f'missing: {which}' if folder.is_dir() else 'no such folder'})")
    return FileNotFoundError(
        f"{name}: expected the files {', '.join(FILES)} (or .idx3-ubyte, .idx1-ubyte; each also as .gz) in one folder. "
        f"Looked in: {', '.join([*(looked or ['no folder']), *([download] if download else [])])}. "
        f"Pass their folder as data_dir (--data-dir), or put them into ${DATA_DIR_VARIABLE}/{name}"
    )


def _spelled(folder: Path, file: str) -> Path | None:
    """The existing file among its names: `-idx3-ubyte` or `.idx3-ubyte`, plain or .gz; None if there is none."""
    dotted = file.replace("-idx", ".idx")
    spellings = (folder / f"{stem}{suffix}" for stem in (file, dotted) for suffix in ("", ".gz"))
    return next((path for path in spellings if path.is_file()), None)


def _malformed(path: Path, expected: str, received: object) -> ValueError:
    return ValueError(f"{path}: expected {expected}. Received: {received}")
