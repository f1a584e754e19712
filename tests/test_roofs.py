"""Shares of the machine's ceilings: more than all of one is said to be a defect."""

from functools import partial
from types import SimpleNamespace

import pytest

from nnlite.ceilings import Bandwidth
from nnlite.conv.stages import Stage
from nnlite.explain import roofs
from nnlite.machine import Machine
from nnlite.predict import PartPrediction, Terms

LEVELS = tuple(
    Bandwidth(level, 1, threads, gbs * threads / 2, gbs * threads / 2)
    for threads in (1, 2)
    for level, gbs in (("L1", 400), ("L2", 200), ("L3", 100), ("memory", 20))
)
CEILINGS = SimpleNamespace(
    fma_gflops_one=40.0,
    fma_gflops_all=100.0,
    threads=2,
    bandwidths=LEVELS,
    caches={"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20},
)
CEILINGS.roof = partial(Machine.roof, CEILINGS)
CEILINGS.fma_gflops = partial(Machine.fma_gflops, CEILINGS)


def step(ms, flops, moved, threads=2):
    stage = Stage("product", "gemm", (), float(flops), moved, moved, moved, flops=flops)
    part = PartPrediction([(stage, 1.0, Terms())])
    layer = SimpleNamespace(name="dense", part="grad_weight", ms=ms, prediction=part)
    return SimpleNamespace(name="mlp", algorithm="auto", layers=[layer], threads=threads)


def test_the_highest_share_is_named():
    (said,) = roofs.sentences([step(1.0, 5 * 10**7, 1000)], CEILINGS)
    assert "the highest share is 50% of the multiply-add peak, of dense (weight gradient) of the mlp under auto" in said


def test_more_than_a_ceiling_is_a_defect():
    (said,) = roofs.sentences([step(1.0, 11 * 10**7, 1000)], CEILINGS)
    assert said.startswith("DEFECT")
    assert "110% of the multiply-add peak" in said
    (said,) = roofs.sentences([step(1.0, 1000, 50 * 10**6)], CEILINGS)
    assert said.startswith("DEFECT")
    assert "250% of the bandwidth of memory" in said


def test_so_far_as_two_measurements_spread_is_no_defect_and_said():
    (said,) = roofs.sentences([step(1.0, 10.1 * 10**7, 1000)], CEILINGS)
    assert said.startswith("No part of a step is above a ceiling of this machine by more than 3%: the highest share")
    assert "101% of the multiply-add peak" in said
    (said,) = roofs.sentences([step(1.0, 10.4 * 10**7, 1000)], CEILINGS)
    assert said.startswith("DEFECT")
    (said,) = roofs.sentences([step(1.0, 9.9 * 10**7, 1000)], CEILINGS)
    assert "by more than" not in said


@pytest.mark.parametrize(
    ("nbytes", "level"), [(1000, "L1"), (1 << 20, "L2"), (2 << 20, "L2"), (3 << 20, "L3"), (33 << 20, "memory")]
)
def test_bytes_have_the_roof_of_the_smallest_cache_that_holds_them(nbytes, level):
    assert CEILINGS.roof(nbytes, 2).level == level


def test_of_an_algorithm_on_one_thread_the_ceilings_are_one_threads():
    (said,) = roofs.sentences([step(1.0, 2 * 10**7, 1000, threads=1)], CEILINGS)
    assert "the highest share is 50% of one thread's multiply-add peak" in said
    (said,) = roofs.sentences([step(1.0, 1000, 50 * 10**6, threads=1)], CEILINGS)
    assert "500% of one thread's bandwidth of memory" in said
    assert CEILINGS.roof(2 << 20, 2).level == "L2"
    assert CEILINGS.roof(2 << 20, 1).level == "L3"


def test_without_ceilings_nothing_is_said():
    assert roofs.sentences([step(1.0, 1000, 1000)], None) == []


def test_of_many_defects_the_highest_are_spelled_out():
    (said,) = roofs.sentences([step(1.0, flops * 10**7, 1000) for flops in range(11, 18)], CEILINGS)
    assert said.count("of the multiply-add peak") == 5
    assert "170%" in said
    assert said.endswith("; and 2 more.")
