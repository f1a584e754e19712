"""How a register tile's reduction goes through its operands: what a work item declares and a microbenchmark runs."""

from __future__ import annotations

from typing import NamedTuple

from nnlite.compiler.tile_shapes import TileShape


class Loops(NamedTuple):
    """Of a register tile's reduction: counts, and steps in elements."""

    rows: int  # of the tile
    vectors: int
    tiles: int  # one after the other
    row_step: int  # in x, from a row of the tile to the next
    length: int  # of a run
    step: int
    b_step: int  # in b, from a term of the reduction to the next
    width: int  # columns that are stored
    pitch: int  # in y, from a row to the next
    runs: int = 1  # of the reduction
    run_step: int = 0
    load: int = 0  # whether sums are loaded, not begun at zero
    batches: int = 1  # times all of it, elsewhere in x, b and y
    x_batch: int = 0
    b_batch: int = 0
    y_batch: int = 0
    panels: int = 1  # of the tile's width, that are multiplied with the same numbers of x

    @property
    def shape(self) -> TileShape:
        """Of the tile."""
        return TileShape(self.rows, self.vectors)

    @property
    def terms(self) -> int:
        """Of the reduction of one tile."""
        return self.runs * self.length
