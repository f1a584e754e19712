"""Recycled arrays: `empty(shape, dtype)` without page faults in steady state.

A training step asks for the same arrays every time. Fresh memory of that size costs a page fault for every 4 KiB; here
a block is used again once the last array that views it has died, never earlier, so that nothing a caller holds is ever
overwritten. An array refers to the block it lies in, and so do its views: a block whose only reference is the pool's
is free.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import sys
import threading
from typing import Any

import numpy as np

_PAGE = 4096
_HUGE_PAGE = 1 << 21
_FLOAT32 = np.dtype(np.float32)
#: smaller arrays are NumPy's business, whose own allocator keeps small blocks
SMALLEST = 1 << 16
#: how many bytes may lie idle in the pool before it lets blocks go
IDLE_LIMIT = 256 << 20

#: to a block nobody uses: by its list, and getrefcount's argument
_IDLE_REFERENCES = 2
#: size in pages -> its blocks, in use or idle
_blocks: dict[int, list[mmap.mmap]] = {}
_lock = threading.Lock()


def empty(shape: tuple[int, ...], dtype: Any = _FLOAT32) -> np.ndarray:
    """An uninitialised C-contiguous array, page-aligned when large, whose memory is used again after its last view."""
    if dtype is not _FLOAT32:
        dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < SMALLEST:
        return np.empty(shape, dtype)
    pages = -(-nbytes // _PAGE)
    with _lock:
        blocks = _blocks.get(pages, [])
        for i in range(len(blocks)):
            if _is_idle(blocks, i):
                return np.ndarray(shape, dtype, blocks[i])
    return _fresh(shape, dtype, pages)


def zeros(shape: tuple[int, ...], dtype: Any = _FLOAT32) -> np.ndarray:
    """As `empty`, filled with zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


def idle_bytes() -> int:
    """How many bytes wait in the pool for a next use."""
    with _lock:
        return sum(_PAGE * pages * len(_idle(blocks)) for pages, blocks in _blocks.items())


def trim() -> None:
    """Give every idle block back to the operating system."""
    with _lock:
        _drop_idle()


def _idle(blocks: list[mmap.mmap]) -> list[int]:
    """Which of the blocks nobody but the pool refers to."""
    return [i for i in range(len(blocks)) if _is_idle(blocks, i)]


def _is_idle(blocks: list[mmap.mmap], i: int) -> bool:
    """Asked of the list's element, not of a variable: whether that counts as a reference depends on the interpreter."""
    return sys.getrefcount(blocks[i]) == _IDLE_REFERENCES


def _drop_idle() -> None:
    for pages, blocks in list(_blocks.items()):
        for i in reversed(_idle(blocks)):
            del blocks[i]
        if not blocks:
            del _blocks[pages]


def _fresh(shape: tuple[int, ...], dtype: np.dtype, pages: int) -> np.ndarray:
    """An array in a block of its own, which joins the pool."""
    if idle_bytes() > IDLE_LIMIT:
        trim()
    size = _PAGE * pages
    block = private_block(size, "MADV_HUGEPAGE" if size >= _HUGE_PAGE else None)
    array: np.ndarray = np.ndarray(shape, dtype, block)
    with _lock:
        _blocks.setdefault(pages, []).append(block)
    return array


def private_block(size: int, advice: str | None = None) -> mmap.mmap:
    """Fresh zeros, private to this process: a forked child gets a copy, as of any other array.

    `advice`: what the system is told about the pages' size, by its name in mmap; some know or take none.
    """
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    block = mmap.mmap(-1, size, **private)
    if advice and hasattr(mmap, advice):
        with contextlib.suppress(OSError):
            block.madvise(getattr(mmap, advice))
    return block


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
