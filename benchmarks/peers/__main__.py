"""`python -m benchmarks.peers`: nnlite and its peers in one run, interleaved; tables, JSON and a chart."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.peers import chart, report
from benchmarks.peers.frameworks import PEERS
from benchmarks.peers.networks import BATCH_SIZE, NETWORKS
from benchmarks.peers.session import Session, open_session
from nnlite import conv
from nnlite.lab import shapes
from nnlite.network import models
from nnlite.performance import peaks
from nnlite.runtime import threads
from nnlite.runtime.processor import processor_name

TASKS = ("step", "inference", "memory", "shapes")
#: the network whose training's memory is measured
MEMORY_MODEL = "cnn"
#: the layers of other benchmarks, by nnlite.lab.shapes' names
SHAPE_SETS = ("vgg", "resnet")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    peak = peaks.peak_gflops(options.threads)
    with console.status("starting") as status, open_session(options.peers, options.threads, status.update) as session:
        document = _describe(session, options, peak)
        run = Run(session, options, console, status.update, document)
        for name, reason in session.skipped.items():
            console.print(f"skipped: {name} ({reason})")
        for task in (task for task in TASKS if task in options.only):
            getattr(run, task)()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "peers.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    console.print("wrote " + ", ".join(str(written) for written in [path, *chart.write(document, options.out)]))
    return 0


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
            flops = 2 * BATCH_SIZE * getattr(models, model)().cost().training_macs_per_image
            found[model] = {**report.outcome_json(outcome), "flops": flops, "peak_ms": flops / peak / 1e6}
            report.print_outcome(self.console, self._title(model, "a training step"), outcome, "loss, in an epoch")
            ideal = f"{flops / peak / 1e6:.3g} ms"
            self.console.print(f"  its {flops / 1e9:.3g} GFLOP at the measured FMA peak, {peak:.0f} GFLOP/s: {ideal}")

    def inference(self) -> None:
        found = self.document["inference"] = {}
        for model in self.options.models:
            outcome = self.session.inference(model, self.options.rounds, self.say)
            found[model] = report.outcome_json(outcome)
            report.print_outcome(self.console, self._title(model, "inference"), outcome, "distance")

    def memory(self) -> None:
        peaks, failed = self.session.memory(MEMORY_MODEL, self.say)
        self.document["memory"] = {MEMORY_MODEL: {"peers": peaks, "failed": failed}}
        title = self._title(MEMORY_MODEL, "peak resident memory of the process that trains")
        report.print_memory(self.console, title, peaks, failed)

    def shapes(self) -> None:
        rows = self.document["shapes"] = []
        for shape in shapes.resolve(SHAPE_SETS, BATCH_SIZE):
            for pass_name in conv.geometry.PASSES:
                outcome = self.session.convolution(shape.geometry, pass_name, self.options.rounds, self.say)
                algorithm = conv.select(shape.geometry, np.float32).name
                about = {"layer": shape.name, "geometry": _short(shape.geometry), "pass": pass_name}
                rows.append({**about, "algorithm": algorithm, **report.outcome_json(outcome)})
        title = f"single passes, {self.options.threads} threads, batches cut to {shapes.LARGE_BATCH}"
        report.print_shapes(self.console, title, rows)

    def _title(self, model: str, what: str) -> str:
        return f"{model}: {what}, batch {BATCH_SIZE}, {self.options.threads} threads"


def _short(geometry: conv.Geometry) -> str:
    n, h, w, c = geometry.input_shape
    kh, kw, _, k = geometry.weight_shape
    text = f"{n}x{h}x{w}x{c} -> {k}, {kh}x{kw}"
    return text + (f", stride {geometry.strides[0]}" if geometry.strides[0] > 1 else "")


def _describe(session: Session, options: argparse.Namespace, peak: float) -> dict[str, Any]:
    return {
        "schema": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": processor_name(),
        "fma_gflops": peak,
        "threads": options.threads,
        "batch_size": BATCH_SIZE,
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
    parser.add_argument("--out", type=Path, default=Path("nnlite-peers"), help="folder (default: nnlite-peers)")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds: expected at least 1. Received: {options.rounds}")
    if not 1 <= options.threads <= available:
        parser.error(f"--threads: expected 1 to {available}, the processors there are. Received: {options.threads}")
    return options


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
