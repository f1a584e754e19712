"""`autotune`: `auto` measures the algorithms on the real shape instead of estimating their times, and remembers.

A choice that was measured may fall otherwise on another day, and other algorithms round otherwise; so it is off unless
asked for, and what was measured once is kept on disk for everything that it depends on: geometry, dtype, passes,
threads, processor, versions and the kernels' sources. Another than the estimated choice has to be faster by MARGIN.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnlite.conv import registry
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.geometry import PASSES, Geometry
from nnlite.conv.registry import Choice
from nnlite.runtime import memory, threads
from nnlite.runtime import store as kept
from nnlite.runtime.errors import boolean, several, unknown
from nnlite.runtime.processor import processor_name
from nnlite.runtime.version import __version__

#: after `rounds` rounds, an algorithm is not run again if it took BEHIND + PATIENCE / rounds times as long as the best
BEHIND, PATIENCE = 2, 8
#: the others run at least this often and, all together, for this many seconds
ROUNDS, SECONDS = 5, 0.4
#: by so much another algorithm has to be faster than the estimated choice: below, the measurement may be chance
MARGIN = 0.03

#: the passes whose time is measured; None: estimates decide
_passes: tuple[str, ...] | None = None
#: whether algorithms are measured with each combination of their parameters too
_parameters = False
_lock = threading.RLock()
#: by (geometry, dtype, passes, environment): milliseconds of each algorithm
_remembered: dict[tuple, dict[str, float]] = {}


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class autotune:
    """`nn.conv.autotune()`: from now on, `auto` measures each new shape on first sight and takes the fastest.

    `nn.conv.autotune(False)` returns to estimated times, with which the same machine, versions, seed and threads give
    the same bits. `with nn.conv.autotune():` does it for what runs inside. `passes` are those that count, all three
    unless you say so: ("forward",) for inference. Convolutions are measured without what is fused into them. With
    `parameters`, an algorithm is measured with each combination of its parameters too, which takes longer.

    Raises ValueError if a pass is unknown, or `on` or `parameters` neither True nor False.
    """

    def __init__(self, on: bool = True, *, passes: Iterable[str] = PASSES, parameters: bool = False):
        global _passes, _parameters
        on, parameters = boolean("on", on), boolean("parameters", parameters)
        passes = tuple(several("passes", passes, "passes"))
        for name in passes:
            if name not in PASSES:
                raise unknown("pass", name, PASSES)
        if not passes:
            raise ValueError("passes: expected at least one. Received: ()")
        self._before = _passes, _parameters
        _passes, _parameters = passes if on else None, parameters

    def __enter__(self) -> autotune:
        return self

    def __exit__(self, *exception: object) -> None:
        global _passes, _parameters
        _passes, _parameters = self._before


def is_on() -> bool:
    """Whether `auto` measures."""
    return _passes is not None


def forget() -> None:
    """Measure again what was remembered, in this process and on disk."""
    with _lock:
        _remembered.clear()
        path = _path()
        if path is not None:
            path.unlink(missing_ok=True)


def choose(geometry: Geometry, dtype: Any, rule: Choice) -> Choice:
    """The fastest algorithm for this geometry and dtype, and by how much; `rule` where the difference is small."""
    assert _passes is not None
    times = _times(geometry, np.dtype(dtype), _passes, _parameters)
    best = min(times, key=lambda name: times[name])
    if best != rule.name and times[best] > (1 - MARGIN) * times.get(rule.name, np.inf):
        best = rule.name
    others = sorted((ms, name) for name, ms in times.items() if name != best)
    compared = f", {others[0][1]} {others[0][0]:.3g} ms" if others else ", no other supports it"
    return Choice(best, f"measured: {times[best]:.3g} ms{compared}")


def _times(geometry: Geometry, dtype: np.dtype, passes: tuple[str, ...], parameters: bool) -> dict[str, float]:
    """Milliseconds of each algorithm that computes this, remembered or measured."""
    key = (geometry, dtype, passes, parameters, threads.kernel_parts(), registry.version())
    with _lock:
        if key not in _remembered:
            text = f"{geometry!r} {dtype.name} {'+'.join(passes)}{' parameters' * parameters}"
            times = _read().get(text)
            if times is None:
                times = measure(geometry, dtype, passes, parameters)
                _write(text, times)
            _remembered[key] = times
        return _remembered[key]


# Measuring -------------------------------------------------------------------------------------------------------


def candidates(geometry: Geometry, dtype: Any, parameters: bool = False) -> list[Algorithm]:
    """The algorithms that compute this and are meant for use; with `parameters`, each combination of theirs too."""
    algorithms = [registry.get(name) for name in registry.names()]
    if parameters:
        algorithms = [one for a in algorithms for one in (a, *(a.combinations()[1:] if a.parameters else ()))]
    return [a for a in algorithms if not a.reference_only and a.declines(geometry, dtype) is None]


def measure(
    geometry: Geometry, dtype: Any = np.float32, passes: tuple[str, ...] = PASSES, parameters: bool = False
) -> dict[str, float]:
    """Milliseconds of `passes` by each algorithm: the fastest of several runs that take turns.

    An algorithm that is far behind is not run again: the sooner, the further.
    """
    generator = np.random.default_rng(0)
    x = generator.standard_normal(geometry.input_shape).astype(dtype)
    weight = generator.standard_normal(geometry.weight_shape).astype(dtype)
    dy = generator.standard_normal(geometry.output_shape).astype(dtype)
    runs: dict[str, Callable[[], dict[str, np.ndarray | None]]] = {}
    reference = registry.get("im2col")
    right = _results(reference, x, weight, dy, geometry, passes)
    for algorithm in candidates(geometry, dtype, parameters):
        work = partial(_results, algorithm, x, weight, dy, geometry, passes)
        try:
            wrong = _wrong(algorithm, reference, work(), right, geometry)  # compiles too
        except Exception as error:  # of a user's algorithm: the others compute all the same
            wrong = f"it raised {type(error).__name__}: {error}"
        if wrong is None:
            runs[algorithm.name] = work
        else:
            warnings.warn(f"autotune leaves out algorithm {algorithm.name!r} for {geometry}: {wrong}", stacklevel=2)
    if not runs:
        runs[reference.name] = partial(_results, reference, x, weight, dy, geometry, passes)
    best = dict.fromkeys(runs, float("inf"))
    rounds, end = 0, time.perf_counter() + SECONDS
    while rounds == 0 or (len(runs) > 1 and (rounds < ROUNDS or time.perf_counter() < end)):
        for name, run in runs.items():
            best[name] = min(best[name], _seconds(run))
        rounds += 1
        limit = (BEHIND + PATIENCE / rounds) * min(best.values())
        runs = {name: run for name, run in runs.items() if best[name] <= limit}
    memory.trim()  # what the slow ones took
    return {name: 1e3 * seconds for name, seconds in best.items()}


def _results(
    algorithm: Algorithm, x: np.ndarray, weight: np.ndarray, dy: np.ndarray, geometry: Geometry, passes: tuple[str, ...]
) -> dict[str, np.ndarray | None]:
    """What the passes give, by their names; None for those that are not asked for."""
    needs = "grad_input" in passes, "grad_weight" in passes
    y = algorithm.forward(x, weight, geometry) if "forward" in passes else None
    dx, dweight = algorithm.backward(x, weight, dy, geometry, needs) if any(needs) else (None, None)
    return {"forward": y, "grad_input": dx, "grad_weight": dweight}


def _wrong(
    algorithm: Algorithm,
    reference: Algorithm,
    results: dict[str, np.ndarray | None],
    right: dict[str, np.ndarray | None],
    geometry: Geometry,
) -> str | None:
    """What is wrong with results, beside the reference's: more than both algorithms' error bounds; None if nothing."""
    for name, expected in right.items():
        if expected is None:
            continue
        got = results[name]
        if not isinstance(got, np.ndarray) or (got.shape, got.dtype) != (expected.shape, expected.dtype):
            return f"{name}: expected {expected.dtype} of shape {expected.shape}"
        allowed = sum(a.error_bound(geometry, name, expected.dtype) for a in (algorithm, reference))
        scale = max(float(np.sqrt(np.mean(expected**2, dtype=np.float64))), np.finfo(expected.dtype).tiny)
        if expected.size and not np.abs(got - expected).max() <= allowed * scale:
            return f"{name} is not what {reference.name} gives"
    return None


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


# Remembering -----------------------------------------------------------------------------------------------------


def _environment() -> dict[str, Any]:
    """Everything but the problem that a measurement depends on."""
    from nnlite.compiler.cache import sources_hash, target

    return {
        "processor": processor_name(),
        "compiled for": target(),
        "threads": threads.kernel_parts(),
        "nnlite": __version__,
        "numpy": np.__version__,
        "sources": sources_hash(),
        "algorithms": {name: _source_hash(registry.get(name)) for name in registry.names()},
    }


def _source_hash(algorithm: Algorithm) -> str:
    """Of the file that a user's algorithm is in; the package's own are in the hash of all sources."""
    try:
        file = inspect.getfile(type(algorithm))
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    except (TypeError, OSError):
        return "unknown"  # written at a prompt


def _path() -> Path | None:
    from nnlite.compiler.cache import cache_root

    root = cache_root()
    environment = json.dumps(_environment(), sort_keys=True)
    return root / f"choices-{hashlib.sha256(environment.encode()).hexdigest()[:16]}.json" if root else None


def _read() -> dict[str, dict[str, float]]:
    """What was kept for this environment; nothing where there is nothing that can be read."""
    content = kept.read(_path())
    try:
        choices = content["choices"] if content else {}
        return {
            text: {str(name): float(ms) for name, ms in times.items()} for text, times in choices.items() if len(times)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(text: str, times: dict[str, float]) -> None:
    """Keep the times for the next process, if there is a folder to keep them in."""
    kept.write(_path(), {"environment": _environment(), "choices": _read() | {text: times}})
