"""`nnlite explain [MODEL...]`: the main job."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nnlite import conv, machine, threads
from nnlite.errors import positive_int, writable_folder
from nnlite.explain import output, question, roofs, sweeps, tables
from nnlite.explain.contestant import Contestant
from nnlite.explain.document import document
from nnlite.explain.measure import Measurement, measure, training_steps
from nnlite.explain.request import (
    MODEL_HELP,
    add_autotune_argument,
    add_data_arguments,
    load_images,
    resolve_model,
    resolve_networks,
)
from nnlite.explain.sentences import sentences
from nnlite.lab.tables import disturbance
from nnlite.lab.terminal import Line, announce_compilation
from nnlite.profiler import CHANGED, FEWEST

if TYPE_CHECKING:
    from rich.console import Console

#: the networks of the question, and the algorithms that they are shown under beside the one asked for
QUESTIONED = tuple(question.PARAMETERS)
COMPARED = ("theano2017", "im2col")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help=f"{MODEL_HELP} (default: the three of the question)",
    )
    parser.add_argument(
        "--algorithm", default="auto", metavar="NAME", help="how convolutions are computed (default: auto)"
    )
    parser.add_argument(
        "--rounds", type=int, default=20, metavar="N", help="measured steps of each network (default: 20)"
    )
    output.add_arguments(parser)
    add_autotune_argument(parser)
    add_data_arguments(parser)


def run(options: argparse.Namespace) -> int:
    if options.algorithm != "auto":
        conv.get(options.algorithm)
    models = resolve_networks(options.models or QUESTIONED)
    positive_int("--rounds", options.rounds)
    data = load_images(options)
    sweeps.chosen(options.sweep)
    writable_folder("--out", options.out)
    announce_compilation()
    conv.autotune(options.autotune)
    others = COMPARED if not options.models and options.algorithm == "auto" else ()
    contestants = [Contestant(model, options.algorithm) for model in models]
    contestants += [Contestant(resolve_model(spec), name) for name in others for spec in QUESTIONED]
    steps = training_steps(contestants, *data, options.batch_size)
    console = tables.console()
    if not options.models:
        console.print(question.TEXT + "\n")
    for contestant, step in zip(contestants, steps, strict=True) if options.models else ():
        with contestant.surroundings():
            step()  # a network of the user's own may raise here, before the machine is measured
    with Line() as line:
        line.say("showing that this machine's ceilings still hold ...")
        ceilings = _ceilings()
        line.say("measuring the rates that the predictions need, then the steps in turn: up to a minute ...")
        measured = measure(contestants, steps, ceilings, batch_size=options.batch_size, rounds=options.rounds)
    measurements = [m for m in measured if m.algorithm == options.algorithm]
    comparisons = {name: [m for m in measured if m.algorithm == name] for name in others}
    by_algorithm = {**comparisons, options.algorithm: measurements}
    verdict = sentences(by_algorithm) + roofs.sentences(measured, ceilings)
    verdict = cautions(measured) + verdict + _left_out(measured)
    _print(console, by_algorithm, verdict, options.batch_size)

    content = document(
        measurements,
        comparisons,
        ceilings,
        batch_size=options.batch_size,
        threads=threads.get_num_threads(),
        algorithm=options.algorithm,
        data=options.data,
    )
    output.describe(content, models, verdict, options)
    output.write(content, data, options, console)
    return 0


def _ceilings() -> machine.Machine | None:
    """This machine's ceilings; None where nothing is compiled, so that nothing can be predicted."""
    from nnlite import jit

    return machine.load_and_check() if jit.ENABLED else None


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
    return ", ".join(f"the {m.name} under {m.algorithm}" for m in measured)


def _print(
    console: Console,
    by_algorithm: Mapping[str, Sequence[Measurement]],
    verdict: Sequence[str],
    batch_size: int,
) -> None:
    """Everything, as somebody reads it over ssh; `by_algorithm` ends with the algorithm that was asked for."""
    *comparisons, measurements = by_algorithm.values()
    console.print(tables.overview(measurements, batch_size))
    everything = [m for group in by_algorithm.values() for m in group]
    if comparisons:
        console.print(tables.side_by_side(everything))
    for measurement in measurements:
        console.print(tables.layers(measurement))
        for line in tables.algorithms(measurement):
            console.print(line)
    if any(m.predicted_ms is not None for m in everything):
        console.print(tables.terms(everything))
    for table in tables.ratios(by_algorithm):
        console.print(table)
    for sentence in verdict:
        console.print(f"- {sentence}")
