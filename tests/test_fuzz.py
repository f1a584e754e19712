"""Public calls with wrong shapes, dtypes, strides, empty, read-only and overlapping arrays: refused, or right.

Every array that a call gets, and every one that it takes from memory.empty, lies in pages of its own that end (or
begin) at a page that can be neither read nor written: a read or write outside of it ends the process. So batches of
calls run in child processes. After each call the bytes around the arrays, and the arrays, have to be what they were;
what is accepted is compared with NumPy in float64.

`python tests/test_fuzz.py 100000` makes as many calls; `python tests/test_fuzz.py --batch SEED FIRST COUNT` makes some
of them in this process.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import mmap
import os
import subprocess
import sys
from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import pytest

import nnlite as nn
from nnlite.compiler import compilation
from nnlite.conv import Epilogue, Fused, FusedPair, Geometry, PairWeights
from nnlite.kernels.dropout import apply_mask
from nnlite.lab import reference
from nnlite.lab.check import _after as after_epilogue
from nnlite.runtime import memory

#: calls of the test; and of a child process
CALLS = int(os.environ.get("NNLITE_FUZZ_CALLS", "600"))
BATCH = 2_000
REFUSALS = (ValueError, TypeError)

# Arrays at the edge of what may be touched ------------------------------------------------------------------------

PAGE = mmap.PAGESIZE
FILLING = 0xA5
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Pages:
    """Memory for some bytes that ends, or begins, at a page that nobody may touch."""

    def __init__(self, size, at_end=True):
        inner = max(PAGE, -(-size // PAGE) * PAGE)
        self.block = mmap.mmap(-1, inner + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.block))
        assert _libc.mprotect(address + (inner if at_end else 0), PAGE, 0) == 0
        self.start = inner - size if at_end else PAGE
        begin = 0 if at_end else PAGE
        self.size, self.inner = size, (begin, begin + inner)
        before, after = self.start - begin, begin + inner - self.start - size
        self.block[begin : self.start] = bytes([FILLING]) * before
        self.block[self.start + size : begin + inner] = bytes([FILLING]) * after
        self.around = before, after

    def array(self, shape, dtype):
        return np.ndarray(shape, dtype, self.block, self.start)

    def intact(self):
        """Whether nothing around the array was written."""
        (begin, end), (before, after) = self.inner, self.around
        outside = self.block[begin : begin + before] + self.block[end - after : end]
        return outside == bytes([FILLING]) * (before + after)


class Taken:
    """In the place of nnlite.runtime.memory.empty: its arrays lie in pages of their own."""

    def __init__(self):
        self.pages = []

    def empty(self, shape, dtype=np.float32):
        dtype = np.dtype(dtype)
        size = prod(shape) * dtype.itemsize
        if size > 1 << 24:
            return np.empty(shape, dtype)
        pages = Pages(size)
        self.pages.append(pages)
        array = pages.array(shape, dtype)
        array.reshape(-1).view(np.uint8)[...] = FILLING
        return array


class Hand:
    """Hands out the arrays of one call, some of them other than they should be, and knows which."""

    def __init__(self, rng):
        self.rng, self.misfit, self.dtypes = rng, False, []
        self.pages, self.before = [], []
        self.read_only = rng.random() < 0.03  # other kernels are compiled for them

    def place(self, values, unaligned=False):
        values = np.ascontiguousarray(values)
        at_end = self.rng.random() < 0.8
        pages = Pages(values.nbytes + unaligned, at_end)
        pages.start += unaligned if not at_end else 0
        if at_end and unaligned:
            pages.size -= 1  # it ends a byte before the page
            pages.around = pages.around[0], 1
            pages.block[pages.inner[1] - 1 : pages.inner[1]] = bytes([FILLING])
        elif unaligned:
            pages.block[pages.inner[0] : pages.start] = bytes([FILLING])
            pages.around = 1, pages.inner[1] - pages.start - values.nbytes
        array = pages.array(values.shape, values.dtype)
        array[...] = values
        self.pages.append(pages)
        self.before.append((pages, pages.block[pages.inner[0] : pages.inner[1]]))
        return array

    def __call__(self, values, *, wrong=0.2, axes=None, count=True):
        """The values as an array that lies anyhow in memory, or of another shape or dtype."""
        if values is None:
            return None
        rng = self.rng
        chance = rng.random()
        if chance < wrong:
            given = self._wrong_dtype(values) if rng.random() < 0.35 else self._wrong_shape(values, axes)
        elif chance < wrong + 0.3:
            given = self._laid_out(values)
        else:
            given = self.place(values)
        if isinstance(given, np.ndarray):
            self.dtypes += [given.dtype] if count else []
            if self.read_only:
                given.flags.writeable = False
        return given

    def _laid_out(self, values):
        kind = self.rng.choice(["fortran", "reversed", "strided", "transposed", "broadcast", "unaligned", "subclass"])
        if kind == "fortran":
            return self.place(values.T).T
        if kind == "reversed" and values.ndim:
            return self.place(values[::-1])[::-1]
        if kind == "strided" and values.ndim:
            return self.place(np.repeat(values, 2, axis=-1))[..., ::2]
        if kind == "transposed" and values.ndim > 1:
            return self.place(values.swapaxes(0, -1)).swapaxes(0, -1)
        if kind == "broadcast" and values.ndim and len(values):
            return np.broadcast_to(self.place(values[:1]), values.shape)
        if kind == "unaligned":
            return self.place(values, unaligned=True)
        if kind == "subclass":
            return self.place(values).view(type("Other", (np.ndarray,), {}))
        return self.place(values)

    def _wrong_dtype(self, values):
        if self.rng.random() < 0.15:
            self.misfit = True
            return values.tolist() if self.rng.random() < 0.5 else "array"
        kinds = ["f8", "f2", ">f4", "i4", "i8", "u1", "?", "c8", "f8"]
        return self.place(values.astype(self.rng.choice(kinds)))

    def _wrong_shape(self, values, axes):
        rng, shape = self.rng, list(values.shape)
        kinds = ["longer", "shorter", "empty", "flat", "more axes", "fewer axes"]
        kind = rng.choice(kinds if shape else ["more axes"])
        axis = int(rng.choice(axes if axes is not None else range(max(len(shape), 1))))
        if kind == "flat" and len(shape) < 2:
            kind = "more axes"
        if kind in ("longer", "shorter", "empty"):
            shape[axis] = {"longer": shape[axis] + 1, "shorter": max(shape[axis] - 1, 0), "empty": 0}[kind]
        elif kind == "flat":
            shape = [prod(shape)]
        elif kind == "more axes":
            shape = [1, *shape] if rng.random() < 0.5 else [*shape, 1]
        else:
            shape = shape[1:] if rng.random() < 0.5 else shape[:-1]
        if tuple(shape) == values.shape:
            return self.place(values)
        self.misfit = True
        return self.place(np.resize(values, shape) if values.size else np.zeros(shape, values.dtype))

    def mixed(self, *known):
        """Whether what was handed out is of several dtypes, or of one that is not known."""
        return len(set(self.dtypes)) > 1 or any(dtype not in [np.dtype(k) for k in known] for dtype in self.dtypes)

    def spoiled(self):
        """Whether anything was written that was handed out, or around it."""
        return any(pages.block[pages.inner[0] : pages.inner[1]] != bytes_before for pages, bytes_before in self.before)


# The calls: each returns (whether it has to be accepted, what makes it, what says what is wrong with its result) -

#: few channels and kernels, because each register tile is compiled
GEOMETRIES = [
    Geometry.of((3, 6, 7, 4), (3, 3, 4, 4)),
    Geometry.of((2, 5, 6, 1), (3, 3, 1, 4), padding=1),
    Geometry.of((1, 7, 7, 4), (3, 3, 4, 20)),
    Geometry.of((17, 4, 4, 1), (2, 2, 1, 4)),
    Geometry.of((2, 6, 5, 4), (2, 3, 2, 4), strides=(2, 1), padding="same", groups=2),
    Geometry.of((2, 7, 6, 4), (3, 3, 4, 4), dilation_rate=2, padding=((0, 2), (1, 1))),
    Geometry.of((2, 3, 3, 4), (1, 1, 4, 4)),
    Geometry.of((0, 5, 5, 4), (3, 3, 4, 4)),
]
OTHER = Geometry.of((3, 7, 7, 4), (3, 3, 4, 5))
NAMES = [name for name in nn.conv.names() if name != "naive"]
FUSING = ["direct", "grouped", "lanes", "winograd"]


def normal(rng, shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


def exact(*arrays):
    return [np.array(array, np.float64) for array in arrays]


def far(name, got, wanted, allowed):
    """What is wrong with an array beside the right one in float64, or None."""
    if not isinstance(got, np.ndarray) or got.shape != wanted.shape:
        return f"{name}: expected shape {wanted.shape}"
    if not got.size:
        return None
    error = np.abs(got.astype(np.float64) - wanted).max() / max(reference.rms(wanted), 1.0)
    return None if error <= allowed else f"{name}: off by {error:.2g}"


def first_of(*found):
    return next((one for one in found if one), None)


def one_pass(hand):
    """forward, grad_input, grad_weight and backward of an algorithm."""
    rng = hand.rng
    algorithm = nn.conv.get(str(rng.choice(NAMES)))
    geometry = GEOMETRIES[rng.integers(len(GEOMETRIES))]
    pass_name = str(rng.choice(reference.PASSES))
    x, weight, dy = (normal(rng, s) for s in (geometry.input_shape, geometry.weight_shape, geometry.output_shape))
    if rng.random() < 0.15:
        x, weight, dy = (array.astype(np.float64) for array in (x, weight, dy))
    names = {"forward": "xw", "grad_input": "dw", "grad_weight": "xd", "gradients": "xwd"}[pass_name]
    given = {letter: hand(array) for letter, array in zip("xwd", (x, weight, dy), strict=True) if letter in names}
    fits = not (hand.misfit or hand.mixed(np.float32, np.float64))
    if rng.random() < 0.03 and pass_name == "forward" and fits and weight.size <= x.size:  # both in the same memory
        given["w"] = given["x"].reshape(-1)[: weight.size].reshape(weight.shape)
    asked = geometry
    if rng.random() < 0.05:
        asked = [None, geometry.input_shape, OTHER][rng.integers(3)]
        hand.misfit = hand.misfit or asked != geometry
    known = hand.dtypes[0] if hand.dtypes else np.dtype(np.float32)
    right = not (hand.misfit or hand.mixed(np.float32, np.float64)) and algorithm.declines(geometry, known) is None
    if pass_name == "gradients":
        needs = [(True, True), (True, False), (False, True), (True,)][min(rng.integers(12), 3)]
        right = right and len(needs) == 2

    def call():
        if pass_name == "gradients":
            return algorithm.backward(given["x"], given["w"], given["d"], asked, needs)
        if pass_name == "forward":
            return (algorithm.forward(given["x"], given["w"], asked),)
        if pass_name == "grad_input":
            return (algorithm.grad_input(given["d"], given["w"], asked),)
        return (algorithm.grad_weight(given["x"], given["d"], asked),)

    def wrong(results):
        given64 = {letter: np.array(array, np.float64) for letter, array in given.items()}
        shapes = {"x": geometry.input_shape, "w": geometry.weight_shape, "d": geometry.output_shape}
        operands = reference.Operands(*(given64.get(letter, np.zeros(shapes[letter])) for letter in "xwd"))
        for single, got in zip(reference.result_passes(pass_name), results, strict=True):
            if pass_name == "gradients" and not needs[single == "grad_weight"]:
                continue
            wanted = reference.by_taps(geometry, single, operands)
            found = far(single, got, wanted, 4 * algorithm.error_bound(geometry, single, known))
            if found or got.dtype != known:
                return found or f"{single}: dtype {got.dtype}"
        return None

    return right, call, wrong


def fused_pass(hand):
    """forward_fused and backward_fused of an algorithm."""
    rng = hand.rng
    algorithm = nn.conv.get(str(rng.choice(FUSING)))
    geometry = GEOMETRIES[rng.integers(len(GEOMETRIES))]
    epilogue = Epilogue(*(bool(rng.integers(2)) for _ in range(3)))
    x, weight = normal(rng, geometry.input_shape), normal(rng, geometry.weight_shape)
    bias = normal(rng, geometry.weight_shape[3]) if epilogue.bias else None
    shape = epilogue.result_shape(geometry.output_shape)
    fuses = algorithm.declines(geometry, np.float32) is None and algorithm.fuses(geometry, epilogue)
    fuses = fuses and not (epilogue.pool and min(geometry.output_shape[1:3]) < 2)
    backward = fuses and rng.random() < 0.6
    bound = 8 * algorithm.error_bound(geometry, "forward")

    def forward_of(x, weight, bias):
        x, weight = exact(x, weight)
        y = reference.by_taps(geometry, "forward", reference.Operands(x, weight, np.zeros(geometry.output_shape)))
        y = y if bias is None else y + np.array(bias, np.float64)
        return (x, weight, *after_epilogue(y, epilogue, bound * max(reference.rms(y), 1.0)))

    if not backward:
        given = hand(x), hand(weight), hand(bias)
        if rng.random() < 0.05:
            given = (*given[:2], normal(rng, geometry.weight_shape[3]) if bias is None else None)
            hand.misfit = True

        def wrong(ran):
            return far("result", ran.result, forward_of(*given)[2], bound)

        right = fuses and not (hand.misfit or hand.mixed(np.float32))
        return right, lambda: algorithm.forward_fused(*given, geometry, epilogue), wrong

    ran = algorithm.forward_fused(x, weight, bias, geometry, epilogue)
    parts = [hand(ran.x, wrong=0.05), hand(ran.weight, wrong=0.05), hand(ran.result, wrong=0.05)]
    residuals = ran.residuals
    if epilogue.pool and algorithm.name != "direct":
        before = list(hand.dtypes)
        residuals = hand(residuals, wrong=0.05, count=False)
        hand.misfit = hand.misfit or getattr(residuals, "dtype", None) != np.uint8
        hand.dtypes = before
    dresult = hand(normal(rng, shape))
    needs = [(True, True, True), (False, True, epilogue.bias), (True, False, False), (True,)][min(rng.integers(12), 3)]
    right = not (hand.misfit or hand.mixed(np.float32)) and len(needs) == 3
    meddled = any(
        right and not np.array_equal(a, b)
        for a, b in zip((*parts, residuals), (*ran[:3], ran.residuals), strict=True)
        if b is not None
    )

    def wrong(gradients):
        if meddled:  # a broadcast array is another one
            return None
        x64, weight64, _, route, sure = forward_of(x, weight, bias)
        if not sure.all():
            return None
        dy = route(np.array(dresult, np.float64))
        operands = reference.Operands(x64, weight64, dy)
        wanted = [reference.by_taps(geometry, name, operands) for name in ("grad_input", "grad_weight")]
        wanted.append(dy.sum(axis=(0, 1, 2)))
        checked = zip(("dx", "dweight", "dbias"), gradients, wanted, needs, strict=True)
        return first_of(*(far(name, got, want, bound) for name, got, want, need in checked if need))

    return right, lambda: algorithm.backward_fused(Fused(*parts, residuals), dresult, geometry, epilogue, needs), wrong


STEMS = [("lanes", (17, 8, 8, 1)), ("lanes", (1, 9, 8, 1)), ("lanes", (0, 8, 8, 1)), ("winograd", (2, 24, 24, 1))]


def pair_pass(hand):
    """The fused pair, as an algorithm's methods and as ops.conv2d_pair."""
    rng = hand.rng
    name, shape = STEMS[rng.integers(4) if rng.random() < 0.5 else rng.integers(3)]
    algorithm = nn.conv.get(name)
    first = Geometry.of(shape, (3, 3, 1, 4))
    second = Geometry.of(first.output_shape, (3, 3, 4, 4))
    epilogue = Epilogue(True, True, bool(rng.integers(2)))
    pair = FusedPair(first, True, second, epilogue, float(rng.choice([0.0, 0.25])))
    arrays = [normal(rng, s) for s in (shape, first.weight_shape, (4,), second.weight_shape, (4,))]
    out = epilogue.result_shape(second.output_shape)
    bound = 16 * max(algorithm.error_bound(second, "forward"), 1e-5)
    mask = apply_mask(np.ones(out, np.float32), pair.dropout, 5).astype(np.float64)

    def exactly(x, w1, b1, w2, b2):
        x, w1, b1, w2, b2 = exact(x, w1, b1, w2, b2)
        y1 = reference.by_taps(first, "forward", reference.Operands(x, w1, np.zeros(first.output_shape))) + b1
        between = np.maximum(y1, 0)
        y2 = reference.by_taps(second, "forward", reference.Operands(between, w2, np.zeros(second.output_shape))) + b2
        result, route, sure = after_epilogue(y2, epilogue, bound * max(reference.rms(y2), 1.0))
        return x, w2, y1, between, result * mask, route, sure.all() and bool((np.abs(y1) > 1e-5).all())

    kind = rng.integers(3)
    if kind < 2:
        given = [hand(array) for array in arrays]
        seed = -1 if rng.random() < 0.03 else 5
        right = not (hand.misfit or hand.mixed(np.float32)) and seed == 5

        def call():
            if kind:
                return algorithm.forward_pair(given[0], PairWeights(*given[1:]), pair, seed).result
            return nn.ops.conv2d_pair(*given, pair=pair, algorithm=algorithm, seed=seed).data

        return right, call, lambda result: far("result", result, exactly(*given)[4], bound)

    ran = algorithm.forward_pair(arrays[0], PairWeights(*arrays[1:]), pair, 5)
    dresult = hand(normal(rng, out))
    parts = [hand(ran.x, wrong=0.05), PairWeights(*(hand(w, wrong=0.03) for w in arrays[1:]))]
    parts.append(hand(ran.result, wrong=0.05))
    right = not (hand.misfit or hand.mixed(np.float32))
    meddled = right and not all(
        np.array_equal(a, b) for a, b in zip((parts[0], *parts[1], parts[2]), (*arrays, ran.result), strict=True)
    )

    def wrong(gradients):
        x, w2, y1, between, _, route, sure = exactly(*arrays)
        if meddled or not sure:
            return None
        dy2 = route(np.array(dresult, np.float64) * mask)
        both = reference.Operands(between, w2, dy2)
        dy1 = reference.by_taps(second, "grad_input", both) * (y1 > 0)
        wanted = (
            reference.by_taps(first, "grad_weight", reference.Operands(x, np.array(arrays[1], np.float64), dy1)),
            dy1.sum(axis=(0, 1, 2)),
            reference.by_taps(second, "grad_weight", both),
            dy2.sum(axis=(0, 1, 2)),
        )
        return first_of(
            *(far(n, g, w, 4 * bound) for n, g, w in zip(PairWeights._fields, gradients, wanted, strict=True))
        )

    return right, lambda: algorithm.backward_pair(Fused(*parts, ran.residuals), dresult, pair, 5), wrong


def tensor(array):
    """A tensor whose array was replaced by another one, of whatever kind; what is no array is handed on as it is."""
    if not isinstance(array, np.ndarray):
        return array
    made = nn.Tensor(np.zeros(1, np.float32), requires_grad=True)
    made._data = array
    return made


def conv2d(hand):
    """ops.conv2d, forward and back."""
    rng = hand.rng
    algorithm = str(rng.choice(["auto", *NAMES]))
    geometry = GEOMETRIES[rng.integers(len(GEOMETRIES))]
    options = {
        "strides": geometry.strides,
        "padding": geometry.pads,
        "dilation_rate": geometry.dilation_rate,
        "groups": geometry.groups,
    }
    x, weight = hand(normal(rng, geometry.input_shape), axes=(0, 1, 2, 3)), normal(rng, geometry.weight_shape)
    weight = hand(weight, axes=(2,))
    bias = hand(normal(rng, geometry.weight_shape[3])) if rng.random() < 0.5 else None
    relu = bool(rng.integers(2))
    right = not hand.mixed(np.float32, np.float64) and all(isinstance(a, np.ndarray) for a in (x, weight))
    right = right and (bias is None or isinstance(bias, np.ndarray))
    if right:
        try:
            geometry = Geometry.of(x.shape, weight.shape, **options)
        except ValueError:
            right = False
    right = right and (bias is None or bias.shape == weight.shape[3:])
    dtype = hand.dtypes[0] if hand.dtypes else np.dtype(np.float32)
    right = right and (algorithm == "auto" or nn.conv.get(algorithm).declines(geometry, dtype) is None)
    dy = hand(normal(rng, geometry.output_shape, dtype if right else np.float32), wrong=0, count=False)
    operands = [tensor(x), tensor(weight), None if bias is None else tensor(bias)]

    def call():
        y = nn.ops.conv2d(*operands, **options, algorithm=algorithm, relu=relu)
        y.backward(dy)
        return y.data

    def wrong(result):
        x64, weight64, dy64 = exact(x, weight, dy)
        y = reference.by_taps(geometry, "forward", reference.Operands(x64, weight64, dy64))
        y = y if bias is None else y + np.array(bias, np.float64)
        bound = 8 * max(nn.conv.get(n).error_bound(geometry, "forward", dtype) for n in ("im2col", "winograd"))
        wanted, route, sure = after_epilogue(y, Epilogue(False, relu), bound * max(reference.rms(y), 1.0))
        found = far("y", result, wanted, bound)
        if found or not sure.all():
            return found
        right_dy = reference.Operands(x64, weight64, route(dy64))
        wanted = [reference.by_taps(geometry, name, right_dy) for name in ("grad_input", "grad_weight")]
        wanted.append(right_dy.dy.sum(axis=(0, 1, 2)))
        return first_of(
            *(far("gradient", t.grad, w, bound) for t, w in zip(operands, wanted, strict=True) if t is not None)
        )

    return right, call, wrong


def dense(hand):
    """ops.dense, forward and back, with and without ReLU and dropout."""
    rng = hand.rng
    n = int(rng.choice([10, 40]))
    x, weight = hand(normal(rng, (5, 30)), axes=(0, 1)), hand(normal(rng, (30, n)), axes=(0,))
    bias = hand(normal(rng, n)) if rng.random() < 0.6 else None
    relu = bool(rng.integers(2))
    dropout = 0.25 if relu and rng.random() < 0.5 else 0.0
    arrays = [a for a in (x, weight, bias) if a is not None]
    right = not hand.mixed(np.float32, np.float64) and all(isinstance(a, np.ndarray) for a in arrays)
    right = right and weight.ndim == 2 and x.ndim > 0 and x.shape[-1] == len(weight)
    right = right and (bias is None or bias.shape == weight.shape[1:])
    operands = [tensor(x), tensor(weight), None if bias is None else tensor(bias)]
    out = (*x.shape[:-1], weight.shape[1]) if right else (1,)
    dy = hand(normal(rng, out, hand.dtypes[0] if right else np.float32), wrong=0, count=False)

    def call():
        y = nn.ops.dense(*operands, relu=relu, dropout=dropout, seed=7)
        y.backward(dy)
        return y.data

    def wrong(result):
        x64, weight64, dy64 = exact(x, weight, dy)
        if not x.size:
            return None if not result.any() or bias is not None else "y: expected zeros"
        y = x64 @ weight64 + (0 if bias is None else np.array(bias, np.float64))
        if relu and (np.abs(y) < 1e-4).any():
            return None
        mask = apply_mask(np.ones(y.shape, np.float32), dropout, 7).astype(np.float64) if dropout else 1.0
        slope = mask * (y > 0) if relu else np.ones_like(y)
        flowing = dy64 * slope
        rows, drows = x64.reshape(-1, x64.shape[-1]), flowing.reshape(-1, flowing.shape[-1])
        wanted = [flowing @ weight64.T, rows.T @ drows, drows.sum(axis=0)]
        pairs = zip(operands, wanted, strict=True)
        return first_of(
            far("y", result, y * slope, 1e-4), *(far("gradient", t.grad, w, 1e-4) for t, w in pairs if t is not None)
        )

    return right, call, wrong


def max_pool2d(hand):
    rng = hand.rng
    x = hand(normal(rng, (2, 5, 6, int(rng.choice([3, 20])))))
    pool, padding = (2, int(rng.integers(1, 4))), str(rng.choice(["valid", "same"]))
    right = isinstance(x, np.ndarray) and not hand.mixed(np.float32, np.float64) and x.ndim == 4
    right = right and (padding == "same" or (x.shape[1] >= pool[0] and x.shape[2] >= pool[1]))
    right = right and min(x.shape[1:3]) > 0
    operand = tensor(x)

    def call():
        y = nn.ops.max_pool2d(operand, pool, None, padding)
        y.backward(np.ones(y.shape, y.dtype))
        return y.data

    def wrong(result):
        x64 = np.array(x, np.float64)
        pads = [((-size) % p if padding == "same" else 0) for size, p in zip(x.shape[1:3], pool, strict=True)]
        widths = [(0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)]
        padded = np.pad(x64, widths, constant_values=-np.inf)
        y, dx = np.zeros(result.shape), np.zeros(padded.shape)
        for n, oh, ow, c in np.ndindex(result.shape):
            window = padded[n, oh * pool[0] :, ow * pool[1] :, c][: pool[0], : pool[1]]
            r, s = np.unravel_index(window.argmax(), window.shape)
            y[n, oh, ow, c] = window[r, s]
            dx[n, oh * pool[0] + r, ow * pool[1] + s, c] += 1
        inside = tuple(slice(before, before + size) for (before, _), size in zip(widths, x.shape, strict=True))
        return first_of(far("y", result, y, 0), far("dx", operand.grad, dx[inside], 0))

    return right, call, wrong


def dropout(hand):
    rng = hand.rng
    x, rate, seed = hand(normal(rng, (3, 50))), float(rng.choice([0.0, 0.5, 1.0, -0.1])), int(rng.choice([3, -1]))
    right = isinstance(x, np.ndarray) and not hand.mixed(np.float32, np.float64) and 0 <= rate < 1 and seed >= 0
    operand = tensor(x)

    def call():
        y = nn.ops.dropout(operand, rate=rate, seed=seed)
        y.backward(np.ones(y.shape, y.dtype))
        return y.data

    def wrong(result):
        mask = apply_mask(np.ones(x.shape, np.float32), rate, seed).astype(np.float64)
        return first_of(far("y", result, np.array(x, np.float64) * mask, 1e-6), far("dx", operand.grad, mask, 1e-6))

    return right, call, wrong


def loss(hand):
    """The losses, of labels that are wrong in kind, number or value."""
    rng = hand.rng
    name = str(rng.choice(["sparse_categorical_crossentropy", "categorical_crossentropy", "mean_squared_error"]))
    n, classes = 6, 5
    logits = bool(rng.integers(2))
    predictions = hand(normal(rng, (n, classes)) if logits else rng.random((n, classes)).astype(np.float32) + 0.1)
    right = isinstance(predictions, np.ndarray) and not hand.mixed(np.float32, np.float64)
    right = right and predictions.size > 0 and (predictions.ndim == 2 or name == "mean_squared_error")
    if name.startswith("sparse"):
        labels = rng.integers(0, classes, n)
        kind = rng.integers(12)
        if kind == 0:
            labels[rng.integers(n)] = rng.choice([-1, classes, 2**40, -(2**40)])
        labels = labels.astype(rng.choice(["i8", "i4", "i2", "f4", "f8"])) if kind else labels
        target = hand(labels.reshape(n, 1) if kind == 1 else labels, count=False)
        right = right and isinstance(target, (np.ndarray, list)) and np.asarray(target).dtype.kind in "iuf"
        right = right and np.shape(target) in ((len(predictions),), (len(predictions), 1))
        if right:
            flat = np.asarray(target, np.float64)
            right = bool(((flat >= 0) & (flat < predictions.shape[1]) & (flat == np.floor(flat))).all())
    else:
        target = hand(rng.random((n, classes)).astype(np.float32), count=False)
        right = right and isinstance(target, (np.ndarray, list)) and np.asarray(target).dtype.kind in "fiub"
        right = right and np.shape(target) == predictions.shape
    operand = tensor(predictions)
    options = {} if name.startswith("mean") else {"from_logits": logits}

    def call():
        value = getattr(nn.losses, name)(target, operand, **options)
        value.backward()
        return value.data

    def wrong(value):
        p, t = exact(predictions, np.asarray(target))
        if name.startswith("mean"):
            return first_of(
                far("loss", value, np.mean((p - t) ** 2), 1e-5), far("dp", operand.grad, 2 * (p - t) / p.size, 1e-5)
            )
        if name.startswith("sparse"):
            t = np.eye(p.shape[1])[t.reshape(-1).astype(int)]
        total = np.exp(p).sum(1, keepdims=True) if logits else p.sum(1, keepdims=True)
        share = (np.exp(p) if logits else p) / total
        gradient = share * t.sum(1, keepdims=True) - t if logits else (t.sum(1, keepdims=True) - t / share) / total
        if not logits and not ((share > 1e-6) & (share < 1 - 1e-6)).all():
            return None
        return first_of(
            far("loss", value, np.asarray(-(t * np.log(share)).sum(1).mean()), 1e-4),
            far("dp", operand.grad, gradient / len(p), 1e-4),
        )

    return right, call, wrong


UNARY = {
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "linear": (lambda x: x, np.ones_like),
    "negative": (lambda x: -x, lambda x: -np.ones_like(x)),
    "exp": (np.exp, np.exp),
    "flatten": (lambda x: x.reshape(len(x), -1), np.ones_like),
    "transpose": (lambda x: x.T, np.ones_like),
    "sum": (lambda x: x.sum(), np.ones_like),
    "mean": (lambda x: x.mean(), lambda x: np.full_like(x, 1 / x.size)),
    "softmax": (lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), np.zeros_like),
    "max": (lambda x: x.max(), lambda x: (x == x.max()) / (x == x.max()).sum()),
}


def unary(hand):
    name = str(hand.rng.choice(list(UNARY)))
    x = hand(normal(hand.rng, (3, 4, 5)))
    value, slope = UNARY[name]
    right = isinstance(x, np.ndarray) and not hand.mixed(np.float32, np.float64) and x.size > 0
    right = right and not (name == "flatten" and x.ndim == 0)
    if isinstance(x, np.ndarray) and not x.size:  # NumPy's business
        right = None
    operand = tensor(x)

    def call():
        y = getattr(nn.ops, name)(operand)
        y.backward(np.ones(y.shape, y.dtype))
        return y.data

    def wrong(result):
        if not x.size:
            return None
        (x64,) = exact(x)
        return first_of(
            far("y", result, np.asarray(value(x64)), 1e-5), far("dx", operand.grad, np.asarray(slope(x64)), 1e-5)
        )

    return right, call, wrong


BINARY = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide, "matmul": np.matmul}


def binary(hand):
    rng, name = hand.rng, str(hand.rng.choice(list(BINARY)))
    x, y = hand(normal(rng, (4, 5, 6))), hand(normal(rng, (4, 6, 5) if name == "matmul" else (5, 6)) + 3)
    right = all(isinstance(a, np.ndarray) and a.dtype in (np.float32, np.float64) for a in (x, y))
    expected = None
    if right:
        try:
            expected = BINARY[name](*exact(x, y))
        except ValueError:
            right = False

    def call():
        z = getattr(nn.ops, name)(tensor(x), tensor(y))
        z.backward(np.ones(z.shape, z.dtype))
        return z.data

    return right, call, lambda result: far("z", result, np.asarray(expected), 1e-4)


class Network:
    """A model whose layers are computed together, and each by itself: convolution and pooling, dense and dropout."""

    def __init__(self, fuse):
        self.model = nn.Sequential(
            [
                nn.Input((8, 8, 1)),
                nn.Conv2D(4, 3, activation="relu"),
                nn.Conv2D(4, 3, activation="relu"),
                nn.MaxPooling2D(2),
                nn.Flatten(),
                nn.Dense(40, activation="relu"),
                nn.Dropout(0.25),
                nn.Dense(10, activation="softmax"),
            ]
        )
        self.model.compile("sgd", "sparse_categorical_crossentropy", fuse=fuse)
        self.start = self.model.get_weights()


_networks = {}


def replaced_weights(hand):
    """A model one of whose parameters' arrays was replaced by another one, of whatever kind."""
    rng, fuse = hand.rng, bool(hand.rng.integers(2))
    if fuse not in _networks:
        _networks[fuse] = Network(fuse)
    model, start = _networks[fuse].model, _networks[fuse].start
    parameters = model.parameters()
    for parameter, values in zip(parameters, start, strict=True):
        parameter._data, parameter._grad = values.copy(), None
    i = int(rng.integers(len(parameters)))
    parameters[i]._data = hand(parameters[i].data, wrong=0.5)
    x = normal(rng, (17, 8, 8, 1))
    right = not hand.misfit and not hand.mixed(np.float32)
    training = bool(rng.integers(2))

    def call():
        y = model(x, training=training)
        y.backward(np.ones(y.shape, np.float32))
        return y.data

    def wrong(result):
        given = [np.array(parameter.data) for parameter in parameters]
        for parameter, values in zip(parameters, given, strict=True):
            parameter._data = np.ascontiguousarray(values)
        with nn.conv.use("im2col"):
            twin = model(nn.Tensor(x), training=False).data
        return None if training else far("y", result, twin.astype(np.float64), 1e-3)

    return right, call, wrong


def set_weights(hand):
    """All are written, or none."""
    rng = hand.rng
    model, start = _networks.setdefault(True, Network(True)).model, _networks[True].start
    parameters = model.parameters()
    for parameter, values in zip(parameters, start, strict=True):
        parameter._data = values.copy()
    given = [hand(rng.standard_normal(values.shape).astype(np.float32), wrong=0.05) for values in start]
    locked = int(rng.integers(len(parameters))) if rng.random() < 0.2 else None
    if locked is not None:
        parameters[locked].data.flags.writeable = False
    if rng.random() < 0.1:
        given = given[:-1]
        hand.misfit = True
    kinds = [np.asarray(a).dtype.kind for a in given]
    shapes = [np.shape(a) for a in given]
    right = len(given) == len(start) and all(kind in "fiub" for kind in kinds) and locked is None
    right = right and shapes == [values.shape for values in start]

    def call():
        try:
            model.set_weights(given)
        except REFUSALS:
            same = zip(parameters, start, strict=True)
            if not all(np.array_equal(parameter.data, values) for parameter, values in same):
                raise AssertionError("half of the weights were written") from None
            raise
        return [parameter.data for parameter in parameters]

    def wrong(written):
        pairs = zip(written, given, strict=True)
        return first_of(*(far("weights", a, np.array(b, np.float64), 1e-6) for a, b in pairs))

    return right, call, wrong


TARGETS = [
    one_pass, one_pass, one_pass, one_pass, fused_pass, fused_pass, pair_pass, conv2d, conv2d, dense, max_pool2d,
    dropout, loss, unary, binary, replaced_weights, set_weights,
]  # fmt: skip


def make(seed, i):
    """Make call `i`: (what was called, how it ended, what is wrong with that)."""
    rng = np.random.default_rng((seed, i))
    target = TARGETS[rng.integers(len(TARGETS))]
    hand, taken = Hand(rng), Taken()
    nn.seed(0)
    memory.empty = taken.empty
    right, call, wrong = target(hand)
    with np.errstate(all="ignore"):
        try:
            result, ended, found = call(), "accepted", None
        except REFUSALS as error:
            ended, found = "refused", f"expected to be accepted: {error}" if right else None
        except Exception as error:
            ended, found = "refused", f"unclear error: {type(error).__name__}: {error}"
        if ended == "accepted":
            found = "expected to be refused" if right is False else wrong(result)
    if hand.spoiled():
        found = "what it was given, or what lies around that, is written"
    if not all(pages.intact() for pages in taken.pages):
        found = "written outside of an array from nnlite.runtime.memory"
    return target.__name__, ended, found


# Batches in processes of their own ---------------------------------------------------------------------------------


def batch(seed, first, count):
    """Make calls in this process, and print what became of them; which one runs is in the file of the environment."""
    faulthandler.enable()
    nn.set_num_threads(nn.get_num_threads() if first // BATCH % 4 == 0 else 1)  # threads wait where others compute
    progress = os.open(os.environ.get("NNLITE_FUZZ_PROGRESS", os.devnull), os.O_WRONLY)
    ended, found = Counter(), []
    for i in range(first, first + count):
        os.pwrite(progress, b"%12d" % i, 0)
        name, how, wrong = make(seed, i)
        ended[f"{name} {how}"] += 1
        if wrong:
            found.append(f"call {i} of seed {seed}, {name}: {wrong}")
    print(json.dumps({"ended": ended, "found": found}))


def run(calls, seed, folder, say=lambda text: None):
    """(how calls ended, what was found) of so many calls, in child processes."""
    ended, found, first = Counter(), [], 0
    progress = Path(folder, "progress")
    while first < calls:
        count, before = min(BATCH, calls - first), len(found)
        progress.write_text("")
        environment = os.environ | {"MALLOC_PERTURB_": str(1 + first % 254), "NNLITE_FUZZ_PROGRESS": str(progress)}
        command = [sys.executable, __file__, "--batch", str(seed), str(first), str(count)]
        child = subprocess.run(command, env=environment, capture_output=True, text=True)
        if child.returncode:
            i = int(progress.read_text().strip() or first)
            found.append(f"call {i} of seed {seed}: the process ended with {child.returncode}\n{child.stderr[-3000:]}")
            count = i + 1 - first
        else:
            report = json.loads(child.stdout.splitlines()[-1])
            ended.update(report["ended"])
            found += report["found"]
        first += count
        say("\n".join([f"{first} calls, {len(found)} findings", *found[before:]]))
    return ended, found


@pytest.mark.skipif(not compilation.ENABLED, reason="for kernels")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="for mprotect as Linux has it")
def test_public_calls_are_refused_or_right(tmp_path):
    ended, found = run(CALLS, 0, tmp_path)
    assert not found, "\n".join(found[:20])
    assert {name.split()[0] for name in ended} >= {target.__name__ for target in TARGETS}


def main(arguments):
    if arguments[:1] == ["--batch"]:
        batch(*map(int, arguments[1:]))
        return 0
    calls, seed = int(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 0
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        ended, found = run(calls, seed, folder, lambda text: print(text, flush=True))
    for name, count in sorted(ended.items()):
        print(f"{count:7d} {name}")
    print("\n".join(found) or "nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
