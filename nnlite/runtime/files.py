"""Write files atomically."""

from __future__ import annotations

import json
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_whole(path: str | Path, content: bytes | str, mode: int = 0o666) -> None:
    """Write a temporary file beside `path` and rename it when complete. On an error the old file remains.

    So nobody reads half a file, or a mixture of two processes' files. Links are followed. An existing file keeps its
    owner and mode, a new one gets `mode` minus the umask. Text is written as UTF-8. Raises FileExistsError for anything
    but a regular file, such as a device.
    """
    content = content.encode() if isinstance(content, str) else content
    old = os.stat(path) if os.path.exists(path) else None
    if old is not None and not stat.S_ISREG(old.st_mode):
        raise FileExistsError(f"{path}: expected a regular file. Received: a device, a folder or a pipe")
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".nnlite-{secrets.token_hex(8)}")
    if old is not None:
        mode = stat.S_IMODE(old.st_mode)
    try:
        try:  # without a name until it is complete: a killed process leaves nothing behind
            handle, nameless = os.open(path.parent, os.O_WRONLY | os.O_TMPFILE, mode), True
        except (AttributeError, OSError):  # not Linux, or a file system that has none
            handle, nameless = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), False
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            if nameless:
                os.link(f"/proc/self/fd/{handle}", temporary, src_dir_fd=handle)  # makes Python follow the link
        if old is not None:
            with suppress(OSError):  # only root can change the owner
                os.chown(temporary, old.st_uid, old.st_gid)
            os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:  # a full disk's error names no file, others the temporary one
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, atomically."""
    write_whole(path, json.dumps(content, indent=1) + "\n")
