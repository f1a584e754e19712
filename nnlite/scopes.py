"""Announcements of what is being computed, for whoever listens (the profiler, and the time model's trace).

The tape, the layers and the convolution dispatcher announce; nobody but the listener reads a clock.
Without a listener an announcement costs one comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


class Listener(Protocol):
    def enter(self, layer: str | None, part: str) -> None: ...
    def leave(self) -> None: ...


_listener: Listener | None = None
_layer: str | None = None
#: called before each operation of the tape: (the operation, its arguments as arrays, its options, which need gradients)
tracer: Callable[[Callable, list, dict[str, Any], tuple[bool, ...]], None] | None = None


class scope:
    """`with scope("conv2d", "forward"):` — what runs inside belongs to that layer and part of the step.

    `layer=None` keeps the layer of the enclosing scope.
    """

    __slots__ = ("layer", "outer", "part")

    def __init__(self, layer: str | None, part: str):
        self.layer = layer
        self.part = part

    def __enter__(self) -> None:
        global _layer
        self.outer = _layer
        if self.layer is not None:
            _layer = self.layer
        if _listener is not None:
            _listener.enter(_layer, self.part)

    def __exit__(self, *exception: object) -> None:
        global _layer
        _layer = self.outer
        if _listener is not None:
            _listener.leave()


def current_layer() -> str | None:
    """The layer whose scope is open, or None."""
    return _layer


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the announcements made inside to `listener`."""
    global _listener
    outer = _listener
    _listener = listener
    try:
        yield
    finally:
        _listener = outer


@contextmanager
def tracing(callback: Callable[[Callable, list, dict[str, Any], tuple[bool, ...]], None]) -> Iterator[None]:
    """Tell `callback` of each operation inside, before it runs."""
    global tracer
    outer = tracer
    tracer = callback
    try:
        yield
    finally:
        tracer = outer
