"""Measurements on disk, as JSON: read where they can be, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any


def read(path: Path | None) -> Any:
    """What the file holds; None where there is none, or none that can be read."""
    try:
        return json.loads(path.read_text("utf-8")) if path is not None else None
    except (OSError, ValueError):
        return None


def write(path: Path | None, content: Any) -> None:
    """Keep it for the next process, if it can be written: what is not kept is measured again.

    Under a temporary name first, so that two processes do not mix up each other's.
    """
    if path is None:
        return
    with suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix="new-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps(content, indent=1) + "\n")
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
