"""A pool of memory for arrays: `empty(shape, dtype)` without page faults in steady state.

A training step allocates the same arrays every time. New memory costs a page fault per 4 KiB. The pool reuses a block
when the last array that views it has been freed, and never earlier. Arrays and their views hold a reference to their
block: a block is idle if the pool has the only reference.

There is no lock: a signal handler could wait for a lock that its own thread holds. An array in an idle block is
returned only if no other array has taken the block meanwhile. Lists of blocks only grow; `trim` replaces a list instead
of shrinking it. In the worst case the pool loses a block, which then lives as long as its arrays.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_PAGE = 4096
_HUGE_PAGE = 1 << 21
_FLOAT32 = np.dtype(np.float32)
#: smaller arrays use NumPy's allocator, which caches small blocks
SMALLEST = 1 << 16
#: idle bytes above which the pool releases its idle blocks
IDLE_LIMIT = 256 << 20

#: references to an idle block: its list, and the argument of getrefcount
_IDLE_REFERENCES = 2
#: references to a block that one array uses
_TAKEN_REFERENCES = 3
#: size in pages -> its blocks, in use or idle
_blocks: dict[int, list[mmap.mmap]] = {}


def empty(shape: tuple[int, ...], dtype: Any = _FLOAT32) -> np.ndarray:
    """An uninitialised C-contiguous array; page-aligned and from the pool if it has at least SMALLEST bytes."""
    if dtype is not _FLOAT32:
        dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < SMALLEST:
        return np.empty(shape, dtype)
    pages = -(-nbytes // _PAGE)
    blocks = _blocks.get(pages, ())
    for i in range(len(blocks)):
        if _is_idle(blocks, i):
            array: np.ndarray = np.ndarray(shape, dtype, blocks[i])
            if sys.getrefcount(array.base) <= _TAKEN_REFERENCES:
                return array
    return _fresh(shape, dtype, pages)


def zeros(shape: tuple[int, ...], dtype: Any = _FLOAT32) -> np.ndarray:
    """Like `empty`, filled with zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


def idle_bytes() -> int:
    """The number of idle bytes in the pool."""
    return sum(
        _PAGE * pages for pages, blocks in list(_blocks.items()) for i in range(len(blocks)) if _is_idle(blocks, i)
    )


def trim() -> None:
    """Release every idle block to the operating system."""
    for pages, blocks in list(_blocks.items()):
        _blocks[pages] = [blocks[i] for i in range(len(blocks)) if not _is_idle(blocks, i)]


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Inside, the pool keeps all idle blocks: networks in turn need not touch new memory in every step."""
    global IDLE_LIMIT
    before, IDLE_LIMIT = IDLE_LIMIT, sys.maxsize
    try:
        yield
    finally:
        IDLE_LIMIT = before


def _is_idle(blocks: Sequence[mmap.mmap], i: int) -> bool:
    """Whether the pool has the only reference to a block.

    The argument is the list's element, not a variable: whether a variable counts depends on the interpreter.
    """
    return sys.getrefcount(blocks[i]) == _IDLE_REFERENCES


def _fresh(shape: tuple[int, ...], dtype: np.dtype, pages: int) -> np.ndarray:
    """An array in a new block of the pool."""
    if idle_bytes() > IDLE_LIMIT:
        trim()
    size = _PAGE * pages
    block = private_block(size, "MADV_HUGEPAGE" if size >= _HUGE_PAGE else None)
    array: np.ndarray = np.ndarray(shape, dtype, block)
    _blocks.setdefault(pages, []).append(block)
    return array


def private_block(size: int, advice: str | None = None) -> mmap.mmap:
    """New zeroed memory, private to this process: a forked child gets a copy, as of any other array.

    `advice`: the name in mmap of the advice on the page size; ignored if the system does not support it.
    """
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    try:
        block = mmap.mmap(-1, size, **private)
    except (OSError, OverflowError):
        raise MemoryError(f"expected {size:,} bytes of memory. Received: a refusal of the system") from None
    if advice and hasattr(mmap, advice):
        with contextlib.suppress(OSError):
            block.madvise(getattr(mmap, advice))
    return block
