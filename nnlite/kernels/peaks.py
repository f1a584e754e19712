"""What the processor can do at most: multiply-adds in registers, reading and copying memory, starting threads."""

from __future__ import annotations

from nnlite.compiler.compilation import jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.simd import load, pointer, splat, store
from nnlite.compiler.target import LANES, REGISTERS
from nnlite.compiler.tile_shapes import TileShape
from nnlite.compiler.tiles import even_rows, load_tile, scale_tile, store_tile

#: how many independent sums are tried: enough to hide the latency of a multiply-add, and no more than fit
SUMS = tuple(TileShape(sums, 1) for sums in ((8, 10, 12, 14) if REGISTERS == 16 else (8, 12, 16, 20, 24, 28)))


@kernel
def multiply_adds(thread, num_threads, rounds, shape, factors, out):
    """`rounds` times the shape's independent multiply-adds of whole vectors on every thread, all in registers."""
    scale, step = splat(factors[0]), splat(factors[1])
    own = pointer(out, thread * out.shape[1])
    rows = even_rows(shape, 0, shape.rows, LANES)
    sums = load_tile(shape, own, rows, 0, LANES)  # unequal, else they would be computed once
    for _ in range(rounds):
        sums = scale_tile(sums, scale, step)
    store_tile(own, rows, 0, sums, LANES)


@kernel
def read(thread, num_threads, rounds, x, out):
    """Read all of x (threads, size) `rounds` times, a row a thread; size is a multiple of 8 vectors."""
    first, last = thread * x.shape[1], (thread + 1) * x.shape[1]
    a = b = c = d = e = f = g = h = splat(out[0])
    for _ in range(rounds):
        for i in range(first, last, 8 * LANES):
            a, b = a + load(x, i), b + load(x, i + LANES)
            c, d = c + load(x, i + 2 * LANES), d + load(x, i + 3 * LANES)
            e, f = e + load(x, i + 4 * LANES), f + load(x, i + 5 * LANES)
            g, h = g + load(x, i + 6 * LANES), h + load(x, i + 7 * LANES)
    store(out, thread * LANES, ((a + b) + (c + d)) + ((e + f) + (g + h)))


@kernel
def copy(thread, num_threads, rounds, x, y):
    """y = x, both (threads, size), `rounds` times, a row a thread; size is a multiple of 8 vectors."""
    first, last = thread * x.shape[1], (thread + 1) * x.shape[1]
    for _ in range(rounds):
        for i in range(first, last, 4 * LANES):
            store(y, i, load(x, i))
            store(y, i + LANES, load(x, i + LANES))
            store(y, i + 2 * LANES, load(x, i + 2 * LANES))
            store(y, i + 3 * LANES, load(x, i + 3 * LANES))


@kernel
def rewrite(thread, num_threads, x, zero):
    """Add zero to x, flat, one line of numbers in turn for each thread; as a constant it would be left out."""
    for first in range(thread * LANES, x.size - LANES + 1, num_threads * LANES):
        store(x, first, load(x, first) + splat(zero))


@kernel
def rewrite_own(thread, num_threads, x, zero):
    """Add zero to x, flat, a part of it on each thread, as kernels divide a batch."""
    size = x.size // LANES // num_threads * LANES
    for first in range(thread * size, (thread + 1) * size, LANES):
        store(x, first, load(x, first) + splat(zero))


@kernel
def nothing(thread, num_threads, out):
    """As little as a thread can do: what remains is the cost of starting them."""
    out[thread] = thread


@jit
def call(x):
    """As little as a compiled function can do."""
    return x[0]
