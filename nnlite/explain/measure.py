"""Count, predict and time networks: from networks to the document."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from datetime import datetime

from nnlite import conv
from nnlite.conv.work import ITEMSIZE
from nnlite.explain import case_study
from nnlite.explain.case import RANDOM, Case, batches, least_step
from nnlite.explain.document import Document, Network
from nnlite.explain.rows import ROUNDS, network_of
from nnlite.network.datasets import Arrays
from nnlite.network.layers import Conv2D
from nnlite.network.sequential import Sequential
from nnlite.performance import peaks
from nnlite.performance.contention import Contention, caution
from nnlite.performance.model import Microbenchmarks, StepModel
from nnlite.performance.overhead import trace
from nnlite.performance.rounds import Samples, run_rounds
from nnlite.performance.statistics import paired_ratio
from nnlite.performance.work import Call
from nnlite.runtime import memory, threads
from nnlite.runtime.errors import positive_int, unknown
from nnlite.runtime.processor import processor_name
from nnlite.runtime.replay import TRIALS

#: arrays per parameter in memory: the parameter, its gradient and its mean square
_ARRAYS_PER_PARAMETER = 3
#: algorithms that "auto" is compared with, if there are convolutions
COMPARED = ("im2col",)
#: if all threads reach less than this many times the FMA rate of one, the CPUs of a virtual machine shared a core
_SHARED_CORE = 1.2


def explain_networks(
    networks: Sequence[Sequential],
    data: Arrays | None,
    *,
    data_name: str = RANDOM,
    algorithm: str = "auto",
    baseline: str | None = None,
    batch_size: int = 128,
    rounds: int = ROUNDS,
    seed: int = 0,
    command: str = "",
    say: Callable[[str], object] = lambda text: None,
) -> Document:
    """Count, predict and time `rounds` interleaved training steps of each network, with the rates they need.

    `data` is (images, labels), or None for random images. The networks have unique names and are not changed. The first
    is the baseline unless one is named. A KeyboardInterrupt ends the rounds early; the completed rounds are used.
    Raises ValueError, which names the argument, for an unknown baseline and if a network's step fails.
    """
    positive_int("--rounds", rounds)
    positive_int("--batch-size", batch_size)
    names = [network.name for network in networks]
    if baseline is not None and baseline not in names:
        raise unknown("--baseline", baseline, names)
    if data is not None and batch_size > len(data[0]):
        expected = f"1 to {len(data[0])}, the images of {data_name}"
        raise ValueError(f"--batch-size: expected {expected}. Received: {batch_size}")
    study = _is_case_study(networks)
    others: tuple[str, ...] = ()
    if algorithm == "auto" and any(isinstance(layer, Conv2D) for network in networks for layer in network.layers):
        others = (case_study.ALGORITHM, *COMPARED) if study else COMPARED
    cases = []
    for name in (algorithm, *others):
        if name != "auto":
            conv.get(name)
        for given in networks:
            model = copy.deepcopy(given)
            source, arrays = batches(model, data_name, data, batch_size, seed)
            cases.append(Case(model, name, source, *arrays, batch_size))
    steps = [_first_step(case) for case in cases]
    machine = _peaks(say)
    benchmarks = Microbenchmarks()
    say("preparing the microbenchmarks ...")
    models = [_model(case, *step, benchmarks) for case, step in zip(cases, steps, strict=True)] if machine else []
    contention = Contention()
    with memory.kept():
        samples, done = _rounds(cases, models, benchmarks, rounds, say)
    share = contention.share()
    memory.trim()
    by_algorithm: dict[str, list[Network]] = {}
    for i, case in enumerate(cases):
        base = next(
            j for j, c in enumerate(cases) if (c.model.name, c.algorithm) == (baseline or names[0], case.algorithm)
        )
        ratio = None if i == base else paired_ratio(samples[i], samples[base], fewest=ROUNDS)
        counted = network_of(case, models[i] if models else None, samples, i, ratio)
        by_algorithm.setdefault(case.algorithm, []).append(counted)
    everything = [n for group in by_algorithm.values() for n in group]
    return Document(
        machine=machine.to_dict() if machine else None,
        batch_size=batch_size,
        threads=threads.get_num_threads(),
        algorithm=algorithm,
        data=data_name,
        baseline=baseline or names[0],
        rounds=done,
        rounds_asked=rounds,
        cautions=caution(share) + _too_few(done, rounds) + (_beyond_peak(everything, machine) if machine else []),
        models=by_algorithm.pop(algorithm),
        comparisons=by_algorithm,
        case_study=study,
        run={
            "command": command,
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            "processor": processor_name(),
            "versions": peaks.versions(),
        },
    )


def _peaks(say: Callable[[str], object]) -> peaks.Machine | None:
    """The machine's peak rates; None without Numba's compiler, when there is no prediction either."""
    from nnlite.compiler import compilation

    if not compilation.ENABLED:
        return None
    say("measuring this machine's peak rates ...")
    return peaks.measure()


def _is_case_study(networks: Sequence[Sequential]) -> bool:
    """Whether these are the three networks of the 2017 question."""
    found = {network.name: network.count_params() for network in networks}
    return found == case_study.PARAMETERS


def _first_step(case: Case) -> tuple[list[Call], int]:
    """Run the case's step, untimed, until it is replayed; a custom network may raise before anything is measured.

    Returns the operations that it calls, and the size of all its arrays in bytes.
    """
    with case.at_work():
        memory.trim()
        calls = trace(case.step)
        footprint = memory.idle_bytes() + _ARRAYS_PER_PARAMETER * ITEMSIZE * case.model.count_params()
        for _ in range(TRIALS):
            case.step()
        return calls, footprint


def _model(case: Case, calls: Sequence[Call], footprint: int, benchmarks: Microbenchmarks) -> StepModel:
    """The time model of the case's step."""
    with case.at_work():
        optimizer = case.model.optimizer
        assert optimizer is not None
        return StepModel(
            calls,
            optimizer.name,
            optimizer.parameters or (),
            least_step(case.batch_size),
            footprint,
            case.team,
            case.algorithm,
            benchmarks,
            case.model.is_replayed,
        )


def _rounds(
    cases: Sequence[Case],
    models: Sequence[StepModel],
    benchmarks: Microbenchmarks,
    rounds: int,
    say: Callable[[str], object],
) -> tuple[Samples, int]:
    """(samples of all steps, by their index, and of all rates; number of completed rounds)"""
    steps = [case.candidate(i) for i, case in enumerate(cases)]
    samples: Samples = {}

    def progress() -> None:
        if len(samples[0]) == 1:
            for model in models:
                benchmarks.often(model.dominant(samples))
        say(f"timing: round {len(samples[0])} of {rounds} ...")

    before = [len(case.profile.steps) for case in cases]
    try:
        say(f"timing: round 0 of {rounds} ...")
        run_rounds([*steps, *benchmarks.candidates()], rounds=rounds, warm=False, samples=samples, progress=progress)
    except KeyboardInterrupt:
        if not samples.get(0):
            raise
    done = len(samples[0])
    for case, start in zip(cases, before, strict=True):
        case.profile = case.profile.part(start, done)
    return samples, done


def _beyond_peak(networks: Sequence[Network], machine: peaks.Machine) -> list[str]:
    """A caution if a rate exceeds the measured peak: the CPUs shared a core then, or a count of nnlite is wrong."""
    if machine.threads > 1 and machine.fma_gflops_all < _SHARED_CORE * machine.fma_gflops_one:
        return [
            f"{machine.threads} threads reached {machine.fma_gflops_all:.0f} GFLOP/s, one "
            f"{machine.fma_gflops_one:.0f}: the CPUs shared a core. Run it again."
        ]
    found = []
    for network, row in [(n, row) for n in networks for row in n.layers]:
        executed = sum(item.amount for item in row.work if item.flops)
        share = executed / row.ms / 1e6 / machine.fma_gflops(network.threads) if row.ms else 0.0
        if share > peaks.MOST_OF_A_PEAK:
            found.append(f"{network.name}, {network.algorithm}, {row.name} {row.part}: {100 * share:.0f}%")
    return [f"Error in nnlite: rates above the measured FMA peak ({'; '.join(found)}). Ignore these."] if found else []


def _too_few(done: int, rounds: int) -> list[str]:
    """A caution if there were fewer rounds than an interval needs, or than were asked for."""
    if done < rounds:
        effect = f"no intervals, which need {ROUNDS}" if done < ROUNDS else "intervals are wider than planned"
        return [f"Interrupted after {done} of {rounds} rounds: {effect}. Run it again."]
    if done < ROUNDS:
        return [f"Too few rounds ({done} of {ROUNDS}): ratios have no intervals. Use --rounds {ROUNDS}."]
    return []
