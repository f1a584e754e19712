"""Progress of training: a bar on a terminal, else one line per epoch."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from nnlite.runtime.attributes import KnownAttributes


def describe(values: Mapping[str, float]) -> str:
    """{"loss": 0.25} -> "loss: 0.2500" """
    return " - ".join(f"{name}: {value:.4f}" for name, value in values.items())


class History(KnownAttributes):
    """The result of fit: `history` has one list per quantity with one value per epoch, as in Keras."""

    #: copies are deep
    __copy__ = copy.deepcopy

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def append(self, epoch: int, values: dict[str, float]) -> None:
        self.epoch.append(epoch)
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)

    def __repr__(self) -> str:
        last = describe({name: values[-1] for name, values in self.history.items()})
        return f"<History of {len(self.epoch)} epochs; last: {last}>"


def check_verbose(verbose: object) -> None:
    """Raises ValueError unless it is a value that Keras accepts."""
    if not isinstance(verbose, (int, str)) or verbose not in (0, 1, 2, "auto"):
        raise ValueError(f'verbose: expected 0, 1, 2 or "auto". Received: {verbose!r}')


def announce_compilation() -> None:
    """From now on, print a line on stderr when the next kernel is compiled."""
    from nnlite.compiler import compilation

    if _announce not in compilation.listeners:
        compilation.listeners.append(_announce)


def stop_announcing() -> None:
    """Print no such line."""
    from nnlite.compiler import compilation

    with suppress(ValueError):
        compilation.listeners.remove(_announce)


def _announce(_: str) -> None:
    from nnlite.compiler import cache

    stop_announcing()
    stored = " (stored for the next run)" if cache.cache_dir() else ""  # else a warning says why
    start = "\r\x1b[2K" if sys.stderr.isatty() else ""
    print(f"{start}compiling kernels{stored} ...", file=sys.stderr, flush=True)


class Progress:
    """Shows the progress of each epoch. `verbose`: 0 nothing, 1 a bar on a terminal, 2 one line per epoch."""

    def __init__(self, epochs: int, samples: int, verbose: int | str):
        check_verbose(verbose)
        self.epochs = epochs
        self.samples = samples
        self.silent = verbose == 0
        if not self.silent:
            announce_compilation()
        self.bar: Any = None
        if verbose in (1, "auto") and sys.stdout.isatty():
            self.bar = _bar()

    def start(self, epoch: int) -> None:
        """Begin epoch `epoch`, counted from 0."""
        self.epoch = epoch
        self.began = time.perf_counter()
        self.done = 0
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task(self._title(), total=self.samples, values="", rate="")

    def advance(self, samples: int, values: Mapping[str, float]) -> None:
        """Count `samples` more as done; `values` are the means of the epoch so far."""
        if self.bar is not None:
            self.done += samples
            self.bar.update(self.task, completed=self.done, values=describe(values), rate=self._rate(self.done))

    def finish(self, values: Mapping[str, float]) -> None:
        """End the epoch and print its line; `values` are its results."""
        seconds = time.perf_counter() - self.began
        line = f"{self._title()} - {seconds:.1f} s - {describe(values)} - {self._rate(self.samples)}"
        if self.bar is not None:
            self.bar.remove_task(self.task)
            self.bar.console.print(line, soft_wrap=True, highlight=False)
            if self.epoch + 1 == self.epochs:
                self.bar.stop()
        elif not self.silent:
            print(line, flush=True)

    def stop(self) -> None:
        """Restore the terminal, also after an error."""
        if not self.silent:
            stop_announcing()
        if self.bar is not None:
            self.bar.stop()

    def _title(self) -> str:
        return f"Epoch {self.epoch + 1}/{self.epochs}"

    def _rate(self, done: float) -> str:
        return f"{done / max(time.perf_counter() - self.began, 1e-9):,.0f} samples/s"


def _bar() -> Any:
    """Epoch, a short bar, samples done, speed and values. On a narrow terminal only the values are cut."""
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column

    whole = Column(no_wrap=True, overflow="ignore")
    return RichProgress(
        TextColumn("{task.description}", table_column=whole),
        BarColumn(bar_width=12, table_column=whole),
        TextColumn("{task.completed:.0f}/{task.total:.0f}", table_column=whole),
        TextColumn("{task.fields[rate]}", table_column=whole),
        TextColumn("{task.fields[values]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        expand=True,
    )
