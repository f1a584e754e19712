"""Measurements on disk."""

import os

import pytest

from nnlite.runtime import store


def test_what_is_written_is_read(tmp_path):
    store.write(tmp_path / "a.json", {"é": [1.5, None]})
    store.write(tmp_path / "a.json", {"é": [2.5, None]})
    assert store.read(tmp_path / "a.json") == {"é": [2.5, None]}
    assert os.listdir(tmp_path) == ["a.json"]


def test_where_there_is_no_folder_nothing_is_kept(tmp_path):
    store.write(None, 1)
    store.write(tmp_path / "missing" / "a.json", 1)
    assert store.read(None) is store.read(tmp_path / "missing" / "a.json") is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_what_is_no_json_is_not_read(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    assert store.read(tmp_path / "a.json") is None
    assert store.read(tmp_path) is None  # a folder


def test_on_a_full_disk_what_was_kept_stays(tmp_path, monkeypatch):
    def full(*paths):
        raise OSError(28, "No space left on device")

    store.write(tmp_path / "a.json", 1)
    monkeypatch.setattr(os, "replace", full)
    store.write(tmp_path / "a.json", 2)
    assert store.read(tmp_path / "a.json") == 1
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_no_json_can_hold_leaves_nothing_behind(tmp_path):
    with pytest.raises(TypeError):
        store.write(tmp_path / "a.json", object())
    assert os.listdir(tmp_path) == []
