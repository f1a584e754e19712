"""Is a gradient right? Compare it with a numerical one.

For a random direction v and a random cotangent u, <u, f(x + h v) - f(x - h v)> / 2h must equal <grad, v>, where grad is
what backward gives for u. A random direction sees an error in any element, and a random cotangent sees transposed and
missing terms that a cotangent of ones hides (the method of HIPS/autograd's check_grads).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnlite.autograd import Tensor
from nnlite.runtime.errors import GradientError, positive, positive_int


def gradcheck(
    function: Callable[..., Tensor],
    inputs: Sequence[Any],
    *,
    step: float = 1e-6,
    tolerance: float = 1e-5,
    directions: int = 4,
    seed: int = 0,
) -> None:
    """Check the gradients of `function(*inputs)` with respect to each input, in float64.

    `inputs` are Tensors or float arrays (others are passed on as they are). The function must be differentiable and
    deterministic at them. A difference above `tolerance`, relative to the largest of 0.001, the two values and the
    product's own size, raises GradientError, which says which input and by how much. Also checked: each
    gradient's shape, that every input gets one, and that neither the function nor its backward changes an array that
    it gets.
    """
    if not isinstance(inputs, (list, tuple)):
        raise TypeError(f"inputs: expected a list or tuple of Tensors or arrays. Received: {type(inputs).__name__}")
    step, tolerance = positive("step", step), positive("tolerance", tolerance)
    directions = positive_int("directions", directions)
    generator = np.random.default_rng(positive_int("seed", seed, 0))
    arguments = [_double(value) for value in inputs]
    checked = [i for i, value in enumerate(arguments) if isinstance(value, Tensor)]
    if not checked:
        raise ValueError("inputs: expected at least one Tensor or array of floats. Received: none")
    before = {i: arguments[i].data.copy() for i in checked}
    output = function(*arguments)
    _require_unchanged("function", arguments, before)
    if not isinstance(output, Tensor):
        raise TypeError(f"function: expected it to return a Tensor. Received: {type(output).__name__}")
    cotangent = generator.standard_normal(output.shape)
    if not output.requires_grad:
        raise GradientError("function: its result depends on none of the inputs, so no gradient flows")
    seed_before = cotangent.copy()
    output.backward(cotangent)
    _require_unchanged("backward", arguments, before)
    if not np.array_equal(cotangent, seed_before, equal_nan=True):
        raise GradientError("backward: expected it to leave dy as it is. Received: one that changes dy in place")

    for i in checked:
        x = arguments[i]
        gradient = x.grad
        if gradient is None:
            raise GradientError(f"gradient of input {i} {x.shape}: expected an array. Received: none")
        for _ in range(directions):
            direction = generator.standard_normal(x.shape)
            exact = float(np.sum(gradient * direction))
            numeric = _directional(function, arguments, i, direction, cotangent, step)
            size = float(np.linalg.norm(gradient) * np.linalg.norm(direction)) / max(np.sqrt(x.size), 1.0)
            error = abs(exact - numeric) / max(1e-3, abs(exact), abs(numeric), size)
            if not error <= tolerance:  # also when it is NaN
                raise GradientError(
                    f"gradient of input {i} {x.shape}: expected {numeric:.9g} along a random direction (numerical). "
                    f"Received: {exact:.9g}, a relative error of {error:.2e}, above {tolerance:.0e}"
                )


def _require_unchanged(what: str, arguments: list, before: dict[int, np.ndarray]) -> None:
    for i, array in before.items():
        if not np.array_equal(arguments[i].data, array, equal_nan=True):
            raise GradientError(
                f"{what}: expected it to leave its inputs as they are. Received: one that changes input {i} in place"
            )


def _double(value: Any) -> Any:
    """A float Tensor or array as a float64 Tensor that gets a gradient; anything else as it is."""
    array = value.data if isinstance(value, Tensor) else value
    if isinstance(array, np.ndarray) and array.dtype.kind == "f":
        return Tensor(np.array(array, dtype=np.float64), requires_grad=True)
    return value


def _directional(
    function: Callable, arguments: list, i: int, direction: np.ndarray, cotangent: np.ndarray, step: float
) -> float:
    """The central difference of <cotangent, function> when input `i` moves along `direction`."""
    values = []
    for sign in (1.0, -1.0):
        moved = list(arguments)
        moved[i] = Tensor(arguments[i].data + sign * step * direction)
        values.append(function(*moved).data)
    return float(np.sum(cotangent * (values[0] - values[1]))) / (2 * step)
