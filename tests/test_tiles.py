"""Register tiles against NumPy."""

import numpy as np
import pytest

from nnlite.compiler import compilation, reductions, tiles
from nnlite.compiler.target import LANES, REGISTERS
from nnlite.compiler.tile_shapes import TileShape, tile_shape

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="tiles exist in compiled code only")


@compilation.jit
def _tile(shape, a, b, rows, start, out, width):
    tile = tiles.repeat_row(shape, start, 0)
    offsets = tiles.table_rows(shape, 0, rows.size, rows)
    tile = reductions.multiply_add(tile, a, offsets, 0, 1, b, 0, shape.width, a.shape[1])
    tiles.store_tile(out, tiles.even_rows(shape, 0, rows.size, out.shape[1]), 0, tile, width)


@pytest.mark.parametrize("missing", [0, 1, LANES + 1])
@pytest.mark.parametrize("terms", [0, 1, reductions.UNROLLED - 1, reductions.UNROLLED, 2 * reductions.UNROLLED + 3])
def test_a_tile_sums_products_of_rows_that_lie_anywhere(generator, missing, terms):
    shape = TileShape(3, 2)
    a, b = (
        generator.standard_normal((5, terms)).astype(np.float32),
        generator.standard_normal((terms, shape.width)).astype(np.float32),
    )
    start = generator.standard_normal(shape.width).astype(np.float32)
    order, width = np.array([4, 0]), shape.width - missing  # two rows: the tile's third repeats the last
    out = np.full((3, shape.width), -1, np.float32)
    _tile(shape, a, b, order * terms, start, out, width)
    np.testing.assert_allclose(out[:2, :width], (a[order] @ b + start)[:, :width], rtol=1e-5, atol=1e-5)
    assert (out[2] == -1).all()
    assert (out[:2, width:] == -1).all()


@pytest.mark.parametrize("columns", [1, 10, 16, 32, 64, 784])
def test_the_tile_for_a_width_covers_it_and_fits_the_registers(columns):
    shape = tile_shape(columns)
    assert shape.registers <= REGISTERS
    assert -(-columns // shape.width) * shape.width < columns + shape.width
