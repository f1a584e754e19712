"""Announcements of what is being computed, for whoever listens (the profiler, and the time model's trace).

The tape, the layers and the convolution dispatcher announce; nobody but the listener reads a clock.
Without a listener an announcement costs one comparison.
An exception that a signal handler raises may keep a scope from being closed: the next scope around it that is left
closes it too, and who begins to listen is in none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

#: the values a part may have, in the order of a step, and what people read in their place
PART_NAMES = {
    "forward": "forward",
    "grad_input": "input gradient",
    "grad_weight": "weight gradient",
    "gradients": "both gradients",
    "optimizer": "optimizer",
    "other": "other",
}
PARTS = tuple(PART_NAMES)


def gradient_part(needs: Sequence[bool]) -> str:
    """The part of a step in which an operation computes what is needed of its gradients: input's, weight's, ..."""
    if needs[0]:
        return "gradients" if needs[1] else "grad_input"
    return "grad_weight"


class Listener(Protocol):
    def enter(self, layer: str | None, part: str) -> int:
        """A scope opens. Returns how many were open."""

    def leave(self, depth: int) -> None:
        """A scope is left: those are open that were open before it, `depth` of them."""


#: called before each operation of the tape: (the operation, its arguments as arrays, its options, which need gradients)
Tracer = Callable[[Callable, list, dict[str, Any], tuple[bool, ...]], None]


class _Here(threading.local):
    """Of each Python thread, so that two that compute do not take each other's work for their own."""

    layer: str | None = None
    listener: Listener | None = None
    tracer: Tracer | None = None


_here = _Here()


class scope:
    """`with scope("conv2d", "forward"):` — what runs inside belongs to that layer and part of the step.

    `layer=None` keeps the layer of the enclosing scope.
    """

    __slots__ = ("depth", "layer", "listener", "outer", "part")

    def __init__(self, layer: str | None, part: str):
        self.layer = layer
        self.part = part

    def __enter__(self) -> None:
        self.outer = _here.layer
        self.listener = listener = _here.listener
        if self.layer is not None:
            _here.layer = self.layer
        if listener is not None:
            self.depth = listener.enter(_here.layer, self.part)

    def __exit__(self, *exception: object) -> None:
        _here.layer = self.outer
        if self.listener is not None:
            self.listener.leave(self.depth)


def current_layer() -> str | None:
    """The layer whose scope is open, or None."""
    return _here.layer


def current_tracer() -> Tracer | None:
    """Who wants to know of each operation, or None."""
    return _here.tracer


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the announcements made inside, by this thread, to `listener`."""
    outer, layer = _here.listener, _here.layer
    _here.listener, _here.layer = listener, None
    try:
        yield
    finally:
        _here.listener, _here.layer = outer, layer


@contextmanager
def tracing(callback: Tracer) -> Iterator[None]:
    """Tell `callback` of each operation of this thread inside, before it runs."""
    outer, layer = _here.tracer, _here.layer
    _here.tracer, _here.layer = callback, None
    try:
        yield
    finally:
        _here.tracer, _here.layer = outer, layer
