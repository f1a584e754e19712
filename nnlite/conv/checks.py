"""What is checked before an algorithm computes: here, once, for users, the laboratory and `ops.conv2d` alike.

A compiled kernel gets an address and no shape. So the methods of each class derived from Algorithm, a user's too, are
called through `checked`. The rule: an array of the right shape and dtype is made right where it lies wrongly in memory
(strided, Fortran order, unaligned: it is copied); any other is refused. What the methods call in turn is not checked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from inspect import isfunction
from typing import TYPE_CHECKING, Any

import numpy as np

from nnlite.conv.epilogue import Epilogue, Fused
from nnlite.conv.geometry import Geometry
from nnlite.conv.pair import FusedPair, PairWeights
from nnlite.runtime.errors import Unsupported
from nnlite.runtime.operands import fitting
from nnlite.runtime.random import Seed, mask_seed

if TYPE_CHECKING:
    from nnlite.conv.algorithm import Algorithm


def checked(name: str, method: Any) -> Any:
    """The method of that name, behind the check of its arguments."""
    if hasattr(method, "checks_arguments"):  # taken over from another algorithm
        return method
    arguments = CHECKS[name]
    call = method if isfunction(method) else lambda own, *args: method.__get__(own, type(own))(*args)

    @wraps(method)
    def checking(own: Algorithm, *args: Any, **named: Any) -> Any:
        return call(own, *arguments(own, *args, **named))

    checking.checks_arguments = True  # type: ignore[attr-defined]
    return checking


# The arguments of each method, as they are handed on -------------------------------------------------------------


def _forward(own: Algorithm, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> tuple:
    dtype = _dtype(own, geometry, "x", x)
    return (
        fitting("x", x, geometry.input_shape, dtype),
        fitting("weight", weight, geometry.weight_shape, dtype),
        geometry,
    )


def _grad_input(own: Algorithm, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> tuple:
    dtype = _dtype(own, geometry, "dy", dy)
    return (
        fitting("dy", dy, geometry.output_shape, dtype),
        fitting("weight", weight, geometry.weight_shape, dtype),
        geometry,
    )


def _grad_weight(own: Algorithm, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> tuple:
    dtype = _dtype(own, geometry, "x", x)
    return fitting("x", x, geometry.input_shape, dtype), fitting("dy", dy, geometry.output_shape, dtype), geometry


def _backward(
    own: Algorithm, x: np.ndarray, weight: np.ndarray, dy: np.ndarray, geometry: Geometry, needs: tuple[bool, bool]
) -> tuple:
    x, weight, _ = _forward(own, x, weight, geometry)
    return x, weight, fitting("dy", dy, geometry.output_shape, x.dtype), geometry, _needs(needs, 2)


def _forward_fused(
    own: Algorithm, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, epilogue: Epilogue
) -> tuple:
    dtype = _dtype_fused(own, geometry, epilogue, "x", x)
    return (
        fitting("x", x, geometry.input_shape, dtype),
        fitting("weight", weight, geometry.weight_shape, dtype),
        _bias("bias", bias, geometry, dtype, epilogue.bias),
        geometry,
        epilogue,
    )


def _backward_fused(
    own: Algorithm,
    ran: Fused,
    dresult: np.ndarray,
    geometry: Geometry,
    epilogue: Epilogue,
    needs: tuple[bool, bool, bool],
) -> tuple:
    dtype = _dtype_fused(own, geometry, epilogue, "dresult", dresult)
    x, weight, result, residuals = _ran(ran)
    shape = epilogue.result_shape(geometry.output_shape)
    ran = Fused(
        fitting("ran.x", x, geometry.input_shape, dtype),
        fitting("ran.weight", weight, geometry.weight_shape, dtype),
        fitting("ran.result", result, shape, dtype),
        residuals,
    )
    return ran, fitting("dresult", dresult, shape, dtype), geometry, epilogue, _needs(needs, 3)


def _forward_pair(own: Algorithm, x: np.ndarray, weights: PairWeights, pair: FusedPair, seed: Seed) -> tuple:
    _fits_pair(own, pair)
    x = fitting("x", x, pair.first.input_shape, np.float32)
    return x, _pair_weights(weights, pair), pair, mask_seed("seed", seed)


def _backward_pair(own: Algorithm, ran: Fused, dresult: np.ndarray, pair: FusedPair, seed: Seed) -> tuple:
    _fits_pair(own, pair)
    x, weights, result, residuals = _ran(ran)
    shape = pair.epilogue.result_shape(pair.second.output_shape)
    ran = Fused(
        fitting("ran.x", x, pair.first.input_shape, np.float32),
        _pair_weights(weights, pair),
        fitting("ran.result", result, shape, np.float32),
        residuals,
    )
    return ran, fitting("dresult", dresult, shape, np.float32), pair, mask_seed("seed", seed)


CHECKS: dict[str, Callable[..., tuple]] = {
    "forward": _forward,
    "grad_input": _grad_input,
    "grad_weight": _grad_weight,
    "backward": _backward,
    "forward_fused": _forward_fused,
    "backward_fused": _backward_fused,
    "forward_pair": _forward_pair,
    "backward_pair": _backward_pair,
}


def argmax(residuals: Any, shape: tuple[int, ...]) -> np.ndarray:
    """What a forward pass with max pooling remembered, checked."""
    return fitting("ran.residuals", residuals, shape, np.uint8)


# One argument ----------------------------------------------------------------------------------------------------


def _dtype(own: Algorithm, geometry: Geometry, argument: str, array: np.ndarray) -> np.dtype:
    """The array's dtype. Raises Unsupported if the algorithm declines the geometry or that dtype."""
    _is_problem(geometry, argument, array)
    _computes(own, geometry, array.dtype)
    return array.dtype


def _dtype_fused(own: Algorithm, geometry: Geometry, epilogue: Epilogue, argument: str, array: np.ndarray) -> np.dtype:
    """As `_dtype`, of an algorithm that has to fuse the epilogue too."""
    _is_problem(geometry, argument, array)
    if not isinstance(epilogue, Epilogue):
        raise ValueError(f"epilogue: expected an nn.conv.Epilogue. Received: {type(epilogue).__name__}")
    _computes_fused(own, geometry, epilogue, array.dtype)
    return array.dtype


def _is_problem(geometry: Any, argument: str, array: Any) -> None:
    if not isinstance(geometry, Geometry):
        raise ValueError(f"geometry: expected an nn.conv.Geometry. Received: {type(geometry).__name__}")
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{argument}: expected a NumPy array. Received: {type(array).__name__}")


def _once(check: Callable[..., None]) -> Callable[..., None]:
    """A check that an algorithm passed is not made again; one that cannot be hashed is asked each time."""
    passed = lru_cache(maxsize=1024)(check)

    def ask(own: Algorithm, *problem: Any) -> None:
        (check if type(own).__hash__ is None else passed)(own, *problem)

    return ask


@_once
def _computes(own: Algorithm, geometry: Geometry, dtype: np.dtype) -> None:
    _accepts(own, geometry, dtype)


def _accepts(own: Algorithm, geometry: Geometry, dtype: np.dtype) -> None:
    refusal = own.declines(geometry, dtype)
    if refusal is not None:
        raise Unsupported(f"algorithm {own.name!r} declines {geometry}: {refusal}")


@_once
def _computes_fused(own: Algorithm, geometry: Geometry, epilogue: Epilogue, dtype: np.dtype) -> None:
    _accepts(own, geometry, dtype)
    if not own.fuses(geometry, epilogue):
        raise Unsupported(f"algorithm {own.name!r} does not fuse {epilogue} into {geometry}")
    _pools(geometry, epilogue)


@_once
def _computes_pair(own: Algorithm, pair: FusedPair) -> None:
    if not own.computes_pair(pair):
        raise Unsupported(f"algorithm {own.name!r} does not compute {pair.first} and {pair.second} at once")
    _pools(pair.second, pair.epilogue)


def _pools(geometry: Geometry, epilogue: Epilogue) -> None:
    if epilogue.pool and min(geometry.output_shape[1:3]) < 2:
        raise ValueError(
            f"max_pool: expected an output of at least 2x2 to pool. Received: {geometry.output_shape} of {geometry}"
        )


def _bias(argument: str, bias: Any, geometry: Geometry, dtype: Any, expected: bool) -> np.ndarray | None:
    if not expected and bias is None:
        return None
    if not expected:
        raise ValueError(f"{argument}: expected None: the epilogue has no bias. Received: {type(bias).__name__}")
    return fitting(argument, bias, geometry.weight_shape[3:], dtype)


def _needs(needs: Any, count: int) -> tuple:
    if not isinstance(needs, tuple) or len(needs) != count:
        raise ValueError(f"needs: expected {count} booleans, one for each gradient. Received: {needs!r}")
    return needs


def _ran(ran: Any) -> Fused:
    if not isinstance(ran, Fused):
        raise ValueError(f"ran: expected what the forward pass returned. Received: {type(ran).__name__}")
    return ran


def _fits_pair(own: Algorithm, pair: FusedPair) -> None:
    if not isinstance(pair, FusedPair):
        raise ValueError(f"pair: expected an nn.conv.FusedPair. Received: {type(pair).__name__}")
    _computes_pair(own, pair)


def _pair_weights(weights: Any, pair: FusedPair) -> PairWeights:
    if not isinstance(weights, PairWeights):
        raise ValueError(f"weights: expected nn.conv.PairWeights. Received: {type(weights).__name__}")
    first, first_bias, second, second_bias = weights
    return PairWeights(
        fitting("first_weight", first, pair.first.weight_shape, np.float32),
        _bias("first_bias", first_bias, pair.first, np.float32, first_bias is not None),
        fitting("weight", second, pair.second.weight_shape, np.float32),
        _bias("bias", second_bias, pair.second, np.float32, pair.epilogue.bias),
    )
