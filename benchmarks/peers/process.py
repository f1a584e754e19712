"""A peer's process, as its parent sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.peers.frameworks import PEERS

_ROOT = Path(__file__).resolve().parents[2]


class PeerFailed(Exception):
    """A peer that cannot do what it was asked to; the message says why, in one line."""


class PeerProcess:
    """Starts a worker and asks it for things, one at a time."""

    def __init__(self, name: str, threads: int, data: Path, environment: Mapping[str, str]):
        self.name = name
        entry = PEERS[name]
        variables = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)),
            "NUMBA_NUM_THREADS": str(threads),
            **entry.environment,
            **environment,
        }
        self.log = data.with_name(f"{name}.log")
        self._log = self.log.open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.worker", entry.name, str(threads), str(data), *entry.checkout],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=variables,
            cwd=_ROOT,
        )
        try:
            self._receive()
            self.versions: dict[str, str] = self.ask("versions")
        except PeerFailed:
            self.close()
            raise

    def ask(self, command: str, **arguments: Any) -> Any:
        """The answer to one command. Raises PeerFailed if the worker raised or is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(self._last_words()) from None
        return self._receive()

    def close(self) -> None:
        """End the process: its input ends, and if that is not enough it is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):  # it ended before it read all that was written
                stream.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed(self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer["result"]

    def _last_words(self) -> str:
        status = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return f"its process ended with status {status}{': ' + lines[-1] if lines else ''}"
