"""Replay: a computation on arrays is done again without the Python between its kernels.

In a step of a small network Python takes as long as the kernels do, and does the same each time. So what is called by
`noted`, as every kernel is, can be recorded with its arguments and called again, as CUDA graphs replay launches
(NVIDIA, "CUDA C++ Programming Guide", section "CUDA Graphs").

What computes on arrays in another way is not called again. So a record is tried before it is used: its floats are
wiped to NaN, but those that another record has too, such as parameters, and for the next inputs its results must have
the bits of the computation's. A trial does not see what a network hides, such as gradients of units that ReLU switches
off: callers record only what calls `noted` throughout.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnlite.runtime import memory, scopes

Results = Sequence[np.ndarray | None]
#: the calls before a replay: the first compiles kernels, the second is recorded, the third tries the record
TRIALS = 3
#: bytes of the arguments of a record's calls, added up, at the most: what computes on more takes far longer than its
#: Python
LARGEST = 1 << 26


class _Here(threading.local):
    """Per Python thread."""

    record: Record | None = None
    is_off: bool = False


_here = _Here()


def noted(function: Callable, *arguments: Any) -> Any:
    """`function(*arguments)`, which a replay calls again with the same arguments; what it returns is lost then."""
    note(function, *arguments)
    return function(*arguments)


def note(function: Callable, *arguments: Any) -> None:
    """Record a call that the caller makes, if anything is recorded now."""
    if _here.record is not None:
        _here.record.add(function, arguments)


def copied(array: np.ndarray, dtype: Any = None) -> np.ndarray:
    """A C-contiguous copy, converted if a dtype is given, which a replay makes again."""
    copy = memory.empty(array.shape, dtype or array.dtype)
    noted(np.copyto, copy, array, "unsafe")
    return copy


def summed(array: np.ndarray) -> np.ndarray:
    """The sum along the first axis, which a replay computes again."""
    total = np.empty(array.shape[1:], array.dtype)
    noted(np.add.reduce, array, 0, None, total)
    return total


def taken(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The elements at these places, counted through all axes, which a replay takes again."""
    return noted(np.take, array, places, None, np.empty(places.shape, array.dtype))


def filled(shape: tuple[int, ...], dtype: Any, value: float) -> np.ndarray:
    """A new array with that value everywhere, with which a replay fills it again."""
    array = memory.empty(shape, dtype)
    noted(array.fill, value)
    return array


@contextmanager
def off() -> Iterator[None]:
    """Inside, this thread replays nothing."""
    before, _here.is_off = _here.is_off, True
    try:
        yield
    finally:
        _here.is_off = before


class Record:
    """The calls of a computation, on its own copies of the inputs."""

    def __init__(self, compute: Callable[..., Results], inputs: Sequence[np.ndarray]):
        self._inputs = [array.copy() for array in inputs]
        self._calls: list[tuple[Callable, tuple, tuple[str | None, str]]] = []
        self._bytes = 0
        self._watched: list[Any] = []
        self._references: list[int] = []
        outer, _here.record = _here.record, self
        try:
            with scopes.announced():
                self.results = compute(*self._inputs)
        finally:
            _here.record = outer

    def add(self, function: Callable, arguments: tuple) -> None:
        """Record a call."""
        self._bytes += sum(array.nbytes for array in _arrays(arguments))
        self._calls.append((function, arguments, scopes.current()))
        if not self.is_small:
            self._calls.clear()  # and the arrays with them

    @property
    def is_small(self) -> bool:
        """Whether it is worth its memory."""
        return self._bytes <= LARGEST

    def arrays(self) -> Iterator[np.ndarray]:
        """Those that its calls read or write, and its results; views of others too."""
        yield from _arrays(tuple(self.results))
        for _, arguments, _ in self._calls:
            yield from _arrays(arguments)

    def replay(self, inputs: Sequence[np.ndarray]) -> Results:
        """The results for other inputs of the same shapes and dtypes, in the arrays that held the last ones."""
        for own, given in zip(self._inputs, inputs, strict=True):
            np.copyto(own, given)
        if scopes.listeners:
            for function, arguments, place in self._calls:
                with scopes.scope(*place):
                    function(*arguments)
        else:
            for function, arguments, _ in self._calls:
                function(*arguments)
        return [*self.results]

    def watch(self) -> None:
        """Note how many hold its results, and the arrays or memory that these are views of."""
        arrays = (array for array in self.results if array is not None)
        self._watched = [one for array in arrays for one in (array, array.base) if one is not None]
        self._references = [*map(sys.getrefcount, self._watched)]

    def is_held(self) -> bool:
        """Whether somebody has taken hold of one of them since."""
        return [*map(sys.getrefcount, self._watched)] != self._references

    @contextmanager
    def wiped(self, other: Record) -> Iterator[None]:
        """Inside, the arrays that another record does not have began as NaN or as 0, which is an index too."""
        shared = {array.ctypes.data for array in other.arrays()}
        found = {(array.ctypes.data, array.shape, array.strides, array.dtype): array for array in self.arrays()}
        own = [array for array in found.values() if array.flags.writeable and array.ctypes.data not in shared]
        before = _copies(own)
        try:
            for array in own:
                array.fill(np.nan if array.dtype.kind == "f" else 0)
            yield
        finally:  # a table that another computation uses may be among them
            for array, as_it_was in zip(own, before, strict=True):
                array[...] = as_it_was


class Repeated:
    """A computation on arrays of some shapes, replayed after TRIALS calls if that proved right.

    A replay overwrites the results of the one before; while somebody else holds one of these, nothing is replayed.
    """

    def __init__(self, get: Callable[[], Any] = lambda: None, put_back: Callable[[Any], object] = lambda _: None):
        """`get` and `put_back` get and set where random streams are, so that a trial changes nothing."""
        self._get, self._put_back = get, put_back
        self._record: Record | None = None
        self._next: Callable[[Repeated, Callable, tuple], Results] = Repeated._first

    def __call__(self, compute: Callable[..., Results], *inputs: np.ndarray) -> Results:
        """`compute(*inputs)`, the same function each time, that depends on arrays and random streams alone."""
        return compute(*inputs) if _here.is_off else self._next(self, compute, inputs)

    @property
    def is_replayed(self) -> bool:
        """Whether the next call may be a replay."""
        return self._next is Repeated._replay and self._record is not None

    # What the next call does; an interrupted one is done again.

    def _first(self, compute: Callable[..., Results], inputs: tuple) -> Results:
        results = compute(*inputs)
        self._next = Repeated._note
        return results

    def _note(self, compute: Callable[..., Results], inputs: tuple) -> Results:
        record = Record(compute, inputs)
        results = _copies(record.results)  # a replay overwrites the record's
        self._record, self._next = (record, Repeated._try) if record.is_small else (None, Repeated._replay)
        return results

    def _try(self, compute: Callable[..., Results], inputs: tuple) -> Results:
        """Replay the record for these inputs, too: it is right if that has the same bits."""
        record, before = self._record, self._get()
        assert record is not None
        latest = Record(compute, inputs)
        after = self._get()
        try:
            self._put_back(before)
            with record.wiped(latest):
                is_right = all(map(_same_bits, record.replay(inputs), latest.results))
        finally:
            self._put_back(after)
        record.watch()
        self._record, self._next = record if is_right else None, Repeated._replay
        return latest.results

    def _replay(self, compute: Callable[..., Results], inputs: tuple) -> Results:
        record = self._record
        if record is None or record.is_held():
            return compute(*inputs)
        self._record = None  # a signal handler may call this, too
        try:
            return record.replay(inputs)
        finally:
            self._record = record


def _arrays(value: Any) -> Iterator[np.ndarray]:
    """The arrays in a value, in tuples within tuples too; not the empty ones."""
    if isinstance(value, np.ndarray):
        if value.size:
            yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _arrays(part)


def _copies(results: Results) -> Results:
    return [None if array is None else array.copy() for array in results]


def _same_bits(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else a.tobytes() == b.tobytes()
