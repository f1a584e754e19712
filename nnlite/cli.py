"""The `nnlite` command: options in, exit status out. What a command does is in the package it is about."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from nnlite import random, threads
from nnlite.errors import positive_int, printable, writable_file
from nnlite.version import __version__

#: command -> (module with add_arguments(parser) and run(options) -> exit status, one line for --help)
COMMANDS = {
    "explain": ("nnlite.explain.command", "where the time of a network goes, and why parameters do not predict it"),
    "train": ("nnlite.explain.train_command", "train a network, with progress, and save it"),
    "bench": ("nnlite.lab.command", "convolution algorithms, yours included, checked and timed against each other"),
    "machine": ("nnlite.lab.machine_command", "this machine's ceilings, measured"),
    "summary": ("nnlite.explain.summary_command", "exact parameters, MACs and bytes of a network; nothing is run"),
}


#: exit statuses as a shell has them of what these signals end
INTERRUPTED, CLOSED_PIPE = 128 + 2, 128 + 13


class _Parser(argparse.ArgumentParser):
    """Says what was wrong with a request in one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"nnlite: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands, without the options of each."""
    parser = _Parser(prog="nnlite", description="A small, fast, honest convolution engine in Python.")
    parser.add_argument("--version", action="version", version=f"nnlite {__version__}")
    parser.add_argument(
        "command",
        choices=COMMANDS,
        metavar="COMMAND",
        help="; ".join(f"{name}: {text}" for name, (_, text) in COMMANDS.items()),
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the command's own; see nnlite COMMAND --help")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. 0: done. 2: the request was wrong, in one line on stderr."""
    given = build_parser().parse_args(arguments)
    module_name, description = COMMANDS[given.command]
    module = import_module(module_name)
    parser = _Parser(prog=f"nnlite {given.command}", description=f"nnlite {given.command}: {description}.")
    _add_common(parser)
    module.add_arguments(parser)
    options = parser.parse_args(given.arguments)
    try:
        if options.threads is not None:
            threads.set_num_threads(options.threads, argument="--threads")
        random.seed(positive_int("--seed", options.seed, minimum=0))
        writable_file("--json", options.json)
        status = module.run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # nobody reads what is printed, as after "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere, without an error
        return CLOSED_PIPE
    except (ValueError, OSError, ImportError) as error:
        print(f"nnlite: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nnlite: interrupted", file=sys.stderr)
        return INTERRUPTED


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, metavar="N", help="threads to compute with (default: every processor)")
    parser.add_argument("--batch-size", type=int, default=128, metavar="N", help="images a step (default: 128)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="where random numbers start (default: 0)")
    parser.add_argument("--json", metavar="PATH", help="write the results there as JSON")
    parser.add_argument("--version", action="version", version=f"nnlite {__version__}")


if __name__ == "__main__":
    sys.exit(main())
