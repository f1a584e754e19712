"""A fused pair: a network's first two convolutions as one pass, as in CUTLASS's back-to-back (b2b) convolutions.

The tensor between them never leaves the cache. The first convolution of an image network has few input channels: it is
cheap to compute, and its output, the largest tensor of the network, is expensive to move. So the first is computed for
an image (or a block of images) and the second reads it at once. In the backward pass the first is recomputed, not
stored; the gradient that the second gives is masked by the first's ReLU and reduced to the first's weight gradient
while it lies in cache. No gradient flows to the input.

How that is done is the second convolution's algorithm's matter: nnlite.conv.winograd_pair, nnlite.conv.lanes_pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from nnlite.conv.epilogue import Epilogue
from nnlite.conv.geometry import Geometry
from nnlite.runtime.errors import boolean, fraction

#: the largest part of the intermediate tensor that is kept in cache beside what the second convolution keeps there
INTERMEDIATE_BYTES = 256 << 10
#: the first convolution is computed twice: no more than this share of the second's multiply-adds
LARGEST_SHARE = 1 / 3


@dataclass(frozen=True)
class FusedPair:
    """What is computed: dropout(epilogue(conv(relu(conv(x, first)), second))), each convolution with its bias."""

    first: Geometry
    #: whether there is a ReLU after the first convolution
    relu: bool
    second: Geometry
    epilogue: Epilogue
    #: the share of the result's elements that are dropped after the epilogue (nnlite.kernels.dropout)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError where the second convolution does not take what the first one gives."""
        if self.relu.__class__ is not bool:
            boolean("relu", self.relu)
        if self.dropout.__class__ is not float or not 0 <= self.dropout < 1:
            fraction("dropout", self.dropout)
        if self.first.output_shape != self.second.input_shape:
            raise ValueError(
                f"second: expected inputs of shape {self.first.output_shape}, what the first convolution gives. "
                f"Received: {self.second.input_shape}"
            )

    @property
    def image_bytes(self) -> int:
        """Of the intermediate tensor, for one image in float32."""
        return 4 * prod(self.first.output_shape[1:])

    @property
    def is_worthwhile(self) -> bool:
        """Whether the first convolution is so much the cheaper one that to compute it twice costs little."""
        return self.first.macs <= LARGEST_SHARE * self.second.macs


class PairWeights(NamedTuple):
    """The parameters of both convolutions, or their gradients; a bias may be absent."""

    first: np.ndarray
    first_bias: np.ndarray | None
    second: np.ndarray
    second_bias: np.ndarray | None
