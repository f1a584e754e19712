"""Terminal output of the commands: at most 100 columns, plain text when piped, progress on stderr."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100


def console() -> Console:
    """A console of at most 100 columns; exactly 100 and without colours if the output is piped.

    Text is printed without markup: a network may be named "[b]".
    """
    from rich.console import Console

    as_it_is: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
    if not sys.stdout.isatty():
        return Console(width=WIDTH, color_system=None, **as_it_is)
    terminal = Console(**as_it_is)
    terminal.width = min(WIDTH, terminal.width)
    return terminal


def command_line() -> str:
    """The command line of this run, quoted for a shell."""
    return shlex.join(["nnlite", *sys.argv[1:]])


def _clear_line() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


class Line:
    """A status line on stderr: each `say` replaces the line before; it is cleared at the end.

    Nothing is printed if stderr is not a terminal. No thread redraws it, so it does not disturb measurements.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _clear_line()

    def say(self, text: str) -> None:
        """Show `text` in place of the line before."""
        if sys.stderr.isatty():
            _clear_line()
            print(text, end="", file=sys.stderr, flush=True)


class Progress(Line):
    """A status line that counts the steps of a stage; without a terminal, one plain line per stage if `stages`."""

    def __init__(self, stages: bool = True) -> None:
        self._stages, self._done, self._total = stages, 0, 0

    def stage(self, text: str, total: int) -> None:
        """Begin a stage of `total` steps."""
        self._done, self._total = 0, total
        if self._stages and not sys.stderr.isatty():
            print(f"{text} ...", file=sys.stderr, flush=True)

    def step(self, text: str) -> None:
        """Count one more step of the stage, which `text` describes."""
        self._done += 1
        self.say(f"{text} ({self._done} of {self._total})")
