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
from nnlite.conv.work import IN_CACHE, ITEMSIZE, WorkItem
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
    dtype: np.dtype | type = np.float32

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

    def of(pass_name: str, with_epilogue: Epilogue | None = None) -> list[WorkItem]:
        declared = algorithm.work(geometry, pass_name, with_epilogue)
        if declared is None:
            raise Undeclared(f"algorithm {algorithm.name!r}")
        return declared

    if algorithm.fuses(geometry, epilogue):
        gradients, forward = gradient_part(call.needs), of("forward", epilogue)
        if choice.is_estimated(call.options.get("algorithm", "auto")):
            algorithm = choice.for_gradients(algorithm, geometry, call.arguments[0].dtype, epilogue, gradients)
        return {"forward": forward, "grad_input": [], gradients: of(gradients, epilogue)}
    y = Array(geometry.output_shape)
    parts: Parts = {"forward": of("forward"), "grad_input": [], "grad_weight": []}
    if epilogue.bias:
        parts["forward"].append(_pass("bias", "add_row", y))
        if call.needs[2]:
            parts["grad_weight"].append(_pass("bias gradient", "sum_rows", y))
    if epilogue.relu:
        parts["forward"].append(_pass("ReLU", "maximum", y))
        parts["grad_input"].append(_pass("ReLU gradient", "mask", y))
    if call.needs[0] and call.needs[1] and type(algorithm).backward is not Algorithm.backward:
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


# Dense layers and pooling ---------------------------------------------------------------------------------------


def _dense(call: Call) -> Parts:
    from nnlite.kernels.tall_skinny import WIDEST

    x, weight, bias = call.arguments
    k, n = weight.shape
    y = Array((x.size // max(k, 1), n))
    m, is_tall_skinny = y.shape[0], n <= WIDEST
    parts: Parts = {
        "forward": [work.product("product", "tall_skinny" if is_tall_skinny else "matmul", m, n, k)],
        "grad_input": [],
    }
    if call.options.get("dropout"):
        item = _pass("dropout", "dropout", y)
        if drops_in_kernel(n, x.dtype):  # a row of a tile at a time
            item = replace(item, moved=0, working_set=min(item.working_set // 2, IN_CACHE))
        parts["forward"].append(item)
    if call.options.get("relu"):
        parts["grad_input"].append(_pass("ReLU and bias gradients", "relu_backward", y))
    elif bias is not None and call.needs[2]:
        parts["grad_input"].append(_pass("bias gradient", "bias_gradient", y))
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


# Passes over whole arrays, and the loss --------------------------------------------------------------------------


def _pass(what: str, kind: str, array: Array) -> WorkItem:
    """A pass over arrays of that shape."""
    from nnlite.performance.microbenchmarks.passes import PASSES

    nbytes, size = int(ITEMSIZE * PASSES[kind].arrays * array.size), array.shape[-1:] if PASSES[kind].by_row else ()
    return work.move(what, kind, size, touched=nbytes, arrays=nbytes)


#: operation -> (words, kind) of its pass forward and of its pass back
_SIMPLE = {
    "dropout": (("mask", "dropout"), ("mask", "dropout")),
    "relu": (("ReLU", "maximum"), ("ReLU gradient", "mask")),
    "sigmoid": (("sigmoid", "sigmoid"), ("sigmoid gradient", "sigmoid_gradient")),
    "softmax": (("exponentials and sums", "softmax"), ("softmax gradient", "softmax_gradient")),
    "tanh": (("tanh", "tanh"), ("tanh gradient", "tanh_gradient")),
    "mean_squared_error": (("squared differences", "mask"), ("scaled gradient", "multiply")),
    "categorical_crossentropy": (("logarithms", "log_softmax"), ("probabilities", "softmax_gradient")),
}


def _simple(call: Call) -> Parts:
    name = call.name.removeprefix("sparse_")
    if name == "dropout" and not call.options["rate"]:
        return _view(call)
    forward, back = _SIMPLE[name]
    if call.name.startswith("sparse") and call.options.get("from_logits"):
        forward, back = ("loss and its gradient", "crossentropy"), ("scaled gradient", "multiply")
    return {"forward": [_pass(*forward, call.arguments[0])], "grad_input": [_pass(*back, call.arguments[0])]}


def _view(call: Call) -> Parts:
    """The same elements in another shape: no traffic."""
    return {"forward": [], "grad_input": []}


_OPERATIONS: dict[str, Callable[[Call], Parts]] = {
    "conv2d": _conv2d,
    "conv2d_pair": _conv2d_pair,
    "dense": _dense,
    "max_pool2d": _max_pool2d,
    **dict.fromkeys((*_SIMPLE, "sparse_categorical_crossentropy"), _simple),
    **dict.fromkeys(("flatten", "reshape", "linear"), _view),
}
