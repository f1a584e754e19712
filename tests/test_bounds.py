"""No kernel reads or writes beyond its arrays: each array ends where memory ends, so that one who does is killed."""

import ctypes
import mmap
import subprocess
import sys
from math import prod
from pathlib import Path

import numpy as np
import pytest

import nnlite as nn
from nnlite.compiler import compilation
from nnlite.conv import Epilogue, FusedPair, Geometry, PairWeights
from nnlite.conv.geometry import PASSES
from nnlite.runtime import memory

pytestmark = [
    pytest.mark.skipif(not compilation.ENABLED, reason="needs the compiler"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect"),
]
GEOMETRIES = [
    Geometry.of((1, 3, 3, 1), (3, 3, 1, 1)),
    Geometry.of((2, 7, 5, 3), (3, 3, 3, 4), padding="same"),
    Geometry.of((17, 6, 6, 4), (3, 3, 4, 5), padding=((1, 0), (0, 1))),
    Geometry.of((3, 9, 10, 17), (3, 3, 17, 33), padding=1),
    Geometry.of((1, 8, 7, 12), (2, 3, 6, 10), strides=2, groups=2),
    Geometry.of((2, 9, 9, 2), (3, 2, 2, 20), dilation_rate=2, padding="same"),
    Geometry.of((1, 4, 5, 13), (1, 1, 13, 517), strides=2),
]
EPILOGUES = [Epilogue(bias=True, relu=True), Epilogue(bias=True, relu=True, pool=True), Epilogue(pool=True)]


def at_the_end(shape, dtype=np.float32):
    """An array behind which there is a page that nobody may touch."""
    size = prod(shape) * np.dtype(dtype).itemsize
    pages = -(-size // mmap.PAGESIZE) + 1
    block = mmap.mmap(-1, pages * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(block))
    end = (pages - 1) * mmap.PAGESIZE
    assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(start + end), mmap.PAGESIZE, 0) == 0
    return np.ndarray(shape, dtype, block, end - size)


def numbers(shape):
    array = at_the_end(shape)
    array[...] = np.random.default_rng(0).standard_normal(shape, np.float32)
    return array


def convolve(name):
    algorithm = nn.conv.get(name)
    for geometry in GEOMETRIES:
        if algorithm.supports(geometry) is not None:
            continue
        shapes = geometry.input_shape, geometry.weight_shape, geometry.output_shape, geometry.weight_shape[3:]
        x, weight, dy, bias = map(numbers, shapes)
        algorithm.forward(x, weight, geometry)
        algorithm.backward(x, weight, dy, geometry, (True, True))
        algorithm.grad_input(dy, weight, geometry)
        algorithm.grad_weight(x, dy, geometry)
        for epilogue in EPILOGUES:
            pools = not epilogue.pool or min(geometry.output_shape[1:3]) > 1
            if algorithm.fuses(geometry, epilogue) and pools:
                ran = algorithm.forward_fused(x, weight, bias if epilogue.bias else None, geometry, epilogue)
                dresult = numbers(ran.result.shape)
                for needs in ((True, True, True), (False, True, True), (True, False, False)):
                    algorithm.backward_fused(ran, dresult, geometry, epilogue, needs)


def convolve_twice(name):
    algorithm = nn.conv.get(name)
    # the widest case has filters for whose tiles test_pair.py compiles the kernels as well
    for filters, k, padding in ((4, 6, 0), (5, 6, 1), *([(100, 60, 0)] if name == "winograd" else [])):
        first = Geometry.of((17, 26, 23, 1), (3, 3, 1, filters), padding=padding)
        second = Geometry.of(first.output_shape, (3, 3, filters, k), padding=padding)
        for epilogue in EPILOGUES:
            pair = FusedPair(first, True, second, epilogue, 0.25)
            assert algorithm.fuses_pair(pair, nn.conv.get(algorithm.pair_first))
            shapes = first.weight_shape, first.weight_shape[3:], second.weight_shape, second.weight_shape[3:]
            weights = PairWeights(*map(numbers, shapes))
            if not epilogue.bias:
                weights = weights._replace(second_bias=None)
            ran = algorithm.forward_pair(numbers(first.input_shape), weights, pair, 3)
            algorithm.backward_pair(ran, numbers(ran.result.shape), pair, 3)


def multiply():
    for m, k, n in ((1, 1, 1), (1, 21, 50), (3, 9, 33), (5, 37, 10), (7, 16, 12), (13, 50, 33), (33, 129, 64)):
        operands = [nn.Tensor(numbers(shape), requires_grad=True) for shape in ((m, k), (k, n), (n,))]
        for dropout in (0.0, 0.5):
            nn.ops.dense(*operands, relu=True, dropout=dropout, seed=1).backward(numbers((m, n)))


def train():
    for make in (nn.models.mlp, nn.models.small_cnn):
        model = make()
        model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy")
        x = numbers((5, *model.input_shape))
        model.train_on_batch(x, np.arange(5) % 10)
        model.predict(x, verbose=0)


def measure():
    """The microbenchmarks of all that the algorithms say of their work."""
    from nnlite.performance.microbenchmarks import Microbenchmark, Rate

    strided = Geometry.of((4, 28, 28, 1), (5, 5, 1, 2), strides=3)
    found = {
        Rate.of(item, 1)
        for geometry in (*GEOMETRIES, strided)
        for name in ("direct", "grouped", "lanes", "winograd")
        for pass_name in PASSES
        for item in nn.conv.get(name).work(geometry, pass_name) or ()
    }
    assert len({rate.kind for rate in found}) > 10
    for rate in found:
        Microbenchmark(rate).sample()


def read_on():
    array = numbers((5,))
    ctypes.string_at(array.ctypes.data, array.nbytes + 1)


def main(action, *names):
    memory.empty = at_the_end
    globals()[action](*names)


def in_a_process_of_its_own(*action):
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.test_bounds", *action]
    return subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)


ALGORITHMS = ["direct", "grouped", "lanes", "winograd", "numba_direct", "numba_blocked", "im2col"]


@pytest.mark.parametrize(
    "action",
    [
        *(("convolve", name) for name in ALGORITHMS),
        ("convolve_twice", "lanes"),
        ("convolve_twice", "winograd"),
        ("multiply",),
        ("train",),
        ("measure",),
    ],
    ids=" ".join,
)
def test_nothing_beyond_an_array_is_touched(action):
    run = in_a_process_of_its_own(*action)
    assert run.returncode == 0, run.stderr


def test_who_reads_on_is_killed():
    assert in_a_process_of_its_own("read_on").returncode < 0


if __name__ == "__main__":
    main(*sys.argv[1:])
