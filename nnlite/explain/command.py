"""`nnlite explain [MODEL...]`: the main job."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnlite import conv, threads
from nnlite.explain import output, sweeps, tables
from nnlite.explain.document import document
from nnlite.explain.measure import measure
from nnlite.explain.request import MODEL_HELP, add_autotune_argument, add_data_arguments, resolve_model
from nnlite.explain.verdict import sentences
from nnlite.lab.terminal import announce_compilation

QUESTION = (
    "Somebody trained Keras's MNIST examples on a CPU, batch 128: the fully connected network (mlp, 669,706 "
    "parameters) took 16 s an epoch, the convolutional one (cnn, 110,986) took 340 s, and with 4 filters a layer "
    "(small_cnn, 5,958) it still took 28 s. Why?"
)


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
    models = [resolve_model(spec) for spec in options.models or ("mlp", "cnn", "small_cnn")]
    if len({model.name for model in models}) < len(models):
        raise ValueError("MODEL: expected each network once. Received: one twice")
    if options.rounds < 1:
        raise ValueError(f"--rounds: expected at least 1. Received: {options.rounds}")
    sweeps.chosen(options.sweep)
    Path(options.out).mkdir(parents=True, exist_ok=True)
    console = tables.console()
    if not options.models:
        console.print(QUESTION + "\n")
    announce_compilation()
    conv.autotune(options.autotune)
    measurements = measure(
        models,
        algorithm=options.algorithm,
        batch_size=options.batch_size,
        data=options.data,
        data_dir=options.data_dir,
        rounds=options.rounds,
    )
    console.print(tables.overview(measurements, options.batch_size))
    for measurement in measurements:
        console.print(tables.layers(measurement))
        for line in tables.algorithms(measurement):
            console.print(line, highlight=False)
    ratios = tables.ratios(measurements)
    if ratios.row_count:
        console.print(ratios)
    verdict = sentences(measurements)
    for sentence in verdict:
        console.print(f"- {sentence}", highlight=False)

    content = document(
        measurements,
        batch_size=options.batch_size,
        threads=threads.get_num_threads(),
        algorithm=options.algorithm,
        data=options.data,
    )
    output.complete(content, models, verdict, options, console)
    output.write(content, options, console)
    return 0
