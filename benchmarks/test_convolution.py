"""Every algorithm at every pass of the layers (`--shapes`), the user's own (`--algorithm FILE.py:CLASS`) included.

Each result is compared with im2col's: a wrong algorithm fails.
"""

from contextlib import nullcontext
from functools import lru_cache

import numpy as np

from nnlite import conv
from nnlite.runtime import threads


def test_convolution(timed, geometry, layer, pass_name, algorithm):
    chosen = conv.get(algorithm)
    operands = _operands(geometry, pass_name)
    compute = getattr(chosen, pass_name)
    sliced = f" (on a slice: {geometry})" if chosen.reference_only else ""
    with threads.owned_by("blas") if chosen.uses_blas else nullcontext():
        result = timed(
            lambda: compute(*operands, geometry),
            f"{layer}, {pass_name}{sliced}",
            fewer_multiplications=chosen.saves_multiplications(geometry),
            flops=geometry.flops,
            moved_bytes=chosen.moved_bytes(geometry, pass_name),
            geometry=str(geometry),
        )
    expected = _expected(geometry, pass_name)
    bound = sum(one.error_bound(geometry, pass_name) for one in (chosen, conv.get("im2col")))
    error = np.abs(result - expected).max() / np.sqrt(np.mean(np.square(expected)))
    assert error <= bound, f"{pass_name}: expected im2col's within {bound:.1e} of its rms. Received: {error:.1e} off"


def _operands(geometry, pass_name):
    generator = np.random.default_rng(0)
    shapes = (geometry.input_shape, geometry.weight_shape, geometry.output_shape)
    x, weight, dy = (generator.standard_normal(shape, np.float32) for shape in shapes)
    return {"forward": (x, weight), "grad_input": (dy, weight), "grad_weight": (x, dy)}[pass_name]


@lru_cache(maxsize=2)  # the algorithms of one layer and pass follow each other
def _expected(geometry, pass_name):
    return getattr(conv.get("im2col"), pass_name)(*_operands(geometry, pass_name), geometry)
