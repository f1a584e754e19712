"""The shapes of register tiles: which is best for a result with a given number of columns, and how Numba gets them.

A tile's shape is part of its type (nnlite.compiler.tiles): kernels get it as an argument, a `TileShape`, and are
compiled once for each shape they are called with. Plans, counts and kernels all ask here which it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import NativeValue, models, overload_attribute, register_model, unbox

from nnlite.compiler.simd import LANES, REGISTERS, VECTOR


@dataclass(frozen=True)
class TileShape:
    """`rows` of `vectors` registers each: the type of a tile, as an argument for a kernel."""

    rows: int
    vectors: int

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.vectors * LANES

    def __post_init__(self) -> None:
        object.__setattr__(self, "_numba_type_", _ShapeType(self))  # a call finds it faster than Numba's registry

    def __reduce__(self) -> tuple:
        return TileShape, (self.rows, self.vectors)


@cache
def tile_shape(columns: int) -> TileShape:
    """The best shape for a result of that many columns: it hides the multiply-adds' latency and wastes few columns.

    More rows than these need more addresses than there are registers for.
    """
    rows = {4: 6, 2: 8, 1: 12} if REGISTERS == 32 else {2: 6, 1: 6}
    # a narrower tile loads more numbers for each multiply-add
    slowness = {4: 1.0, 2: 1.03, 1: 1.15} if REGISTERS == 32 else {2: 1.0, 1: 1.1}
    vectors = -(-columns // LANES)
    width = min(slowness, key=lambda v: -(-vectors // v) * v * slowness[v])
    return TileShape(rows[width], width)


@cache
def lane_tile_shape(columns: int) -> TileShape:
    """The shape for a result of that many columns each of which is a vector (of images, say)."""
    widest = 4 if REGISTERS == 32 else 2
    vectors = 1 if columns == 1 else 2 if columns == 2 else widest
    return TileShape({4: 5, 2: 6, 1: 12}[vectors], vectors)


class _ShapeType(types.Opaque):
    """Of a `TileShape`, in compiled code: it holds nothing, as all that it says is known when code is compiled."""

    def __init__(self, shape: TileShape):
        self.shape = shape
        super().__init__(name=f"tileshape{shape.rows}x{shape.vectors}x{LANES}")


class TileType(types.Type):
    """Of a tile, in compiled code: an array of its vectors, row by row."""

    def __init__(self, shape: TileShape):
        self.shape = shape
        super().__init__(name=f"tile{shape.rows}x{shape.vectors}x{LANES}")


@register_model(TileType)
class _TileModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any):
        super().__init__(dmm, fe_type, ir.ArrayType(VECTOR, fe_type.shape.rows * fe_type.shape.vectors))


register_model(_ShapeType)(models.OpaqueModel)


@overload_attribute(_ShapeType, "rows")
def _shape_rows(shape):
    rows = shape.shape.rows
    return lambda shape: rows


@overload_attribute(_ShapeType, "vectors")
def _shape_vectors(shape):
    vectors = shape.shape.vectors
    return lambda shape: vectors


@overload_attribute(_ShapeType, "width")
def _shape_width(shape):
    width = shape.shape.width
    return lambda shape: width


@unbox(_ShapeType)
def _unbox_shape(typ: Any, value: Any, c: Any) -> NativeValue:
    return NativeValue(c.context.get_dummy_value())
