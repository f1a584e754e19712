"""Measurements on disk, as JSON: read where they can be, written where they can be."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnlite.runtime.files import write_json


def read(path: Path | None) -> Any:
    """What the file holds; None where there is none, or none that can be read."""
    try:
        return json.loads(path.read_text("utf-8")) if path is not None else None
    except (OSError, ValueError):
        return None


def write(path: Path | None, content: Any) -> None:
    """Keep it for the next process, if it can be written: what is not kept is measured again."""
    if path is not None:
        with suppress(OSError):
            write_json(path, content)
