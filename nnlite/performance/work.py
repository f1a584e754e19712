"""What each operation does, forward and back, as work items (nnlite.conv.work): for counting and for the time model.

An operation that is not in the table, a user's own for one, has no work items: what it costs cannot be predicted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from nnlite.conv import Epilogue, Geometry, choice, work
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.geometry import pooled
from nnlite.conv.work import ITEMSIZE, WorkItem
from nnlite.ops.dense import drops_in_kernel
from nnlite.runtime.errors import int_pair
from nnlite.runtime.scopes import gradient_part

#: part of the step -> what is done in it
Parts = dict[str, list[WorkItem]]


class Undeclared(Exception):
    """An operation or an algorithm does not declare its work."""


@dataclass(frozen=True)
class Array:
    """The shape and type of an array: all that a work item depends on."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Call:
    """One call of an operation in a step."""

    layer: str
    operation: Callable
    arguments: tuple[Any, ...]  # an Array in place of each array
    options: dict[str, Any]
    needs: tuple[bool, ...]

    @property
    def name(self) -> str:
        return self.operation.__name__

    def parts(self) -> Parts:
        """The work items of each part of the step that it takes part in. Raises Undeclared if it does not say."""
        if self.name not in _OPERATIONS:
            raise Undeclared(f"operation {self.name!r}")
        return _OPERATIONS[self.name](self)


# Convolution ---------------------------------------------------------------------------------------------------


def problem(call: Call) -> tuple[Algorithm, Geometry, Epilogue]:
    """(algorithm, geometry, epilogue) of a conv2d call."""
    x, weight, bias = call.arguments
    options = {
        key: call.options[key] for key in ("strides", "padding", "dilation_rate", "groups") if key in call.options
    }
    geometry = Geometry.of(x.shape, weight.shape, **options)
    algorithm = choice.select(geometry, x.dtype, call.options.get("algorithm", "auto"))
    relu, max_pool = call.options.get("relu", False), call.options.get("max_pool", False)
    return algorithm, geometry, Epilogue(bias is not None, relu, max_pool)


def _conv2d(call: Call) -> Parts:
    algorithm, geometry, epilogue = problem(call)
    together = type(algorithm).backward is not Algorithm.backward

    def of(pass_name: str, with_epilogue: Epilogue | None = None) -> list[WorkItem]:
        declared = algorithm.work(geometry, pass_name, with_epilogue)
        if declared is None:
            raise Undeclared(f"algorithm {algorithm.name!r}")
        return declared

    if algorithm.fuses(geometry, epilogue):
        gradients = gradient_part(call.needs)
        return {"forward": of("forward", epilogue), "grad_input": [], gradients: of(gradients, epilogue)}
    size, k = prod(geometry.output_shape), geometry.weight_shape[3]
    parts: Parts = {"forward": of("forward"), "grad_input": [], "grad_weight": []}
    if epilogue.bias:
        parts["forward"].append(_per_row("bias", "add_row", size, k, 2))
        if call.needs[2]:
            parts["grad_weight"].append(_per_row("bias gradient", "sum_rows", size, k, 1))
    if epilogue.relu:
        parts["forward"].append(_elementwise("ReLU", "maximum", size, 2))
        parts["grad_input"].append(_relu_gradient(size))
    if call.needs[0] and call.needs[1] and together:
        parts["gradients"] = of("gradients")
    else:
        parts["grad_input"] += of("grad_input") if call.needs[0] else []
        parts["grad_weight"] += of("grad_weight") if call.needs[1] else []
    return parts


def _conv2d_pair(call: Call) -> Parts:
    pair, algorithm = call.options["pair"], call.options["algorithm"]
    declared = {part: algorithm.work_pair(pair, part) for part in ("forward", "gradients")}
    if None in declared.values():
        raise Undeclared(f"algorithm {algorithm.name!r}")
    return {**declared, "grad_input": []}


# Products, pooling, dropout -------------------------------------------------------------------------------------


def _dense(call: Call) -> Parts:
    from nnlite.compiler.tile_shapes import tile_shape
    from nnlite.kernels.tall_skinny import WIDEST

    x, weight, bias = call.arguments
    k, n = weight.shape
    m = x.size // max(k, 1)
    is_tall_skinny = n <= WIDEST
    kind = "tall_skinny" if is_tall_skinny else "matmul"
    parts: Parts = {"forward": [work.product("product", kind, m, n, k)], "grad_input": []}
    if call.options.get("dropout"):
        touched = 2 * ITEMSIZE * m * n
        if drops_in_kernel(n, x.dtype):
            width = min(n, tile_shape(n).width)  # a row of a tile at a time
            parts["forward"].append(work.move("dropout", "drop", (width,), touched=touched, arrays=touched, moved=0))
        else:
            parts["forward"].append(work.move("dropout", "dropout", (), touched=touched, arrays=touched))
    if call.options.get("relu"):
        nbytes = 3 * ITEMSIZE * m * n
        parts["grad_input"].append(
            work.move("ReLU and bias gradients", "relu_backward", (n,), touched=nbytes, arrays=nbytes)
        )
    elif bias is not None and call.needs[2]:
        parts["grad_input"].append(_per_row("bias gradient", "bias_gradient", m * n, n, 1))
    if is_tall_skinny:
        both = int(call.needs[0]) + int(call.needs[1])
        shared = work.product("both products", "tall_skinny_gradients", m, n, k, layout=both)
        flops = both * shared.flops
        part = gradient_part(call.needs)
        parts[part] = [*parts.get(part, []), replace(shared, amount=float(flops), flops=flops)]
        return parts
    if call.needs[0]:
        parts["grad_input"].append(work.product("product", "matmul", m, k, n, layout=2))
    if call.needs[1]:
        parts["grad_weight"] = [work.product("product", "matmul", k, n, m, layout=1)]
    return parts


def _max_pool2d(call: Call) -> Parts:
    x, pool_size, strides, padding = call.arguments
    n, h, w, c = x.shape
    pool = int_pair("pool_size", pool_size)
    steps = pool if strides is None else int_pair("strides", strides)
    pads, (oh, ow) = pooled((h, w), pool, steps, padding)
    y = n * oh * ow * c
    moved = ITEMSIZE * (x.size + y) + y  # the argmax indices take one byte each
    padded = int(pads != ((0, 0), (0, 0)))
    size = (c, *pool, *steps, padded)
    return {
        "forward": [work.move("maxima", "max_pool", size, touched=moved, arrays=moved)],
        "grad_input": [work.move("gradients to maxima", "max_pool_backward", size, touched=moved, arrays=moved)],
    }


def _dropout(call: Call) -> Parts:
    size = call.arguments[0].size
    if not call.options["rate"]:
        return {"forward": [], "grad_input": []}
    once = work.move("mask", "dropout", (), touched=2 * ITEMSIZE * size, arrays=2 * ITEMSIZE * size)
    return {"forward": [once], "grad_input": [once]}


# Elementwise operations and the loss ---------------------------------------------------------------------------


def _elementwise(what: str, kind: str, size: int, arrays: int) -> WorkItem:
    """NumPy's pass over `arrays` arrays of `size` float32."""
    nbytes = ITEMSIZE * arrays * size
    return work.move(what, kind, (), touched=nbytes, arrays=nbytes)


def _per_row(what: str, kind: str, size: int, k: int, arrays: int) -> WorkItem:
    """NumPy's pass over rows of k numbers, whose inner loop is as long as a row."""
    nbytes = ITEMSIZE * arrays * size
    return work.move(what, kind, (k,), touched=nbytes, arrays=nbytes)


def _relu_gradient(size: int) -> WorkItem:
    """dy * (y > 0): reads y and dy, writes the product, and a byte each for the mask, which it reads again."""
    nbytes = (3 * ITEMSIZE + 2) * size
    return work.move("ReLU gradient", "mask", (), touched=nbytes, arrays=nbytes)


def _relu(call: Call) -> Parts:
    size = call.arguments[0].size
    return {"forward": [_elementwise("ReLU", "maximum", size, 2)], "grad_input": [_relu_gradient(size)]}


def _tanh(call: Call) -> Parts:
    size = call.arguments[0].size
    return {
        "forward": [_elementwise("tanh", "tanh", size, 2)],
        "grad_input": [_elementwise("tanh gradient", "tanh_gradient", size, 7)],  # dy * (1 - y * y): three passes
    }


def _sigmoid(call: Call) -> Parts:
    size = call.arguments[0].size
    return {
        "forward": [_elementwise("sigmoid", "sigmoid", size, 8)],  # 1 / (1 + e ** -x): four passes
        "grad_input": [_elementwise("sigmoid gradient", "sigmoid_gradient", size, 8)],  # dy * y * (1 - y): three
    }


def _softmax(call: Call) -> Parts:
    size, columns = call.arguments[0].size, call.arguments[0].shape[-1]
    return {
        "forward": [_per_row("exponentials and sums", "softmax", size, columns, 5)],
        "grad_input": [_per_row("softmax gradient", "softmax_gradient", size, columns, 5)],
    }


def _crossentropy(call: Call) -> Parts:
    size, columns = call.arguments[0].size, call.arguments[0].shape[-1]
    if call.name.startswith("sparse") and call.options.get("from_logits"):
        once = _per_row("loss and its gradient", "crossentropy", size, columns, 2)
        return {"forward": [once], "grad_input": [_elementwise("scaled gradient", "multiply", size, 2)]}
    return {
        "forward": [_per_row("logarithms", "softmax", size, columns, 5)],
        "grad_input": [_per_row("probabilities", "softmax_gradient", size, columns, 5)],
    }


def _view(call: Call) -> Parts:
    """The same elements in another shape: no traffic."""
    return {"forward": [], "grad_input": []}


_OPERATIONS: dict[str, Callable[[Call], Parts]] = {
    "conv2d": _conv2d,
    "conv2d_pair": _conv2d_pair,
    "dense": _dense,
    "max_pool2d": _max_pool2d,
    "dropout": _dropout,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "tanh": _tanh,
    "sparse_categorical_crossentropy": _crossentropy,
    "categorical_crossentropy": _crossentropy,
    "flatten": _view,
    "reshape": _view,
    "linear": _view,
}
