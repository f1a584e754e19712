"""Progress of training: a bar on a terminal, one plain line an epoch elsewhere."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Mapping
from typing import Any

from nnlite.runtime.attributes import KnownAttributes


def describe(values: Mapping[str, float]) -> str:
    """{"loss": 0.25} -> "loss: 0.2500" """
    return " - ".join(f"{name}: {value:.4f}" for name, value in values.items())


class History(KnownAttributes):
    """What fit returns: `history` holds one list a quantity, one value an epoch, as in Keras."""

    #: a copy shares nothing with its original
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
        return f"<History of {len(self.epoch)} epochs; the last: {last}>"


def check_verbose(verbose: object) -> None:
    """Raises ValueError unless it is one of Keras's."""
    if not isinstance(verbose, (int, str)) or verbose not in (0, 1, 2, "auto"):
        raise ValueError(f'verbose: expected 0, 1, 2 or "auto". Received: {verbose!r}')


class _Announcement:
    """Says on stderr that a kernel is compiled: once, from when it is asked to."""

    def __init__(self) -> None:
        self._listens = False
        self.wanted = False

    def want(self) -> None:
        """Say it of the next kernel that is compiled."""
        from nnlite.compiler import jit

        if not self._listens:
            jit.on_compile(self._say)
        self._listens = self.wanted = True

    def _say(self, name: str) -> None:
        from nnlite.compiler import cache as jit_cache

        if self.wanted:
            self.wanted = False
            kept = "kept for the next run" if jit_cache.cache_dir() else "no folder to keep them in was found"
            start = "\r\x1b[2K" if sys.stderr.isatty() else ""
            print(f"{start}compiling kernels on first use ({kept}) ...", file=sys.stderr, flush=True)


_announcement = _Announcement()
#: from now on, say on stderr when the first kernel is compiled, and that the next run will not
announce_compilation = _announcement.want


class Progress:
    """Shows one epoch after the other. `verbose`: 0 nothing, 1 a bar where there is a terminal, 2 one line an epoch."""

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
        """Epoch `epoch`, counted from 0, begins."""
        self.epoch = epoch
        self.began = time.perf_counter()
        self.done = 0
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task(self._title(), total=self.samples, values="", rate="")

    def advance(self, samples: int, values: Mapping[str, float]) -> None:
        """`samples` more of the epoch are done; `values` are its means so far."""
        if self.bar is not None:
            self.done += samples
            self.bar.update(self.task, completed=self.done, values=describe(values), rate=self._rate(self.done))

    def finish(self, values: Mapping[str, float]) -> None:
        """The epoch is done; `values` are its results. A bar gives way to the line that is printed elsewhere."""
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
        """Leave the terminal as it was, also after an error."""
        if not self.silent:
            _announcement.wanted = False
        if self.bar is not None:
            self.bar.stop()

    def _title(self) -> str:
        return f"Epoch {self.epoch + 1}/{self.epochs}"

    def _rate(self, done: float) -> str:
        return f"{done / max(time.perf_counter() - self.began, 1e-9):,.0f} samples/s"


def _bar() -> Any:
    """Epoch, a short bar, samples done, speed and values; on a narrow terminal the values are cut off, nothing else."""
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
