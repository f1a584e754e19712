"""What algorithms declare that they move, against the arrays that their kernels are really launched on.

The kernels run as they do, compiled and on two threads. Each launch is noted with its arrays: one that holds what was
not written yet (memory is handed out full of NaN) counts with the elements that the launch writes, any other is read.
What belongs to a thread (its workspace, its sums) counts for nothing: it stays in that thread's cache. From a batch to
one twice as large, the count must grow by exactly as many bytes as the declaration: what passes through arrays of the
batch is in the difference, weights and tables are not.
"""

from math import prod

import numpy as np
import pytest

import nnlite as nn
from nnlite.compiler import compilation
from nnlite.compiler.launch import kernel as compiled_kernel
from nnlite.conv import PASSES, Epilogue, FusedPair, Geometry, PairWeights
from nnlite.conv.work import moved_bytes
from nnlite.runtime import memory

pytestmark = pytest.mark.skipif(not compilation.ENABLED, reason="the kernels are compiled ones")

PARTS, IMAGES = 2, 48  # three blocks of lanes, so that no array of a batch has as many rows as there are threads
NONE, RELU, POOL = Epilogue(), Epilogue(bias=True, relu=True), Epilogue(bias=True, relu=True, pool=True)


def in_records(arguments):
    """What a kernel's arguments are, and what records among them hold."""
    for argument in arguments:
        yield from in_records(argument) if isinstance(argument, tuple) else (argument,)


@pytest.fixture
def launches(monkeypatch, two_threads):
    """The bytes that each launch of a kernel reads and writes, as it happens."""
    noted = []
    plain, launch = memory.empty, compiled_kernel.run

    def empty(shape, dtype=np.float32):
        array = plain(shape, dtype)
        array.fill(np.nan if array.dtype.kind == "f" else 0)
        return array

    def noting(kernel, parts, *arguments):
        arrays = {}
        for array in in_records(arguments):
            if isinstance(array, np.ndarray) and array.dtype in (np.float32, np.uint8) and array.shape[0] != PARTS:
                arrays[array.__array_interface__["data"][0]] = array
        missing = {address: np.isnan(array).sum() for address, array in arrays.items()}
        launch(kernel, parts, *arguments)
        for address, array in arrays.items():
            written = int(missing[address] - np.isnan(array).sum())
            noted.append(written * array.itemsize if missing[address] else array.nbytes)

    monkeypatch.setattr(memory, "empty", empty)
    monkeypatch.setattr(compiled_kernel, "run", noting)
    return noted


def run(algorithm, geometry, pass_name, epilogue, generator):
    """One pass, or both gradients."""
    x, weight, y = (
        generator.standard_normal(shape, np.float32)
        for shape in (geometry.input_shape, geometry.weight_shape, geometry.output_shape)
    )
    if epilogue == NONE:
        operands = {"forward": (x, weight), "grad_input": (y, weight), "grad_weight": (x, y)}[pass_name]
        return lambda: getattr(algorithm, pass_name)(*operands, geometry)
    forward = (x, weight, generator.standard_normal(geometry.weight_shape[3:], np.float32), geometry, epilogue)
    if pass_name == "forward":
        return lambda: algorithm.forward_fused(*forward)
    ran = algorithm.forward_fused(*forward)
    dresult, needs = np.ones_like(ran.result), (pass_name == "gradients", True, True)
    return lambda: algorithm.backward_fused(ran, dresult, geometry, epilogue, needs)


def growth(algorithm, geometry, pass_name, epilogue, launches, generator):
    """(counted, declared) bytes, of twice as many images less those of one batch."""
    counted, declared = [], []
    for images in (IMAGES, 2 * IMAGES):
        batch = geometry.with_batch(images)
        work = run(algorithm, batch, pass_name, epilogue, generator)
        launches.clear()
        work()
        counted.append(sum(launches))
        items = algorithm.work(batch, pass_name, None if epilogue == NONE else epilogue)
        declared.append(moved_bytes(items))
        assert declared[-1] >= 4 * prod(geometry.weight_shape)
    return counted[1] - counted[0], declared[1] - declared[0]


PLAIN = Geometry.of((IMAGES, 10, 10, 3), (3, 3, 3, 5))
PADDED = Geometry.of((IMAGES, 9, 9, 3), (3, 3, 3, 5), padding="same")
STRIDED = Geometry.of((IMAGES, 11, 11, 3), (3, 3, 3, 5), strides=2)
DEPTHWISE = Geometry.of((IMAGES, 11, 9, 17), (3, 3, 1, 17), strides=(2, 1), padding="same", groups=17)
WIDE = Geometry.of((IMAGES, 10, 10, 17), (3, 3, 17, 33))
POINTWISE = Geometry.of((IMAGES, 4, 4, 7), (1, 1, 7, 512))  # its weight gradient is a matrix product


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize(
    ("name", "geometry"),
    [
        ("direct", PLAIN), ("direct", PADDED), ("direct", STRIDED), ("direct", WIDE),
        ("direct", POINTWISE),
        ("grouped", PLAIN), ("grouped", DEPTHWISE), ("grouped", STRIDED),
        ("lanes", PLAIN), ("lanes", PADDED), ("winograd", PLAIN), ("winograd", PADDED), ("winograd", WIDE),
    ],
)  # fmt: skip
def test_a_pass_moves_what_it_declares(name, geometry, pass_name, launches, generator):
    counted, declared = growth(nn.conv.get(name), geometry, pass_name, NONE, launches, generator)
    assert counted == declared


@pytest.mark.parametrize("pass_name", ["forward", "grad_weight", "gradients"])
@pytest.mark.parametrize(
    ("name", "epilogue"),
    [("direct", RELU), ("grouped", RELU), ("lanes", RELU), ("lanes", POOL), ("winograd", RELU), ("winograd", POOL)],
)
def test_a_fused_pass_moves_what_it_declares(name, epilogue, pass_name, launches, generator):
    counted, declared = growth(nn.conv.get(name), PLAIN, pass_name, epilogue, launches, generator)
    assert counted == declared


def test_a_matrix_product_moves_what_it_declares_behind_relu(launches, generator):
    counted, declared = growth(nn.conv.get("direct"), POINTWISE, "grad_weight", RELU, launches, generator)
    assert counted == declared


@pytest.mark.parametrize("pass_name", ["forward", "gradients"])
@pytest.mark.parametrize(("name", "channels"), [("lanes", (4, 4)), ("winograd", (32, 64))])
def test_two_convolutions_in_one_kernel_move_what_they_declare(name, channels, pass_name, launches, generator):
    first_k, k = channels
    first = Geometry.of((IMAGES, 24, 24, 1), (3, 3, 1, first_k))
    second = Geometry.of(first.output_shape, (3, 3, first_k, k))
    algorithm, counted, declared = nn.conv.get(name), [], []
    for images in (IMAGES, 2 * IMAGES):
        pair = FusedPair(first.with_batch(images), True, second.with_batch(images), POOL, 0.25)
        shapes = (first.weight_shape, (first_k,), second.weight_shape, (k,))
        weights = PairWeights(*(generator.standard_normal(shape, np.float32) for shape in shapes))
        x = generator.standard_normal(pair.first.input_shape, np.float32)
        launches.clear()
        ran = algorithm.forward_pair(x, weights, pair, 1)
        if pass_name == "gradients":
            launches.clear()
            algorithm.backward_pair(ran, np.ones_like(ran.result), pair, 1)
        counted.append(sum(launches))
        declared.append(moved_bytes(algorithm.work_pair(pair, pass_name)))
    assert counted[1] - counted[0] == declared[1] - declared[0]
