"""`nnlite inspect`: the machine code that runs for an algorithm, a shape and a pass, and what slows it down."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator, Sequence
from typing import Any

from nnlite import conv
from nnlite.conv.parameters import split_call
from nnlite.lab import reference, shapes, timing
from nnlite.lab.inspect import bounds
from nnlite.lab.inspect.compiling import PROCESSORS, SHARED, Compiled, Request, compile_for, is_readable_here
from nnlite.lab.inspect.report import MODEL, ORDER, FunctionReport, LoopReport, annotated, lead, report, summary
from nnlite.lab.loading import load_algorithms, load_object, named
from nnlite.lab.numbers import milliseconds
from nnlite.lab.table import Cell, Table, to_rich
from nnlite.lab.terminal import Line, console
from nnlite.performance import peaks
from nnlite.performance.contention import Contention, caution
from nnlite.performance.rounds import timed
from nnlite.runtime import threads
from nnlite.runtime.errors import positive_int, unknown
from nnlite.runtime.files import write_json

#: what --pass takes, besides the names of nn.conv
_PASSES = {"dx": "grad_input", "dw": "grad_weight", **{name: name for name in reference.PASSES}}
#: the CNN's second convolution
_SHAPE = "128,32,26,26,64,3,3,1,0"
#: timed calls of the pass, and how many loops of a function are shown
_CALLS, _LOOPS = 7, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "algorithm",
        metavar="ALGORITHM",
        help="a built-in algorithm, your own as FILE.py:CLASS, both also with parameters, as "
        "'winograd(least_tiles=24)', or FILE.py:FUNCTION that is compiled with @njit, or calls such functions",
    )
    parser.add_argument(
        "--shape",
        default=_SHAPE,
        metavar="N,C,H,W,K,R,S,stride,pad",
        help="shape of the convolution (default: %(default)s)",
    )
    parser.add_argument(
        "--pass", dest="pass_name", default="forward", metavar="PASS", help=f"{', '.join(_PASSES)} (default: forward)"
    )
    parser.add_argument(
        "--cpu",
        metavar="NAME,...",
        help="compile for these processors instead of this one, without running; x86-64 only, because no other machine "
        f"code is read: {', '.join(PROCESSORS)}",
    )
    parser.add_argument(
        "--signature",
        metavar="TYPES",
        help="argument types of FUNCTION, as Numba writes them: 'float32[:, ::1], int64'",
    )
    parser.add_argument("--loops", type=int, default=_LOOPS, metavar="N", help="loops per function (default: 3)")
    parser.add_argument("--asm", action="store_true", help="also print the loops' instructions")


def run(options: argparse.Namespace) -> int:
    if not is_readable_here():
        raise ValueError(f"inspect: expected an x86-64 processor, whose code it reads. Received: {platform.machine()}")
    bounds.require()
    positive_int("--loops", options.loops)
    processors = list(dict.fromkeys(name.strip() for name in (options.cpu or "").split(",") if options.cpu is not None))
    request, algorithm, shape = _request(options)
    with Line() as line:
        line.say(f"compiling for {', '.join(processors) or 'this processor'} into an empty cache ...")
        inspected = [
            (compiled, [report(function, compiled, options.loops) for function in compiled.functions])
            for compiled in compile_for(request, processors)
        ]
    for compiled, found in inspected:
        _print(compiled, found, options.asm)
    if len(processors) > 1:
        console().print(f"- {SHARED}", soft_wrap=True)
    measured = None
    if algorithm is not None and not processors and inspected[0][1]:
        measured = _measure(algorithm, request.pass_name, shape)
        for sentence in _measured_said(measured):
            console().print(f"- {sentence}", soft_wrap=True)
    if options.json:
        content = {"schema": 1, "target": options.algorithm, "shape": options.shape, "pass": request.pass_name}
        content |= {"order": ORDER, "measured": measured, "processors": [_to_dict(*pair) for pair in inspected]}
        write_json(options.json, content)
        print(f"wrote {options.json}")
    return 0


def _request(options: argparse.Namespace) -> tuple[Request, conv.Algorithm | None, shapes.Shape]:
    """What is asked for, checked; the algorithm is None for a function."""
    if options.pass_name not in _PASSES:
        raise unknown("--pass", options.pass_name, _PASSES)
    pass_name, target = _PASSES[options.pass_name], options.algorithm
    shape = _shape(options.shape)
    if ".py:" not in target:
        algorithm = named("ALGORITHM", target)
    elif isinstance(load_object(split_call(target)[0], "ALGORITHM"), type):
        algorithm = load_algorithms([target])[0]
    else:
        return Request(target, shape.geometry, pass_name, options.signature), None, shape
    if options.signature is not None:
        raise ValueError("--signature: expected only with FILE.py:FUNCTION. Received: --signature with an algorithm")
    if reason := algorithm.supports(shape.geometry):
        raise ValueError(f"--shape {options.shape}: {algorithm.name} declines it: {reason}")
    return Request(target, shape.geometry, pass_name), algorithm, shape


def _shape(text: str) -> shapes.Shape:
    """Raises ValueError, which names --shape, for anything but nine integers."""
    try:
        return shapes.resolve([text if "," in text else f"{text},"], 1)[0]
    except ValueError as error:
        raise ValueError(str(error).replace("--shapes", "--shape")) from error


# On the screen -------------------------------------------------------------------------------------------------


def _print(compiled: Compiled, found: Sequence[FunctionReport], with_code: bool) -> None:
    out = console()
    if not found:
        out.print("No compiled function is reached: this pass runs in Python, NumPy and its BLAS.")
    for function in found:
        out.print(f"{function.function.name}, compiled for {compiled.processor}", style="bold")
        if not function.loops:
            out.print("It has no loop.")
        for number, loop in enumerate(function.loops, 1):
            out.print(to_rich(_table(number, loop, function.function.name, compiled.lanes)))
            for fault in loop.faults:
                out.print(f"- {fault.sentence}", soft_wrap=True)
            if with_code:
                out.print("\n".join(annotated(loop.loop)), soft_wrap=True)
            out.print()
        for sentence in _remarks(function):
            out.print(f"- {sentence}", soft_wrap=True)
    if found:
        out.print(f"- {ORDER} {MODEL}", soft_wrap=True)
    if compiled.stopped:
        out.print(f"- Some functions were not reached: {compiled.stopped}.", soft_wrap=True)


def _table(number: int, loop: LoopReport, function: str, lanes: int) -> Table:
    inside = f", of {loop.loop.function}" if loop.loop.function != function else ""
    where = f" at {loop.loop.place}" if loop.loop.place else ""
    around = loop.loop.depth - 1
    title = f"Loop {number}{where}{inside}, inside {around} other{'s' if around != 1 else ''}"
    return Table(title, ["per iteration", ""], [[Cell(name), Cell(text)] for name, text in summary(loop, lanes)])


def _remarks(function: FunctionReport) -> Iterator[str]:
    if function.colder or function.versions:
        counts = {
            "less hot loops (see --loops)": function.colder,
            "remainder loops and other versions of the same loops": function.versions,
        }
        yield f"Not shown: {', '.join(f'{number} {what}' for what, number in counts.items() if number)}."
    if said := lead(function.loops):
        yield said


def _to_dict(compiled: Compiled, found: Sequence[FunctionReport]) -> dict[str, Any]:
    functions = [function.to_dict() for function in found]
    return {
        "processor": compiled.processor, "lanes": compiled.lanes, "stopped": compiled.stopped, "functions": functions
    }  # fmt: skip


# Measured ------------------------------------------------------------------------------------------------------


def _measure(algorithm: conv.Algorithm, pass_name: str, shape: shapes.Shape) -> dict[str, float]:
    """The time of the pass on one thread, and its share of this processor's measured peak."""
    with threads.using(1), timing.team(algorithm, pass_name).at_work():
        part = timing.plan(algorithm, pass_name, shape.geometry, 0)
        time_once = timed(timing.call_of(algorithm, pass_name, part.geometry, 0))
        contention = Contention()
        seconds = min(time_once() for _ in range(_CALLS)) * part.scale
        others = contention.share()
    flops = 2 * shape.geometry.macs * len(reference.result_passes(pass_name))
    peak = peaks.peak_gflops(1)
    gflops = flops / seconds / 1e9
    share = {"percent_of_peak": 100 * gflops / peak, "others_share": others}
    return {"ms": 1e3 * seconds, "gflops": gflops, "peak_gflops": peak, **share}


def _measured_said(measured: dict[str, float]) -> Iterator[str]:
    yield (
        f"Measured here on one thread: the whole pass takes {milliseconds(measured['ms'])} (the best of {_CALLS}), "
        f"{measured['percent_of_peak']:.0f}% of the FMA peak of {measured['peak_gflops']:.0f} GFLOP/s, counting the "
        "FLOPs of direct convolution."
    )
    yield from (f"CAUTION: {said}" for said in caution(measured["others_share"]))
