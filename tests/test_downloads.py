"""Data sets that no folder has are downloaded once, checked, and kept. The server is on this machine."""

import gzip
import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from nnlite.network import datasets, downloads


def idx(array):
    """The bytes of an IDX file of uint8."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes(), mtime=0)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder that is served, as the source of mnist; requests are counted."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()
    images, labels = np.full((2, 28, 28), 51, np.uint8), np.array([3, 4], np.uint8)
    for file in datasets.FILES:
        (folder / f"{file}.gz").write_bytes(idx(images if "images" in file else labels))

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    hashes = {file.name: f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in folder.iterdir()}
    source = downloads.Source(f"http://127.0.0.1:{httpd.server_port}/", hashes)
    monkeypatch.setitem(downloads.SOURCES, "mnist", source)
    monkeypatch.setattr(downloads, "folder_of", lambda name: tmp_path / "kept" / name)
    monkeypatch.delenv(datasets.DATA_DIR_VARIABLE, raising=False)
    yield folder, asked
    httpd.shutdown()
    httpd.server_close()


def test_what_no_folder_has_is_downloaded_once(server):
    for _ in range(2):
        (x, y), _ = datasets.load("mnist")
        assert x.shape == (2, 28, 28, 1)
        assert x.max() == np.float32(0.2)
        assert y.tolist() == [3, 4]
    assert len(server[1]) == 4


def test_a_file_with_another_hash_is_refused(server):
    (server[0] / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.array([5, 6], np.uint8)))
    with pytest.raises(FileNotFoundError, match=r"train-labels-idx1-ubyte\.gz could not be fetched"):
        datasets.load("mnist")


def test_without_a_network_one_line_says_what_to_do(server, monkeypatch):
    monkeypatch.setitem(downloads.SOURCES, "mnist", downloads.SOURCES["mnist"]._replace(url="http://127.0.0.1:1/"))
    with pytest.raises(FileNotFoundError) as fault:
        datasets.load("mnist")
    message = str(fault.value)
    assert "\n" not in message
    assert "http://127.0.0.1:1/t" in message
    assert "-ubyte.gz could not be fetched (ConnectionError). Pass" in message
    assert "Pass their folder as data_dir (--data-dir), or put them into $NNLITE_DATA_DIR/mnist" in message
    assert len(message) < 500


def test_a_given_folder_is_the_only_place(server, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere \(no such folder\)"):
        datasets.load("mnist", data_dir=tmp_path / "nowhere")
    assert server[1] == []


def test_each_source_has_the_four_files():
    for source in downloads.SOURCES.values():
        assert list(source.hashes) == [f"{file}.gz" for file in datasets.FILES]
