"""`nnlite bench --watch FILE.py:CLASS`: check and time an algorithm again whenever its file is saved."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnlite.conv import Algorithm, Geometry
from nnlite.lab import reference, timing, versions
from nnlite.lab.check import check, check_at, geometries
from nnlite.lab.contract import Refused, asking, why_not
from nnlite.lab.loading import load_algorithm, said
from nnlite.lab.numbers import short
from nnlite.lab.tables import ratio
from nnlite.lab.terminal import Line
from nnlite.lab.timing import Slice
from nnlite.lab.user_modules import files_of
from nnlite.performance.contention import TOLERATED, Contention
from nnlite.performance.rounds import Candidate, Samples, Team, run_rounds, timed
from nnlite.performance.statistics import Ratio, noise, paired_ratio, verdict
from nnlite.runtime.errors import existing_file, writable_folder
from nnlite.runtime.scopes import PART_NAMES

#: the layer and pass that are timed by default: few images, so that a round is quick
SHAPE, PASS = "8,32,26,26,64,3,3,1,0", "forward"
#: a check that takes longer ends early; the line says how much was checked
CHECK_SECONDS = 5.0
#: seconds between two looks at the file
POLL = 0.2

#: the timed passes
Cases = Sequence[tuple[Geometry, str]]


@dataclass
class Version:
    """A correct version: its number, its loaded algorithm, the slice of each case that it can compute quickly."""

    number: int
    algorithm: Algorithm
    slices: list[Slice]
    source: dict[str, bytes] = field(default_factory=dict)  # of its file and of those that it imports, by name
    ms: float = 0.0


class Watch:
    """Times each new version in the same rounds as the last one and the best one."""

    def __init__(self, spec: str, cases: Cases, options: dict[str, Any], *, rounds: int, seed: int):
        self._spec, self._cases, self._options = spec, cases, options
        self._rounds, self._seed = rounds, seed
        file, _, self.class_name = spec.rpartition(":")  # `run` refuses parameters, which may have colons
        self.path = Path(file)
        self.last: Version | None = None
        self.best: Version | None = None
        self.first = self._next = 1 + max((self._number(path.name) for path in versions.FOLDER.glob("*")), default=0)

    def _number(self, name: str) -> int:
        """Of a version that was saved by an earlier watch; 0 of others."""
        tail = name.removeprefix(f"{self.class_name}-")
        return int(tail) if tail.isdecimal() and tail != name else 0

    def saved_as(self, version: Version) -> str:
        return f"{self.class_name}-{version.number}"

    def look(self) -> str:
        """Load the file, check it, time it. Returns the line that says what was found."""
        try:
            with Line() as line:
                line.say("checking ...")
                try:
                    algorithm = load_algorithm(self._spec, "--watch")
                except (ValueError, OSError) as error:
                    return f"{'':7}  not loaded: {str(error).removeprefix(f'--watch {self._spec}: ')}"
                return self._judge(algorithm, line)
        except Refused as refusal:
            return f"{'':7}  wrong: {refusal}"
        except (Exception, SystemExit) as error:
            return f"{'':7}  raised {said(error, self.path)}"

    def _judge(self, algorithm: Algorithm, line: Line) -> str:
        """Raises Refused if it is wrong."""
        if self.last and self.last.source:
            now = {name: _content(self.path.parent / name) for name in self.last.source}
            if now == self.last.source:
                return f"{'':7}  as version {self.last.number}"
        report = check(algorithm, seed=self._seed, seconds=CHECK_SECONDS)
        if report.refusal:
            raise Refused(report.refusal)
        new = Version(self._next, algorithm, [], files_of(self.path))
        for geometry, pass_name in self._cases:
            if reason := why_not(algorithm, geometry, np.float32):
                return f"{'':7}  declines {geometry}: {reason}"
            with _team(algorithm, self._cases).at_work(), asking(pass_name, geometry):
                new.slices.append(timing.plan(algorithm, pass_name, geometry, self._seed))
        slices = self._common_slices(new)
        for (_, pass_name), part in zip(self._cases, slices, strict=True):
            check_at(algorithm, pass_name, reference.problem(part.geometry, self._seed))
        line.say("timing ...")
        said_of_time = self._time(new, slices)
        whole = len(geometries(algorithm, self._seed))
        tried = report.checked + len({geometry for geometry, _ in report.declined})
        of_all = "" if tried >= whole else f" of {whole}"
        checked = f"correct ({report.checked}{of_all})"
        try:
            self._save(new)
        except (OSError, ValueError) as error:
            said_of_time += f" (not saved: {error})"
        return f"{new.number:7}  {checked:18} {said_of_time}"

    def _common_slices(self, new: Version) -> list[Slice]:
        """Of each case the smallest slice: all are timed on the same problem."""
        known = [version.slices for version in (new, self.last, self.best) if version]
        return [max(parts, key=lambda part: part.scale) for parts in zip(*known, strict=True)]

    def _time(self, new: Version, slices: list[Slice]) -> str:
        """Time `new` beside the last and the best version; `new` becomes the last, and the best if it is faster."""
        roles = {"new": new}
        if self.last and self.best:
            roles |= {"last": self.last, "best": self.best, "control": self.best}
            if self.last is self.best:
                del roles["last"]
        contention = Contention()
        samples = run_rounds(
            [
                Candidate(role, self._timer(version.algorithm, slices), _team(version.algorithm, self._cases))
                for role, version in roles.items()
            ],
            rounds=self._rounds,
            seed=self._seed,
        )
        others = contention.share()
        new.ms = 1e3 * float(np.median(samples["new"]))
        tilde = "~" if any(part.scale != 1 for part in slices) else ""
        text = f"{tilde + short(new.ms):>8}  "
        is_best = True
        if self.best:
            aa = noise(self._ratio(samples, "control", "best"))
            against_best = self._ratio(samples, "new", "best")
            against_last = self._ratio(samples, "new", "last") if "last" in samples else against_best
            is_best = verdict(against_best, aa) == "faster"
            than = "from" if verdict(against_best, aa) == "no difference" else "than"
            text += f"{_said(against_last, aa):32}  {_said(against_best, aa)} {than} {self.best.number}"
        if others > TOLERATED:
            text += f" (other programs: {100 * others:.0f}% of the CPU)"
        self.last, self.best = new, new if is_best else self.best
        self._next += 1
        return text

    def _ratio(self, samples: Samples, one: str, other: str) -> Ratio:
        return paired_ratio(samples[one], samples[other], fewest=timing.COMPARED_ROUNDS)

    def _timer(self, algorithm: Algorithm, slices: list[Slice]) -> Callable[[], float]:
        """Seconds of all cases, each scaled from its slice."""
        timers = [
            (part.scale, timed(timing.call_of(algorithm, pass_name, part.geometry, self._seed)))
            for (_, pass_name), part in zip(self._cases, slices, strict=True)
        ]
        return lambda: sum(scale * time_once() for scale, time_once in timers)

    def _save(self, version: Version) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"date": now, "options": self._options, "median_ms": version.ms}
        versions.save(self.saved_as(version), {self._spec: version.algorithm}, content)

    def summary(self) -> list[str]:
        """What is said at the end."""
        if not self.best:
            return ["No version was timed."]
        name = self.saved_as(self.best)
        lines = [f"Best: version {self.best.number}, {short(self.best.ms)} ms. Its source: {versions.FOLDER / name}"]
        if self.best.number != self.first:
            best = versions.FOLDER / name / "1" / f"{self.path.name}:{self.class_name}"
            first = f"{self.class_name}-{self.first}"
            lines.append(f"Beside the first: nnlite bench --algorithm {best} --compare {first}")
        return lines


def _team(algorithm: Algorithm, cases: Cases) -> Team:
    return Team("blas" if algorithm.may_use_blas(*(pass_name for _, pass_name in cases)) else "kernels")


def _said(found: Ratio, aa: float | None) -> str:
    return f"{ratio(found.value)} ({ratio(found.low)}-{ratio(found.high)}) {verdict(found, aa)}"


def wait_for_save(path: Path) -> None:
    """Wait until the file, or one beside it that it imports, is not what was loaded, and is written completely."""
    loaded, state = files_of(path), None
    while True:
        time.sleep(POLL)
        before, state = state, {name: _content(path.parent / name) for name in (path.name, *loaded)}
        if state == before and state[path.name] is not None and state != loaded:
            return


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def run(options: argparse.Namespace, cases: Cases, wait: Callable[[Path], None] = wait_for_save) -> int:
    """Look at the file whenever it is saved, until Ctrl-C: exit status 130."""
    file, _, class_name = options.watch.rpartition(":")
    if not file.endswith(".py") or not class_name.isidentifier():
        raise ValueError(f"--watch: expected FILE.py:CLASS. Received: {options.watch!r}")
    existing_file("--watch", Path(file), "a Python file")
    writable_folder("--watch", versions.FOLDER)
    saved = {name: getattr(options, name) for name in ("shapes", "batch_size", "passes")}
    saved["algorithm"] = [options.watch]
    watch = Watch(options.watch, cases, saved, rounds=options.rounds, seed=options.seed)
    say = partial(print, flush=True)
    said_of_cases = ", ".join(f"{PART_NAMES[pass_name]} of {geometry}" for geometry, pass_name in cases)
    say(f"{options.watch}: {said_of_cases}; {options.rounds} rounds per version. Ctrl-C ends.")
    say("correct (n): on n of the check's geometries and on the timed layer.")
    say(f"{'version':7}  {'check':18} {'ms':>8}  {'x last version (95%)':32}  x best so far (95%)")
    try:
        while True:
            say(watch.look())
            wait(watch.path)
    except KeyboardInterrupt:
        say("\n" + "\n".join(watch.summary()))
    return 130
