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

from nnlite.compiler.target import LANES, REGISTERS
from nnlite.compiler.values import VECTOR
from nnlite.runtime.errors import positive_int


@dataclass(frozen=True)
class TileShape:
    """The shape of a register tile, as an argument for a kernel: `rows` rows of `vectors` vectors each.

    A kernel is compiled once for each shape that it is called with; there it may ask for `rows`, `vectors` and `width`.
    Raises ValueError unless both are integers of at least 1. A shape that needs more registers than there are can be
    asked for its `registers`; `multiply_add` refuses it when it is compiled.
    """

    rows: int
    vectors: int

    @property
    def width(self) -> int:
        """The number of columns: vectors * LANES."""
        return self.vectors * LANES

    @property
    def registers(self) -> int:
        """Vector registers that a reduction needs: the sums, a row of vectors, and a number in all lanes."""
        return self.rows * self.vectors + self.vectors + 1

    def __post_init__(self) -> None:
        positive_int("TileShape rows", self.rows)
        positive_int("TileShape vectors", self.vectors)
        object.__setattr__(self, "_numba_type_", _type_of(self))  # a call finds it faster than Numba's registry

    def __reduce__(self) -> tuple:
        return TileShape, (self.rows, self.vectors)


@cache
def tile_shape(columns: int) -> TileShape:
    """The usual `TileShape` for a result of that many columns: it hides the multiply-adds' latency, wastes few columns.

    It fits this processor's registers. More rows than it has need more addresses than there are general registers for.
    """
    rows = {4: 6, 2: 8, 1: 12} if REGISTERS == 32 else {2: 6, 1: 6}
    # a narrower tile loads more numbers for each multiply-add
    slowness = {4: 1.0, 2: 1.03, 1: 1.15} if REGISTERS == 32 else {2: 1.0, 1: 1.1}
    vectors = -(-columns // LANES)
    width = min(slowness, key=lambda v: -(-vectors // v) * v * slowness[v])
    return TileShape(rows[width], width)


@cache
def lane_tile_shape(columns: int) -> TileShape:
    """The shape for a result of that many columns each of which is a vector (of images, say).

    With 16 registers, two rows of four keep as many sums under way as multiply-adds take cycles, and the weights of a
    result of four columns are read as they lie; six rows of two need fewer loads for more columns.
    """
    if columns <= 2:
        return TileShape({2: 6, 1: 12}[max(columns, 1)], max(columns, 1))
    if REGISTERS == 32:
        return TileShape(5, 4)
    return TileShape(2, 4) if columns <= 4 else TileShape(6, 2)


class _ShapeType(types.Opaque):
    """Of a `TileShape`, in compiled code: it holds nothing, as all that it says is known when code is compiled."""

    def __init__(self, shape: TileShape):
        self.shape = shape
        super().__init__(name=f"tileshape{shape.rows}x{shape.vectors}x{LANES}")


_type_of = cache(_ShapeType)  # Numba is slow to make one


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


def shape_of(function: str, typ: Any) -> TileShape:
    """The shape that an argument of an intrinsic is, or that it has as a tile. Raises ValueError for other types."""
    if not isinstance(typ, (_ShapeType, TileType)):
        raise ValueError(f"{function}: expected a TileShape or a tile, which has one. Received: {typ}")
    return typ.shape


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
