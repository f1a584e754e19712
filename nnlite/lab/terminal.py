"""Terminal output of the commands: at most 100 columns, plain text when piped, progress on stderr."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

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

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        _clear_line()

    def say(self, text: str) -> None:
        """Show `text` in place of the line before."""
        if sys.stderr.isatty():
            _clear_line()
            print(text, end="", file=sys.stderr, flush=True)


class Bar:
    """A progress bar on stderr if that is a terminal, else one plain line per stage. A context manager."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, text: str, total: int) -> None:
        """Begin a stage of `total` steps."""
        if self._bar is None:
            print(f"{text} ...", file=sys.stderr, flush=True)
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(text, total=total)

    def step(self, text: str | None = None) -> None:
        """Count one step of the stage as done; `text` describes the next."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, **({} if text is None else {"description": text}))
