"""The rates of the compiled kernels other than convolution: products, pooling, dropout, updates."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from nnlite.compiler.simd import LANES
from nnlite.conv.geometry import pooled
from nnlite.conv.work import ITEMSIZE
from nnlite.kernels import activation, peaks, updates
from nnlite.kernels import tall_skinny as tall_skinny_products
from nnlite.kernels.crossentropy import sparse_from_logits
from nnlite.kernels.dropout import apply_mask
from nnlite.kernels.matmul import matmul as product
from nnlite.kernels.matmul import matmul_nt, matmul_tn
from nnlite.kernels.pooling import max_pool as pool_forward
from nnlite.kernels.pooling import max_pool_backward as pool_backward
from nnlite.performance.microbenchmarks.base import Work, kind, ones, operands
from nnlite.runtime import threads

#: images per batch
_IMAGES = 128


@kind
def matmul(size: tuple[int, ...], working_set: int) -> Work:
    """The register tiles' matrix product."""
    a, b, m, n, k = operands(size)
    function = (product, matmul_tn, matmul_nt)[size[3]]
    return Work(lambda: function(a, b), 2.0 * m * n * k, mixed=(a, b))


@kind
def tall_skinny(size: tuple[int, ...], working_set: int) -> Work:
    """The product of a layer with few columns."""
    a, b, m, n, k = operands(size)
    return Work(lambda: tall_skinny_products.matmul(a, b, None, False), 2.0 * m * n * k, own=(a, b))


@kind
def tall_skinny_gradients(size: tuple[int, ...], working_set: int) -> Work:
    """Its gradients at once: `layout` says how many of the two."""
    m, n, k, both = size
    x, weight, dy = ones((m, k)), ones((k, n)), ones((m, n))
    needs = (both == 2, True)
    return Work(
        lambda: tall_skinny_products.gradients(x, weight, dy, needs), 2.0 * both * m * n * k, own=(x, weight, dy)
    )


@kind
def copy(size: tuple[int, ...], working_set: int) -> Work:
    """A copy on all threads: the bandwidth of the level that holds the working set; reads and writes count."""
    parts = threads.kernel_parts()
    width = max(1, working_set // (2 * ITEMSIZE * parts * 8 * LANES)) * 8 * LANES
    x, y = ones((parts, width)), ones((parts, width))
    rounds = max(1, (8 << 20) // (2 * x.nbytes))
    return Work(lambda: peaks.copy(rounds, x, y), 2.0 * rounds * x.nbytes)


@kind
def relu_backward(size: tuple[int, ...], working_set: int) -> Work:
    rows = max(1, working_set // (3 * ITEMSIZE * size[0]))
    dy, y = ones((rows, size[0])), ones((rows, size[0]))
    return Work(lambda: activation.relu_backward(dy, y), 3.0 * dy.nbytes, mixed=(dy, y))


@kind
def bias_gradient(size: tuple[int, ...], working_set: int) -> Work:
    dy = ones((max(1, working_set // (ITEMSIZE * size[0])), size[0]))
    return Work(lambda: activation.bias_gradient(dy), float(dy.nbytes), own=(dy,))


@kind
def crossentropy(size: tuple[int, ...], working_set: int) -> Work:
    logits = ones((max(1, working_set // (2 * ITEMSIZE * size[0])), size[0]))
    labels = np.zeros(len(logits), np.int64)
    return Work(lambda: sparse_from_logits(logits, labels), 2.0 * logits.nbytes, own=(logits,))


def _image_batch(channels: int, working_set: int) -> np.ndarray:
    """Images of 32 x 32, as many as fill the working set together with the result of a 2x2 pooling."""
    side = 32
    n = max(1, working_set // (ITEMSIZE * side * side * channels * 5 // 4))
    return np.random.default_rng(0).standard_normal((n, side, side, channels)).astype(np.float32)


def _pooling(size: tuple[int, ...], working_set: int) -> tuple[Any, ...]:
    channels, ph, pw, sh, sw, padded = size
    x = _image_batch(channels, working_set)
    pads = ((ph // 2, ph // 2), (pw // 2, pw // 2)) if padded else ((0, 0), (0, 0))
    _, result = pooled(x.shape[1:3], (ph, pw), (sh, sw), pads)
    return x, result, (ph, pw), (sh, sw), pads


@kind
def max_pool(size: tuple[int, ...], working_set: int) -> Work:
    x, *how = _pooling(size, working_set)
    y, argmax = pool_forward(x, *how)
    return Work(lambda: pool_forward(x, *how), float(x.nbytes + y.nbytes + argmax.nbytes), own=(x,))


@kind
def max_pool_backward(size: tuple[int, ...], working_set: int) -> Work:
    x, result, *how = _pooling(size, working_set)
    y, argmax = pool_forward(x, result, *how)
    traffic = float(x.nbytes + y.nbytes + argmax.nbytes)
    return Work(lambda: pool_backward(y, argmax, x.shape, *how), traffic, own=(y,))


@kind
def dropout(size: tuple[int, ...], working_set: int) -> Work:
    x = ones(max(1, working_set // (2 * ITEMSIZE)))
    return Work(lambda: apply_mask(x, 0.25, 1), 2.0 * x.nbytes, own=(x,))


@kind
def rmsprop(size: tuple[int, ...], working_set: int) -> Work:
    """RMSprop's five passes over parameters, gradients and mean squares, after products on the same arrays."""
    columns = size[0]
    inputs = max(1, working_set // (3 * ITEMSIZE * columns))
    weight, square, gradient = (ones((inputs, columns)) for _ in range(3))
    x, dy = ones((_IMAGES, inputs)), ones((_IMAGES, columns))
    rows = [(weight, gradient, 0)]

    def products() -> None:
        if columns <= tall_skinny_products.WIDEST:
            tall_skinny_products.matmul(x, weight, None, False)
            _, of_weight = tall_skinny_products.gradients(x, weight, dy, (False, True))
            rows[:] = [(weight, gradient if of_weight is None else of_weight, 0)]
        else:
            product(x, weight)
            rows[:] = [(weight, matmul_tn(x, dy), 0)]

    numbers = [np.float32(v) for v in (1e-3, 0.9, 0.0, 1e-7, 0.0)]
    memory = square.reshape(-1), None, None
    update = partial(updates.run, updates.rmsprop, rows, memory, *numbers)
    return Work(update, 5.0 * weight.nbytes, before=products)
