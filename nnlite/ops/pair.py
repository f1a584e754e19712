"""A network's first two convolutions, as one operation."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite.autograd import differentiable
from nnlite.conv import Algorithm, FusedPair, PairWeights
from nnlite.runtime import scopes
from nnlite.runtime.operands import Floats
from nnlite.runtime.random import Seed


@differentiable
def conv2d_pair(
    x: Floats,
    first_weight: Floats,
    first_bias: Floats | None,
    weight: Floats,
    bias: Floats | None,
    *,
    pair: FusedPair,
    algorithm: Algorithm,
    seed: Seed = 0,
) -> tuple[np.ndarray, Any]:
    """What two calls of `conv2d` compute, for an `algorithm` that fuses them: see nnlite.conv.pair.

    x (n, h, w, c), through which no gradient flows; weights (kh, kw, c, k) and biases (k) of the first convolution and
    of the second -> the second's result, after its epilogue and the dropout, whose mask is a function of `seed`.
    Raises ValueError that names the argument where it is not float32 of the shape that `pair` says, Unsupported (a
    ValueError) if the algorithm does not compute it.
    """
    if not isinstance(algorithm, Algorithm):
        raise ValueError(f"algorithm: expected an nn.conv.Algorithm. Received: {algorithm!r:.60}")
    ran = algorithm.forward_pair(x, PairWeights(first_weight, first_bias, weight, bias), pair, seed)

    def backward(dresult: np.ndarray, needs: tuple[bool, ...]) -> tuple:
        with scopes.scope(None, "gradients"):
            gradients = algorithm.backward_pair(ran, dresult, pair, seed)
        return None, *gradients

    return ran.result, backward
