"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_whole(path: str | Path, content: bytes | str, mode: int = 0o666) -> None:
    """Write a file beside `path` and put it in its place when complete; what was there stays on any error.

    So nobody reads half of it, nor a mixture of what two processes write at once. Links are followed; the file there
    was keeps its owner and rights, a new one gets `mode` less the umask. Text is written as UTF-8. Raises
    FileExistsError for what is no regular file, such as a device, which the new file would replace.
    """
    content = content.encode() if isinstance(content, str) else content
    old = os.stat(path) if os.path.exists(path) else None
    if old is not None and not stat.S_ISREG(old.st_mode):
        raise FileExistsError(f"{path}: expected the name of a file. Received: what is no regular file")
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".nnlite-{secrets.token_hex(8)}")
    if old is not None:
        mode = stat.S_IMODE(old.st_mode)
    try:
        try:  # a file without a name until it is complete: one that is killed leaves nothing behind
            handle, nameless = os.open(path.parent, os.O_WRONLY | os.O_TMPFILE, mode), True
        except (AttributeError, OSError):  # not Linux, or a file system that has none
            handle, nameless = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), False
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            if nameless:
                os.link(f"/proc/self/fd/{handle}", temporary, src_dir_fd=handle)  # which makes Python follow the link
        if old is not None:
            with suppress(OSError):  # only root can give files away
                os.chown(temporary, old.st_uid, old.st_gid)
            os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: str | Path, content: Any) -> None:
    """Write what JSON can hold, as `write_whole` does."""
    write_whole(path, json.dumps(content, indent=1) + "\n")
