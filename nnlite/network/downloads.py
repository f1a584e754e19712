"""Download the IDX files of a data set once, and check their hashes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Source(NamedTuple):
    """The address of a set's four gzipped files, and the hash of each."""

    url: str
    hashes: dict[str, str]


SOURCES = {
    "mnist": Source(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
    ),
    "fashion_mnist": Source(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
}


def folder_of(name: str) -> Path:
    """The folder for a set's downloads, in the user's cache folder."""
    import pooch

    return Path(pooch.os_cache("nnlite")) / name


def download(name: str) -> Path:
    """The folder with the four files of a set; missing ones are downloaded.

    Raises OSError, of one line, if a file cannot be downloaded or written, or has another hash.
    """
    import pooch

    source, folder = SOURCES[name], folder_of(name)
    for file, known_hash in source.hashes.items():
        try:
            pooch.retrieve(source.url + file, known_hash, fname=file, path=folder)
        except (OSError, ValueError) as fault:  # requests' errors are OSErrors; a wrong hash is a ValueError
            raise OSError(f"{source.url + file} could not be fetched ({_short(fault)})") from fault
    return folder


def _short(fault: Exception) -> str:
    """The first line of an error, without the nested reprs that requests adds."""
    text = str(fault).splitlines()[0] if str(fault) else ""
    return f"{type(fault).__name__}: {text[:80]}" if len(text) <= 80 else type(fault).__name__
