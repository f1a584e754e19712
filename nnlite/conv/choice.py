"""Which algorithm computes a given convolution, and what `auto` means: the least estimated time of each pass.

An explicit `algorithm=` beats `use`, which beats `auto`. An explicit one that declines raises Unsupported with its
reason; `auto` passes over it. Unless `autotune` is on, `auto` measures nothing: what it takes follows from the
geometry, the number of threads and the processor (nnlite.conv.estimate), so that the same model runs the same code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import numpy as np

from nnlite.conv import registry, tuning
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.epilogue import Epilogue
from nnlite.conv.geometry import PASSES, Geometry
from nnlite.conv.registry import Choice
from nnlite.runtime import threads
from nnlite.runtime.errors import Unsupported, unknown

#: the algorithms whose times are estimated, in the order in which it is done: the first is the quickest to estimate
ESTIMATED = ("winograd", "direct", "grouped", "lanes")
#: the first of these is taken that computes what no estimated one does, for this reason
OTHERS = {
    "direct": "register tiles serve every float32 geometry",
    "numba_blocked": "the fastest that computes in this dtype",
    "im2col": "no compiler needed",
}

#: what an algorithm can be chosen for: a pass, or both gradients at once
_PASSES = (*PASSES, "gradients")
_in_use: ContextVar[str | None] = ContextVar("nnlite.conv.use", default=None)


def state() -> tuple:
    """What choices depend on besides the problem. While `autotune` is on it equals no other: choices may change."""
    return _in_use.get(), threads.kernel_parts(), registry.version(), object() if tuning.is_on() else None


def choose(geometry: Geometry, dtype: Any, *, tuned: bool = True, pass_name: str = "forward") -> Choice:
    """What `auto` takes for a pass, and why: by estimates, or, if `tuned`, as measured where `autotune` is on."""
    estimated = _by_estimate(geometry, dtype, pass_name, threads.kernel_parts(), registry.version())
    return tuning.choose(geometry, dtype, estimated) if tuned and tuning.is_on() else estimated


@lru_cache(maxsize=4096)
def _by_estimate(geometry: Geometry, dtype: Any, pass_name: str, num_threads: int, version: int) -> Choice:
    """`version` counts the changes of the registry, so that a choice does not outlive what it was made from."""
    found: dict[str, float] = {}
    for name in ESTIMATED:
        if name == "grouped" and geometry.groups == 1:
            continue  # it would copy each line once for each channel
        best = min(found.values(), default=float("inf"))
        cycles = _estimate(registry.get(name), geometry, dtype, pass_name, num_threads, best)
        if cycles is not None:
            found[name] = cycles
    if found:
        fastest, *others = sorted(found, key=lambda name: found[name])
        said = [f"estimated {found[fastest] / 1e6:.3g} million cycles"]
        return Choice(fastest, ", ".join(said + [f"{name} {found[name] / 1e6:.3g}" for name in others]))
    for name, reason in OTHERS.items():
        if _computes(registry.get(name), geometry, dtype):
            return Choice(name, reason)
    raise ValueError(f"dtype: expected float32 or float64. Received: {np.dtype(dtype).str}")


def _computes(algorithm: Algorithm, geometry: Geometry, dtype: Any) -> bool:
    return not algorithm.reference_only and algorithm.declines(geometry, dtype) is None


def _estimate(
    algorithm: Algorithm, geometry: Geometry, dtype: Any, pass_name: str, num_threads: int, best: float
) -> float | None:
    """The cycles of a pass; None if the algorithm does not compute it or can not be as fast as `best`."""
    if not _computes(algorithm, geometry, dtype):
        return None
    from nnlite.conv import estimate  # with the compiler, which `import nnlite` does without

    if not algorithm.fewer_multiplications and estimate.least_cycles(geometry, pass_name, num_threads) > best:
        return None
    return estimate.cycles(algorithm, geometry, pass_name, num_threads)


@contextmanager
def use(name: str) -> Iterator[Algorithm | None]:
    """`with nn.conv.use("im2col"):` — every convolution inside uses it, unless one names another itself."""
    algorithm = None if name == "auto" else registry.get(name)
    token = _in_use.set(name)
    try:
        yield algorithm
    finally:
        _in_use.reset(token)


def select(
    geometry: Geometry, dtype: Any, algorithm: str = "auto", *, tuned: bool = True, pass_name: str = "forward"
) -> Algorithm:
    """The algorithm that computes a pass of this convolution; `tuned=False` leaves out what `autotune` measured.

    Raises Unsupported (a ValueError) if one was asked for by name and declines, ValueError if it does not exist.
    """
    return registry.get(why(geometry, dtype, algorithm, tuned=tuned, pass_name=pass_name).name)


def for_gradients(forward: Algorithm, geometry: Geometry, dtype: Any, epilogue: Epilogue, part: str) -> Algorithm:
    """The algorithm that `auto` takes for the gradients, fused with `epilogue`, after `forward` computed the result.

    It is `forward` if there is a max pooling, because only it knows how it remembered the places of the maxima.
    """
    if epilogue.pool:
        return forward
    chosen = registry.get(choose(geometry, dtype, tuned=False, pass_name=part).name)
    return chosen if chosen.fuses(geometry, epilogue) else forward


def is_estimated(algorithm: str) -> bool:
    """Whether estimates decide, so that each pass has its own algorithm: none is asked for, here or by `use`."""
    return algorithm == "auto" and _in_use.get() in (None, "auto") and not tuning.is_on()


def why(
    geometry: Geometry, dtype: Any, algorithm: str = "auto", *, tuned: bool = True, pass_name: str = "forward"
) -> Choice:
    """The name of the algorithm that computes a pass of this convolution, and the reason. Raises as `select` does.

    `pass_name` is "forward", "grad_input", "grad_weight", or "gradients" for the last two at once.
    """
    if not isinstance(geometry, Geometry):
        raise ValueError(f"geometry: expected an nn.conv.Geometry. Received: {type(geometry).__name__}")
    if not isinstance(dtype, np.dtype):
        dtype = _dtype(dtype)
    if pass_name not in _PASSES:
        raise unknown("pass", pass_name, _PASSES)
    if algorithm == "auto":
        algorithm = _in_use.get() or "auto"
    if algorithm == "auto":
        return choose(geometry, dtype, tuned=tuned, pass_name=pass_name)
    refusal = registry.get(algorithm).declines(geometry, dtype)
    if refusal is not None:
        raise Unsupported(f"algorithm {algorithm!r} declines {geometry}: {refusal}")
    return Choice(algorithm, "asked for by name")


def _dtype(dtype: Any) -> np.dtype:
    try:
        if dtype is not None:  # NumPy's default
            return np.dtype(dtype)
        raise TypeError
    except TypeError:
        raise ValueError(f"dtype: expected float32 or float64. Received: {dtype!r}") from None
