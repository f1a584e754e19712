"""What `auto` means: a static rule from the geometry to an algorithm, so that the same model runs the same code."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from nnlite.conv import registry
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.geometry import Geometry

#: the first of these that supports the geometry and the dtype is taken
PREFERENCE = ("direct", "numba_blocked", "im2col")
#: from these channel counts on, Winograd's smaller number of products outweighs its transforms
WINOGRAD_INPUT_CHANNELS, WINOGRAD_OUTPUT_CHANNELS = 16, 16
#: up to so many channels a vector of channels is mostly empty, so that images fill the lanes instead: if there are
#: enough of them, and a block of them stays in cache
LANES_CHANNELS, LANES_IMAGES, LANES_PIXELS = 8, 32, 8192


def choose(geometry: Geometry, dtype: Any) -> Algorithm:
    """The algorithm that `auto` takes for this geometry and dtype."""
    return registry.get(_choose(geometry, dtype, registry.version()))


@lru_cache(maxsize=1024)
def _choose(geometry: Geometry, dtype: Any, version: int) -> str:
    """`version` counts the changes of the registry, so that a choice does not outlive what it was made from."""
    _, _, c, k = geometry.weight_shape
    n, h, w, _ = geometry.input_shape
    few_channels = max(c, k) <= LANES_CHANNELS and n >= LANES_IMAGES and h * w * max(c, k) <= LANES_PIXELS
    worth_transforming = c >= WINOGRAD_INPUT_CHANNELS and k >= WINOGRAD_OUTPUT_CHANNELS
    first = ("winograd",) if worth_transforming else ("lanes",) if few_channels else ()
    candidates = (*first, *PREFERENCE)
    return next(name for name in candidates if registry.get(name).declines(geometry, dtype) is None)
