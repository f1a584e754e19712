"""What `nn.compiler` offers to authors of kernels: every name documented and right, wrong use refused in words."""

import copy
import inspect
import pickle
import threading

import numpy as np
import pytest

import nnlite as nn
from nnlite import compiler
from nnlite.compiler import (
    ENABLED,
    LANES,
    REGISTERS,
    TileShape,
    even_rows,
    jit,
    kernel,
    load,
    load_first,
    load_tile,
    multiply_add,
    pointer,
    prefetch,
    relu,
    relu_tile,
    repeat_row,
    select,
    splat,
    store,
    store_first,
    store_tile,
    table_rows,
    tile_shape,
    zero_tile,
)

pytestmark = pytest.mark.skipif(not ENABLED, reason="vectors exist in compiled code only")


@jit
def _clipped(value):
    """min(max(value, 0), 2) of a vector."""
    return select(value > 2, splat(2), relu(value))


@kernel
def clip(thread, num_threads, x, y):
    """y = min(max(x, 0), 2), a vector after the other; thread t takes every num_threads-th."""
    whole = x.size // LANES * LANES
    for i in range(thread * LANES, whole, num_threads * LANES):
        prefetch(x, i + 4 * LANES)
        store(y, i, _clipped(load(pointer(x, i), 0)))
    if thread == 0:
        store_first(y, whole, _clipped(load_first(x, whole, x.size - whole)), x.size - whole)


@kernel
def product(thread, num_threads, shape, a, b, bias, order, y):
    """y[order[m]] = relu(y[order[m]] + bias + a[order[m]] @ b), of one tile's rows and columns."""
    if thread == 0:
        rows = table_rows(shape, 0, order.size, order)
        rows_y = even_rows(shape, 0, order.size, y.shape[1])
        tile = multiply_add(repeat_row(shape, bias, 0), a, rows, 0, 1, b, 0, b.shape[1], a.shape[1])
        store_tile(y, rows_y, 0, tile, y.shape[1])
        again = load_tile(shape, y, rows_y, 0, y.shape[1])
        sums = multiply_add(again, a, rows, 0, 1, b, 0, b.shape[1], a.shape[1])
        store_tile(y, rows_y, 0, relu_tile(sums), y.shape[1])


@kernel
def clear(thread, num_threads, shape, rows_of, y):
    if thread == 0:
        store_tile(y, even_rows(rows_of, 0, 2, LANES), 0, zero_tile(shape), LANES)


@kernel
def misspelt(thread, num_threads, x):
    x[0] = lanes  # noqa: F821


def numbers(size, seed=0):
    return 2 * np.random.default_rng(seed).standard_normal(size).astype(np.float32)


@pytest.mark.parametrize("name", compiler.__all__)
def test_every_public_name_is_documented_and_used_here(name):
    assert name in globals()
    if not isinstance(getattr(compiler, name), (bool, int)):
        text = inspect.getdoc(getattr(nn.compiler, name))
        assert text.splitlines()[0].endswith((".", ":")), text


def test_constants_are_the_processors():
    assert LANES in (4, 8, 16)
    assert REGISTERS in (16, 32)
    assert tile_shape(64).registers <= REGISTERS


@pytest.mark.parametrize("size", [1, LANES, 3 * LANES + 1, 40 * LANES + LANES - 1])
def test_vectors_compute_as_numpy_does(size, two_threads):
    x, y = numbers(size), np.full(size + LANES, 9, np.float32)
    clip(x, y)
    np.testing.assert_array_equal(y[:size], np.clip(x, 0, 2))
    assert (y[size:] == 9).all()


def test_tiles_compute_as_numpy_does():
    shape = TileShape(3, 1)
    a, b, bias = numbers((5, 7)), numbers((7, LANES), 1), numbers(LANES, 2)
    order, y = np.array([4, 0, 2]) * 7, np.zeros((3, LANES - 1), np.float32)
    product(shape, a, b, bias, order, y)
    expected = np.maximum(2 * (a[[4, 0, 2]].astype(np.float64) @ b) + bias, 0)
    np.testing.assert_allclose(y, expected[:, : LANES - 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: clip(x.astype(np.float64), x), "kernel clip(x: array(float64, 1d, C), y: array(float32, 1d, C)): "),
        (lambda x: clip(x, x.astype(np.int32)), "store: expected a C-contiguous array of float32, or a pointer into"),
        (lambda x: clip(x[::2], x), "pointer: expected a C-contiguous array, or a pointer into one. Received: array("),
        (lambda x: clip(x[:0:-1], x), "Received: array(float32, 1d, A)"),
        (lambda x: clip(1.5, x), "kernel clip(x: float64, y: array(float32, 1d, C)): "),
        (lambda x: clear(TileShape(2, 1), TileShape(3, 1), x), "rows: expected 2 offsets, one per row of the tile"),
        (lambda x: clear(2, TileShape(2, 1), x), "zero_tile: expected a TileShape or a tile, which has one. Received"),
        (lambda x: product(TileShape(1, 1), x, x, x, x, x), "table_rows table: expected a C-contiguous array of int64"),
        (lambda x: misspelt(x), "name 'lanes' is not defined"),
        (lambda x: TileShape(0, 1), "TileShape rows: expected an integer of at least 1. Received: 0"),
        (lambda x: TileShape(2, 1.5), "TileShape vectors: expected an integer of at least 1. Received: 1.5"),
    ],
)
def test_wrong_types_are_refused_before_anything_runs(call, message):
    x = np.ones(4 * LANES, np.float32)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call(x)
    assert message in str(caught.value)
    assert (x == 1).all()


def test_a_tile_that_does_not_fit_the_registers_is_refused():
    shape = TileShape(REGISTERS - 1, 1)
    assert shape.registers == REGISTERS + 1
    x = np.ones((LANES, LANES), np.float32)
    with pytest.raises(ValueError, match=f"fits the {REGISTERS} vector registers .* {REGISTERS - 1} rows of 1 vectors"):
        product(shape, x, x, x, np.zeros(REGISTERS, np.int64), x)


@pytest.mark.parametrize("function", [lambda x: x, lambda t, n, *x: None, lambda t, n, x=1: None])
def test_a_function_that_is_no_kernel_is_refused_where_it_is_decorated(function):
    with pytest.raises(TypeError, match=r"kernel: expected a function f\(thread, num_threads, argument, \.\.\.\)"):
        kernel(function)


def test_a_call_with_too_few_arguments_says_how_many_are_expected():
    with pytest.raises(TypeError, match=r"kernel clip: expected 2 arguments\. Received: 1"):
        clip(numbers(3))


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_kernels_are_copied_by_name_as_functions_are(way):
    assert way(clip) is clip


def test_a_kernel_runs_in_two_python_threads_at_once(two_threads):
    x = [numbers(1000, seed) for seed in range(2)]
    y = [np.zeros((50, 1000), np.float32) for _ in range(2)]

    def work(i):
        for row in y[i]:
            clip(x[i], row)

    others = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    for i in range(2):
        np.testing.assert_array_equal(y[i], np.tile(np.clip(x[i], 0, 2), (50, 1)))
