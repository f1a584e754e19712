"""The `nnlite` command: it parses the options, runs one command and returns its exit status."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

from nnlite.runtime import encoding, random, threads
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
        "why one network takes longer than another, and where the time goes",
        ("--threads", "--batch-size", "--seed", "--json"),
    ),
    "train": Command(
        "nnlite.explain.train_command",
        "train a network and save it",
        ("--threads", "--batch-size", "--seed", "--json"),
    ),
    "bench": Command(
        "nnlite.lab.command",
        "check and time convolution algorithms, yours included",
        ("--threads", "--seed", "--json"),
    ),
    "inspect": Command(
        "nnlite.lab.inspect.command", "show the machine code of kernels and what slows it down", ("--json",)
    ),
    "machine": Command("nnlite.lab.machine_command", "measure this machine's peak rates", ("--threads", "--json")),
    "summary": Command(
        "nnlite.explain.summary_command",
        "count a network's parameters and MACs without running it",
        ("--batch-size", "--json"),
    ),
}
_COMMON: dict[str, dict[str, Any]] = {
    "--threads": {"type": int, "metavar": "N", "help": "number of threads (default: every CPU this process may use)"},
    "--batch-size": {"type": int, "default": 128, "metavar": "N", "help": "images per step (default: 128)"},
    "--seed": {"type": int, "default": 0, "metavar": "N", "help": "random seed (default: 0)"},
    "--json": {"metavar": "PATH", "help": "write the results to this file, as JSON"},
}


#: the exit statuses that a shell gives to programs ended by SIGINT and SIGPIPE
INTERRUPTED, CLOSED_PIPE = 128 + 2, 128 + 13


class _Parser(argparse.ArgumentParser):
    """Reports a wrong request in one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"nnlite: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser that reads the command's name. `command_parser` reads its options."""
    parser = _Parser(prog="nnlite", description="A small, fast, honest convolution engine in Python.")
    parser.add_argument("--version", action="version", version=f"nnlite {__version__}")
    parser.add_argument(
        "command",
        choices=COMMANDS,
        metavar="COMMAND",
        help="; ".join(f"{name}: {command.description}" for name, command in COMMANDS.items()),
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="options of the command: see nnlite COMMAND --help")
    return parser


def command_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one command's options."""
    command = COMMANDS[name]
    parser = _Parser(prog=f"nnlite {name}", description=f"nnlite {name}: {command.description}.")
    for option in command.common:
        parser.add_argument(option, **_COMMON[option])
    parser.add_argument("--version", action="version", version=f"nnlite {__version__}")
    import_module(command.module).add_arguments(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0: done. 2: the request was wrong; one line on stderr says why. 130: interrupted. 141: nobody reads the output.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=encoding.IN_ASCII)
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
    except BrokenPipeError:  # nobody reads the output, as with "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest is discarded without an error
        return CLOSED_PIPE
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            error = OSError(error.errno, error.strerror, "standard output")  # files have a name
        print(f"nnlite: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nnlite: interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
