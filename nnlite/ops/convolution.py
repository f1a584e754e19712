"""2-D convolution: the only place that calls a convolution algorithm."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from nnlite.autograd import differentiable
from nnlite.conv import Algorithm, Epilogue, Geometry, choice
from nnlite.conv.geometry import Padding
from nnlite.ops.activation import relu_gradient
from nnlite.runtime import scopes
from nnlite.runtime.errors import Unsupported, boolean
from nnlite.runtime.operands import Floats, fitting, one_dtype

#: all there are: to make one costs as much as to look several up
_EPILOGUES = {kinds: Epilogue(*kinds) for kinds in product((False, True), repeat=3)}


@differentiable
def conv2d(
    x: Floats,
    weight: Floats,
    bias: Floats | None = None,
    *,
    strides: int | tuple[int, int] = 1,
    padding: Padding = "valid",
    dilation_rate: int | tuple[int, int] = 1,
    groups: int = 1,
    algorithm: str = "auto",
    relu: bool = False,
    max_pool: bool = False,
) -> tuple[np.ndarray, Any]:
    """y = conv2d(x, weight) + bias: x (n, h, w, c), weight (kh, kw, c / groups, k), bias (k) -> y (n, oh, ow, k).

    "Convolution" is cross-correlation, as in every framework. `padding` is "valid", "same" (TensorFlow's), an
    integer, or ((top, bottom), (left, right)). `algorithm` is a name of `nn.conv.names()` or "auto".
    `relu` and `max_pool` (2x2, strides 2, valid) follow the convolution, in one kernel if the algorithm fuses them;
    `max_pool` needs an algorithm that does. Arrays may have any memory layout (nnlite.conv.checks).

    Raises ValueError, which names the argument, if shapes do not fit; Unsupported (a ValueError) if the named algorithm
    declines.
    """
    relu, max_pool = boolean("relu", relu), boolean("max_pool", max_pool)
    geometry = Geometry.of(
        x.shape, weight.shape, strides=strides, padding=padding, dilation_rate=dilation_rate, groups=groups
    )
    one_dtype(x, weight, bias)
    if bias is not None:
        bias = fitting("bias", bias, weight.shape[3:], x.dtype)
    chosen = choice.select(geometry, x.dtype, algorithm)
    epilogue = _EPILOGUES[bias is not None, relu, max_pool]
    if chosen.fuses(geometry, epilogue):
        return _fused(chosen, x, weight, bias, geometry, epilogue, choice.is_estimated(algorithm))
    if max_pool:
        raise Unsupported(f"algorithm {chosen.name!r} does not fuse max pooling into {geometry}")
    return _composed(chosen, x, weight, bias, geometry, relu)


def _composed(
    algorithm: Algorithm, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, relu: bool
) -> tuple[np.ndarray, Any]:
    """The algorithm's own passes, with bias and ReLU as separate passes over the result."""
    y = algorithm.forward(x, weight, geometry)
    _check_result(algorithm, y, geometry.output_shape, x.dtype, "forward")
    if np.may_share_memory(y, x) or np.may_share_memory(y, weight) or not y.flags.writeable:
        raise ValueError(f"forward of algorithm {algorithm.name!r}: expected a new writable array")
    if bias is not None:
        y += bias
    if relu:
        np.maximum(y, 0, out=y)

    def backward(dy: np.ndarray, needs: tuple[bool, bool, bool]) -> tuple:
        dy = relu_gradient(dy, y) if relu else dy
        dbias = None
        if needs[2]:
            with scopes.scope(None, "grad_weight"):
                dbias = dy.reshape(-1, dy.shape[3]).sum(axis=0)  # (k)
        dx, dweight = _gradients(algorithm, x, weight, dy, geometry, needs)
        return dx, dweight, dbias

    return y, backward


def _gradients(
    algorithm: Algorithm, x: np.ndarray, weight: np.ndarray, dy: np.ndarray, geometry: Geometry, needs: tuple[bool, ...]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Both gradients; each pass is announced. In one pass if the algorithm shares work between them."""
    dx = dweight = None
    if needs[0] and needs[1] and type(algorithm).backward is not Algorithm.backward:
        with scopes.scope(None, "gradients"):
            dx, dweight = algorithm.backward(x, weight, dy, geometry, (True, True))
    else:
        if needs[0]:
            with scopes.scope(None, "grad_input"):
                dx = algorithm.grad_input(dy, weight, geometry)
        if needs[1]:
            with scopes.scope(None, "grad_weight"):
                dweight = algorithm.grad_weight(x, dy, geometry)
    if dx is not None:
        _check_result(algorithm, dx, geometry.input_shape, x.dtype, "grad_input")
    if dweight is not None:
        _check_result(algorithm, dweight, geometry.weight_shape, x.dtype, "grad_weight")
    return dx, dweight


def _fused(
    algorithm: Algorithm,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    geometry: Geometry,
    epilogue: Epilogue,
    is_estimated: bool,
) -> tuple[np.ndarray, Any]:
    """One kernel for the convolution and what follows it, forward and backward.

    With `is_estimated`, the gradients may be another algorithm's, which is chosen when it is known which are needed.
    """
    ran = algorithm.forward_fused(x, weight, bias, geometry, epilogue)
    _check_result(algorithm, ran.result, epilogue.result_shape(geometry.output_shape), x.dtype, "forward_fused")

    def backward(dresult: np.ndarray, needs: tuple[bool, bool, bool]) -> tuple:
        part, chosen = scopes.gradient_part(needs), algorithm
        if is_estimated:
            chosen = choice.for_gradients(algorithm, geometry, x.dtype, epilogue, part)
        with scopes.scope(None, part):
            return chosen.backward_fused(ran, dresult, geometry, epilogue, needs)

    return ran.result, backward


def _check_result(algorithm: Algorithm, array: Any, shape: tuple[int, ...], dtype: np.dtype, pass_name: str) -> None:
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
        received = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(
            f"{pass_name} of algorithm {algorithm.name!r}: expected {dtype} of shape {shape}. Received: {received}"
        )
