"""The `nnlite` command: options in, exit status out. What a command does is in the package it is about."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

from nnlite.runtime import random, threads
from nnlite.runtime.errors import positive_int, printable, writable_file
from nnlite.runtime.version import __version__


class Command(NamedTuple):
    """A command of the command line."""

    module: str  # with add_arguments(parser) and run(options) -> exit status
    description: str  # one line for --help
    common: tuple[str, ...]  # the options that it shares with others


COMMANDS = {
    "explain": Command(
        "nnlite.explain.command",
        "where the time of a network goes, and why parameters do not predict it",
        ("--threads", "--batch-size", "--seed", "--json"),
    ),
    "train": Command(
        "nnlite.explain.train_command",
        "train a network, with progress, and save it",
        ("--threads", "--batch-size", "--seed", "--json"),
    ),
    "bench": Command(
        "nnlite.lab.command",
        "convolution algorithms, yours included, checked and timed against each other",
        ("--threads", "--seed", "--json"),
    ),
    "machine": Command("nnlite.lab.machine_command", "this machine's ceilings, measured", ("--threads", "--json")),
    "summary": Command(
        "nnlite.explain.summary_command",
        "exact parameters, MACs and bytes of a network; nothing is run",
        ("--batch-size", "--json"),
    ),
}
_COMMON: dict[str, dict[str, Any]] = {
    "--threads": {"type": int, "metavar": "N", "help": "threads to compute with (default: every processor)"},
    "--batch-size": {"type": int, "default": 128, "metavar": "N", "help": "images a step (default: 128)"},
    "--seed": {"type": int, "default": 0, "metavar": "N", "help": "where random numbers start (default: 0)"},
    "--json": {"metavar": "PATH", "help": "write the results there as JSON"},
}


#: exit statuses as a shell has them of what these signals end
INTERRUPTED, CLOSED_PIPE = 128 + 2, 128 + 13


class _Parser(argparse.ArgumentParser):
    """Says what was wrong with a request in one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"nnlite: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands, without the options of each: those are in `command_parser`."""
    parser = _Parser(prog="nnlite", description="A small, fast, honest convolution engine in Python.")
    parser.add_argument("--version", action="version", version=f"nnlite {__version__}")
    parser.add_argument(
        "command",
        choices=COMMANDS,
        metavar="COMMAND",
        help="; ".join(f"{name}: {command.description}" for name, command in COMMANDS.items()),
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the command's own; see nnlite COMMAND --help")
    return parser


def command_parser(name: str) -> argparse.ArgumentParser:
    """The parser of the options of one command, and of no other."""
    command = COMMANDS[name]
    parser = _Parser(prog=f"nnlite {name}", description=f"nnlite {name}: {command.description}.")
    for option in command.common:
        parser.add_argument(option, **_COMMON[option])
    parser.add_argument("--version", action="version", version=f"nnlite {__version__}")
    import_module(command.module).add_arguments(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. 0: done. 2: the request was wrong, in one line on stderr."""
    given = build_parser().parse_args(arguments)
    options = command_parser(given.command).parse_args(given.arguments)
    try:
        if getattr(options, "threads", None) is not None:
            threads.set_num_threads(options.threads, argument="--threads")
        random.seed(positive_int("--seed", getattr(options, "seed", 0), minimum=0))
        writable_file("--json", options.json)
        status = import_module(COMMANDS[given.command].module).run(options)
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


if __name__ == "__main__":
    sys.exit(main())
