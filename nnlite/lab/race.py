"""Which of many candidates is the fastest, with most of them timed in a few rounds only: successive halving.

Karnin, Koren and Somekh (Almost Optimal Exploration in Multi-Armed Bandits, 2013) and Jamieson and Talwalkar
(Non-stochastic Best Arm Identification and Hyperparameter Optimization, 2016) time all candidates a little, drop the
slower ones, time the others longer, and so on. Here that happens after each of DROPS rounds, and each time the same
factor remains: of 27 challengers 9, then 3, then one.

The challengers meet the default, which runs in every round. So each candidate is paired with the default in the rounds
in which it ran. The one that is left runs at least FINAL_ROUNDS more rounds, as does the default's A/A control. The
interval of its ratio is that of these rounds alone, as those before chose it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from math import inf

from nnlite.performance.rounds import Candidate, Samples, no_garbage_collection, run_rounds

#: rounds after which the slower challengers are dropped
DROPS = (2, 3, 5)
#: rounds of the last challenger and the default after the last drop, at least
FINAL_ROUNDS = 15
METHOD = "successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943)"


def kept(challengers: int, drop: int) -> int:
    """How many challengers remain after a drop (0, 1, ...); one after the last."""
    return max(1, round(challengers ** (1 - (drop + 1) / len(DROPS))))


def fastest(names: Sequence[Hashable], samples: Samples, count: int) -> list[Hashable]:
    """The `count` names with the shortest samples: other programs make a sample longer, never shorter."""
    return sorted(names, key=lambda name: min(samples[name]))[:count]


def race(
    candidates: Sequence[Candidate],
    *,
    rounds: int,
    fewest: int = 0,
    seconds: float = inf,
    seed: int = 0,
    samples: Samples | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Samples:
    """As `run_rounds`: the first candidate is the default, the last its A/A control, those between are challengers.

    A dropped candidate has fewer samples, those of the first rounds, and the control those of the last ones. `seconds`
    may shorten the rounds after the last drop, but not below `fewest` in all.
    """
    samples = {} if samples is None else samples
    default, *challengers, control = candidates
    count, done, end = len(challengers), 0, time.perf_counter() + seconds
    samples.update({candidate.name: [] for candidate in candidates})

    def run(until: int, least: int, *others: Candidate) -> None:
        part: Samples = {}
        try:
            run_rounds(
                [default, *challengers, *others],
                rounds=until - done,
                fewest=least,
                seconds=end - time.perf_counter(),
                seed=seed + done,
                warm=count < 2,  # else the faster of two runs decides, and the interval is that of later ones
                samples=part,
                progress=progress,
            )
        finally:  # after an interruption, the rounds completed before count
            for name, taken in part.items():
                samples[name] += taken

    with no_garbage_collection():  # once: a collection takes longer than a round
        for drop, until in enumerate(DROPS if count > 1 else ()):
            run(until, until)
            left = fastest([challenger.name for challenger in challengers], samples, kept(count, drop))
            challengers = [challenger for challenger in challengers if challenger.name in left]
            done = until
        run(rounds, fewest - done, control)
    return samples
