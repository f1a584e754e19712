"""nnlite's random number generator.

Initializers and shuffles draw from it, and dropout layers draw a seed from it, so the same seed gives the same run.
"""

from __future__ import annotations

import os

import numpy as np

from nnlite.runtime.errors import positive_int

#: of a dropout mask: an integer in [0, 2**64), or an array (1) of uint64 that holds it
Seed = int | np.ndarray

_generator: np.random.Generator = np.random.default_rng()


def seed(n: int) -> None:
    """Set nnlite's random seed to `n`. Raises ValueError unless it is an integer of at least 0."""
    global _generator
    _generator = np.random.default_rng(positive_int("n", n, minimum=0))


def generator() -> np.random.Generator:
    """The generator that `seed` resets."""
    return _generator


def draw_seed(source: np.random.Generator | None = None) -> int:
    """A random 63-bit seed, from `source` or from nnlite's generator."""
    return int((source or _generator).integers(0, 2**63 - 1))


def mask_seed(argument: str, value: object) -> np.ndarray:
    """`value` as the seed of a mask (1), uint64. Raises ValueError unless it is one, or an integer in [0, 2**64)."""
    if isinstance(value, np.ndarray) and value.shape == (1,) and value.dtype == np.uint64:
        return value
    seed = positive_int(argument, value, minimum=0)
    if seed >= 2**64:
        raise ValueError(f"{argument}: expected an integer below 2**64. Received: {value!r}")
    return np.array([seed], np.uint64)


def combine(seed: int, number: int) -> int:
    """A 63-bit seed for the `number`-th use of `seed`: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    z = (seed + number * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (z ^ (z >> 31)) >> 1


# Without this, a forked child would wait forever for the generator's lock if another thread was drawing.

_held = _generator.bit_generator.lock


def _before_fork() -> None:
    global _held
    _held = _generator.bit_generator.lock
    _held.acquire()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=lambda: _held.release(), after_in_child=lambda: _held.release()
    )
