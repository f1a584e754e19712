"""Memory, threads and the compiled code's cache."""

import os
import subprocess
import sys
import threading
from typing import NamedTuple

import numpy as np
import pytest

import nnlite as nn
from nnlite import jit, memory

SHAPE = (64, 1024)


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


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", 10_000])
def test_set_num_threads_refuses(n):
    with pytest.raises(ValueError, match="n: expected"):
        nn.set_num_threads(n)


def test_gradients_agree_across_thread_counts(generator):
    x = generator.standard_normal((8, 10, 10, 3)).astype(np.float32)
    weight = generator.standard_normal((3, 3, 3, 8)).astype(np.float32)
    gradients = []
    for threads in range(1, nn.get_num_threads() + 1):
        nn.set_num_threads(threads)
        tensor = nn.Tensor(weight, requires_grad=True)
        nn.ops.conv2d(nn.Tensor(x), tensor, relu=True).sum().backward()
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
            thread.join(timeout=60)
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
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, timeout=120)
    assert done.returncode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_has_memory_of_its_own():
    code = """
import os
from nnlite import jit, memory
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
from nnlite import jit_cache
assert jit_cache.cache_root() is None
assert nn.ops.max_pool2d(nn.Tensor(np.ones((1, 4, 4, 1)))).shape == (1, 2, 2, 1)
"""
    environment = os.environ | {"HOME": str(file), "XDG_CACHE_HOME": str(file), "NUMBA_CACHE_DIR": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


class _Pair(NamedTuple):
    sizes: tuple[int, int]
    values: np.ndarray


def test_a_kernel_takes_tuples_of_tuples():
    @jit.kernel
    def scale(part, parts, factor, pair, y):
        for i in range(part, y.size, parts):
            y[i] = factor * pair.values[i] + pair.sizes[1]

    y = np.zeros(7, np.float32)
    for factor in (2.0, 3.0):
        scale(factor, _Pair((4, 5), np.arange(7, dtype=np.float32)), y)
        np.testing.assert_array_equal(y, factor * np.arange(7) + 5)
