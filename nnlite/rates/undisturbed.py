"""Measuring while other programs leave the processors alone, as far as there is patience to wait for that."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from nnlite import contention

#: seconds that all samples of a run together are taken anew for, while other programs use the processors
PATIENCE = 5.0
#: seconds after which this process asks again whether it is alone
ASKED_EVERY = 0.2

_T = TypeVar("_T")


class Undisturbed:
    """Asks for the `share` of the processors' time that this process gets, before and after what is measured.

    To ask takes as long as many a measurement. So those of a short while are asked about together, and what comes of
    one can be taken back: see `otherwise`.
    """

    def __init__(self, share: Callable[[], float]):
        self._share = share
        self._patience = PATIENCE
        self._last, self._asked = share(), time.perf_counter()
        self._take_back: list[Callable[[], object]] = []

    def measured(self, measure: Callable[[], _T], *, lately: bool = False) -> tuple[_T, bool]:
        """What is measured, anew as long as there is patience with other programs, and whether they left it alone.

        `lately`: it is enough that they did when this process last asked, unless they do not when it asks next.
        """
        while True:
            began = time.perf_counter()
            value = measure()
            if (lately and self._was_alone_lately()) or self.ask():
                return value, True
            if self._patience <= 0:
                return value, False
            self._patience -= time.perf_counter() - began

    def otherwise(self, take_back: Callable[[], object]) -> None:
        """Call this if the next asking tells that what was measured last was disturbed."""
        self._take_back.append(take_back)

    def _was_alone_lately(self) -> bool:
        return self._last >= contention.UNDISTURBED and time.perf_counter() < self._asked + ASKED_EVERY

    def ask(self) -> bool:
        """Whether other programs left this process alone since it last asked; else what was measured is taken back."""
        before, self._last = self._last, self._share()
        self._asked = time.perf_counter()
        alone = (before + self._last) / 2 >= contention.UNDISTURBED
        for take_back in () if alone else self._take_back:
            take_back()
        self._take_back = []
        return alone
