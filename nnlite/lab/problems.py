"""The geometries that every algorithm is checked on: simple ones, then edge cases, then random ones.

Checking takes long because register tiles are compiled for each tile shape, which depends on the channel counts. So
most geometries have 1 input channel or at least 3, and at least 3 output channels (a vector holds up to 16). A few have
1 -> 1 or 2 -> 2 channels, and a few have one channel more than one or more vectors hold.
"""

from __future__ import annotations

import numpy as np

from nnlite.conv import Geometry

#: the simplest first, so that the first failure is easy to understand
FIXED = (
    Geometry.of((1, 5, 6, 1), (3, 3, 1, 1)),
    Geometry.of((2, 6, 7, 3), (3, 3, 3, 4)),
    Geometry.of((2, 5, 4, 3), (1, 1, 3, 5)),
    Geometry.of((1, 1, 1, 1), (1, 1, 1, 1)),
    Geometry.of((2, 7, 8, 3), (2, 3, 3, 5)),
    Geometry.of((2, 9, 8, 2), (3, 3, 2, 3), strides=2),
    Geometry.of((1, 9, 11, 2), (3, 2, 2, 3), strides=(1, 3)),
    Geometry.of((2, 6, 5, 2), (3, 3, 2, 2), padding="same"),
    Geometry.of((1, 6, 7, 3), (3, 3, 3, 4), padding=((0, 2), (1, 0))),
    Geometry.of((1, 8, 9, 3), (3, 3, 3, 5), dilation_rate=2),
    Geometry.of((1, 6, 6, 4), (2, 2, 1, 12), groups=4),
    Geometry.of((2, 10, 9, 5), (3, 3, 5, 33)),  # one channel more than two vectors
    Geometry.of((1, 7, 6, 3), (3, 3, 3, 17), padding=((2, 0), (0, 1))),  # one more than a vector
    Geometry.of((1, 9, 10, 17), (3, 3, 17, 49), padding=1),  # one more than a vector, than three vectors
    Geometry.of((2, 7, 5, 4), (3, 2, 2, 6), strides=(2, 3), padding="same", dilation_rate=2, groups=2),
    Geometry.of((1, 5, 12, 2), (1, 5, 2, 3), strides=(1, 2), padding=2),
    Geometry.of((1, 12, 12, 2), (5, 5, 2, 3), strides=3),  # the last rows and columns are not used
    Geometry.of((2, 1, 1, 3), (3, 3, 3, 4), padding="same"),  # most kernel positions are on padding
    Geometry.of((1, 2, 2, 1), (4, 4, 1, 3), padding=1),  # a kernel larger than the image
    Geometry.of((1, 2, 2, 1), (1, 1, 1, 3), strides=3, padding=4),  # some outputs depend on padding only
    Geometry.of((0, 5, 5, 3), (3, 3, 3, 4)),  # no image
)


def random_geometries(count: int, seed: int) -> list[Geometry]:
    """`count` small problems, the same for the same seed: general ones and 3x3 ones with stride 1 in turn."""
    generator = np.random.default_rng(seed)
    return [_random_geometry(generator) if i % 2 else _random_plain(generator) for i in range(count)]


def _random_plain(generator: np.random.Generator) -> Geometry:
    """A 3x3 kernel with stride 1, which most specialised algorithms are for."""
    n, pad = _pair(generator, 1, 2)
    h, w = _pair(generator, 3, 14)
    c, k = _channels(generator, 16)
    return Geometry.of((n, h, w, c), (3, 3, c, k), padding=pad)


def _random_geometry(generator: np.random.Generator) -> Geometry:
    kernel, dilation, strides = (_pair(generator, 1, most) for most in (4, 2, 3))
    pads = (_pair(generator, 0, 2), _pair(generator, 0, 2))
    groups = int(generator.choice([1, 1, 1, 2, 3]))
    spans = [(k - 1) * d + 1 - sum(p) for k, d, p in zip(kernel, dilation, pads, strict=True)]
    h, w = (max(1, span) + int(generator.integers(0, 6)) for span in spans)
    c, k = _channels(generator, 5)
    return Geometry.of(
        (int(generator.integers(1, 3)), h, w, c * groups),
        (*kernel, c, k * groups),
        strides=strides,
        padding=pads,
        dilation_rate=dilation,
        groups=groups,
    )


def _channels(generator: np.random.Generator, most: int) -> tuple[int, int]:
    """From 3 to `most` channels; in one of four problems a single input channel."""
    c, k = _pair(generator, 3, most)
    return (1 if generator.random() < 0.25 else c), k


def _pair(generator: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    """Two integers from low to high, both included."""
    return int(generator.integers(low, high + 1)), int(generator.integers(low, high + 1))
