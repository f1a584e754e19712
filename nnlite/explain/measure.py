"""Count, predict and time networks; the result is a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np

from nnlite.conv.work import ITEMSIZE
from nnlite.explain import document as doc
from nnlite.explain.case import Case, least_step
from nnlite.network.layers import Layer
from nnlite.performance import peaks
from nnlite.performance.contention import Contention, caution
from nnlite.performance.counts import Cost
from nnlite.performance.model import Microbenchmarks, PassTime, StepModel
from nnlite.performance.overhead import trace
from nnlite.performance.profiler import Key
from nnlite.performance.rounds import Samples, run_rounds
from nnlite.performance.statistics import Ratio, interval, paired_ratio
from nnlite.runtime import memory, scopes, threads
from nnlite.runtime.processor import processor_name

#: the fewest rounds for an interval; with fewer, no network is called faster or slower
ROUNDS = 15
#: images in an epoch of MNIST
EPOCH_IMAGES = 60_000
#: arrays per parameter in memory: the parameter, its gradient and its mean square
_ARRAYS_PER_PARAMETER = 3


def measure(
    cases: Sequence[Case],
    *,
    baseline: str,
    algorithm: str,
    data: str,
    rounds: int = ROUNDS,
    case_study: bool = False,
    command: str = "",
    say: Callable[[str], object] = lambda text: None,
) -> doc.Document:
    """Time `rounds` interleaved training steps of each case, and sample in the same rounds the rates they need.

    A KeyboardInterrupt ends the rounds early; the completed rounds are used. Without Numba's compiler there is no
    prediction.
    """
    from nnlite.compiler import jit

    batch_size = cases[0].batch_size
    for case in cases:
        with case.at_work():
            case.step()  # compiles; a custom network may raise here, before anything is measured
    machine = None
    if jit.ENABLED:
        say("measuring this machine's peak rates ...")
        machine = peaks.measure()
    benchmarks = Microbenchmarks()
    say("tracing the operations of each step ...")
    models = [_model(case, benchmarks) for case in cases] if machine else []
    contention = Contention()
    samples, done = _rounds(cases, models, benchmarks, rounds, say)
    share = contention.share()
    memory.trim()
    networks: dict[str, list[doc.Network]] = {}
    for i, case in enumerate(cases):
        base = next(j for j, c in enumerate(cases) if c.model.name == baseline and c.algorithm == case.algorithm)
        ratio = None if i == base else paired_ratio(samples[i], samples[base], fewest=ROUNDS)
        model = models[i] if models else None
        networks.setdefault(case.algorithm, []).append(_network(case, model, samples, i, ratio))
    cautions = caution(share)
    if done < rounds:
        effect = f"no intervals, which need {ROUNDS}" if done < ROUNDS else "intervals are wider than planned"
        cautions.append(f"Interrupted after {done} of {rounds} rounds: {effect}. Run it again.")
    elif done < ROUNDS:
        cautions.append(f"Too few rounds ({done} of {ROUNDS}): ratios have no intervals. Use --rounds {ROUNDS}.")
    cautions += _beyond_peak([n for group in networks.values() for n in group], machine)
    return doc.Document(
        machine=machine.to_dict() if machine else None,
        batch_size=batch_size,
        threads=threads.get_num_threads(),
        algorithm=algorithm,
        data=data,
        baseline=baseline,
        rounds=done,
        rounds_asked=rounds,
        cautions=cautions,
        models=networks.pop(algorithm),
        comparisons=networks,
        case_study=case_study,
        run=_facts(command),
    )


def _model(case: Case, benchmarks: Microbenchmarks) -> StepModel:
    """The time model of the case's step. Runs the step twice, untimed."""
    with case.at_work():
        case.step()  # allocates what lives from step to step
        memory.trim()
        calls = trace(case.step)
        footprint = memory.idle_bytes() + _ARRAYS_PER_PARAMETER * ITEMSIZE * case.model.count_params()
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
        )


def _rounds(
    cases: Sequence[Case],
    models: Sequence[StepModel],
    benchmarks: Microbenchmarks,
    rounds: int,
    say: Callable[[str], object],
) -> tuple[Samples, int]:
    """(samples of all steps, by their index, and of all rates; number of completed rounds)"""
    say("running each microbenchmark once ...")
    first = run_rounds(benchmarks.candidates(), rounds=1)
    for model in models:
        benchmarks.often(model.dominant(first))
    steps = [case.candidate(i) for i, case in enumerate(cases)]
    samples: Samples = {}

    def progress() -> None:
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


def _network(case: Case, model: StepModel | None, samples: Samples, index: int, ratio: Ratio | None) -> doc.Network:
    steps = np.asarray(samples[index])  # (rounds,)
    counts = case.model.cost(case.batch_size)
    parts = model.predict(samples) if model else {}
    predicted = sum(part.seconds for part in parts.values()) if model and not model.missing else None
    error = interval(predicted / steps - 1, fewest=ROUNDS) if predicted is not None else None
    with case.at_work():
        algorithms = case.model.algorithms(case.batch_size)
    step = doc.Samples.of([1e3 * seconds for seconds in steps.tolist()])
    return doc.Network(
        name=case.model.name,
        algorithm=case.algorithm,
        data=case.data,
        input_shape=list(case.model.input_shape or ()),
        threads=case.team.threads or threads.get_num_threads(),
        parameters=counts.parameters,
        forward_macs_per_image=counts.forward_macs_per_image,
        training_macs_per_image=counts.training_macs_per_image,
        unfused_least_bytes_per_step=counts.minimum_traffic,
        moved_bytes_per_step=model.moved_bytes if model else None,
        step_ms=step,
        predicted_ms=None if predicted is None else 1e3 * float(np.median(predicted)),
        prediction_error=_interval(error),
        ratio=_interval(ratio),
        epoch_s_60000=-(-EPOCH_IMAGES // case.batch_size) * step.median / 1e3,
        not_predicted=model.missing if model else [],
        convolutions=[doc.Convolution(name, *choice) for name, choice in algorithms.items()],
        structure=[_shape(layer, case.batch_size) for layer in case.model.layers],
        layers=_rows(case, counts, parts),
    )


def _interval(ratio: Ratio | None) -> doc.Interval | None:
    return None if ratio is None else doc.Interval(**asdict(ratio))


def _rows(case: Case, counts: Cost, parts: Mapping[Key, PassTime]) -> list[doc.Row]:
    """One row per measured part, with its counts and its prediction, in the network's order. Their sum is the step."""
    medians = case.profile.medians()
    order = [layer.name for layer in case.model.layers]

    def place(key: Key) -> tuple[int, int]:
        first = key[0].split("+")[0]
        return order.index(first) if first in order else len(order), scopes.PARTS.index(key[1])

    return [_row(key, 1e3 * medians[key], counts, medians, parts.get(key)) for key in sorted(medians, key=place)]


def _row(key: Key, ms: float, counts: Cost, medians: Mapping[Key, float], part: PassTime | None) -> doc.Row:
    row = doc.Row(*key, *_counted(counts, medians, key), ms=ms)
    if part is None or part.missing:
        return row
    row.predicted_ms = 1e3 * float(np.median(part.seconds))
    row.moved_bytes = part.moved_bytes
    terms = part.terms
    row.bound = max(terms, key=lambda term: terms[term])
    scale = row.predicted_ms / (sum(terms.values()) or 1)  # the median of a sum is not the sum of medians
    row.terms_ms = {name: scale * seconds for name, seconds in terms.items()}
    row.work = [
        doc.WorkItem(
            what=work.item.what,
            kind=work.item.kind,
            size=[int(size) for size in work.item.size],
            calls=work.item.calls,
            flops=work.item.flops,
            moved_bytes=work.item.moved,
            amount=float(work.item.amount),
            rate=work.rate,
            ms=1e3 * float(np.median(work.seconds)),
        )
        for work in part.work
    ]
    return row


def _counted(counts: Cost, medians: Mapping[Key, float], key: Key) -> tuple[int | None, int | None]:
    """FLOPs and minimum traffic, unfused, of a part. "+" joins the names of fused layers."""
    layer, part = key
    if part == "grad_input" and (layer, "gradients") in medians:
        return None, None  # both gradients are one pass: this is the code around it
    if part == "optimizer":
        passes = [p for p in counts.passes if p.part == "optimizer"]
    else:
        parts = ("grad_input", "grad_weight") if part == "gradients" else (part,)
        passes = [p for p in counts.passes if p.layer in layer.split("+") and p.part in parts]
    if not passes:
        return None, None
    return sum(p.flops for p in passes), sum(p.bytes for p in passes)


def _shape(layer: Layer, batch: int) -> doc.LayerShape:
    weights = [list(p.shape) for p in layer.parameters() if p.name == "weight"]
    return doc.LayerShape(
        name=layer.name or "",
        class_name=type(layer).__name__,
        input_shape=list(layer.input_shape or ()),
        output_shape=list(layer.output_shape or ()),
        parameters=layer.count_params(),
        weight_shape=weights[0] if weights else None,
        operations=[doc.Operation(**asdict(operation)) for operation in layer.operations(batch)],
    )


def _beyond_peak(networks: Sequence[doc.Network], machine: peaks.Machine | None) -> list[str]:
    """A caution if a rate exceeds the measured peak: the peak, the clock or a count of nnlite is wrong."""
    found = []
    if machine is None:
        return []
    for network in networks:
        for row in network.layers:
            executed = sum(item.amount for item in row.work if item.flops)
            share = executed / row.ms / 1e6 / machine.fma_gflops(network.threads) if row.ms else 0.0
            if share > peaks.MOST_OF_A_PEAK:
                found.append(f"{network.name}, {network.algorithm}, {row.name} {row.part}: {100 * share:.0f}%")
    return [f"Error in nnlite: rates above the measured FMA peak ({'; '.join(found)}). Ignore these."] if found else []


def _facts(command: str) -> dict[str, Any]:
    """What is needed to repeat the run."""
    return {
        "command": command,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "processor": processor_name(),
        "versions": peaks.versions(),
    }
