"""Recycled arrays: `empty(shape, dtype)` without page faults in steady state.

A training step asks for the same arrays every time. Fresh memory of that size costs a page fault for every 4 KiB; here
a block is used again once the last array that views it has died, never earlier, so that nothing a caller holds is ever
overwritten. An array refers to the block it lies in, and so do its views: a block whose only reference is the pool's
is free.

There is no lock, which a signal handler could wait for while its own thread holds it. An array that was made in a free
block is given out only if nobody else has one there by now, and lists of blocks only grow: what removes blocks puts
another list in the place. At worst a block is forgotten, and lives as long as its arrays.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import sys
from collections.abc import Sequence
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
#: to a block that one array uses: by that too
_TAKEN_REFERENCES = 3
#: size in pages -> its blocks, in use or idle
_blocks: dict[int, list[mmap.mmap]] = {}


def empty(shape: tuple[int, ...], dtype: Any = _FLOAT32) -> np.ndarray:
    """An uninitialised C-contiguous array, page-aligned when large, whose memory is used again after its last view."""
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
    """As `empty`, filled with zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


def idle_bytes() -> int:
    """How many bytes wait in the pool for a next use."""
    return sum(
        _PAGE * pages for pages, blocks in list(_blocks.items()) for i in range(len(blocks)) if _is_idle(blocks, i)
    )


def trim() -> None:
    """Give every idle block back to the operating system."""
    for pages, blocks in list(_blocks.items()):
        _blocks[pages] = [blocks[i] for i in range(len(blocks)) if not _is_idle(blocks, i)]


def _is_idle(blocks: Sequence[mmap.mmap], i: int) -> bool:
    """Whether nobody but the pool refers to a block.

    Asked of the list's element, not of a variable: whether that counts as a reference depends on the interpreter.
    """
    return sys.getrefcount(blocks[i]) == _IDLE_REFERENCES


def _fresh(shape: tuple[int, ...], dtype: np.dtype, pages: int) -> np.ndarray:
    """An array in a block of its own, which joins the pool."""
    if idle_bytes() > IDLE_LIMIT:
        trim()
    size = _PAGE * pages
    block = private_block(size, "MADV_HUGEPAGE" if size >= _HUGE_PAGE else None)
    array: np.ndarray = np.ndarray(shape, dtype, block)
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
