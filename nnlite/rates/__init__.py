"""At what rate this machine runs each kind of stage (nnlite.conv.stages), measured outside of any layer.

A product's rate is measured at the very shape of its matrices, on numbers that belong to no layer. A pass over memory
is measured by its pattern (how long its inner loop is, how far apart its steps lie) on a working set of the same size
up to a limit, a transform on a small problem that stays in cache. No rate is fitted to a measured step, and no
algorithm runs on a layer's geometry.

A rate is the median of its samples, as a step's time is. What goes through its arrays once finds the caches as a step
leaves them: other memory is touched before each sample, then the operands that another kernel wrote just before.
Rates are kept on disk under the machine's processor and versions, the package's sources, the threads, and the state of
the processors (nnlite.rates.state). Of what is kept, each run measures once more what takes longest in its steps: what
neighbours leave of the caches and of memory's bandwidth changes by the hour. What is measured while other programs use
the processors (nnlite.rates.undisturbed) is never kept.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

from nnlite import contention, kept
from nnlite.conv.stages import Stage
from nnlite.machine import Machine
from nnlite.rates.measure import MOST_BYTES, Work, rate_of
from nnlite.rates.state import SAME, State, handing_us, states_of
from nnlite.rates.undisturbed import Undisturbed
from nnlite.rates.within_step import WithinStep

_LEAST_BYTES = 16 << 10
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
#: the folders whose code takes the time that rates and costs of calling tell of
_MEASURED = ("conv", "kernels", "layers", "ops", "rates")
#: times that what is computed is computed again, while the host moves the processors
TRIES = 3
#: seconds that a run takes for what it knows of another state of the processors; it borrows the rest, and says so
MOVED_SECONDS = 3.0
#: of each step's time, the part that is measured once more in each run, and the seconds that it may take in one turn
FRESH, FRESH_SECONDS = 0.9, 0.1
#: of what is measured once more, in the mean with what was kept
WEIGHT = 0.5

_T = TypeVar("_T")


class Need(NamedTuple):
    """What a step needs to know: the keys it is kept under, and how it is measured, by one of so many parts."""

    keys: tuple[str, ...]
    measure: Callable[[int], dict[str, float]]


class Rates:
    """The rates for one number of threads and one owner of them; measured when first asked for, kept by `save`.

    They are those of `state`, an index of `states`. To be made, and asked, while their owner has the threads.
    """

    def __init__(self, ceilings: Machine, blas_threads: int, kernel_threads: int):
        self.machine = ceilings
        self.blas_threads = blas_threads
        self.kernel_threads = kernel_threads
        self.within_step = WithinStep(ceilings.caches["L3"], blas_threads, kernel_threads)
        self._path = _kept_path(ceilings, blas_threads, kernel_threads)
        self._undisturbed = Undisturbed(self.share)
        self._moved_seconds = MOVED_SECONDS
        #: what was measured in this run, in any state
        self._measured: set[str] = set()
        #: of the step that was computed last, what it needs and the seconds that this is for
        self._taking: dict[tuple[str, ...], tuple[float, Need]] = {}
        #: by state and key, what was measured once more of what was kept
        self._fresh: dict[tuple[int, str], list[float]] = {}
        #: in how many turns each need was
        self._turns: Counter[tuple[str, ...]] = Counter()
        #: keys of what the last prediction took from another state
        self.borrowed: set[str] = set()
        #: (state, key) of what was measured while other programs used the processors
        self.disturbed: set[tuple[int, str]] = set()
        self._saved = True
        self._borrows = self._strayed = False
        self.states: list[State] = states_of(kept.read(self._path))
        self.state = self.where()

    def where(self) -> int:
        """The state that the processors are in now; of those that are known while other programs hide it."""
        tell = partial(handing_us, self.blas_threads, self.kernel_threads)
        now, alone = tell(), True
        if self._is_new(now):
            now, alone = self._undisturbed.measured(tell)
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

    # What a step needs -----------------------------------------------------------------------------------------------

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
            if sofar < enough and self._measured.isdisjoint(need.keys):
                old.append(need)
            sofar += seconds
        return old

    def follow(self, needs: Sequence[Need], turn: int, turns: int) -> None:
        """Measure once more what is kept, by one of so many turns' part of the samples, for FRESH_SECONDS at most.

        What an earlier step needed in this turn, too, is left out; what was left out for want of time comes first.
        """
        end = time.perf_counter() + FRESH_SECONDS
        for need in sorted(needs, key=lambda need: self._turns[need.keys]):
            if time.perf_counter() > end or self._turns[need.keys] > turn:
                break
            self._turns[need.keys] += 1
            measure = partial(need.measure, turns)
            before, (values, alone) = self.where(), self._undisturbed.measured(measure, lately=True)
            if alone and before == self.where():
                for key in need.keys:
                    self._fresh.setdefault((before, key), []).append(values.get(key, 0.0))
                self._undisturbed.otherwise(partial(self._forget_last, before, need.keys))

    def _forget_last(self, state: int, keys: Sequence[str]) -> None:
        for key in keys:
            self._fresh[state, key].pop()

    def settle(self) -> None:
        """As it holds for the next runs too, it becomes the mean of what was kept and what it is now."""
        self._undisturbed.ask()
        for (state, key), values in self._fresh.items():
            if values:
                known, now = self.states[state].known, median(values)
                known[key], self._saved = (1 - WEIGHT) * known.get(key, now) + WEIGHT * now, False
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
        touched = self.within_step.others(held, stage.working_set) if once else 0
        key = f"{stage.kind} {stage.size} {working_set} {touched}"
        prepare = partial(self.within_step.prepare, touched)

        def measure(parts: int) -> dict[str, float]:
            return {key: _measured(stage.kind, stage.size, working_set, prepare, parts)}

        rate = self.known((key,), measure)[key]
        self._takes(Need((key,), measure), stage.amount / rate)
        return rate

    def costs(self, keys: Sequence[str], measure: Callable[[int], dict[str, float]]) -> dict[str, float]:
        """Seconds that a step spends, by key; what is measured together, by one of so many parts of the samples."""
        found = self.known(keys, measure)
        self._takes(Need(tuple(keys), measure), sum(found.values()))
        return found

    def _takes(self, need: Need, seconds: float) -> None:
        before, _ = self._taking.get(need.keys, (0.0, need))
        self._taking[need.keys] = before + seconds, need

    def bandwidth(self, nbytes: float) -> float:
        """Bytes a second, counted both ways, that kernels can copy within a working set of so many bytes."""
        ceilings = self.machine
        mine = [b for b in ceilings.bandwidths if b.threads == min(self.kernel_threads, ceilings.threads)]
        chosen = next((b for b in mine if nbytes <= b.bytes), mine[-1])
        return 1e9 * chosen.copy_gbs

    # What is known ---------------------------------------------------------------------------------------------------

    def known(self, keys: Sequence[str], measure: Callable[[int], dict[str, float]]) -> dict[str, float]:
        """The numbers under some keys that are measured together, if one of them is not kept; 0 if not even so."""
        found = {key: self._kept(key) for key in keys}
        if None in found.values():
            began = time.perf_counter()
            elsewhere = all(self._lender(key) for key in keys)
            values = self._sample(lambda: dict.fromkeys(keys, 0.0) | measure(1))
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
            before = self.where()
            values, alone = self._undisturbed.measured(measure, lately=True)
            after = self.where()
            if before == after:
                break
        known, measured = self.states[after].known, {(after, key) for key in values}
        if alone:
            self.disturbed -= measured
            self._undisturbed.otherwise(partial(self.disturbed.update, measured))
            known |= values
        else:
            self.disturbed |= {(after, key) for key in values.keys() - known.keys()}
            self.states[after].known = values | known
        self._measured |= set(values)
        self._saved, self._strayed = False, self._strayed or after != self.state
        return values

    def save(self) -> None:
        """Keep for the next run what was measured while other programs left the processors alone."""
        if self._saved:
            return
        self._undisturbed.ask()
        states = [replace(state, known=self._to_keep(i)) for i, state in enumerate(self.states)]
        kept.write(self._path, [asdict(state) for state in states if state.known])
        self._saved = True

    def _to_keep(self, state: int) -> dict[str, float]:
        return {key: rate for key, rate in self.states[state].known.items() if (state, key) not in self.disturbed}


def _kept_path(ceilings: Machine, blas_threads: int, kernel_threads: int) -> Path | None:
    from nnlite import jit_cache

    root = jit_cache.cache_root()
    machine = ceilings.processor, ceilings.cpus, sorted(ceilings.versions.items())
    code = jit_cache.target(), _sources_hash()
    name = hashlib.sha256(repr((machine, code, blas_threads, kernel_threads)).encode()).hexdigest()[:16]
    return root / f"rates-{name}.json" if root else None


def _sources_hash() -> str:
    digest = hashlib.sha256()
    for file in _sources():
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _sources() -> list[Path]:
    """The files of all that is measured, as Python too takes time, and of how."""
    package = Path(kept.__file__).parent
    return sorted([*package.glob("*.py"), *(file for folder in _MEASURED for file in package.glob(f"{folder}/*.py"))])


def _measured(
    kind: str, size: tuple[int, ...], working_set: int, before: Callable[[Work], None], parts: int = 1
) -> float:
    from nnlite.rates import conv_passes, kernel_passes, numpy_passes  # noqa: F401, which fill the table of kinds

    return rate_of(kind, size, working_set, before, parts)
