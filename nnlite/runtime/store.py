"""Measurements on disk, as JSON. A file that cannot be read or written is ignored."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnlite.runtime.files import write_json


def read(path: Path | None) -> Any:
    """The content of the file; None if it does not exist or cannot be read."""
    try:
        return json.loads(path.read_text("utf-8")) if path is not None else None
    except (OSError, ValueError):
        return None


def write(path: Path | None, content: Any) -> None:
    """Store `content` for the next process. If it cannot be written, the next process measures again."""
    if path is not None:
        with suppress(OSError):
            write_json(path, content)
