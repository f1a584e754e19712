"""Initial weights, with Keras's names and formulas.

Glorot: Glorot and Bengio (2010), eq. 16. He: He et al. (2015), eq. 10. LeCun: LeCun et al. (1998), section 4.6. The
truncated normal is cut at two standard deviations and scaled so that its standard deviation is the requested one.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt

import numpy as np

from nnlite.runtime.errors import one_of

Initializer = Callable[[tuple[int, ...], np.random.Generator], np.ndarray]

#: the standard deviation of a standard normal cut at +-2
_TRUNCATED_STD = 0.87962566103423978


def fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """(fan-in, fan-out): inputs per output and outputs per input of a Dense or Conv2D weight."""
    if len(shape) < 2:
        size = float(prod(shape))
        return size, size
    field = prod(shape[:-2])
    return float(field * shape[-2]), float(field * shape[-1])


def _scaling(scale: float, mode: str, distribution: str) -> Initializer:
    def initializer(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        fan_in, fan_out = fans(shape)
        fan = {"in": fan_in, "average": (fan_in + fan_out) / 2}[mode]
        variance = scale / max(1.0, fan)
        if distribution == "uniform":
            limit = sqrt(3 * variance)
            return generator.uniform(-limit, limit, shape).astype(np.float32)
        return (_truncated_normal(shape, generator) * (sqrt(variance) / _TRUNCATED_STD)).astype(np.float32)

    return initializer


def _truncated_normal(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    values = generator.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = generator.standard_normal(int(outside.sum()))
    return values


_INITIALIZERS: dict[str, Initializer] = {
    "zeros": lambda shape, generator: np.zeros(shape, np.float32),
    "ones": lambda shape, generator: np.ones(shape, np.float32),
    "random_normal": lambda shape, generator: (0.05 * generator.standard_normal(shape)).astype(np.float32),
    "random_uniform": lambda shape, generator: generator.uniform(-0.05, 0.05, shape).astype(np.float32),
    "glorot_uniform": _scaling(1.0, "average", "uniform"),
    "glorot_normal": _scaling(1.0, "average", "normal"),
    "he_uniform": _scaling(2.0, "in", "uniform"),
    "he_normal": _scaling(2.0, "in", "normal"),
    "lecun_uniform": _scaling(1.0, "in", "uniform"),
    "lecun_normal": _scaling(1.0, "in", "normal"),
}


def get(initializer: str | Initializer, argument: str = "initializer") -> Initializer:
    """The initializer of that name, or the callable `(shape, generator) -> array` itself."""
    if callable(initializer):
        return initializer
    return one_of(argument, initializer, _INITIALIZERS)
