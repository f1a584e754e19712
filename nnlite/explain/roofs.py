"""What share of the machine's ceilings each part of a step reaches. More than all of one is a defect of a count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nnlite.explain.measure import LayerTime, Measurement
from nnlite.explain.names import spoken
from nnlite.lab.results import MOST_OF_A_CEILING
from nnlite.machine import Machine

#: defects that are spelled out
SPELLED_OUT = 5


class Share(NamedTuple):
    """Of one roof, by one part of a step."""

    where: str
    roof: str
    share: float


def shares(measurements: Sequence[Measurement], machine: Machine) -> list[Share]:
    """Every part's share of the multiply-add peak and of the bandwidth that its moved bytes could have, highest first.

    Of an algorithm on one thread these are one thread's. Counted are the FLOPs that kernels execute: Winograd's, not
    those of the direct sum that it stands for.
    """
    result = []
    for m in measurements:
        for layer in m.layers:
            where = f"{spoken(layer.name, layer.part)} of the {m.name} under {m.algorithm}"
            result += [Share(where, roof, share) for roof, share in _of_layer(layer, machine, m.threads)]
    return sorted(result, key=lambda s: -s.share)


def _of_layer(layer: LayerTime, machine: Machine, threads: int) -> list[tuple[str, float]]:
    if layer.prediction is None or layer.prediction.missing or layer.ms <= 0:
        return []
    seconds, moved = layer.ms / 1e3, layer.prediction.moved_bytes
    executed = sum(stage.amount for stage, *_ in layer.prediction.stages if stage.flops)
    bandwidth = machine.roof(moved, threads)
    best = max(bandwidth.copy_gbs, bandwidth.read_gbs)
    whose = "one thread's" if threads == 1 < machine.threads else "the"
    return [
        (f"{whose} multiply-add peak", executed / seconds / (1e9 * machine.fma_gflops(threads))),
        (f"{whose} bandwidth of {bandwidth.level}", moved / seconds / (1e9 * best)),
    ]


def sentences(measurements: Sequence[Measurement], machine: Machine | None) -> list[str]:
    """The highest share of a roof; or, as a defect, how many are above the roof, the highest spelled out."""
    found = shares(measurements, machine) if machine else []
    if not found:
        return []
    above = [s for s in found if s.share > MOST_OF_A_CEILING]
    if above:
        listed = "; ".join(f"{s.where}, {100 * s.share:.0f}% of {s.roof}" for s in above[:SPELLED_OUT])
        listed += f"; and {len(above) - SPELLED_OUT} more" if len(above) > SPELLED_OUT else ""
        return [f"DEFECT: above a ceiling, so that a count or a ceiling is wrong: {listed}."]
    top = found[0]
    by = f" by more than {100 * MOST_OF_A_CEILING - 100:.0f}%" if top.share > 1 else ""
    return [
        f"No part of a step is above a ceiling of this machine{by}: the highest share is {100 * top.share:.0f}% of "
        f"{top.roof}, of {top.where}."
    ]
