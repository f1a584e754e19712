"""Calls every compiled kernel of the package, for `benchmarks.machine_code`: nnlite inspect every_kernel.py:reach

Where kernels are compiled for other processors they do not run and leave their arrays as they were, so whatever goes
wrong after one of them does not matter.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np

import nnlite as nn
from nnlite import conv
from nnlite.conv import Geometry, direct_packing
from nnlite.kernels import dropout, pooling
from nnlite.kernels import peaks as peak_kernels
from nnlite.lab import reference
from nnlite.performance import peaks

#: geometries that between them reach all kernels: the question's layers, and one with all that a geometry can have
GEOMETRIES = (
    Geometry.of((4, 28, 28, 1), (3, 3, 1, 32)),
    Geometry.of((4, 26, 26, 32), (3, 3, 32, 64)),
    Geometry.of((32, 28, 28, 1), (3, 3, 1, 4)),
    Geometry.of((32, 26, 26, 4), (3, 3, 4, 4)),
    Geometry.of((4, 14, 14, 64), (3, 3, 64, 64), strides=2, padding="same"),
    Geometry.of((4, 28, 28, 32), (3, 3, 1, 32), padding="same", groups=32),
)


def reach() -> None:
    """All algorithms and passes, training steps of the networks, and what these leave out."""
    for name, geometry, pass_name in product(conv.names(), GEOMETRIES, reference.PASSES):
        algorithm = conv.get(name)
        if not (algorithm.reference_only or algorithm.uses_blas) and algorithm.supports(geometry) is None:
            operands = reference.operands(geometry, 0).astype(np.float32)
            ignoring(reference.run_pass, algorithm, pass_name, operands, geometry)
    networks = ((nn.models.mlp, (784,)), (nn.models.cnn, (28, 28, 1)), (nn.models.small_cnn, (28, 28, 1)))
    optimizers: tuple[Callable[[], Any], ...] = (nn.RMSprop, nn.Adam, nn.Adadelta, partial(nn.SGD, momentum=0.9))
    for (network, shape), optimizer in product(networks, optimizers):
        for fuse in (True, False):
            model = network()
            model.compile(optimizer=optimizer(), loss="sparse_categorical_crossentropy", fuse=fuse)
            for batch in (128, 3, 1):  # other kernels compute small ones
                x, y = np.zeros((batch, *shape), np.float32), np.zeros(batch, np.int64)
                ignoring(model.train_on_batch, x, y)
                ignoring(model, x)
                ignoring(model.predict, x)
    peaks.REPEATS, peaks.SECONDS = 1, 0.0
    for measure in (peaks.fma_by_sums, peaks.fork_join_us, partial(peaks._bandwidths, peaks.cache_sizes())):
        ignoring(measure, 1)
    numbers, zero = np.zeros(64, np.float32), np.float32(0)
    ignoring(peak_kernels.rewrite, numbers, zero)
    ignoring(peak_kernels.rewrite_own, numbers, zero)
    ignoring(direct_packing.add_copies, np.zeros((2, 9), np.float32), np.zeros((3, 3, 1, 1), np.float32))
    ignoring(dropout.apply_mask, np.zeros(64), 0.5, 0)
    ignoring(pooling.max_pool, np.zeros((1, 17, 17, 1), np.float32), (1, 1), (17, 17), (1, 1), ((0, 0), (0, 0)))


def ignoring(function: Callable[..., object], *arguments: Any) -> None:
    """Call it, whatever it raises."""
    try:
        function(*arguments)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
