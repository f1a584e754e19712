"""Where randomness comes from: one seeded generator, or one that the caller passes.

Dropout masks and shuffles draw their own seeds from it, so that the same seed gives the same run.
"""

from __future__ import annotations

import numpy as np

from nnlite.errors import positive_int

_generator: np.random.Generator = np.random.default_rng()


def seed(n: int) -> None:
    """Start nnlite's random numbers anew from `n` (an integer of at least 0)."""
    global _generator
    _generator = np.random.default_rng(positive_int("n", n, minimum=0))


def generator() -> np.random.Generator:
    """The generator that `seed` starts anew; initializers, shuffles and dropout draw from it."""
    return _generator


def draw_seed(source: np.random.Generator | None = None) -> int:
    """A 63-bit seed for something that makes its own stream, from `source` or the package's generator."""
    return int((source or _generator).integers(0, 2**63 - 1))
