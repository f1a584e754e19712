"""The naive loops, compiled: what a JIT alone gives."""

from __future__ import annotations

import numpy as np

from nnlite.compiler.compilation import ENABLED, jit
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.geometry import Geometry
from nnlite.conv.patches import steps
from nnlite.runtime import memory


@jit
def _forward(x, weight, y, strides, corner, dilation):
    kh, kw, c_group, k_all = weight.shape
    k_group = y.shape[3] * c_group // x.shape[3]
    for n in range(y.shape[0]):
        for oh in range(y.shape[1]):
            for ow in range(y.shape[2]):
                for k in range(k_all):
                    first = k // k_group * c_group
                    total = y.dtype.type(0)
                    for r in range(kh):
                        h = oh * strides[0] + r * dilation[0] - corner[0]
                        if 0 <= h < x.shape[1]:
                            for s in range(kw):
                                w = ow * strides[1] + s * dilation[1] - corner[1]
                                if 0 <= w < x.shape[2]:
                                    for c in range(c_group):
                                        total += x[n, h, w, first + c] * weight[r, s, c, k]
                    y[n, oh, ow, k] = total


@jit
def _grad_input(dy, weight, dx, strides, corner, dilation):
    kh, kw, c_group, k_all = weight.shape
    k_group = dy.shape[3] * c_group // dx.shape[3]
    for n in range(dy.shape[0]):
        for oh in range(dy.shape[1]):
            for ow in range(dy.shape[2]):
                for k in range(k_all):
                    first = k // k_group * c_group
                    for r in range(kh):
                        h = oh * strides[0] + r * dilation[0] - corner[0]
                        if 0 <= h < dx.shape[1]:
                            for s in range(kw):
                                w = ow * strides[1] + s * dilation[1] - corner[1]
                                if 0 <= w < dx.shape[2]:
                                    for c in range(c_group):
                                        dx[n, h, w, first + c] += dy[n, oh, ow, k] * weight[r, s, c, k]


@jit
def _grad_weight(x, dy, dweight, strides, corner, dilation):
    kh, kw, c_group, k_all = dweight.shape
    k_group = dy.shape[3] * c_group // x.shape[3]
    for n in range(dy.shape[0]):
        for oh in range(dy.shape[1]):
            for ow in range(dy.shape[2]):
                for k in range(k_all):
                    first = k // k_group * c_group
                    for r in range(kh):
                        h = oh * strides[0] + r * dilation[0] - corner[0]
                        if 0 <= h < x.shape[1]:
                            for s in range(kw):
                                w = ow * strides[1] + s * dilation[1] - corner[1]
                                if 0 <= w < x.shape[2]:
                                    for c in range(c_group):
                                        dweight[r, s, c, k] += x[n, h, w, first + c] * dy[n, oh, ow, k]


class NumbaLoops(Algorithm):
    """The naive loops, compiled by Numba; nothing else is changed."""

    name = "numba"
    reference_only = not ENABLED  # uncompiled, they are plain Python

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        y = memory.empty(geometry.output_shape, x.dtype)
        _forward(x, weight, y, *steps(geometry))
        return y

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        dx = memory.zeros(geometry.input_shape, dy.dtype)
        _grad_input(dy, weight, dx, *steps(geometry))
        return dx

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        # summed in float64: one running sum over all pixels of a batch would lose digits in float32
        dweight = np.zeros(geometry.weight_shape, np.float64)
        _grad_weight(x, dy, dweight, *steps(geometry))
        return dweight.astype(x.dtype)
