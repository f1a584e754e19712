"""A network's first two convolutions, as one operation."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite import scopes
from nnlite.autograd import differentiable
from nnlite.conv import Algorithm, Stem, StemWeights


@differentiable
def conv2d_stem(
    x: np.ndarray,
    first_weight: np.ndarray,
    first_bias: np.ndarray | None,
    weight: np.ndarray,
    bias: np.ndarray | None,
    *,
    stem: Stem,
    algorithm: Algorithm,
    seed: int = 0,
) -> tuple[np.ndarray, Any]:
    """What two calls of `conv2d` compute, for an `algorithm` that fuses them: see nnlite.conv.stem.

    x (n, h, w, c), through which no gradient flows; weights (kh, kw, c, k) and biases (k) of the first convolution and
    of the second -> the second's result, after its epilogue and the dropout, whose mask is a function of `seed`.
    """
    weights = StemWeights(first_weight, first_bias, weight, bias)
    x = np.ascontiguousarray(x)
    result, saved = algorithm.forward_stem(x, weights, stem, seed)

    def backward(dresult: np.ndarray, needs: tuple[bool, ...]) -> tuple:
        with scopes.scope(None, "gradients"):
            gradients = algorithm.backward_stem(x, weights, result, saved, np.ascontiguousarray(dresult), stem, seed)
        return None, *gradients

    return result, backward
