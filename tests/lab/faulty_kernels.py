"""Small kernels, each with one fault, and the same without it: `faulty` and `healthy` of each kind.

An algorithm whose forward pass calls all of them: so `nnlite inspect FILE.py:All` reaches all at once.
"""

import numpy as np
from numba import njit

import nnlite as nn
from nnlite.compiler.target import LANES
from nnlite.compiler.tile_shapes import TileShape
from nnlite.kernels.peaks import multiply_adds

FAST = {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy"}


@njit(**FAST)
def faulty_float64(x, y):
    for i in range(x.size):
        y[i] = x[i] * 0.1


@njit(**FAST)
def healthy_float64(x, y):
    for i in range(x.size):
        y[i] = x[i] * np.float32(0.1)


@njit(error_model="numpy")
def faulty_scalar(x, y):
    total = np.float32(0)
    for i in range(x.size):
        total += x[i] * y[i]
    y[0] = total


@njit(**FAST)
def healthy_scalar(x, y):
    total = np.float32(0)
    for i in range(x.size):
        total += x[i] * y[i]
    y[0] = total


@njit(**FAST)
def faulty_gather(x, y, places):
    total = np.float32(0)
    for i in range(places.size):
        total += x[places[i]]
    y[0] = total


@njit(**FAST)
def healthy_gather(x, y, places):
    total = np.float32(0)
    for i in range(places.size):
        total += x[i]
    y[0] = total


@njit(error_model="numpy")
def faulty_unfused(x, y):
    for i in range(x.size):
        y[i] += x[0] * x[i]


@njit(**FAST)
def healthy_unfused(x, y):
    for i in range(x.size):
        y[i] += x[0] * x[i]


@njit(**FAST)
def faulty_division(x, y):
    for i in range(x.size):
        y[i] = x[i] / y[i]


@njit(**FAST)
def healthy_division(x, y):
    for i in range(x.size):
        y[i] = x[i] * y[i]


@njit(**FAST)
def faulty_masked(x, y):
    for i in range(x.size):
        if x[i] > 0:
            y[i] = x[i]


@njit(**FAST)
def healthy_masked(x, y):
    for i in range(x.size):
        y[i] = x[i] if x[i] > 0 else y[i]


@njit(**FAST)
def faulty_strided(columns, y):
    total = np.float32(0)
    for i in range(columns.shape[0]):
        total += columns[i, 0]
    y[0] = total


@njit(**FAST)
def healthy_strided(columns, y):
    total = np.float32(0)
    for i in range(columns.shape[1]):
        total += columns[0, i]
    y[0] = total


class All(nn.conv.Algorithm):
    """Nothing useful: it calls every kernel of this file."""

    name = "all_faulty_kernels"

    def supports(self, geometry):
        return None

    def forward(self, x, weight, geometry):
        a, b, places = np.ones(64, np.float32), np.ones(64, np.float32), np.arange(64, dtype=np.uint32)
        for fault in ("float64", "scalar", "unfused", "division", "masked"):
            globals()[f"faulty_{fault}"](a, b)
            globals()[f"healthy_{fault}"](a, b)
        faulty_gather(a, b, places)
        healthy_gather(a, b, places)
        faulty_strided(a.reshape(8, 8), b)
        healthy_strided(a.reshape(8, 8), b)
        for sums in (40, 12):  # two constants beside them: more than 32 registers, fewer than 16
            multiply_adds.run(1, 2, TileShape(sums, 1), a, np.zeros((1, sums * LANES), np.float32))
        return np.zeros(geometry.output_shape, x.dtype)
