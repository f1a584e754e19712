"""What follows a convolution and can be computed while its output is still in registers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nnlite.runtime.errors import boolean


@dataclass(frozen=True)
class Epilogue:
    """result = max_pool(relu(y + bias)), each of the three if it is set, in this order."""

    bias: bool = False
    relu: bool = False
    #: max pooling 2x2, strides 2, padding "valid" (an odd last row or column is dropped)
    pool: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError unless each is True or False."""
        if not self.bias.__class__ is self.relu.__class__ is self.pool.__class__ is bool:
            for name in ("bias", "relu", "pool"):
                boolean(name, getattr(self, name))

    def result_shape(self, output_shape: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """The shape after the epilogue of a convolution's output (n, oh, ow, k)."""
        n, oh, ow, k = output_shape
        return (n, oh // 2, ow // 2, k) if self.pool else output_shape


class Fused(NamedTuple):
    """What a forward pass with what follows it read and gave: all that its backward pass needs."""

    x: np.ndarray
    #: of the convolution; of a fused pair, the PairWeights of both
    weight: Any
    #: after the epilogue
    result: np.ndarray
    #: what else the backward pass needs: of a max pooling, the argmax indices
    residuals: Any = None


class Output(NamedTuple):
    """What kernels with an epilogue store, and read again in the backward pass."""

    y: np.ndarray  # the result, after the epilogue
    argmax: np.ndarray  # bytes, one for each element of a pooled result: which of its window's four the maximum is
    relu: bool
    pool: bool


#: of a convolution's operands, (dx, dweight, dbias): None for what is not asked for
Gradients = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]
