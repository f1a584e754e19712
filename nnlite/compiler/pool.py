"""The threads that run a kernel: each takes parts of a launch until none is left.

A launch has as many parts as it asks for threads. Thread i begins with part i, whose data its caches may hold, and goes
on with parts that nobody has begun. So a thread that the operating system has preempted, because another program needs
the processor, delays the part that it has begun and no other; and the caller never waits for a thread to wake. Results
depend on the parts, not on who did them.

Where other programs need the processors, threads may cost more time than they save: a part that one has begun waits for
a time slice of the system, or the caller itself is put aside. So a balance is kept of the time that launches took and
the time that the caller would have worked alone. Where it becomes negative, the next launches are done alone, and more
of them each time.

Between launches a thread looks for the next one for about a millisecond, as the next kernel of a training step comes
soon, and then sleeps: it reads from a pipe, into which the next launch writes. No thread needs Python's lock.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nnlite.compiler import numba_private
from nnlite.compiler.compilation import jit
from nnlite.runtime import threads

#: turns of a waiting loop before a thread sleeps, about 1 ms, and before it offers its processor to others in each turn
PATIENCE, SHORT_PATIENCE = 2_000, 200
#: the most parts that a pool can share out
MOST_PARTS = 1024
#: nanoseconds saved that are kept in the balance, a time slice of the system: to wait once is no reason to go alone
MOST_SAVED = 4_000_000
#: nanoseconds that one launch can lose at the most: a program that was stopped for an hour need not go alone for one
MOST_LOST = 10 * MOST_SAVED
#: the launches done alone take this number of times as long as what was lost, at the most
MOST_CAUTION = 64

# Where things lie in the memory that the threads share, in bytes
#: the number of the launch; odd while it is being described
_LAUNCH = 0
_CODE, _PARTS, _BLOCK = 8, 16, 24
#: not 0: the threads are to end
_END = 64
#: how many parts are done
_DONE = 128
#: of who launches: nanoseconds saved, launches to do alone, caution, and what the clock says
_SAVED, _ALONE, _CAUTION, _CLOCK = 192, 200, 208, 216
#: for each part, the last launch in which somebody took it
_TAKEN = 256
#: for each thread, a line: whether it sleeps, the two ends of its pipe, and a byte to read and write
_THREADS, _LINE = _TAKEN + 8 * MOST_PARTS, 64
_ASLEEP, _READ, _WRITE, _BYTE = 0, 8, 16, 24

_INT = ir.IntType(64)
#: of machine code that runs the parts of a launch: what the threads share, code of a part, parts, its arguments
RUN = (types.int64, types.int64, types.int64, types.int64)


@intrinsic
def jump(typing, code, part, parts, block):
    """Run the machine code at an address: code(part, parts, block)."""

    def emit(context, builder, sig, args):
        function = ir.FunctionType(ir.VoidType(), [_INT] * 3)
        builder.call(builder.inttoptr(args[0], function.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*RUN), emit


def _at(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _INT.as_pointer())


@intrinsic
def _load(typing, address):
    """The number at an address, as other threads wrote it last."""

    def emit(context, builder, sig, args):
        return builder.load_atomic(_at(builder, args[0]), "seq_cst", 8)

    return types.int64(types.int64), emit


@intrinsic
def _store(typing, address, value):
    """Store a number for other threads to see, after all that was stored before."""

    def emit(context, builder, sig, args):
        builder.store_atomic(args[1], _at(builder, args[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def _add(typing, address, value):
    """Add to a number that other threads add to as well."""

    def emit(context, builder, sig, args):
        builder.atomic_rmw("add", _at(builder, args[0]), args[1], "seq_cst")
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def _swap(typing, address, old, new):
    """Replace a number if it is still the old one, and say whether it was."""

    def emit(context, builder, sig, args):
        result = builder.cmpxchg(_at(builder, args[0]), args[1], args[2], "seq_cst", "seq_cst")
        return builder.extract_value(result, 1)

    return types.boolean(types.int64, types.int64, types.int64), emit


@intrinsic
def _pause(typing):
    """Tell the processor that this is a waiting loop."""
    on_x86 = numba_private.target()[0].startswith(("x86", "i686"))

    def emit(context, builder, sig, args):
        if on_x86:
            nothing = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, nothing, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), emit


# What the system does ------------------------------------------------------------------------------------------------

_ON_WINDOWS = sys.platform == "win32"
_TRANSFER = types.int64(types.int64, types.int64, types.int64)  # file, address, bytes
_give_up_processor = types.ExternalFunction("SwitchToThread" if _ON_WINDOWS else "sched_yield", types.int32())
_read = types.ExternalFunction("_read" if _ON_WINDOWS else "read", _TRANSFER)
_write = types.ExternalFunction("_write" if _ON_WINDOWS else "write", _TRANSFER)
_clock = types.ExternalFunction(
    "QueryPerformanceCounter" if _ON_WINDOWS else "clock_gettime",
    types.int32(types.int64) if _ON_WINDOWS else types.int32(types.int32, types.int64),
)


@jit
def _count_of_windows(which, shared):
    _clock(shared + _CLOCK)
    return 100 * _load(shared + _CLOCK)  # it counts ten million times a second


@jit
def _time_of_posix(which, shared):
    _clock(which, shared + _CLOCK)
    return 1_000_000_000 * _load(shared + _CLOCK) + _load(shared + _CLOCK + 8)


#: nanoseconds, by one of the clocks below
_now = _count_of_windows if _ON_WINDOWS else _time_of_posix
#: that never goes back, and that only goes on while the calling thread has a processor (Windows' does always)
_WALL, _OWN = getattr(time, "CLOCK_MONOTONIC", 0), getattr(time, "CLOCK_THREAD_CPUTIME_ID", 0)


@jit
def _wait(turns):
    """One turn of a waiting loop."""
    if turns < SHORT_PATIENCE:
        _pause()
    else:
        _give_up_processor()


# A launch ------------------------------------------------------------------------------------------------------------


@jit
def _take_parts(shared, own):
    """Do parts of the present launch, first that of number `own`, until all are taken. Returns how many."""
    launch = _load(shared + _LAUNCH)
    code, parts, block = _load(shared + _CODE), _load(shared + _PARTS), _load(shared + _BLOCK)
    if launch % 2 or _load(shared + _LAUNCH) != launch or own >= parts:
        return 0
    done = 0
    for i in range(parts):
        part = (own + i) % parts
        taken = shared + _TAKEN + 8 * part
        last = _load(taken)
        # A launch ends when all its parts are taken and done: of one that has ended, none has an older number here.
        if last < launch and _swap(taken, last, launch):
            jump(code, part, parts, block)
            _add(shared + _DONE, 1)
            done += 1
    return done


@jit
def _in_turn(shared, code, parts, block):
    """Do the parts of a launch in turn, alone."""
    for part in range(parts):
        jump(code, part, parts, block)


@jit
def _settle(shared, parts, done, worked, took):
    """Add to the balance what the threads saved in a launch that `took` nanoseconds.

    In it the caller `worked` nanoseconds, on `done` of the parts.
    """
    alone = worked * parts // done
    saved = min(_load(shared + _SAVED) + max(alone - took, -MOST_LOST), MOST_SAVED)
    caution = _load(shared + _CAUTION)
    launches = max(0, -saved) * caution // max(1, alone)
    if saved == MOST_SAVED:
        _store(shared + _CAUTION, 1)
    if launches > 0:
        _store(shared + _CAUTION, min(2 * caution, MOST_CAUTION))
        _store(shared + _ALONE, launches)
        saved = 0
    _store(shared + _SAVED, saved)


@jit(no_cpython_wrapper=True)
def _share_out(shared, code, parts, block):
    """Have all threads do the parts of a launch, and do what they do not; returns when all are done."""
    alone = _load(shared + _ALONE)
    if alone > 0:
        _store(shared + _ALONE, alone - 1)
        _in_turn(shared, code, parts, block)
        return
    launch = _load(shared + _LAUNCH)
    _store(shared + _LAUNCH, launch + 1)
    _store(shared + _CODE, code)
    _store(shared + _PARTS, parts)
    _store(shared + _BLOCK, block)
    _store(shared + _DONE, 0)
    _store(shared + _LAUNCH, launch + 2)
    for own in range(1, parts):
        thread = shared + _THREADS + own * _LINE
        if _load(thread + _ASLEEP) and _swap(thread + _ASLEEP, 1, 0):
            _write(_load(thread + _WRITE), thread + _BYTE, 1)
    begin, worked = _now(_WALL, shared), _now(_OWN, shared)
    done = _take_parts(shared, 0)
    worked = _now(_OWN, shared) - worked
    turns = 0
    while _load(shared + _DONE) < parts:
        turns += 1
        _wait(turns)
    if done > 0:
        _settle(shared, parts, done, worked, _now(_WALL, shared) - begin)


@jit
def _serve(shared, own, patience):
    """Do parts of launches as they come, until the pool ends; sleep when none has come for `patience` turns."""
    thread, turns = shared + _THREADS + own * _LINE, 0
    while not _load(shared + _END):
        turns = 0 if _take_parts(shared, own) else turns + 1
        if turns < patience:
            _wait(turns)
            continue
        _store(thread + _ASLEEP, 1)
        came = _take_parts(shared, own) > 0 or _load(shared + _END) != 0
        if not (came and _swap(thread + _ASLEEP, 1, 0)):  # nothing came, or who launched writes to the pipe
            _read(_load(thread + _READ), thread + _BYTE, 1)
        turns = 0


@cache
def in_turn_address() -> int:
    """Of machine code that runs the parts of a launch on the calling thread: code(shared, code, parts, block)."""
    return numba_private.machine_code(_in_turn, RUN).address


@cache
def share_out_address() -> int:
    """Of machine code that runs the parts of a launch on the threads of a pool: code(shared, code, parts, block)."""
    return numba_private.machine_code(_share_out, RUN).address


class Pool:
    """Threads that do parts of launches, beside the thread that launches. One launch at a time (`lock`)."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._memory = np.zeros((_THREADS + MOST_PARTS * _LINE) // 8 + 8, np.int64)
        #: the address of the memory that the threads share, at the beginning of a line of the caches
        self.shared = -(-self._memory.ctypes.data // 64) * 64
        self._end, self._alone, caution = (self._at(place) for place in (_END, _ALONE, _CAUTION))
        caution[0] = 1
        self._threads: list[threading.Thread] = []
        #: the number of its threads, with the one that launches
        self.size = 1

    def _at(self, place: int) -> np.ndarray:
        """The shared memory from a place on, as numbers."""
        return self._memory[(self.shared - self._memory.ctypes.data + place) // 8 :]

    def start(self, num_threads: int) -> None:
        """Have at least `num_threads` threads, the caller's included. Only for who holds the lock."""
        while (own := self.size) < num_threads and not self._end[0]:
            try:
                self._at(_THREADS + own * _LINE)[_READ // 8 : _BYTE // 8] = os.pipe()
            except OSError:  # this process has no more files: the caller does the parts
                return
            patience = PATIENCE if threads.available_cpus() > own else SHORT_PATIENCE
            thread = threading.Thread(target=self._run, args=(own, patience), name=f"nnlite-{own}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads, or Python is ending: the caller does their parts
                self._close(own)
                return
            self._threads.append(thread)
            self.size = own + 1

    def _run(self, own: int, patience: int) -> None:
        _serve(self.shared, own, patience)

    def end(self) -> None:
        """End the threads: at the end of Python none may be left in compiled code."""
        with self.lock:
            self._end[0] = 1
            for own, thread in enumerate(self._threads, 1):
                os.write(self._at(_THREADS + own * _LINE)[_WRITE // 8], b"0")
                thread.join()
            self.forget()

    def forget(self) -> None:
        """Close the pipes of threads that have ended, or that a forked child does not have."""
        for own in range(1, len(self._threads) + 1):
            self._close(own)
        self._threads, self.size = [], 1

    def _close(self, own: int) -> None:
        line = self._at(_THREADS + own * _LINE)
        line[_ASLEEP // 8] = 0  # nobody writes to the number of a file that may be another one then
        for file in line[_READ // 8 : _BYTE // 8]:
            os.close(file)


workers = Pool()


def _in_forked_child() -> None:
    """The parent's threads do not exist in the child, which starts its own."""
    global workers
    workers.forget()
    workers = Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)
atexit.register(lambda: workers.end())
