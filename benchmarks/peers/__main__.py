"""`python -m benchmarks.peers`: nnlite and its peers in one run, interleaved; tables, JSON and a chart."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.peers import chart, report
from benchmarks.peers.frameworks import PEERS
from benchmarks.peers.isa import AVX2, ISAS, NATIVE, environment, processor_has
from benchmarks.peers.networks import IMAGES, NETWORKS
from benchmarks.peers.session import Conditions, Session, open_session
from nnlite import conv
from nnlite.lab import shapes
from nnlite.lab.timing import COMPARED_ROUNDS
from nnlite.network import models
from nnlite.runtime import threads
from nnlite.runtime.processor import processor_name

TASKS = ("step", "inference", "memory", "shapes", "grouped")
#: the network whose training's memory is measured
MEMORY_MODEL = "cnn"
#: the layers of other benchmarks, by nnlite.lab.shapes' names
SHAPE_SETS = ("vgg", "resnet")
GROUPED_SETS = ("grouped",)
#: more images than in any published batch
NOT_CUT = 1 << 10
#: fewer steps in an epoch say little about how the loss falls
FEWEST_STEPS = 10


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if options.before:
        PEERS[report.BEFORE] = replace(PEERS[report.OURS], checkout=(str(options.before.resolve()),))
        options.peers = [*options.peers, report.BEFORE]
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    conditions = Conditions(options.threads, options.batch_size, options.isa, options.busy)
    with console.status("starting") as status, open_session(options.peers, conditions, status.update) as session:
        document = _describe(session, options)
        run = Run(session, options, console, status.update, document)
        for name, lines in session.instructions.items():
            console.print(f"{name}, asked for AVX2, says: " + "; ".join(lines))
        if options.isa == AVX2 and not processor_has("avx512f"):
            console.print(
                "this processor has no AVX-512, so this run does not test whether the peers can be held to AVX2"
            )
        for name, reason in session.skipped.items():
            console.print(f"skipped: {name} ({reason})")
        for task in (task for task in TASKS if task in options.only):
            getattr(run, task)()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "peers.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    console.print("wrote " + ", ".join(str(written) for written in [path, *chart.write(document, options.out)]))
    if options.fail_slower is None:
        return 0
    count = sum(report.slower(document.get(task), options.fail_slower) for task in TASKS)
    console.print(f"slower than {options.before} by more than {options.fail_slower:g}%: {count or 'none'}")
    return 1 if count else 0


@dataclass
class Run:
    """A run of the command, one method per task: measures, prints, and adds to the document."""

    session: Session
    options: argparse.Namespace
    console: Console
    say: Callable[[str], object]
    document: dict[str, Any]

    def step(self) -> None:
        found = self.document["step"] = {}
        peak = self.document["fma_gflops"]
        for model in self.options.models:
            outcome = self.session.step(model, self.options.rounds, self.say)
            flops = 2 * self.options.batch_size * getattr(models, model)().cost().training_macs_per_image
            found[model] = {**report.outcome_json(outcome), "flops": flops, "peak_ms": flops / peak / 1e6}
            report.print_outcome(self.console, self._title(model, "a training step"), outcome, "loss, in an epoch")
            report.print_summary(self.console, found[model], report.STEP)
            report.print_share_of_peak(self.console, found[model], peak)
        report.print_beside_mlp(self.console, found)

    def inference(self) -> None:
        found = self.document["inference"] = {}
        for model in self.options.models:
            outcome = self.session.inference(model, self.options.rounds, self.say)
            found[model] = report.outcome_json(outcome)
            report.print_outcome(self.console, self._title(model, "inference"), outcome, "distance")
            report.print_summary(self.console, found[model], report.INFERENCE)

    def memory(self) -> None:
        peaks, failed = self.session.memory(MEMORY_MODEL, self.say)
        self.document["memory"] = {MEMORY_MODEL: {"peers": peaks, "failed": failed}}
        title = self._title(MEMORY_MODEL, "peak resident memory of the process that trains")
        report.print_memory(self.console, title, peaks, failed)

    def shapes(self) -> None:
        images = self.options.shape_batch
        self._passes("shapes", SHAPE_SETS, images, f"single passes, batches cut to {images}")

    def grouped(self) -> None:
        self._passes("grouped", GROUPED_SETS, NOT_CUT, "single passes of grouped and depthwise convolutions")

    def _passes(self, task: str, sets: Sequence[str], most_images: int, title: str) -> None:
        rows = self.document[task] = []
        for shape in shapes.resolve(sets, self.options.batch_size, most_images):
            for pass_name in conv.geometry.PASSES:
                outcome = self.session.convolution(shape.geometry, pass_name, self.options.rounds, self.say)
                about = {"layer": shape.name, "geometry": _short(shape.geometry), "pass": pass_name}
                rows.append({**about, "algorithm": outcome.algorithm, **report.outcome_json(outcome)})
        report.print_shapes(self.console, f"{title}, {self.session.conditions}", rows)

    def _title(self, model: str, what: str) -> str:
        return f"{model}: {what}, batch {self.options.batch_size}, {self.session.conditions}"


def _short(geometry: conv.Geometry) -> str:
    n, h, w, c = geometry.input_shape
    kh, kw, _, k = geometry.weight_shape
    text = f"{n}x{h}x{w}x{c} -> {k}, {kh}x{kw}"
    if geometry.groups > 1:
        text += ", depthwise" if geometry.groups == c else f", {geometry.groups} groups"
    return text + (f", stride {geometry.strides[0]}" if geometry.strides[0] > 1 else "")


def _describe(session: Session, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "schema": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": processor_name(),
        "conditions": str(session.conditions),
        "fma_gflops": session.peak_gflops(),
        "threads": options.threads,
        "batch_size": options.batch_size,
        "shape_batch": options.shape_batch,
        "busy": options.busy,
        "isa": {
            "asked": options.isa,
            "processor_has_avx512": processor_has("avx512f"),
            "variables": {process.name: environment(process.name, options.isa) for process in session.processes},
            "seen": session.instructions,
        },
        "rounds": options.rounds,
        "versions": {process.name: process.versions for process in session.processes},
        "skipped": session.skipped,
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--only", type=_names_of(TASKS), default=list(TASKS), help=f"tasks: {', '.join(TASKS)} (default: all)"
    )
    parser.add_argument(
        "--models",
        type=_names_of(NETWORKS),
        default=list(NETWORKS),
        help=f"networks: {', '.join(NETWORKS)} (default: all)",
    )
    parser.add_argument(
        "--peers", type=_names_of(PEERS), default=list(PEERS), help=f"peers: {', '.join(PEERS)} (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=15, help="bursts of steps of each peer (default: 15)")
    available = threads.available_cpus()
    parser.add_argument("--threads", type=int, default=min(2, available), help="threads of each peer (default: 2)")
    parser.add_argument(
        "--batch-size", type=int, default=128, help="images of a training step and of inference (default: 128)"
    )
    parser.add_argument(
        "--shape-batch",
        type=int,
        default=shapes.LARGE_BATCH,
        help=f"images that the batches of `shapes` are cut to (default: {shapes.LARGE_BATCH})",
    )
    parser.add_argument(
        "--isa",
        type=_name_of(ISAS),
        metavar="{" + ",".join(ISAS) + "}",
        default=NATIVE,
        help="avx2: hold all peers to AVX2 where the processor has more; one that cannot be held is left out",
    )
    parser.add_argument(
        "--busy",
        type=int,
        default=0,
        help="number of programs that each keep one CPU busy during the rounds (default: 0)",
    )
    parser.add_argument(
        "--before", type=Path, metavar="FOLDER", help="another checkout of nnlite, as the peer nnlite-before"
    )
    parser.add_argument(
        "--fail-slower",
        type=float,
        metavar="PERCENT",
        help="exit status 1 if nnlite is slower than nnlite-before by more than this, with its whole interval; "
        f"at least {COMPARED_ROUNDS} rounds",
    )
    parser.add_argument("--out", type=Path, default=Path("nnlite-peers"), help="folder (default: nnlite-peers)")
    options = parser.parse_args(arguments)
    for name, least in (("rounds", 1), ("shape_batch", 1), ("busy", 0)):
        if getattr(options, name) < least:
            option = name.replace("_", "-")
            parser.error(f"--{option}: expected at least {least}. Received: {getattr(options, name)}")
    if options.before and not (options.before / "nnlite").is_dir():
        parser.error(f"--before: expected a checkout of nnlite. Received: {options.before}")
    if options.fail_slower is not None and (options.before is None or options.rounds < COMPARED_ROUNDS):
        parser.error(f"--fail-slower: expected --before FOLDER and at least {COMPARED_ROUNDS} rounds with it")
    most = IMAGES // FEWEST_STEPS
    if not 1 <= options.batch_size <= most:
        parser.error(f"--batch-size: expected 1 to {most}, of {IMAGES} images. Received: {options.batch_size}")
    if options.isa == AVX2 and not processor_has("avx2"):
        parser.error("--isa: expected native, because this processor has no AVX2. Received: avx2")
    if not 1 <= options.threads <= available:
        parser.error(f"--threads: expected 1 to {available}, the processors there are. Received: {options.threads}")
    return options


def _name_of(known: Sequence[str]) -> Callable[[str], str]:
    """A parser of one name."""

    def name(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(known)}. Received: {text!r}")
        return text

    return name


def _names_of(known: Any) -> Any:
    """A parser of comma-separated names, in the order in which they are known."""

    def names(text: str) -> list[str]:
        asked = text.split(",")
        for name in asked:
            if name not in known:
                raise argparse.ArgumentTypeError(f"expected names of {', '.join(known)}. Received: {name!r}")
        return [name for name in known if name in asked]

    return names


if __name__ == "__main__":
    sys.exit(main())
