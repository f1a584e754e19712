"""Numba for kernels: `nn.compiler` is what an author of a compiled algorithm uses (examples/own_kernel.py).

    jit, kernel                      compile a function; compile one that runs on all threads
    LANES, REGISTERS, ENABLED        the processor's vectors, and whether anything is compiled
    load, store, ...                 SIMD vectors: LANES numbers in one register
    TileShape, zero_tile, ...        register tiles: rows of vectors, the sums of a reduction

Four rules hold for all of them:

- Numbers are float32. Arrays are C-contiguous arrays of float32, or a `pointer` into one.
- Offsets, steps and widths count elements (not bytes), from an array's start, whatever its shape.
- No bounds are checked when a kernel runs: a wrong offset reads or writes other memory. Check shapes before.
- Arguments of another type raise ValueError when the function is compiled, which is at its first call with such types.

Vectors and tiles exist in compiled code only: with NUMBA_DISABLE_JIT=1 (`ENABLED` is False) an algorithm that uses them
declines in `supports`. A user's functions are compiled once per process; only nnlite's own are cached on disk.
"""

from nnlite.compiler.compilation import ENABLED, jit
from nnlite.compiler.launch import kernel
from nnlite.compiler.reductions import multiply_add
from nnlite.compiler.simd import load, load_first, pointer, prefetch, relu, select, splat, store, store_first
from nnlite.compiler.target import LANES, REGISTERS
from nnlite.compiler.tile_shapes import TileShape, tile_shape
from nnlite.compiler.tiles import even_rows, load_tile, relu_tile, repeat_row, store_tile, table_rows, zero_tile

__all__ = [
    "ENABLED",
    "LANES",
    "REGISTERS",
    "TileShape",
    "even_rows",
    "jit",
    "kernel",
    "load",
    "load_first",
    "load_tile",
    "multiply_add",
    "pointer",
    "prefetch",
    "relu",
    "relu_tile",
    "repeat_row",
    "select",
    "splat",
    "store",
    "store_first",
    "store_tile",
    "table_rows",
    "tile_shape",
    "zero_tile",
]
