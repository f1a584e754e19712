"""`nnlite explain [MODEL...]`: the main job."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nnlite import conv, machine, threads
from nnlite.errors import positive_int, writable_folder
from nnlite.explain import conditions, output, question, sweeps, tables
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
from nnlite.explain.verdict import Verdict
from nnlite.lab.terminal import Line
from nnlite.progress import announce_compilation

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
        if options.autotune:
            raise ValueError(f"--autotune: expected with --algorithm auto alone. Received: {options.algorithm}")
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
    verdict = conditions.verdict(measured, ceilings, sentences(by_algorithm))
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


def _print(
    console: Console,
    by_algorithm: Mapping[str, Sequence[Measurement]],
    verdict: Verdict,
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
    for topic, said in verdict.items():
        console.print(f"\n{topic}", style="bold")
        for sentence in said:
            console.print(f"- {sentence}")
