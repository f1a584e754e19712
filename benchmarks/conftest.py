"""Options, threads, peak rates and the `timed` fixture of all suites. README.md says how to run them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnlite as nn
from nnlite import conv
from nnlite.conv.geometry import PASSES
from nnlite.lab import shapes
from nnlite.lab.loading import load_algorithms
from nnlite.performance import peaks
from nnlite.performance.contention import TOLERATED, Contention, caution
from nnlite.runtime import threads

BATCH_SIZE = 128
#: with --benchmark-disable each benchmark runs once, as a test, on few layers: each compiles its own kernels
SMALL_BATCH, FEW_SHAPES = 4, ("4,32,26,26,64,3,3,1,0", "4,4,26,26,4,3,3,1,0")
#: MACs of a layer's slice for an algorithm that is for reading only
READING_MACS = 50_000


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nnlite")
    group.addoption(
        "--algorithm", action="append", default=[], metavar="FILE.py:CLASS", help="also benchmark a user's algorithm"
    )
    group.addoption(
        "--shapes", action="append", metavar="SET", help="layers of the convolution suite, as in nnlite bench"
    )
    group.addoption(
        "--threads", type=int, metavar="N", help="number of threads (default: every CPU this process may use)"
    )


def pytest_configure(config: pytest.Config) -> None:
    try:
        _pin(config.getoption("--threads"))
        config.stash[_OWN] = [a.name for a in load_algorithms(config.getoption("--algorithm"))]
        once = config.getoption("benchmark_disable", False)
        batch, usual = (SMALL_BATCH, FEW_SHAPES) if once else (BATCH_SIZE, ("seed",))
        config.stash[_LAYERS] = shapes.resolve(config.getoption("--shapes") or usual, batch)
        config.stash[_BATCH] = batch
    except (ValueError, FileNotFoundError) as error:
        raise pytest.UsageError(str(error)) from None


_OWN: pytest.StashKey[list[str]] = pytest.StashKey()
_LAYERS: pytest.StashKey[list[shapes.Shape]] = pytest.StashKey()
_BATCH: pytest.StashKey[int] = pytest.StashKey()


def _pin(count: int | None) -> None:
    """Use `count` threads on `count` CPUs."""
    nn.set_num_threads(count or threads.get_num_threads())
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: threads.get_num_threads()])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Layers x passes x algorithms where a test asks for them; what an algorithm declines is left out."""
    if {"layer", "pass_name", "algorithm"} <= set(metafunc.fixturenames):
        layers = metafunc.config.stash[_LAYERS]
        found = [
            (layer.name, pass_name, name)
            for layer in layers
            for pass_name in PASSES
            for name in conv.names()
            if conv.get(name).declines(layer.geometry, np.float32) is None
        ]
        metafunc.parametrize(("layer", "pass_name", "algorithm"), found, ids=["-".join(case) for case in found])
    elif "network_algorithm" in metafunc.fixturenames:
        metafunc.parametrize("network_algorithm", ["auto", "im2col", *metafunc.config.stash[_OWN]])


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """What the numbers depend on, beside what pytest-benchmark tells."""
    found = peaks.measure()
    machine_info["nnlite"] = {
        "processor": found.processor,
        "threads": found.threads,
        "fma_gflops": found.fma_gflops_all,
        "versions": found.versions,
    }


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    """The largest share of the CPU that other programs used during a benchmark."""
    output_json["others_share_of_processors"] = max(map(_others_share, benchmarks), default=0.0)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """A caution if other programs used the CPU."""
    session = getattr(config, "_benchmarksession", None)
    shares = [_others_share(benchmark) for benchmark in session.benchmarks] if session else []
    for said in caution(max(shares, default=0.0)):
        disturbed = sum(share > TOLERATED for share in shares)
        terminalreporter.write_line(f"CAUTION: {said} ({disturbed} of {len(shares)} benchmarks; the largest share)")


def _others_share(benchmark: Any) -> float:
    return benchmark.extra_info.get("others_share_of_processors", 0.0)


@pytest.fixture(autouse=True)
def _same_start() -> None:
    nn.seed(0)


@pytest.fixture
def batch_size(pytestconfig: pytest.Config) -> int:
    return pytestconfig.stash[_BATCH]


@pytest.fixture
def geometry(pytestconfig: pytest.Config, layer: str, algorithm: str) -> conv.Geometry:
    """The layer's, or a slice of it for an algorithm that is for reading only."""
    whole = next(shape.geometry for shape in pytestconfig.stash[_LAYERS] if shape.name == layer)
    if conv.get(algorithm).reference_only:
        return shapes.slice_of(whole, min(1.0, READING_MACS / whole.macs))
    return whole


@pytest.fixture
def timed(benchmark: Any) -> Callable[..., Any]:
    """`timed(work, group, flops=..., bytes=...)`: benchmark it, and note rates and the share of this machine's peak.

    `work` runs once before the calibration, so that compiling and first memory are not in it. Its result is returned.
    Further keywords are noted as they are. Where `fewer_multiplications`, the rate counts products that are not made,
    and is called effective.
    """

    def run(work: Callable[[], Any], group: str, *, fewer_multiplications: bool = False, **info: Any) -> Any:
        benchmark.group = group
        benchmark.extra_info.update(info, threads=threads.get_num_threads())
        if benchmark.enabled:
            work()
        contention = Contention()
        result = benchmark(work)
        if benchmark.enabled:
            benchmark.extra_info["others_share_of_processors"] = round(contention.share(), 3)
        if benchmark.enabled and info.get("flops"):
            _note_rates(benchmark, info["flops"], "effective_" if fewer_multiplications else "")
        return result

    return run


def _note_rates(benchmark: Any, flops: int, prefix: str) -> None:
    gflops = flops / benchmark.stats.stats.median / 1e9
    share = 100 * gflops / peaks.peak_gflops(threads.get_num_threads())
    benchmark.extra_info.update({f"{prefix}gflops": round(gflops, 2), f"{prefix}percent_of_peak": round(share, 1)})
