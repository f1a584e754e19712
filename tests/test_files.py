"""Writing files: whole or not at all, through links, with the rights that were there; nothing else is replaced."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import nnlite
from nnlite.runtime.errors import writable_file
from nnlite.runtime.files import write_json, write_whole


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=["nameless", "hidden"])
def way(request, monkeypatch):
    """Both ways to write beside a file: one that has no name until it is complete, and where there is none such."""
    if request.param == "hidden":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)


@pytest.mark.usefixtures("way")
class TestEachWay:
    def test_what_is_written_is_read(self, tmp_path):
        for content in (b"\0\xff\r\n", "ä\n"):
            write_whole(tmp_path / "a", content)
            assert (tmp_path / "a").read_bytes() == (content if isinstance(content, bytes) else content.encode())
        write_json(str(tmp_path / "b"), {"x": [1, None]})
        assert (tmp_path / "b").read_text() == '{\n "x": [\n  1,\n  null\n ]\n}\n'
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]

    def test_a_new_file_has_the_rights_of_any_new_file(self, tmp_path):
        before = os.umask(0o027)
        try:
            write_whole(tmp_path / "a", b"")
            write_whole(tmp_path / "secret", b"", mode=0o600)
        finally:
            os.umask(before)
        assert mode(tmp_path / "a") == 0o640
        assert mode(tmp_path / "secret") == 0o600

    @pytest.mark.parametrize("rights", [0o600, 0o666, 0o751])
    def test_a_file_keeps_its_rights(self, tmp_path, rights):
        (tmp_path / "a").touch()
        (tmp_path / "a").chmod(rights)
        write_whole(tmp_path / "a", b"x")
        assert mode(tmp_path / "a") == rights

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
    def test_a_file_keeps_its_owner(self, tmp_path):
        (tmp_path / "a").touch()
        os.chown(tmp_path / "a", 12345, 23456)
        write_whole(tmp_path / "a", b"x")
        assert ((tmp_path / "a").stat().st_uid, (tmp_path / "a").stat().st_gid) == (12345, 23456)

    @pytest.mark.parametrize("there", [True, False])
    def test_links_are_followed_and_stay(self, tmp_path, there):
        (tmp_path / "folder").mkdir()
        target, first, second = tmp_path / "folder" / "target", tmp_path / "first", tmp_path / "second"
        first.symlink_to("folder/target")
        second.symlink_to(first)
        if there:
            target.write_bytes(b"old")
        write_whole(second, b"new")
        assert first.is_symlink()
        assert second.is_symlink()
        assert target.read_bytes() == b"new"
        assert os.listdir(tmp_path / "folder") == ["target"]

    def test_after_an_error_nothing_is_left_and_the_old_file_stays(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")  # names no file

        (tmp_path / "a").write_bytes(b"old")
        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/a'$"):
            write_whole(tmp_path / "a", b"new")
        assert (tmp_path / "a").read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["a"]


KILLED = """
import os, signal, sys
from nnlite.runtime.files import write_whole
os.link = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
write_whole(sys.argv[1], bytes(100_000))
"""


def test_a_process_that_is_killed_leaves_nothing_behind(tmp_path):
    try:
        os.close(os.open(tmp_path, os.O_WRONLY | os.O_TMPFILE))
    except (AttributeError, OSError):
        pytest.skip("no files without a name here")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name on this system")
@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
def test_what_is_no_regular_file_is_not_replaced(tmp_path, monkeypatch, kind, link):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    path = Path("there")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("there")
    if link:
        Path("link").symlink_to("there")
        path = Path("link")
    before = path.lstat(), path.stat()
    with pytest.raises(FileExistsError, match=f"{path}: expected a regular file"):
        write_whole(path, b"x")
    with pytest.raises(ValueError, match="--out: expected a file name"):
        writable_file("--out", path)
    model = nnlite.Sequential([nnlite.Input((2,)), nnlite.Dense(1)])
    with pytest.raises(ValueError, match="path: expected a file name"):
        model.save(path)
    assert before == (path.lstat(), path.stat())


def test_nothing_else_in_nnlite_writes_files():
    writes = re.compile(
        r"write_text\(|write_bytes\(|savefig\((?!drawn)|print_png\((?!drawn)|open\([^)\n]*[\"'][wax]b?[\"']"
    )
    package = Path(nnlite.__file__).parent
    found = {
        f"{file.relative_to(package)}: {line.strip()}"
        for file in package.rglob("*.py")
        for line in file.read_text("utf-8").splitlines()
        if file.name != "files.py" and writes.search(line)
    }
    asks_the_kernel = 'lab/timing.py: reset.write_text("5")  # resets VmHWM, the peak of resident memory (man 5 proc)'
    in_temporary_folders = ("lab/inspect/compiling.py: asked.", "lab/inspect/child.py: Path(answered).")
    assert {place for place in found if not place.startswith(in_temporary_folders)} <= {asks_the_kernel}
