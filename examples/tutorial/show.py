"""What each script of the tutorial prints: idea, time beside the steps before, hottest loop, exercise."""

import argparse
import sys
from pathlib import Path

import nnlite as nn
from nnlite.lab import tables
from nnlite.lab.bench import bench
from nnlite.lab.inspect import bounds
from nnlite.lab.inspect.compiling import Request, compile_for, is_readable_here
from nnlite.lab.inspect.report import MODEL, heat, report, summary
from nnlite.lab.loading import load_object
from nnlite.lab.shapes import resolve
from nnlite.lab.table import Cell, Table, to_rich
from nnlite.lab.terminal import console
from nnlite.network.progress import announce_compilation

FOLDER = Path(__file__).parent
LAYER, SMALL_LAYER = "16,32,26,26,64,3,3,1,0", "2,8,10,10,16,3,3,1,0"
ROUNDS = 15


def show(step, *before, threads=1, loops=1):
    """Print all of it for an algorithm's class; `before` are others as FILE.py:CLASS, the last of them the baseline.

    `threads` is how many compute (None: all), `loops` how many of the hottest loops are shown.
    """
    script = sys.modules[step.__module__]
    idea, _, exercise = script.__doc__.partition("\n\nExercise: ")
    parser = argparse.ArgumentParser(description=idea.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help=f"a small layer, {SMALL_LAYER}, instead of {LAYER}")
    small = parser.parse_args().small
    (shape,) = resolve([SMALL_LAYER if small else LAYER], 1)
    out = console()
    if small:
        print("A small layer: this shows that it works, not how fast it is.\n")
    print(idea + "\n")

    nn.set_num_threads(threads or nn.get_num_threads())
    announce_compilation()
    algorithms = [*(load_object(str(FOLDER / other), "tutorial")() for other in before), step()]
    baseline = algorithms[-2].name if before else None
    run = bench(algorithms, [shape], ["forward"], baseline=baseline, rounds=ROUNDS, seconds=30)
    for sentence in (*tables.checks(run), *tables.remarks(run)):
        out.print(f"- {sentence}")
    out.print()
    out.print(to_rich(tables.row_table(run.rows[0])))
    for sentence in compared(run.rows[0]) if before else ():
        out.print(sentence)
    if loops:
        out.print()
        for line in hottest(loops, f"{script.__file__}:{step.__name__}", shape.geometry):
            out.print(line)
    print(f"\nExercise: {exercise.strip()}")
    return 1 if run.refused else 0


def compared(row):
    """The time of the last algorithm relative to the baseline's, with the interval of the paired rounds."""
    cell = row.cells[-1]
    if cell.status != "timed" or row.rounds < ROUNDS:
        yield f"{cell.algorithm}: no comparison ({cell.status}, {row.rounds} of {ROUNDS} rounds)."
        return
    ratio = cell.ratio
    yield (
        f"{cell.algorithm} takes {ratio.value:.3g} times as long as {row.baseline} (95% interval {ratio.low:.3g} to "
        f"{ratio.high:.3g}, {row.rounds} paired rounds): {cell.verdict}."
    )


def hottest(count, target, geometry):
    """What an iteration of the loops with the most FLOPs does, and how fast it can be at most."""
    try:
        bounds.require()
    except ImportError as error:
        yield f"The hottest loop is not shown. {error}"
        return
    if not is_readable_here():
        yield "The hottest loop is not shown: it is read on x86-64 processors only."
        return
    (compiled,) = compile_for(Request(target, geometry, "forward"))
    found = [loop for function in compiled.functions for loop in report(function, compiled, count).loops]
    for loop in sorted(found, key=lambda loop: heat(loop.loop, loop.counts), reverse=True)[:count]:
        rows = [[Cell(name), Cell(text)] for name, text in summary(loop, compiled.lanes)]
        yield to_rich(Table(f"Hot loop at {loop.loop.place}, on {compiled.processor}", ["per iteration", ""], rows))
        yield from (f"- {fault.sentence}" for fault in loop.faults)
    yield f"- {MODEL}"
