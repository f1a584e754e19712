"""Recycled arrays: `empty(shape, dtype)` without page faults in steady state.

A training step asks for the same arrays every time. Fresh memory of that size costs a page fault for every 4 KiB;
here a block returns to a pool when the last array that views it dies, never earlier, so that nothing a caller holds
is ever overwritten.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import threading
from typing import Any

import numpy as np

_PAGE = 4096
#: smaller arrays are NumPy's business, whose own allocator keeps small blocks
SMALLEST = 1 << 16
#: how many bytes may lie idle in the pool before it lets blocks go
IDLE_LIMIT = 256 << 20

_idle: dict[int, list[mmap.mmap]] = {}
_idle_bytes = 0
_lock = threading.RLock()  # a block may be returned by the garbage collector while this thread holds the lock
_lease_types: dict[int, Any] = {}


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """An uninitialised C-contiguous array, page-aligned when large, recycled after its last view dies."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < SMALLEST:
        return np.empty(shape, dtype)
    size = -(-nbytes // _PAGE) * _PAGE
    return np.ndarray(shape, dtype, buffer=_lease(size))


def zeros(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """As `empty`, filled with zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


def idle_bytes() -> int:
    """How many bytes wait in the pool for a next use."""
    return _idle_bytes


def trim() -> None:
    """Give every idle block back to the operating system."""
    global _idle_bytes
    with _lock:
        _idle.clear()
        _idle_bytes = 0


def _lease(size: int) -> Any:
    """An object with the buffer of a block of `size` bytes; the block returns to the pool when the object dies."""
    global _idle_bytes
    with _lock:
        blocks = _idle.get(size)
        block = blocks.pop() if blocks else None
        if block is not None:
            _idle_bytes -= size
    if block is None:
        block = _map(size)
        if size >= 1 << 21 and hasattr(mmap, "MADV_HUGEPAGE"):
            block.madvise(mmap.MADV_HUGEPAGE)
    lease_type: Any = _lease_types.get(size)
    if lease_type is None:
        lease_type = _lease_types[size] = type("Lease", (ctypes.c_char * size,), {"__del__": _return_block})
    lease = lease_type.from_buffer(block)
    lease.block = block
    return lease


def _map(size: int) -> mmap.mmap:
    """Fresh zeros, private to this process: a forked child gets a copy, as of any other array."""
    if hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, size)


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _return_block(lease: Any) -> None:
    global _idle_bytes
    if _lock is None:  # the interpreter is going down and has cleared this module
        return
    block = lease.block
    size = len(block)
    with _lock:
        if _idle_bytes + size <= IDLE_LIMIT:
            _idle.setdefault(size, []).append(block)
            _idle_bytes += size
