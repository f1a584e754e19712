"""Memory, threads and the compiled code's cache."""

import os
import subprocess
import sys
import threading

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


def small_training():
    model = nn.Sequential([nn.Input((6, 6, 1)), nn.Conv2D(4, 3, activation="relu"), nn.Flatten(), nn.Dense(2)])
    model.compile("sgd", "mse")
    model.fit(np.ones((64, 6, 6, 1), np.float32), np.zeros((64, 2), np.float32), verbose=0, epochs=3)
    return model.predict(np.ones((1, 6, 6, 1), np.float32))


def test_two_python_threads_train_at_once():
    results = []
    threads = [threading.Thread(target=lambda: results.append(small_training())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert all(np.isfinite(result).all() for result in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_after_use_computes():
    code = """
import os, numpy as np, nnlite as nn
def run():
    x, weight = np.ones((4, 8, 8, 2), np.float32), np.ones((3, 3, 2, 4), np.float32)
    return float(nn.ops.conv2d(nn.Tensor(x), weight).sum().data)
expected = run()
pid = os.fork()
if pid == 0:
    os._exit(0 if run() == expected else 3)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_has_memory_of_its_own():
    code = """
import os
from nnlite import memory
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
from nnlite import jit
assert jit.cache_root() is None
assert nn.ops.max_pool2d(nn.Tensor(np.ones((1, 4, 4, 1)))).shape == (1, 2, 2, 1)
"""
    environment = os.environ | {"HOME": str(file), "XDG_CACHE_HOME": str(file), "NUMBA_CACHE_DIR": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_the_cache_is_keyed_on_the_kernels_sources():
    assert jit.cache_dir().name == f"kernels-{jit.sources_hash()}"
