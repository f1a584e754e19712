"""Which algorithm computes a given convolution, and what `auto` means: a static rule from the geometry.

An explicit `algorithm=` beats `use`, which beats `auto`. An explicit one that declines raises Unsupported with its
reason; `auto` passes over it. The rule is static so that the same model runs the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from nnlite.conv import registry, tuning
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.geometry import Geometry
from nnlite.conv.registry import Choice
from nnlite.conv.work import touched_taps
from nnlite.runtime.errors import Unsupported

#: from these channel counts on, Winograd's smaller number of products outweighs its transforms
WINOGRAD_INPUT_CHANNELS, WINOGRAD_OUTPUT_CHANNELS = 16, 16
#: and from this number of tiles of 4x4 outputs on, its saving in products outweighs the transforms of the weights. With
#: more weights than these it takes proportionally more tiles: each thread sums its own transformed gradient of them
WINOGRAD_TILES, WINOGRAD_WEIGHTS = 64, 256 * 512
#: and if a tile's 36 products replace at least this many times as many, not counting products with padding
WINOGRAD_SAVING = 2
#: with so few channels out of a group, or both in and out, a vector of channels is mostly empty, so that images fill
#: the lanes instead: if there are enough of them, and a block of them stays near the processor
LANES_OUTPUT_CHANNELS, LANES_CHANNELS = 8, 12
LANES_IMAGES, LANES_NUMBERS = 32, 32768
#: with at most the first number of channels of a group, and the second number or more in all, in and out, vectors hold
#: channels of several groups
GROUP_CHANNELS, GROUPED_CHANNELS = 8, 8


_in_use: ContextVar[str | None] = ContextVar("nnlite.conv.use", default=None)


class Rule(NamedTuple):
    """Where `applies` holds, the algorithm `name` is the one to take, for this `reason`."""

    applies: Callable[[Geometry], bool]
    name: str
    reason: str


def _worth_transforming(geometry: Geometry) -> bool:
    (n, oh, ow, k), c = geometry.output_shape, geometry.weight_shape[2]
    if c < WINOGRAD_INPUT_CHANNELS or k < WINOGRAD_OUTPUT_CHANNELS:
        return False
    tiles = -(-oh // 4) * -(-ow // 4)
    enough = n * tiles >= WINOGRAD_TILES * max(1, c * k / WINOGRAD_WEIGHTS)
    return enough and touched_taps(geometry) >= WINOGRAD_SAVING * 36 * tiles


def _small_groups(geometry: Geometry) -> bool:
    c, k, groups = geometry.input_shape[3], geometry.weight_shape[3], geometry.groups
    return groups > 1 and max(c, k) <= GROUP_CHANNELS * groups and min(c, k) >= GROUPED_CHANNELS


def _few_channels(geometry: Geometry) -> bool:
    (n, h, w, c), k = geometry.input_shape, geometry.weight_shape[3]
    group_in, group_out = geometry.weight_shape[2], k // geometry.groups
    few = group_out <= LANES_OUTPUT_CHANNELS or max(group_in, group_out) <= LANES_CHANNELS
    return few and n >= LANES_IMAGES and h * w * max(c, k) <= LANES_NUMBERS


def _always(geometry: Geometry) -> bool:
    return True


#: the first of these that applies and whose algorithm supports the geometry and the dtype is taken
RULES = (
    Rule(
        _worth_transforming,
        "winograd",
        f"{WINOGRAD_INPUT_CHANNELS} channels in and {WINOGRAD_OUTPUT_CHANNELS} out or more, and "
        f"{WINOGRAD_TILES} tiles of 4x4 outputs or more: the products saved outweigh the transforms",
    ),
    Rule(
        _small_groups,
        "grouped",
        f"groups of at most {GROUP_CHANNELS} channels: a vector holds channels of several groups",
    ),
    Rule(
        _few_channels,
        "lanes",
        f"at most {LANES_OUTPUT_CHANNELS} channels out, or {LANES_CHANNELS} both in and out: too few to fill a "
        "vector with channels, so vectorised over images",
    ),
    Rule(_always, "direct", "register tiles serve every float32 geometry"),
    Rule(_always, "numba_blocked", "the fastest that computes in this dtype"),
    Rule(_always, "im2col", "no compiler needed"),
)


def choose(geometry: Geometry, dtype: Any, *, tuned: bool = True) -> Choice:
    """What `auto` takes, and why: by the rule, or, if `tuned`, as measured where `autotune` is on."""
    rule = _by_rule(geometry, dtype, registry.version())
    return tuning.choose(geometry, dtype, rule) if tuned and tuning.is_on() else rule


@lru_cache(maxsize=1024)
def _by_rule(geometry: Geometry, dtype: Any, version: int) -> Choice:
    """`version` counts the changes of the registry, so that a choice does not outlive what it was made from."""
    for rule in RULES:
        if rule.applies(geometry):
            algorithm = registry.get(rule.name)
            if not algorithm.reference_only and algorithm.declines(geometry, dtype) is None:
                return Choice(rule.name, rule.reason)
    raise ValueError(f"dtype: expected float32 or float64. Received: {np.dtype(dtype).name}")


@contextmanager
def use(name: str) -> Iterator[Algorithm | None]:
    """`with nn.conv.use("im2col"):` — every convolution inside uses it, unless one names another itself."""
    algorithm = None if name == "auto" else registry.get(name)
    token = _in_use.set(name)
    try:
        yield algorithm
    finally:
        _in_use.reset(token)


def select(geometry: Geometry, dtype: Any, algorithm: str = "auto", *, tuned: bool = True) -> Algorithm:
    """The algorithm that computes this convolution; `tuned=False` leaves out what `autotune` measured.

    Raises Unsupported (a ValueError) if one was asked for by name and declines, ValueError if it does not exist.
    """
    return registry.get(why(geometry, dtype, algorithm, tuned=tuned).name)


def why(geometry: Geometry, dtype: Any, algorithm: str = "auto", *, tuned: bool = True) -> Choice:
    """The name of the algorithm that computes this convolution, and the reason. Raises as `select` does."""
    if not isinstance(dtype, np.dtype):
        dtype = _dtype(dtype)
    if algorithm == "auto":
        algorithm = _in_use.get() or "auto"
    if algorithm == "auto":
        return choose(geometry, dtype, tuned=tuned)
    refusal = registry.get(algorithm).declines(geometry, dtype)
    if refusal is not None:
        raise Unsupported(f"algorithm {algorithm!r} declines {geometry}: {refusal}")
    return Choice(algorithm, "asked for by name")


def _dtype(dtype: Any) -> np.dtype:
    try:
        return np.dtype(dtype)
    except TypeError:
        raise ValueError(f"dtype: expected float32 or float64. Received: {dtype!r}") from None
