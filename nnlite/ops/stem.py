"""A network's first two convolutions, as one operation."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite import scopes
from nnlite.autograd import differentiable
from nnlite.conv import Algorithm, Stem, StemWeights
from nnlite.operands import Floats


@differentiable
def conv2d_stem(
    x: Floats,
    first_weight: Floats,
    first_bias: Floats | None,
    weight: Floats,
    bias: Floats | None,
    *,
    stem: Stem,
    algorithm: Algorithm,
    seed: int = 0,
) -> tuple[np.ndarray, Any]:
    """What two calls of `conv2d` compute, for an `algorithm` that fuses them: see nnlite.conv.stem.

    x (n, h, w, c), through which no gradient flows; weights (kh, kw, c, k) and biases (k) of the first convolution and
    of the second -> the second's result, after its epilogue and the dropout, whose mask is a function of `seed`.
    Raises ValueError that names the argument where it is not float32 of the shape that `stem` says.
    """
    first, second = stem.first, stem.second
    x = _contiguous("x", x, first.input_shape)
    weights = StemWeights(
        _contiguous("first_weight", first_weight, first.weight_shape),
        None if first_bias is None else _contiguous("first_bias", first_bias, first.weight_shape[3:]),
        _contiguous("weight", weight, second.weight_shape),
        None if bias is None else _contiguous("bias", bias, second.weight_shape[3:]),
    )
    ran = algorithm.forward_stem(x, weights, stem, seed)

    def backward(dresult: np.ndarray, needs: tuple[bool, ...]) -> tuple:
        with scopes.scope(None, "gradients"):
            gradients = algorithm.backward_stem(ran, np.ascontiguousarray(dresult), stem, seed)
        return None, *gradients

    return ran.result, backward


def _contiguous(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array as kernels read it, which see an address and no shape."""
    if array.shape != shape or array.dtype != np.float32:
        raise ValueError(f"{name}: expected float32 of shape {shape}. Received: {array.dtype} of shape {array.shape}")
    return np.ascontiguousarray(array)
