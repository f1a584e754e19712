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


def _read_pair(image_path: Path, label_path: Path) -> Arrays:
    """(images, float32 (n, 28, 28, 1) in [0, 1]; labels, int64 (n,))."""
    images, labels = _read(image_path, (28, 28)), _read(label_path, ())
    if len(labels) != len(images):
        raise _malformed(label_path, f"{len(images)} labels, one for each image of {image_path.name}", len(labels))
    if labels.max() > 9:
        first = int(np.argmax(labels > 9))
        raise _malformed(label_path, "labels in 0..9", f"{labels[first]} at index {first}")
    x = np.divide(images, 255, dtype=np.float32)[..., np.newaxis]  # (n, 28, 28, 1)
    return x, labels.astype(np.int64)


def _read(path: Path, sizes: tuple[int, ...]) -> np.ndarray:
    """The uint8 array (n, *sizes) of an IDX file, gzipped or not. Raises ValueError for any other file.

    The format: the bytes 0, 0, 8 (for uint8) and the number of dimensions, each dimension as a big-endian uint32, then
    the elements, last dimension fastest (Y. LeCun, yann.lecun.com/exdb/mnist).
    """
    header, stored = 8 + 4 * len(sizes), path.stat().st_size
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP_MAGIC
    try:
        with gzip.open(path) if is_gzip else path.open("rb") as file:
            begin = file.read(header)
            n, *found = np.frombuffer(begin[4:], ">u4").tolist() if len(begin) == header else [0]
            if begin[:4] != bytes([0, 0, 8, 1 + len(sizes)]) or tuple(found) != sizes or not n:
                expected = f"an IDX file of uint8, shape {('n', *sizes)} with n at least 1".replace("'", "")
                raise _malformed(path, expected, f"{stored} bytes that begin with 0x{begin.hex()}")
            size = n * prod(sizes)
            content = file.read(min(size, _MOST_INFLATION * stored) + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
        raise _malformed(path, "a whole gzip stream", f"a damaged one ({fault})") from None
    if len(content) != size:
        received = f"{header + len(content)} bytes" + (" or more" if len(content) > size else "")
        raise _malformed(path, f"{header + size} bytes for shape {(n, *sizes)}", received)
    return np.frombuffer(content, np.uint8).reshape(n, *sizes)


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
