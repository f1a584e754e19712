"""What a pass does, as data: the work items that algorithms and operations declare, for counts and for the time model.

A work item is a number of equal calls of one kernel (of NumPy, of BLAS or compiled). Its `kind` and `size`, such as the
shape of a matrix product, name the measured rate that it should run at; its `amount` is the work. Nothing in this
module runs or measures anything: nnlite.performance does.

Bytes: each array that an item reads or writes counts once, however often the item uses it. `moved` is the memory
traffic: arrays of the whole batch, which one kernel writes and another reads. What stays in cache, in a workspace of an
image or a block of tiles, is in `bytes` only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from nnlite.conv.geometry import Geometry

ITEMSIZE = 4  # bytes of a float32
#: bytes of the working set at which a pass is measured whose data stay in cache
IN_CACHE = 1 << 20
#: kinds of copies into a workspace, which stays in cache
INTO_WORKSPACE = ("pad", "pack_dy")

#: products are counted in FLOPs, passes over memory in the bytes that their kernel reads and writes
Unit = Literal["flops", "bytes"]


@dataclass(frozen=True)
class WorkItem:
    """One step of a pass over a whole batch."""

    what: str  # in words, as reports show it
    kind: str  # which measured rate (nnlite.performance.microbenchmarks)
    size: tuple[int, ...]  # what that rate depends on
    amount: float  # of work in the rate's unit: FLOPs of products, calls, and otherwise bytes read and written
    bytes: int  # of the arrays that it reads and writes, each counted once
    moved: int  # of these, what does not stay in cache
    working_set: int  # bytes between which its calls go back and forth
    calls: int = 1
    flops: int = 0  # arithmetic that counts as the layer's: of products, additions that belong to them included
    problem: tuple[Any, ...] = ()  # what the microbenchmark sets up, where its size does not say it


class Tiles(NamedTuple):
    """The size of an item that multiplies on register tiles."""

    rows: int  # of the tile
    vectors: int
    terms: int  # of the reduction of one tile
    runs: int = 1  # of terms whose operands are neighbours
    held: int = 0  # bytes of the vectors' array, over which the tiles pass again and again
    packed: int = 0  # bytes that are packed on the way for the tiles to read
    read: int = 0  # bytes that this packing reads


def product(
    what: str, kind: str, m: int, n: int, k: int, *, count: int = 1, layout: int = 0, moved: int | None = None
) -> WorkItem:
    """`count` matrix products (m, k) @ (k, n). `layout` 1 says that a is read transposed, 2 that b is."""
    flops = 2 * m * n * k
    nbytes = ITEMSIZE * (m * k + k * n + m * n)
    return WorkItem(
        what=what,
        kind=kind,
        size=(m, n, k, layout),
        amount=count * flops,
        bytes=count * nbytes,
        moved=count * nbytes if moved is None else moved,
        working_set=nbytes,
        calls=count,
        flops=count * flops,
    )


def move(
    what: str,
    kind: str,
    size: tuple[int, ...],
    *,
    touched: float,
    arrays: int,
    moved: int | None = None,
    working_set: int | None = None,
    calls: int = 1,
) -> WorkItem:
    """A pass over memory: `touched` bytes are read and written by its kernel, in arrays of `arrays` bytes in all."""
    return WorkItem(
        what=what,
        kind=kind,
        size=size,
        amount=touched,
        bytes=arrays,
        moved=arrays if moved is None else moved,
        working_set=arrays if working_set is None else working_set,
        calls=calls,
    )


def moved_bytes(items: Iterable[WorkItem]) -> int:
    """The memory traffic of the items."""
    return sum(item.moved for item in items)


def touched_taps(geometry: Geometry) -> int:
    """Pairs of an output pixel and a kernel position inside the image, for one image: patches without padding."""
    from nnlite.conv.patches import taps

    total = 0
    for tap in taps(geometry):
        _, rows, columns = tap.outputs
        total += (rows.stop - rows.start) * (columns.stop - columns.start)
    return total
