"""`nnlite bench --watch FILE.py:CLASS`: check and time an algorithm again whenever its file is saved."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path

import numpy as np

from nnlite import conv
from nnlite.conv import Algorithm
from nnlite.lab import timing, versions
from nnlite.lab.bench import bench
from nnlite.lab.check import geometries
from nnlite.lab.loading import files_of, load_algorithm, said
from nnlite.lab.numbers import short
from nnlite.lab.results import Run
from nnlite.lab.shapes import Shape
from nnlite.lab.tables import interval, ratio
from nnlite.lab.terminal import Progress
from nnlite.performance.contention import TOLERATED
from nnlite.performance.statistics import Ratio, noise, paired_ratio, verdict
from nnlite.runtime.errors import existing_file, writable_folder
from nnlite.runtime.scopes import PART_NAMES

#: the layer and pass that are timed by default: few images, so that a round is quick
SHAPE, PASS = "8,32,26,26,64,3,3,1,0", "forward"
#: a check that takes longer ends early; the line says how much was checked
CHECK_SECONDS = 5.0
#: seconds between two looks at the file
POLL = 0.2
#: options that the JSON of a version keeps: versions of other ones are not compared
_OPTIONS = ("shapes", "batch_size", "passes")


@dataclass
class Version:
    """A correct version: its number, its loaded algorithm, the source of its file and of those that it imports."""

    number: int
    algorithm: Algorithm
    source: dict[str, bytes]
    ms: float = 0.0


class Watch:
    """Times each new version in the same rounds as the last one and the best one."""

    def __init__(self, options: argparse.Namespace, shapes: Sequence[Shape], passes: Sequence[str]):
        self._spec, self._shapes, self._passes = options.watch, shapes, passes
        self._rounds, self._seed = options.rounds, options.seed
        self._options = {name: getattr(options, name) for name in _OPTIONS} | {"algorithm": [self._spec]}
        file, _, self.class_name = self._spec.rpartition(":")  # `run` refuses parameters, which may have colons
        self.path = Path(file)
        self.last: Version | None = None
        self.best: Version | None = None
        saved = [self._number(path.name) for path in versions.FOLDER.glob("*")]
        self.first = self._next = 1 + max(saved, default=0)

    def _number(self, name: str) -> int:
        """Of a version that was saved by an earlier watch; 0 of others."""
        tail = name.removeprefix(f"{self.class_name}-")
        return int(tail) if tail.isdecimal() and tail != name else 0

    def _saved_as(self, number: int) -> str:
        return f"{self.class_name}-{number}"

    def resume(self) -> str:
        """Load the last and the best version of an earlier watch with these options. Returns what was found, if any."""
        number = self._next - 1
        if number == 0:
            return ""
        try:
            self.last = self._load(number)
            best = versions.read(self._saved_as(number))["best"]
            self.best = self.last if best == number else self._load(best)
        except (ValueError, LookupError, TypeError, OSError) as error:
            self.last = self.best = None
            return f"Not compared with version {number} of an earlier watch: {error}"
        self.first = number
        return f"Continues after version {number}; the best so far is version {best}, {short(self.best.ms)} ms then."

    def _load(self, number: int) -> Version:
        """A version that was saved. Raises an error if it cannot be loaded, or was timed with other options."""
        name = self._saved_as(number)
        content = versions.read(name)
        if content["options"] != self._options:
            raise ValueError("it was timed with other --shapes, --passes or --batch-size")
        (algorithm,) = versions.load(name)
        conv.unregister(algorithm.name)
        return Version(number, algorithm, files_of(versions.folder_of(name, 1) / self.path.name), content["median_ms"])

    def look(self) -> str:
        """Load the file, check it, time it. Returns the line that says what was found."""
        try:
            algorithm = load_algorithm(self._spec, "--watch")
        except (ValueError, OSError) as error:
            return f"{'':7}  not loaded: {str(error).removeprefix(f'--watch {self._spec}: ')}"
        source = files_of(self.path)
        if self.last and self.last.source == source:
            return f"{'':7}  as version {self.last.number}"
        try:
            return self._judge(Version(self._next, algorithm, source))
        except (Exception, SystemExit) as error:
            return f"{'':7}  raised {said(error, self.path)}"

    def _judge(self, new: Version) -> str:
        """Check `new`, and time it beside the last and the best version; it becomes the last one if it is correct."""
        name = new.algorithm.name
        known = {version.number: version for version in (self.last, self.best) if version}
        for version in (new, *known.values()):
            version.algorithm.name = self._saved_as(version.number)  # of this instance alone
        run = bench(
            [new.algorithm, *(version.algorithm for version in known.values())],
            self._shapes,
            self._passes,
            baseline=self._saved_as(self.best.number) if self.best else None,
            rounds=self._rounds,
            seconds=inf,
            seed=self._seed,
            checked=[version.algorithm for version in known.values()],
            check_seconds=CHECK_SECONDS,
            one_slice=True,
            progress=Progress(stages=False),
        )
        if run.interrupted:
            raise KeyboardInterrupt
        for report in run.refused:
            whose = "" if report is run.checks[0] else f"{report.algorithm}, on another call: "
            return f"{'':7}  wrong: {whose}{report.refusal}"
        for row in run.rows:
            if row.cells[0].status != "timed":
                return f"{'':7}  declines {row.shape.geometry}: {row.cells[0].reason}"
        timed = self._timed(new, run)
        self.last, self._next = new, self._next + 1
        try:
            self._save(new, name)
        except (OSError, ValueError) as error:
            timed += f" (not saved: {error})"
        report, whole = run.checks[0], len(geometries(new.algorithm, self._seed))
        tried = report.checked + len({geometry for geometry, _ in report.declined})
        checked = f"correct ({report.checked}{'' if tried >= whole else f' of {whole}'})"
        return f"{new.number:7}  {checked:18} {timed}"

    def _timed(self, new: Version, run: Run) -> str:
        """What the times say; `new` becomes the best version if it is faster."""

        def seconds(version: Version) -> np.ndarray:
            """Of all shapes and passes, one sum per round."""
            name = self._saved_as(version.number)
            return np.sum([cell.seconds for row in run.rows for cell in row.cells if cell.algorithm == name], axis=0)

        for version in filter(None, (new, self.last, self.best)):
            version.ms = 1e3 * float(np.median(seconds(version)))  # in these rounds
        text = f"{short(new.ms):>8}"
        if any(cell.scale != 1 for row in run.rows for cell in row.cells):
            text = f"{'~' + short(new.ms):>8}"
        if not (self.last and self.best):
            self.best = new
        else:
            compare = partial(paired_ratio, fewest=timing.COMPARED_ROUNDS)
            control = np.sum([row.control_seconds for row in run.rows], axis=0)
            aa = noise(compare(control, seconds(self.best)))
            last, best = (compare(seconds(new), seconds(version)) for version in (self.last, self.best))
            than = "from" if verdict(best, aa) == "no difference" else "than"
            shown = "" if aa is None else f"{100 * aa:.1f}%"
            text += f"  {shown:>9}  {_said(last, aa):32}  {_said(best, aa)} {than} {self.best.number}"
            text += f" at {short(self.best.ms)} ms"
            if verdict(best, aa) == "faster":
                self.best = new
        if run.others_share > TOLERATED:
            text += f" (other programs: {100 * run.others_share:.0f}% of the CPU)"
        return text

    def _save(self, version: Version, name: str) -> None:
        assert self.best is not None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"date": now, "options": self._options, "median_ms": version.ms, "best": self.best.number}
        versions.save(self._saved_as(version.number), {self._spec: name}, content)

    def summary(self) -> list[str]:
        """What is said at the end."""
        if not self.best:
            return ["No version was timed."]
        name = self._saved_as(self.best.number)
        lines = [f"Best: version {self.best.number}, {short(self.best.ms)} ms. Its source: {versions.FOLDER / name}"]
        if self.best.number != self.first:
            source = versions.folder_of(name, 1) / f"{self.path.name}:{self.class_name}"
            lines.append(f"Beside the first: nnlite bench --algorithm {source} --compare {self._saved_as(self.first)}")
        return lines


def _said(found: Ratio, aa: float | None) -> str:
    return f"{ratio(found.value)} ({interval(found)}) {verdict(found, aa)}"


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


def run(
    options: argparse.Namespace,
    shapes: Sequence[Shape],
    passes: Sequence[str],
    wait: Callable[[Path], None] = wait_for_save,
) -> int:
    """Look at the file whenever it is saved, until Ctrl-C: exit status 130."""
    file, _, class_name = options.watch.rpartition(":")
    if not file.endswith(".py") or not class_name.isidentifier():
        raise ValueError(f"--watch: expected FILE.py:CLASS. Received: {options.watch!r}")
    existing_file("--watch", Path(file), "a Python file")
    writable_folder("--watch", versions.FOLDER)
    watch = Watch(options, shapes, passes)
    say = partial(print, flush=True)
    cases = ", ".join(f"{PART_NAMES[name]} of {shape.geometry}" for shape in shapes for name in passes)
    say(f"{options.watch}: {cases}; {options.rounds} rounds per version. Ctrl-C ends.")
    say("correct (n): on n of the check's geometries and on the timed layer.")
    say("x: median ratio of the times in common rounds. Compare by it: ms of other lines are of other rounds.")
    say("A/A noise: of the best version timed twice; a difference within it is not reported.")
    if resumed := watch.resume():
        say(resumed)
    say(f"{'version':7}  {'check':18} {'ms':>8}  {'A/A noise':9}  {'x last version (95%)':32}  x best so far (95%)")
    try:
        while True:
            say(watch.look())
            wait(watch.path)
    except KeyboardInterrupt:
        say("\n" + "\n".join(watch.summary()))
    return 130
