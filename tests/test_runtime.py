"""Memory, threads and the compiled code's cache."""

import errno
import itertools
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import numpy as np
import pytest

import nnlite as nn
from nnlite.compiler import compilation, pool
from nnlite.compiler.launch import kernel
from nnlite.performance import peaks
from nnlite.runtime import memory, threads

SHAPE = (64, 1024)
#: seconds after which something waits for ever, however busy the machine
HANGS = 600


def test_a_block_is_used_again_after_its_last_view_died():
    memory.trim()
    array = memory.empty(SHAPE)
    array.fill(7)
    view = array[3:, ::2].T
    del array
    assert not memory.empty(SHAPE).any()  # the view still holds the block: this one is fresh, zeros
    memory.trim()
    del view
    assert (memory.empty(SHAPE) == 7).all()


def test_what_a_user_holds_is_never_overwritten():
    kept = memory.empty(SHAPE)
    kept.fill(7)
    for _ in range(10):
        memory.empty(SHAPE).fill(1)
    assert (kept == 7).all()


def test_trim_gives_idle_blocks_back():
    memory.trim()
    array = memory.empty(SHAPE)
    assert memory.idle_bytes() == 0
    del array
    assert memory.idle_bytes() >= 4 * 64 * 1024
    memory.trim()
    assert memory.idle_bytes() == 0


def test_beyond_the_limit_idle_blocks_are_given_back_unless_they_are_to_be_kept(monkeypatch):
    memory.trim()
    monkeypatch.setattr(memory, "IDLE_LIMIT", 0)
    with memory.kept():
        for rows in (64, 128):
            memory.empty((rows, 1024))
        assert memory.idle_bytes() == 4 * (64 + 128) * 1024
    held = memory.empty((256, 1024))
    assert memory.idle_bytes() == 0
    assert held.size


def test_a_system_that_takes_no_advice_about_pages_gives_memory_all_the_same(monkeypatch):
    class Refusing(mmap.mmap):
        def madvise(self, *advice):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(memory.mmap, "mmap", Refusing)
    memory.trim()
    assert not memory.empty((1 << 20,)).any()
    assert peaks._first_touch_gbs("MADV_HUGEPAGE") > 0


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", 10_000])
def test_set_num_threads_refuses(n):
    with pytest.raises(ValueError, match="n: expected"):
        nn.set_num_threads(n)


def test_gradients_agree_across_thread_counts(generator):
    x = generator.standard_normal((8, 10, 10, 3)).astype(np.float32)
    weight = generator.standard_normal((3, 3, 3, 8)).astype(np.float32)
    upstream = generator.standard_normal((8, 8, 8, 8)).astype(np.float32)
    gradients = []
    for count in range(1, nn.get_num_threads() + 1):
        nn.set_num_threads(count)
        tensor = nn.Tensor(weight, requires_grad=True)
        nn.ops.conv2d(nn.Tensor(x), tensor, relu=True).backward(upstream)
        gradients.append(tensor.grad)
    for gradient in gradients:
        np.testing.assert_allclose(gradient, gradients[0], rtol=1e-4)


def small_training(filters):
    generator = np.random.default_rng(filters)
    x = generator.standard_normal((64, 8, 8, 1)).astype(np.float32)
    convolution = nn.Conv2D(filters, 3, activation="relu", kernel_initializer=lambda shape, _: np.full(shape, 0.1))
    model = nn.Sequential([nn.Input((8, 8, 1)), convolution, nn.MaxPooling2D(2), nn.Flatten()])
    model.add(nn.Dense(2, kernel_initializer=lambda shape, _: np.full(shape, 0.1)))
    model.compile("sgd", "mse")
    model.fit(x, x[:, :2, 0, 0], verbose=0, epochs=10, shuffle=False)
    return model.get_weights()


def test_two_python_threads_train_two_models_at_once():
    expected = [small_training(filters) for filters in (4, 32)]
    results = [None, None]

    def train(i, filters):
        results[i] = small_training(filters)

    for _ in range(5):
        threads = [threading.Thread(target=train, args=arguments) for arguments in ((0, 4), (1, 32))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=HANGS)
            assert not thread.is_alive()
        for ours, alone in zip(results, expected, strict=True):
            for weight, other in zip(ours, alone, strict=True):
                np.testing.assert_array_equal(weight, other)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_after_use_trains():
    code = """
import os, numpy as np, nnlite as nn
def train():
    nn.seed(0)
    model = nn.models.small_cnn()
    model.compile()
    x = np.random.default_rng(0).random((32, 28, 28, 1), np.float32)
    model.fit(x, np.arange(32) % 10, epochs=2, verbose=0)
    return b"".join(weight.tobytes() for weight in model.get_weights())
expected = train()
pid = os.fork()
if pid == 0:
    os._exit(0 if train() == expected else 3)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, timeout=HANGS)
    assert done.returncode == 0


LOCKS = {
    "autotune": "tuning._lock",
    "random numbers": "random._generator.bit_generator.lock",
    "compiler": "threads.compiler_locks[0]",
    "LLVM": "threads.compiler_locks[1]",
}


@pytest.mark.skipif(not hasattr(os, "fork") or not compilation.ENABLED, reason="needs fork and the compiler")
def test_a_fork_while_another_thread_holds_a_lock():
    """The child tells which locks it would wait for; of some the fork itself waits until they are free.

    A thread holds a lock until the fork asks for it; if it does not ask, until there is a child.
    """
    code = f"""
import os, sys, threading
from types import SimpleNamespace
import nnlite as nn
from nnlite.compiler import compilation
from nnlite.runtime import random, threads
from nnlite.conv import tuning
class Asked:
    def __init__(self, lock):
        self.lock = getattr(lock, "_lock", lock)
    def acquire(self, **options):
        if threading.current_thread() is threading.main_thread():
            go_on.set()
        return self.lock.acquire(**options)
    __enter__ = acquire
    def release(self, *exception):
        self.lock.release()
    __exit__ = release
random._generator = SimpleNamespace(bit_generator=SimpleNamespace(lock=Asked(random._generator.bit_generator.lock)))
threads.compiler_locks = tuple(map(Asked, threads.compiler_locks))
locks = lambda: [getattr(lock, "lock", lock) for lock in [{", ".join(LOCKS.values())}]]
def hold(lock):
    with lock:
        held.set()
        go_on.wait()
would_wait = 0
for i in range(len(locks())):
    held, go_on = threading.Event(), threading.Event()
    holder = threading.Thread(target=hold, args=(locks()[i],))
    holder.start()
    held.wait()
    child = os.fork()
    if child == 0:
        os._exit(not locks()[i].acquire(blocking=False))
    go_on.set()
    holder.join()
    would_wait += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) << i
free = []
other = threading.Thread(target=lambda: free.extend(lock.acquire(blocking=False) for lock in locks()))
other.start()
other.join()
assert all(free), free
sys.exit(would_wait)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, timeout=HANGS)
    assert [name for i, name in enumerate(LOCKS) if done.returncode >> i & 1] == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_while_another_thread_imports_an_algorithm():
    """The import goes on when the fork asks for the module; if it does not ask, when there is a child."""
    code = f"""
import os, signal, sys, threading, importlib.abc, importlib.machinery, importlib.util
import nnlite as nn
from nnlite.runtime import threads
importing, go_on = threading.Event(), threading.Event()
class Slow(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name == "nnlite.conv.im2col":
            self.loader = importlib.machinery.PathFinder.find_spec(name, path).loader
            return importlib.util.spec_from_loader(name, self)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        importing.set()
        go_on.wait()
        self.loader.exec_module(module)
sys.meta_path.insert(0, Slow())
assert "nnlite.conv.im2col" not in sys.modules
import_module = threads.import_module
threads.import_module = lambda name: (go_on.set(), import_module(name))
threading.Thread(target=nn.conv.get, args=("im2col",)).start()
importing.wait()
child = os.fork()
go_on.set()
if child == 0:
    signal.alarm({HANGS})
    nn.conv.get("im2col")
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, timeout=2 * HANGS)
    assert done.returncode == 0


class Fill(kernel):
    """A kernel whose threads each write their number; `during()` runs where its launch would begin."""

    def __init__(self, during=lambda: None):
        super().__init__(_fill)
        self.run(1, np.zeros(1))  # so that there is a launch
        launch = self._launch

        def _launch(*arguments):
            during()
            launch(*arguments)

        self._launch = _launch


def _fill(thread, num_threads, y):
    y[thread] = thread + 1


needs_kernels = pytest.mark.skipif(not compilation.ENABLED, reason="nothing is compiled")


@needs_kernels
def test_every_part_of_a_launch_is_done_once_by_whatever_thread():
    """More threads than processors, and launches of other sizes one after the other."""

    @kernel
    def count(thread, num_threads, y):
        y[thread, num_threads] += 1

    y, launches = np.zeros((9, 9)), 2000
    for _ in range(launches):
        for num_threads in (8, 3, 5, 2):
            count.run(num_threads, y)
    for num_threads in (8, 3, 5, 2):
        assert (y[:num_threads, num_threads] == launches).all()
    assert y.sum() == launches * (8 + 3 + 5 + 2)


@needs_kernels
def test_a_launch_does_not_wait_for_threads_that_are_put_aside(monkeypatch):
    monkeypatch.setattr(pool.Pool, "start", lambda self, num_threads: None)  # none comes
    monkeypatch.setattr(pool, "workers", pool.Pool())
    y = np.zeros(5)
    Fill().run(5, y)
    assert y.tolist() == [1, 2, 3, 4, 5]


def settled(workers, *launches):
    """The launches to be done alone after these: (parts of two that the caller did, ns that it worked, ns took)."""
    for done, worked, took in launches:
        pool._settle(workers.shared, 2, done, worked, took)
    return int(workers._alone[0])


ms = 1_000_000
SAVING, LOSING = (1, ms, ms), (1, ms, 5 * ms)  # alone, a launch takes 2 ms


@needs_kernels
def test_launches_are_done_alone_after_threads_were_waited_for_longer_than_they_saved():
    assert settled(pool.Pool(), *[SAVING] * 10) == 0
    assert settled(pool.Pool(), *[SAVING] * 4, LOSING) == 0
    assert settled(pool.Pool(), *[SAVING] * 4, LOSING, LOSING) == 1  # 2 ms lost
    assert settled(pool.Pool(), LOSING, LOSING) == 3  # the second time twice as long as what was lost
    assert settled(pool.Pool(), *[LOSING] * 20) == pool.MOST_CAUTION * 3 // 2
    assert settled(pool.Pool(), *[LOSING] * 20, *[SAVING] * 4, LOSING, LOSING) == 1
    assert settled(pool.Pool(), (2, 2 * ms, 2 * ms)) == 0  # nobody came


@needs_kernels
def test_a_program_that_was_stopped_goes_alone_for_no_longer_than_after_a_lost_launch():
    assert settled(pool.Pool(), (1, ms, 3_600_000 * ms)) == pool.MOST_LOST // (2 * ms)


@needs_kernels
def test_a_pool_that_has_ended_writes_to_no_file(sleepers):
    """The number of a thread's file may be that of a user's by then, as when another exit handler computes."""
    assert sleepers(3) == {1, 2, 3}
    pool.workers.end()
    assert sleepers(0) == set()
    read, write = os.pipe()
    for own in (1, 2, 3):
        pool.workers._at(pool._THREADS + own * pool._LINE)[pool._WRITE // 8] = write
    y = np.zeros(4)
    Fill().run(4, y)
    os.set_blocking(read, False)
    with pytest.raises(BlockingIOError):
        os.read(read, 1)
    os.close(read)
    os.close(write)
    assert y.tolist() == [1, 2, 3, 4]


@needs_kernels
def test_without_a_file_for_its_pipe_no_thread_starts_and_the_caller_does_all_parts(monkeypatch):
    def refused():
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(pool, "workers", pool.Pool())
    monkeypatch.setattr(os, "pipe", refused)
    y = np.zeros(3)
    Fill().run(3, y)
    assert y.tolist() == [1, 2, 3]
    assert pool.workers._threads == []


@needs_kernels
def test_where_no_thread_can_start_the_caller_does_all_parts(monkeypatch):
    def refused(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pool, "workers", pool.Pool())
    fill, y = Fill(), np.zeros(3)
    monkeypatch.setattr(threading.Thread, "start", refused)
    fill.run(3, y)
    assert y.tolist() == [1, 2, 3]
    pool.workers.end()


@pytest.fixture
def sleepers(monkeypatch):
    """A pool of three threads beside the caller's, and what says which of them sleep, once `count` do."""
    workers = pool.Pool()
    monkeypatch.setattr(pool, "workers", workers)
    Fill().run(4, np.zeros(4))

    def asleep(count):
        end, found = time.monotonic() + HANGS, None
        while found is None or (len(found) < count and time.monotonic() < end):
            found = {own for own in (1, 2, 3) if workers._at(pool._THREADS + own * pool._LINE)[pool._ASLEEP // 8]}
            time.sleep(0.001)
        return found

    yield asleep
    workers.end()


@needs_kernels
def test_threads_sleep_between_launches_and_take_part_again(sleepers):
    for _ in range(20):
        assert sleepers(3) == {1, 2, 3}
        y = np.zeros(4)
        Fill().run(4, y)
        assert y.tolist() == [1, 2, 3, 4]


@needs_kernels
def test_a_launch_wakes_no_more_threads_than_it_has_parts(sleepers):
    assert sleepers(3) == {1, 2, 3}
    Fill().run(2, np.zeros(2))
    assert {2, 3} <= sleepers(2)


@needs_kernels
def test_a_launch_done_alone_wakes_nobody(sleepers):
    assert sleepers(3) == {1, 2, 3}
    pool.workers._alone[0] = 2
    fill = Fill()
    for left in (1, 0):
        y = np.zeros(4)
        fill.run(4, y)
        assert y.tolist() == [1, 2, 3, 4]
        assert pool.workers._alone[0] == left
        assert sleepers(3) == {1, 2, 3}


@needs_kernels
def test_while_one_thread_launches_others_compute_alone():
    """Two launches at once: the second does not wait for the first, which waits here for the second."""
    other, y, thread_of = np.zeros(2), np.zeros(2), []

    def meanwhile():
        thread = threading.Thread(target=Fill().run, args=(2, other))
        thread.start()
        thread.join(timeout=HANGS)
        thread_of.append(thread)

    Fill(meanwhile).run(2, y)
    assert not thread_of[0].is_alive()
    assert (y.tolist(), other.tolist()) == ([1, 2], [1, 2])


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_an_exception_of_any_thread_reaches_the_caller(num_threads):
    @kernel
    def refuse(thread, num_threads, which, y):
        y[thread] = 1
        if thread == which:
            raise ValueError("which: expected another")

    for which in range(num_threads):
        y = np.zeros(num_threads)
        with pytest.raises(ValueError, match="which: expected another"):
            refuse.run(num_threads, which, y)
        assert y[which] == 1
    refuse.run(num_threads, num_threads, y)  # nothing is left of it
    assert y.all()


@needs_kernels
@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal")
def test_a_signal_handler_that_computes_while_a_launch_begins():
    other, y, inner = np.zeros(2), np.zeros(2), Fill()
    before = signal.signal(signal.SIGUSR1, lambda *_: inner.run(2, other))
    try:
        Fill(lambda: signal.raise_signal(signal.SIGUSR1)).run(2, y)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (y.tolist(), other.tolist()) == ([1, 2], [1, 2])


def test_who_asks_for_memory_while_another_takes_a_block_gets_another_block(monkeypatch):
    """A signal handler, or a thread, in between that a block was seen to be free and that it was taken."""
    memory.trim()
    memory.empty(SHAPE)
    really, others = memory._is_idle, []

    def is_idle(blocks, i):
        idle = really(blocks, i)
        if idle and not others:
            others.append(None)
            others.append(memory.empty(SHAPE))
        return idle

    monkeypatch.setattr(memory, "_is_idle", is_idle)
    array = memory.empty(SHAPE)
    assert len(others) == 2
    assert not np.shares_memory(array, others[1])


@needs_kernels
def test_another_thread_may_set_the_number_of_threads_at_any_time(monkeypatch, generator):
    """Each kernel runs in as many parts as its arrays have room for."""
    second = nn.conv.Geometry.of((3, 26, 26, 4), (3, 3, 4, 5))

    def results():
        data = np.random.default_rng(0)
        given = [data.standard_normal(shape).astype(np.float32) for shape in ((3, 26, 26, 4), (3, 3, 4, 5), (5,))]
        dy = data.standard_normal(second.output_shape).astype(np.float32)
        found = []
        for name in ("direct", "lanes", "winograd", "numba_direct", "numba_blocked"):
            operands = [nn.Tensor(a.copy(), requires_grad=True) for a in given]
            y = nn.ops.conv2d(*operands, algorithm=name, relu=True)
            y.backward(dy)
            found += [y.data, *(operand.grad for operand in operands)]
        for k, n in ((600, 130), (600, 10)):
            a, b = (data.standard_normal(shape).astype(np.float32) for shape in ((70, k), (k, n)))
            operands = [nn.Tensor(a, requires_grad=True), nn.Tensor(b, requires_grad=True)]
            y = nn.ops.dense(*operands)
            y.backward(data.standard_normal(y.shape).astype(np.float32))
            found += [y.data, *(operand.grad for operand in operands)]
        for filters, name in ((4, "lanes"), (32, "winograd")):
            before = nn.conv.Geometry.of((3, 28, 28, 1), (3, 3, 1, filters))
            after = nn.conv.Geometry.of(before.output_shape, (3, 3, filters, 6))
            pair = nn.conv.FusedPair(before, True, after, nn.conv.Epilogue(bias=True, relu=True, pool=True), 0.25)
            shapes = before.input_shape, before.weight_shape, (filters,), after.weight_shape, (6,)
            x, *weights = (data.standard_normal(shape).astype(np.float32) for shape in shapes)
            algorithm = nn.conv.get(name)
            ran = algorithm.forward_pair(x, nn.conv.PairWeights(*weights), pair, 1)
            dresult = data.standard_normal(ran.result.shape).astype(np.float32)
            found += [ran.result, *algorithm.backward_pair(ran, dresult, pair, 1)]
        return found

    nn.set_num_threads(1)
    alone = results()
    counts = itertools.cycle([1, 2])
    monkeypatch.setattr(threads, "kernel_parts", lambda: next(counts))
    for _ in range(2):
        next(counts)  # first one way around, then the other
        for got, expected in zip(results(), alone, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_the_limit_of_threads_is_what_was_asked_for():
    code = "import nnlite as nn; nn.set_num_threads(1); nn.set_num_threads(5); print(nn.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"NUMBA_NUM_THREADS": "5"}, capture_output=True, text=True
    )
    assert done.stdout == "5\n", done.stderr


def test_a_fork_has_memory_of_its_own():
    code = """
import os
from nnlite.compiler import compilation, pool
from nnlite.compiler.launch import kernel
from nnlite.runtime import memory, threads
array = memory.empty((1 << 20,))
array.fill(1)
pid = os.fork()
if pid == 0:
    array.fill(7)
    os._exit(0)
os.waitpid(pid, 0)
raise SystemExit(int(array[0] != 1))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_a_writable_folder_nothing_is_cached_and_everything_works(tmp_path):
    file = tmp_path / "file"
    file.touch()
    code = f"""
import tempfile
tempfile.tempdir = {str(file)!r}
import numpy as np, nnlite as nn
from nnlite.compiler import cache as jit_cache
assert jit_cache.cache_root() is None
assert nn.ops.max_pool2d(nn.Tensor(np.ones((1, 4, 4, 1)))).shape == (1, 2, 2, 1)
"""
    environment = os.environ | {"HOME": str(file), "XDG_CACHE_HOME": str(file), "NUMBA_CACHE_DIR": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


class _Pair(NamedTuple):
    sizes: tuple[int, int]
    values: np.ndarray


def test_a_kernel_takes_tuples_of_tuples():
    @kernel
    def scale(part, parts, factor, pair, y):
        for i in range(part, y.size, parts):
            y[i] = factor * pair.values[i] + pair.sizes[1]

    y = np.zeros(7, np.float32)
    for factor in (2.0, 3.0):
        scale(factor, _Pair((4, 5), np.arange(7, dtype=np.float32)), y)
        np.testing.assert_array_equal(y, factor * np.arange(7) + 5)


@needs_kernels
def test_kernels_are_not_compiled_again_for_read_only_arrays(generator):
    """As np.load(mmap_mode="r") and np.broadcast_to give them."""
    x, weight = (generator.standard_normal(shape).astype(np.float32) for shape in ((2, 8, 8, 3), (3, 3, 3, 5)))
    labels = np.array([1, 2])

    def results(x, weight):
        w = nn.Tensor(weight, requires_grad=True)
        y = nn.ops.flatten(nn.ops.max_pool2d(nn.ops.conv2d(nn.Tensor(x), w, relu=True, algorithm="numba"), 2))
        loss = nn.losses.sparse_categorical_crossentropy(labels, y, from_logits=True)
        loss.backward()
        model = nn.Sequential([nn.Input((8, 8, 3)), nn.Flatten(), nn.Dense(3, kernel_initializer="ones")])
        return [y.data, w.grad, model.predict(x)]

    expected = results(x, weight)
    compiled = []
    compilation.listeners.append(compiled.append)
    for array in (x, weight):
        array.flags.writeable = False
    for got, right in zip(results(x, weight), expected, strict=True):
        np.testing.assert_array_equal(got, right)
    assert compiled == []


@needs_kernels
def test_a_kernel_takes_read_only_arrays_in_tuples_as_others():
    @kernel
    def add(thread, num_threads, pair, y):
        y[thread] = pair.values[0] + pair.sizes[1]

    y, values = np.zeros(1, np.float32), np.ones(1, np.float32)
    add.run(1, _Pair((4, 5), values), y)
    compiled = []
    compilation.listeners.append(compiled.append)
    add.run(1, _Pair((4, 6), np.broadcast_to(values, (1,))), y)
    assert (y.tolist(), compiled) == ([7.0], [])
