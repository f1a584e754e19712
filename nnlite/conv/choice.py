"""What `auto` means: a static rule from the geometry to an algorithm, so that the same model runs the same code."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from nnlite.conv import registry
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.geometry import Geometry

#: the first of these that supports the geometry and the dtype is taken
PREFERENCE = ("numba_blocked", "im2col")


def choose(geometry: Geometry, dtype: Any) -> Algorithm:
    """The algorithm that `auto` takes for this geometry and dtype."""
    return registry.get(_choose(geometry, dtype))


@lru_cache(maxsize=1024)
def _choose(geometry: Geometry, dtype: Any) -> str:
    return next(name for name in PREFERENCE if registry.get(name).declines(geometry, dtype) is None)
