"""At what rate this machine runs each kind of stage (nnlite.conv.stages), measured outside of any layer.

A product's rate is measured at the very shape of its matrices, on numbers that belong to no layer. A pass over memory
is measured by its pattern (how long its inner loop is, how far apart its steps lie) on a working set of the same size
up to a limit, a transform on a small problem that stays in cache. No rate is fitted to a measured step, and no
algorithm runs on a layer's geometry.

A rate is the median of its samples, as a step's time is. What goes through its arrays once finds the caches as a step
leaves them: other memory is touched before each sample, then the operands that another kernel wrote just before.
Rates are kept on disk under the machine's processor and versions, the kernels' sources, the threads, and the state of
the processors (nnlite.rates.state); a run measures some of them again, and all if those no longer hold, and what takes
longest in each step in any case: what neighbours leave of the caches and of memory's bandwidth changes by the hour.
What is measured while other programs use the processors is measured anew for a while, and never kept.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from math import sqrt
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import numpy as np

from nnlite import contention
from nnlite.conv.stages import Stage
from nnlite.machine import Machine
from nnlite.rates.measure import MOST_BYTES, Work, power_of_two, rate_of
from nnlite.rates.state import SAME, State, handing_us

SCHEMA = 12
_LEAST_BYTES = 16 << 10
_LEAST_TOUCHED = 4 << 20
_ZERO = np.float32(0)
#: products are bounded by arithmetic, or by the bandwidth that their operands need
PRODUCTS = ("gemm", "matmul", "narrow", "narrow_gradients", "tiles", "lane_tiles", "vector_tiles")
#: what compiled algorithms do with data that stay in cache: bounded by that work, or by the bandwidth that bringing the
#: data in and taking them out needs
IN_CACHE = (
    "pad", "spread", "to_lanes", "from_lanes", "lanes_max_pool", "lanes_unpool", "lanes_bias", "drop",
    "winograd_weight", "winograd_input", "winograd_output", "winograd_dy", "winograd_dx",
)  # fmt: skip
#: they depend on their shapes alone
_SHAPED = ("gemm", "matmul", "narrow", "narrow_gradients")
#: so many kept rates are measured again, and the others with them if half of these are off by more than that, each in
#: all of so many tries
CHECKED, TOLERANCE, TRIES = 4, 0.25, 3
#: seconds that all samples of a run together are taken anew for, while other programs use the processors
PATIENCE = 5.0
#: seconds that a run takes for what it knows of another state of the processors; it borrows the rest, and says so
MOVED_SECONDS = 3.0
#: of each step's time, the part whose rates are measured in the same run, and the seconds that a step's may take a time
FRESH, FRESH_SECONDS = 0.9, 0.1
#: seconds after which this process asks again whether it is alone
ASKED_EVERY = 0.2


_T = TypeVar("_T")


class Again(NamedTuple):
    """What was measured again of what was kept, and whether that was off."""

    rate: float
    off: bool


class Need(NamedTuple):
    """A rate that a step needs: the key it is kept under, and how it is measured, by more or fewer samples."""

    key: str
    measure: Callable[[int], float]


class Rates:
    """The rates for one number of threads and one owner of them; measured when first asked for, kept by `save`.

    They are those of `state`, an index of `states`. To be made, and asked, while their owner has the threads.
    """

    def __init__(self, ceilings: Machine, blas_threads: int, kernel_threads: int):
        self.machine = ceilings
        self.blas_threads = blas_threads
        self.kernel_threads = kernel_threads
        self._path = _kept_path(ceilings, blas_threads, kernel_threads)
        self._patience, self._moved_seconds = PATIENCE, MOVED_SECONDS
        self._share, self._asked = self.share(), time.perf_counter()
        #: (state, key) of what was measured since this process asked for its share
        self._since: set[tuple[int, str]] = set()
        #: by state, what was measured again of what was kept from an earlier run
        self._again: dict[int, dict[str, Again]] = {}
        self._measured: set[str] = set()
        #: of the step that was computed last, the rates it needs and the seconds that its stages take at them
        self._taking: dict[str, tuple[float, Need]] = {}
        #: by state and key, what was measured again in this run of what was kept from an earlier one
        self._fresh: dict[tuple[int, str], list[float]] = {}
        self.borrowed: set[str] = set()
        #: (state, key) of what was measured while other programs used the processors
        self.disturbed: set[tuple[int, str]] = set()
        self._saved = True
        self._borrows = self._strayed = False
        self._other = np.zeros(0, np.float32)
        self._places = np.zeros(kernel_threads, np.int64)
        self._square = np.ones((256, 256), np.float32)
        self.states: list[State] = _read(self._path)
        self.state = self.where()

    def where(self) -> int:
        """The state that the processors are in now; of those that are known while other programs hide it."""
        tell = partial(handing_us, self.blas_threads, self.kernel_threads)
        now, alone = tell(), True
        if self._is_new(now):
            now, alone = self._alone(tell)
        if not self.states or (alone and self._is_new(now)):
            self.states.append(State(now))
        distances = [state.distance(now) for state in self.states]
        return distances.index(min(distances))

    def _is_new(self, handing: float) -> bool:
        return all(state.distance(handing) > SAME for state in self.states)

    def share(self) -> float:
        """The part of the processors' time that their owner gets now."""
        blas = self.blas_threads > 1
        return contention.share_of_processors(self.blas_threads if blas else self.kernel_threads, blas=blas)

    def complete(self, compute: Callable[[], object]) -> list[Need]:
        """Measure what `compute` asks for, where the processors are; again where they are moved meanwhile.

        Of what is known of another state, so much as `MOVED_SECONDS` allow; the next run goes on with it. Returns what
        takes longest, and was kept from an earlier run.
        """
        for _ in range(TRIES):
            self.state, self._strayed, self._taking = self.where(), False, {}
            compute()
            if not self._strayed:
                break
        return self._slowest()

    def _slowest(self) -> list[Need]:
        old: list[Need] = []
        sofar, enough = 0.0, FRESH * sum(seconds for seconds, _ in self._taking.values())
        for seconds, need in sorted(self._taking.values(), key=lambda taking: -taking[0]):
            if sofar < enough and need.key not in self._measured:
                old.append(need)
            sofar += seconds
        return old

    def follow(self, needs: Sequence[Need], parts: int) -> None:
        """Measure once more what is known, by one of so many `parts` of the samples, for FRESH_SECONDS at most."""
        end = time.perf_counter() + FRESH_SECONDS
        for need in needs:
            if time.perf_counter() > end:
                break
            before, measure = self.where(), partial(need.measure, parts)
            value, alone = self._alone(measure, lately=True)
            if alone and before == self.where():
                self._fresh.setdefault((before, need.key), []).append(value)

    def settle(self) -> None:
        """As a rate holds for the next runs too, it becomes the geometric mean of what was kept and what it is now."""
        for (state, key), values in self._fresh.items():
            known, now = self.states[state].known, median(values)
            known[key], self._saved = sqrt(known.get(key, now) * now), False
        self._fresh = {}

    def everywhere(self, compute: Callable[[], _T]) -> list[_T]:
        """What `compute` gives with the rates of each state that is known.

        What is not known of one is taken from another, and counted as `borrowed`: nobody can choose the state.
        """
        self._borrows = True
        results = []
        for state in range(len(self.states)):
            self.state, self.borrowed = state, set()
            results.append(compute())
        self._borrows = False
        return results

    def rate(self, stage: Stage, held: int) -> float:
        """Units a second (FLOPs for products, bytes for what moves numbers) at which the stage should run.

        Of a step that works in `held` bytes of arrays. If it goes through its own once, the others were touched since.
        """
        working_set = min(max(stage.working_set, _LEAST_BYTES), MOST_BYTES)
        if stage.kind in _SHAPED:
            working_set = 0
        once = stage.working_set >= stage.bytes or (stage.kind in IN_CACHE and stage.moved > 0)
        touched = self._others(held, stage.working_set) if once else 0

        def measure(parts: int = 1) -> float:
            return _measured(stage.kind, stage.size, working_set, partial(self._prepare, touched), parts)

        key = f"{stage.kind} {stage.size} {working_set} {touched}"
        rate = self._checked(key, measure)
        before = self._taking[key][0] if key in self._taking else 0.0
        self._taking[key] = before + stage.amount / rate, Need(key, measure)
        return rate

    def _others(self, held: int, own: int) -> int:
        """Bytes of a step's other arrays, no less than two caches hold; all caches twice, if it needs more of them."""
        last = self.machine.caches["L3"]
        return 2 * last if held > last else max(_LEAST_TOUCHED, power_of_two(held - own))

    def _checked(self, key: str, measure: Callable[[], float]) -> float:
        """The rate kept under a key, after the first of them were measured again.

        One that is off gives way to the new one; if half of them are off, so do all that are kept.
        """
        kept, again = self.states[self.state].known, self._again.setdefault(self.state, {})
        if key in kept and not self._borrows and key not in self._measured | again.keys() and len(again) < CHECKED:
            now, alone = self._alone(lambda: self._closest(kept[key], measure))
            again[key] = Again(now, _off(now, kept[key])) if alone else Again(kept[key], off=False)
            if again[key].off:
                kept[key], self._saved = now, False
            if len(again) == CHECKED and 2 * sum(one.off for one in again.values()) >= CHECKED:
                self.states[self.state].known, self._saved = {k: one.rate for k, one in again.items()}, False
        return self.known(key, measure)

    def _closest(self, kept: float, measure: Callable[[], float]) -> float:
        """Measured until it is what was kept: a rate that something hides for a moment still holds."""
        values = []
        for _ in range(TRIES):
            values.append(measure())
            if not _off(values[-1], kept) or self.where() != self.state:
                return kept if _off(values[-1], kept) else values[-1]
        return min(values, key=lambda value: abs(value / kept - 1))

    def _prepare(self, touched: int, work: Work) -> None:
        """Leave the caches as a step does that touched so many bytes since, and then what is worked on."""
        self.touch(touched)
        self.stir()
        if work.before is not None and max(self.blas_threads, self.kernel_threads) > 1:
            work.before()
        if self.kernel_threads > 1:
            from nnlite.kernels import ceilings

            for array in work.mixed:
                ceilings.rewrite(array.reshape(-1), _ZERO)
            for array in work.own:
                ceilings.rewrite_own(array.reshape(-1), _ZERO)

    def touch(self, nbytes: int) -> None:
        """Read and write so many bytes of other memory, on all threads."""
        from nnlite.kernels import ceilings

        if self._other.nbytes < nbytes:
            self._other = np.zeros(nbytes // 4, np.float32)
        ceilings.rewrite(self._other[: nbytes // 4], _ZERO)

    def stir(self) -> None:
        """Leave the threads awake, as they are within a step, where another call was just before."""
        from nnlite.kernels import ceilings

        if self.kernel_threads > 1:
            ceilings.nothing(self._places)
        if self.blas_threads > 1:
            np.matmul(self._square, self._square)

    def known(self, key: str, measure: Callable[[], float]) -> float:
        """The number kept under a key; measured if there is none."""
        return self.all_known((key,), partial(self._one, key, measure))[key]

    @staticmethod
    def _one(key: str, measure: Callable[[], float]) -> dict[str, float]:
        return {key: measure()}

    def all_known(self, keys: Sequence[str], measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The numbers kept under some keys that are measured together, if one of them is not kept; 0 if not even so."""
        found = {key: self._kept(key) for key in keys}
        if None in found.values():
            began = time.perf_counter()
            elsewhere = all(self._lender(key) for key in keys)
            values = self._sample(lambda: dict.fromkeys(keys, 0.0) | measure())
            self._moved_seconds -= elsewhere * (time.perf_counter() - began)
            return values
        return {key: value for key, value in found.items() if value is not None}

    def _kept(self, key: str) -> float | None:
        own = self.states[self.state].known.get(key)
        if own is not None or not (self._borrows or self._moved_seconds <= 0):
            return own
        lender = self._lender(key)
        if lender is None:
            return None
        self.borrowed.add(key)
        return lender.known[key]

    def _lender(self, key: str) -> State | None:
        """Of the states that know a rate, the one most like this."""
        here = self.states[self.state].handing_us
        return min((s for s in self.states if key in s.known), key=lambda s: s.distance(here), default=None)

    def _sample(self, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Measured, and known for the state that it was measured in."""
        for _ in range(TRIES):
            before, (values, alone), after = self.where(), self._alone(measure, lately=True), self.where()
            if before == after:
                break
        known = self.states[after].known
        if alone:
            self.disturbed -= {(after, key) for key in values}
            self._since |= {(after, key) for key in values}
            known |= values
        else:
            self.disturbed |= {(after, key) for key in values.keys() - known.keys()}
            self.states[after].known = values | known
        self._measured |= set(values)
        self._saved, self._strayed = False, self._strayed or after != self.state
        return values

    def _alone(self, measure: Callable[[], _T], *, lately: bool = False) -> tuple[_T, bool]:
        """What is measured, anew as long as there is patience with other programs, and whether they left it alone.

        `lately`: it is enough that they did when this process last asked, unless they do not when it asks next.
        """
        while True:
            began = time.perf_counter()
            value = measure()
            if (lately and self._was_alone_lately()) or self._is_alone():
                return value, True
            if self._patience <= 0:
                return value, False
            self._patience -= time.perf_counter() - began

    def _was_alone_lately(self) -> bool:
        return self._share >= contention.UNDISTURBED and time.perf_counter() < self._asked + ASKED_EVERY

    def _is_alone(self) -> bool:
        """Whether other programs left this process alone since it last asked; they disturbed what was measured else."""
        before, self._share = self._share, self.share()
        self._asked = time.perf_counter()
        alone = (before + self._share) / 2 >= contention.UNDISTURBED
        if not alone:
            self.disturbed |= self._since
        self._since = set()
        return alone

    def bandwidth(self, nbytes: float) -> float:
        """Bytes a second, counted both ways, that kernels can copy within a working set of so many bytes."""
        ceilings = self.machine
        mine = [b for b in ceilings.bandwidths if b.threads == min(self.kernel_threads, ceilings.threads)]
        chosen = next((b for b in mine if nbytes <= b.bytes), mine[-1])
        return 1e9 * chosen.copy_gbs

    def save(self) -> None:
        """Keep for the next run what was measured while other programs left the processors alone."""
        if self._saved or self._path is None:
            return
        self._is_alone()
        kept = [replace(state, known=self._undisturbed(i)) for i, state in enumerate(self.states)]
        self._path.write_text(json.dumps([asdict(state) for state in kept if state.known], indent=1) + "\n")
        self._saved = True

    def _undisturbed(self, state: int) -> dict[str, float]:
        return {key: rate for key, rate in self.states[state].known.items() if (state, key) not in self.disturbed}


def _kept_path(ceilings: Machine, blas_threads: int, kernel_threads: int) -> Path | None:
    from nnlite import jit_cache

    root = jit_cache.cache_root()
    key = (SCHEMA, ceilings.processor, ceilings.cpus, sorted(ceilings.versions.items()), jit_cache.sources_hash())
    name = hashlib.sha256(repr((*key, blas_threads, kernel_threads)).encode()).hexdigest()[:16]
    return root / f"rates-{name}.json" if root else None


def _read(path: Path | None) -> list[State]:
    if path is None or not path.is_file():
        return []
    try:
        kept = json.loads(path.read_text())
        return [State(float(p["handing_us"]), {str(k): float(v) for k, v in p["known"].items()}) for p in kept]
    except (ValueError, AttributeError, TypeError, KeyError):
        return []  # written by something else


def _off(now: float, kept: float) -> bool:
    return abs(now / kept - 1) > TOLERANCE


def _measured(
    kind: str, size: tuple[int, ...], working_set: int, before: Callable[[Work], None], parts: int = 1
) -> float:
    from nnlite.rates import conv_passes, kernel_passes, numpy_passes  # noqa: F401, which fill the table of kinds

    return rate_of(kind, size, working_set, before, parts)
