"""The threads that run a kernel: each takes parts of a launch until none is left.

A launch has as many parts as it asks for threads. Thread i begins with part i, whose data its caches may hold, and goes
on with parts that nobody has begun. So a thread that the operating system has preempted, because another program needs
the processor, delays the part that it has begun and no other; and the caller never waits for a thread to wake. Results
depend on the parts, not on who did them.

Between launches a thread looks for the next one for a fraction of a millisecond, as the next kernel of a training step
comes soon, and then sleeps.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
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

#: turns of a waiting loop before a thread sleeps, 0.2 to 1 ms, and before it gives up its processor to who has a part
PATIENCE, SHORT_PATIENCE = 20_000, 200
#: the most parts that a pool can share out
MOST_PARTS = 1024

# Where things lie in the memory that the threads share, in bytes; what different threads write lies on different lines
#: the number of the launch; odd while it is being described
_LAUNCH = 0
_CODE, _PARTS, _BLOCK = 8, 16, 24
#: not 0: the threads are to end
_END = 64
#: how many parts are done
_DONE = 128
#: for each part, the last launch in which somebody took it
_TAKEN = 192

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


_give_up_processor = types.ExternalFunction(
    "SwitchToThread" if sys.platform == "win32" else "sched_yield", types.int32()
)


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


@jit(no_cpython_wrapper=True)
def _share_out(shared, code, parts, block):
    """Have all threads do the parts of a launch, and do what they do not; returns when all are done."""
    launch = _load(shared + _LAUNCH)
    _store(shared + _LAUNCH, launch + 1)
    _store(shared + _CODE, code)
    _store(shared + _PARTS, parts)
    _store(shared + _BLOCK, block)
    _store(shared + _DONE, 0)
    _store(shared + _LAUNCH, launch + 2)
    _take_parts(shared, 0)
    turns = 0
    while _load(shared + _DONE) < parts:
        turns += 1
        if turns < SHORT_PATIENCE:
            _pause()
        else:
            _give_up_processor()


@jit
def _serve(shared, own, patience):
    """Do parts of launches as they come, until none has come for `patience` turns."""
    turns = 0
    while turns < patience and not _load(shared + _END):
        turns += 1
        if _take_parts(shared, own):
            turns = 0
        _pause()


@cache
def share_out_address() -> int:
    """Of machine code that runs the parts of a launch on the threads of a pool: code(shared, code, parts, block)."""
    return numba_private.machine_code(_share_out, RUN).address


class Pool:
    """Threads that do parts of launches, beside the thread that launches. One launch at a time (`lock`)."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._memory = np.zeros(_TAKEN // 8 + MOST_PARTS + 8, np.int64)
        #: the address of the memory that the threads share, at the beginning of a line of the caches
        self.shared = -(-self._memory.ctypes.data // 64) * 64
        self._end = self._memory[(self.shared - self._memory.ctypes.data + _END) // 8 :]
        self._threads: list[threading.Thread] = []
        self._asleep: dict[int, Any] = {}  # of each thread that sleeps, the lock that it waits for

    def wake(self, num_threads: int) -> None:
        """Have `num_threads` threads ready, the caller's included. Only for who holds the lock."""
        while (own := len(self._threads) + 1) < num_threads:
            thread = threading.Thread(target=self._run, args=(own,), name=f"nnlite-{own}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads, or Python is ending: the caller does their parts
                break
            self._threads.append(thread)
        for own in list(self._asleep):
            if own < num_threads and (bell := self._asleep.pop(own, None)):
                bell.release()

    def _run(self, own: int) -> None:
        bell = threading.Lock()
        bell.acquire()
        while True:
            _serve(self.shared, own, PATIENCE if threads.available_cpus() > own else SHORT_PATIENCE)
            self._asleep[own] = bell
            if self._end[0]:  # asked for after the bell can be rung
                return
            bell.acquire()

    def end(self) -> None:
        """End the threads: at the end of Python none may be left in compiled code."""
        with self.lock:
            self._end[0] = 1
            self.wake(len(self._threads) + 1)
            for thread in self._threads:
                thread.join()


workers = Pool()


def _in_forked_child() -> None:
    """The parent's threads do not exist in the child, which starts its own."""
    global workers
    workers = Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)
atexit.register(lambda: workers.end())
