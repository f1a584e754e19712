"""What of a file does not exist here: gathered, and said at once."""

from __future__ import annotations

from nnlite.runtime.errors import printable

#: how many problems one line tells
_TOLD = 20
_LONGEST = 2000


class Unreadable(ValueError):
    """A file that is not understood: what is said of it is one line, without escape sequences of the file's own."""

    def __init__(self, message: str):
        shown = message if len(message) <= _LONGEST else f"{message[:_LONGEST]} ..."
        super().__init__(printable(" ".join(shown.split())))


class Problems:
    """Collects what stands in the way of a network, so that the user learns all of it in one line."""

    def __init__(self, argument: str):
        self.argument = argument
        self.found: dict[str, None] = {}  # in order, each once

    def add(self, what: str) -> None:
        self.found[what] = None

    def raise_any(self) -> None:
        """Raise Unreadable with the whole list, if there is any."""
        if self.found:
            told = list(self.found)[:_TOLD]
            more = [f"{len(self.found) - _TOLD} more"] if len(self.found) > _TOLD else []
            raise self.unreadable("a chain of layers that exist here", "; ".join([*told, *more]))

    def unreadable(self, expected: str, received: object) -> Unreadable:
        return Unreadable(f"{self.argument}: expected {expected}. Received: {received}")
