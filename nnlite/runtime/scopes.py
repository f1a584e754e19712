"""Scopes announce which layer and pass is being computed, for the profiler and for the time model's trace.

The tape, the layers and the convolution dispatcher announce scopes. Only the listener reads a clock. While nobody
listens, in any thread, there are no scopes: a training step opens a dozen.

An exception raised by a signal handler may leave a scope open. It is closed when an enclosing scope is left, and a new
listener starts outside of all scopes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

#: pass -> its name in sentences, in the order of a step
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
    """The backward pass that computes the needed gradients: `needs` is for input, weight, ..."""
    if needs[0]:
        return "gradients" if needs[1] else "grad_input"
    return "grad_weight"


class Listener(Protocol):
    def enter(self, layer: str | None, part: str) -> int:
        """A scope opens. Returns the number of scopes that were open before."""

    def leave(self, depth: int) -> None:
        """A scope is left: `depth` scopes remain open."""


#: called before each operation of the tape: (operation, arguments as arrays, options, which need gradients)
Tracer = Callable[[Callable, list, dict[str, Any], tuple[bool, ...]], None]


class _Here(threading.local):
    """State per Python thread, so that threads do not mix up their scopes."""

    layer: str | None = None
    part: str = "other"
    listener: Listener | None = None
    tracer: Tracer | None = None


_here = _Here()
#: the listeners and tracers of all threads
listeners: list[Listener | Callable] = []
_unheard = nullcontext()


def scope(layer: str | None, part: str) -> AbstractContextManager[None]:
    """`with scope("conv2d", "forward"):` the code inside belongs to that layer and pass.

    `layer=None` keeps the layer of the enclosing scope.
    """
    return _Scope(layer, part) if listeners else _unheard


class _Scope:
    __slots__ = ("depth", "layer", "listener", "outer", "part")

    def __init__(self, layer: str | None, part: str):
        self.layer = layer
        self.part = part

    def __enter__(self) -> None:
        self.outer = current()
        self.listener = listener = _here.listener
        if self.layer is not None:
            _here.layer = self.layer
        _here.part = self.part
        if listener is not None:
            self.depth = listener.enter(_here.layer, self.part)

    def __exit__(self, *exception: object) -> None:
        _here.layer, _here.part = self.outer
        if self.listener is not None:
            self.listener.leave(self.depth)


def current() -> tuple[str | None, str]:
    """(layer, part) of the open scope; while there are no scopes, (None, "other")."""
    return _here.layer, _here.part


def current_layer() -> str | None:
    """The layer whose scope is open, or None; while nobody listens, None."""
    return _here.layer


def current_tracer() -> Tracer | None:
    """The active tracer, or None."""
    return _here.tracer


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the announcements of this thread inside to `listener`."""
    outer, place = _here.listener, current()
    _here.listener, _here.layer, _here.part = listener, None, "other"
    listeners.append(listener)
    try:
        yield
    finally:
        listeners.remove(listener)
        _here.listener, (_here.layer, _here.part) = outer, place


@contextmanager
def tracing(callback: Tracer) -> Iterator[None]:
    """Call `callback` before each operation of this thread inside."""
    outer, place = _here.tracer, current()
    _here.tracer, _here.layer, _here.part = callback, None, "other"
    listeners.append(callback)
    try:
        yield
    finally:
        listeners.remove(callback)
        _here.tracer, (_here.layer, _here.part) = outer, place


@contextmanager
def announced() -> Iterator[None]:
    """Inside there are scopes, though nobody may listen: `current` tells which is open."""
    listeners.append(current)
    try:
        yield
    finally:
        listeners.remove(current)
