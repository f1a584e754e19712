"""Collect the unsupported parts of a file and report them in one message."""

from __future__ import annotations

from collections.abc import Iterable

from nnlite.runtime.errors import printable

#: the most problems in one message
_TOLD = 20
_LONGEST = 2000


class Unreadable(ValueError):
    """A file that cannot be read. The message is one line, with the file's control characters escaped."""

    def __init__(self, message: str):
        shown = message if len(message) <= _LONGEST else f"{message[:_LONGEST]} ..."
        super().__init__(printable(" ".join(shown.split())))


class Problems:
    """Collects all unsupported parts of a network, for one message."""

    def __init__(self, argument: str):
        self.argument = argument
        self.found: dict[str, None] = {}  # in order, each once
        self.supported = ""

    def add(self, what: str, instead_of: Iterable[str] = ()) -> None:
        """Add a part; `instead_of` names the supported ones, if parts of its kind are not supported at all."""
        self.found[what] = None
        self.supported = ", ".join(instead_of) or self.supported

    def raise_any(self) -> None:
        """Raise Unreadable with the list, if there is any problem."""
        if self.found:
            told = list(self.found)[:_TOLD]
            more = [f"{len(self.found) - _TOLD} more"] if len(self.found) > _TOLD else []
            supported = f" ({self.supported})" if self.supported else ""
            raise self.unreadable(f"a chain of supported layers{supported}", "; ".join([*told, *more]))

    def unreadable(self, expected: str, received: object) -> Unreadable:
        return Unreadable(f"{self.argument}: expected {expected}. Received: {received}")
