"""How far this run's numbers can be relied on: cautions before the verdict, checks after it."""

from __future__ import annotations

from collections.abc import Sequence

from nnlite.explain import roofs
from nnlite.explain.measure import Measurement
from nnlite.explain.numbers import listed
from nnlite.explain.verdict import CAUTIONS, Verdict
from nnlite.lab.tables import disturbance
from nnlite.machine import Machine
from nnlite.profiler import CHANGED, FEWEST


def verdict(measured: Sequence[Measurement], ceilings: Machine | None, said: Verdict) -> Verdict:
    """What is `said`, after what it is worth if the machine was not quiet, and before what was checked."""
    around = {
        CAUTIONS: cautions(measured),
        **said,
        "Checks of this run": roofs.sentences(measured, ceilings) + _left_out(measured),
    }
    return {topic: sentences for topic, sentences in around.items() if sentences}


def _left_out(measured: Sequence[Measurement]) -> list[str]:
    """That the host moved the processors meanwhile, if it did."""
    most = max((m.profile for m in measured), key=lambda profile: profile.left_out)
    if not most.left_out:
        return []
    return [
        f"In up to {most.left_out} of {most.left_out + len(most.steps)} rounds the processors lay otherwise to each "
        "other than in the rest of an algorithm's, as handing work over between them told; these rounds are left out."
    ]


def cautions(measured: Sequence[Measurement]) -> list[str]:
    """Why the numbers are not to be relied on, as far as other programs or the host are why."""
    said = disturbance(measured[0].share)
    rates = max((m.prediction.disturbed for m in measured if m.prediction), default=0)
    if rates:
        said.append(
            f"CAUTION: other programs used the processor while {rates} of the rates were measured. The predictions of "
            "this run are not to be relied on; the next one measures these rates again."
        )
    changed = [m for m in measured if m.profile.state is CHANGED]
    if changed:
        said.append(
            f"CAUTION: the processors were moved in each round, as handing work over between them told: of "
            f"{_named(changed)}. Predictions are those for how they lay at first."
        )
    few = [m for m in measured if m.profile.left_out and len(m.profile.steps) < FEWEST]
    if few:
        said.append(
            "CAUTION: the processors were moved from round to round, as handing work over between them told: of "
            f"{_named(few)} no more than {max(len(m.profile.steps) for m in few)} rounds are alike and were kept."
        )
    strayed = [m for m in measured if m.strayed]
    if strayed:
        said.append(
            "CAUTION: while the steps were timed the processors lay to each other as they never had before: for "
            f"{_named(strayed)}. The predictions are those for how they lay at first; another run measures the rates."
        )
    borrowed = [m for m in measured if m.prediction and m.prediction.borrowed]
    if borrowed:
        said.append(
            "CAUTION: while the steps were timed the processors lay otherwise to each other than when some of the "
            f"rates were measured: of {_named(borrowed)}. Their predictions are worse for it; another run measures "
            "the missing."
        )
    return said


def _named(measured: Sequence[Measurement]) -> str:
    """The networks under their algorithms, those of the same networks together."""
    networks: dict[str, list[str]] = {}
    for m in measured:
        networks.setdefault(m.algorithm, []).append(f"the {m.name}")
    algorithms: dict[str, list[str]] = {}
    for algorithm, names in networks.items():
        algorithms.setdefault(listed(names), []).append(algorithm)
    return "; ".join(f"{names} under {listed(under)}" for names, under in algorithms.items())
