"""What of a file does not exist here: gathered, and said at once."""

from __future__ import annotations

from pathlib import Path


class Problems:
    """Collects what stands in the way of a network, so that the user learns all of it in one line."""

    def __init__(self, path: Path):
        self.path = path
        self.found: list[str] = []

    def add(self, what: str) -> None:
        if what not in self.found:
            self.found.append(what)

    def raise_any(self) -> None:
        """Raise ValueError with the whole list, if there is any."""
        if self.found:
            raise ValueError(
                f"MODEL {self.path}: expected a chain of layers that exist here. Received: {'; '.join(self.found)}"
            )

    def unreadable(self, expected: str, received: object) -> ValueError:
        return ValueError(f"MODEL {self.path}: expected {expected}. Received: {received}")
