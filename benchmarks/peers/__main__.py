"""`python -m benchmarks.peers`: nnlite and its peers in one run, interleaved; tables, JSON and a chart."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.peers import report
from benchmarks.peers.frameworks import PEERS
from benchmarks.peers.networks import BATCH_SIZE, NETWORKS
from benchmarks.peers.session import Session, open_session
from nnlite import machine, threads

TASKS = ("step", "inference")
TITLES = {"step": "one training step", "inference": "inference"}
CHECKS = {"step": "loss, in an epoch", "inference": "distance"}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    with console.status("starting") as status, open_session(options.peers, options.threads, status.update) as session:
        document = _describe(session, options)
        for name, reason in session.skipped.items():
            console.print(f"skipped: {name} ({reason})")
        for task in (task for task in TASKS if task in options.only):
            document[task] = {}
            for model in options.models:
                outcome = getattr(session, task)(model, options.rounds, status.update)
                document[task][model] = report.outcome_json(outcome)
                title = f"{model}: {TITLES[task]}, batch {BATCH_SIZE}, {options.threads} threads"
                report.print_outcome(console, title, outcome, CHECKS[task])
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "peers.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    console.print(f"wrote {path}")
    return 0


def _describe(session: Session, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "schema": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.processor_name(),
        "threads": options.threads,
        "batch_size": BATCH_SIZE,
        "rounds": options.rounds,
        "versions": {process.name: process.versions for process in session.processes},
        "skipped": session.skipped,
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--only", type=_names_of(TASKS), default=list(TASKS), help=f"of {', '.join(TASKS)}")
    parser.add_argument("--models", type=_names_of(NETWORKS), default=list(NETWORKS), help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--peers", type=_names_of(PEERS), default=list(PEERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=15, help="bursts of steps of each peer (default: 15)")
    available = threads.available_cpus()
    parser.add_argument("--threads", type=int, default=min(2, available), help="of each peer (default: 2)")
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
