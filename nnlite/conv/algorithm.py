"""What a convolution algorithm is: three passes over arrays, and what it declares about itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from math import prod, sqrt
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from nnlite.conv import parameters as choices
from nnlite.conv.checks import CHECKS, checked
from nnlite.conv.epilogue import Epilogue, Fused, Gradients
from nnlite.conv.geometry import Geometry
from nnlite.conv.pair import FusedPair, PairWeights
from nnlite.conv.work import WorkItem, moved_bytes
from nnlite.runtime.attributes import KnownAttributes
from nnlite.runtime.operands import dtype_said
from nnlite.runtime.random import Seed


class Algorithm(KnownAttributes):
    """A way of computing a convolution. Derive from it, name it, write `forward`, and register it.

    Arrays are channels last: x (n, h, w, c), weight (kh, kw, c / groups, k), y and dy (n, oh, ow, k). What an
    algorithm gets is C-contiguous, of one dtype, matches the geometry and may not be written to; what it returns
    has that dtype, is C-contiguous and aliases no input. It may come from `nnlite.runtime.memory.empty`.

    Whoever calls the passes, a user too, calls them through nnlite.conv.checks: arrays with another layout are
    copied; of another shape or dtype they are refused (ValueError), as is what `supports` declines (Unsupported).

    The gradients have defaults (im2col's), so that a forward pass alone is a complete algorithm.
    """

    #: unique; what a user passes as `algorithm=`
    name: str
    #: what can be varied (a tile shape, a block size, a layout): by name, the values there are to choose. Each is an
    #: attribute too: what the class says, else the first value
    parameters: ClassVar[choices.Parameters] = {}
    #: the dtypes it computes in; another one is declined
    dtypes: ClassVar[tuple[Any, ...]] = (np.float32, np.float64)
    #: whether it calls BLAS, whose threads then alternate with the kernels'
    uses_blas: ClassVar[bool] = False
    #: whether all of it, BLAS included, is meant to run on one thread, and nothing fused with it
    one_thread: ClassVar[bool] = False
    #: whether it is so slow that it is for reading and checking, not for training
    reference_only: ClassVar[bool] = False
    #: whether it needs fewer multiplications than the definition for every geometry (`saves_multiplications`)
    fewer_multiplications: ClassVar[bool] = False
    #: the module with `fits`, `forward` and `backward` of fused pairs (nnlite.conv.pair) of which this algorithm
    #: computes the second convolution, and the name of the algorithm of the first
    pair_module: ClassVar[str | None] = None
    pair_first: ClassVar[str | None] = None
    #: the parameters that an object was made with
    _given: Mapping[str, Any] = MappingProxyType({})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _check_methods(cls)
        choices.declare(cls, Algorithm)

    def __init__(self, **parameters: Any):
        """`Mine(rows=6)` has other parameters than the defaults, and their values in its name: `mine(rows=6)`.

        Raises ValueError if a parameter is unknown, or a value not among those declared.
        """
        if parameters:
            self._given = choices.accepted(self.name, self.parameters, parameters)
            self.__dict__.update(self._given)
            self.name = choices.call(self.name, self._given)

    def with_parameters(self, **parameters: Any) -> Self:
        """An algorithm with these parameters, and this one's otherwise. Raises as the constructor does."""
        given = choices.accepted(self.name, self.parameters, {**self._given, **parameters})
        made = choices.made(type(self), given)
        made.name = choices.call(choices.split_call(self.name)[0], given)
        return made

    def combinations(self, *names: str) -> list[Self]:
        """One algorithm for each combination of values of these parameters (all, if none is named), its own first.

        Raises ValueError if a parameter is unknown.
        """
        choices.check_names(names, self.name, self.parameters)
        own = {name: getattr(self, name) for name in self.parameters if name in names or not names}
        return [self.with_parameters(**values) for values in choices.combinations(self.parameters, own)]

    def supports(self, geometry: Geometry) -> str | None:
        """None if the algorithm can compute this geometry, otherwise why not, in words."""
        return None

    def saves_multiplications(self, geometry: Geometry) -> bool:
        """Whether it needs fewer than the definition counts, so that its rate by that count may exceed the peak."""
        return self.fewer_multiplications

    def shares(self, geometry: Geometry) -> int | None:
        """Into how many equal shares a pass can be divided at most; None if among any number of threads."""
        return None

    def forward(self, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        """y (n, oh, ow, k)"""
        raise NotImplementedError(f"algorithm {self.name!r} does not define forward(x, weight, geometry)")

    def grad_input(self, dy: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
        """dx (n, h, w, c): the gradient of sum(y * dy) with respect to x."""
        from nnlite.conv import patches

        return patches.grad_input(dy, weight, geometry)

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> np.ndarray:
        """dweight (kh, kw, c / groups, k): the gradient of sum(y * dy) with respect to weight."""
        from nnlite.conv import patches

        return patches.grad_weight(x, dy, geometry)

    def backward(
        self, x: np.ndarray, weight: np.ndarray, dy: np.ndarray, geometry: Geometry, needs: tuple[bool, bool]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """(dx, dweight), None for what `needs` does not ask for. Override it where the two share work."""
        dx = self.grad_input(dy, weight, geometry) if needs[0] else None
        dweight = self.grad_weight(x, dy, geometry) if needs[1] else None
        return dx, dweight

    def may_use_blas(self, *pass_names: str) -> bool:
        """Whether one of these passes (of "forward", "grad_input", "grad_weight", "gradients") may call BLAS.

        It may if the algorithm says so (`uses_blas`), or if it inherits a default that the pass calls.
        """
        return self.uses_blas or any(self._inherits(pass_name) for pass_name in pass_names)

    def _inherits(self, pass_name: str) -> bool:
        own = type(self)
        if pass_name == "gradients":
            inherited = self._inherits("grad_input") or self._inherits("grad_weight")
            return inherited and own.backward is Algorithm.backward
        return pass_name != "forward" and getattr(own, pass_name) is getattr(Algorithm, pass_name)

    def fuses(self, geometry: Geometry, epilogue: Epilogue) -> bool:
        """Whether `forward_fused` and `backward_fused` can compute this epilogue over this geometry."""
        return False

    def forward_fused(
        self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, epilogue: Epilogue
    ) -> Fused:
        """What the epilogue makes of the convolution, with what `backward_fused` needs to have remembered."""
        raise NotImplementedError

    def backward_fused(
        self, ran: Fused, dresult: np.ndarray, geometry: Geometry, epilogue: Epilogue, needs: tuple[bool, bool, bool]
    ) -> Gradients:
        """(dx, dweight, dbias), None for what `needs` does not ask for."""
        raise NotImplementedError

    def fuses_pair(self, pair: FusedPair, first: Algorithm) -> bool:
        """Whether computing `pair` at once pays, with its first convolution as `first` would compute it."""
        return first.name == self.pair_first and self.computes_pair(pair) and self._pair.pays(pair)

    def computes_pair(self, pair: FusedPair) -> bool:
        """Whether `forward_pair` and `backward_pair` can compute `pair`. They know no parameters but the defaults."""
        if self._given or self.pair_module is None:
            return False
        return self.supports(pair.second) is None and self._pair.computes(pair)

    def forward_pair(self, x: np.ndarray, weights: PairWeights, pair: FusedPair, seed: Seed) -> Fused:
        """The result after the dropout, whose mask depends on `seed`, with what `backward_pair` needs."""
        return self._pair.forward(x, weights, pair, seed)

    def backward_pair(self, ran: Fused, dresult: np.ndarray, pair: FusedPair, seed: Seed) -> PairWeights:
        """The gradients of both convolutions' parameters."""
        return self._pair.backward(ran, dresult, pair, seed)

    @property
    def _pair(self) -> Any:
        assert self.pair_module is not None
        return _imported(self.pair_module)

    def error_bound(self, geometry: Geometry, pass_name: str, dtype: Any = np.float32) -> float:
        """The largest error of an element that is within the algorithm's contract, relative to the result's rms.

        The default is that of a sum in any order: it grows with the square root of the reduction's length.
        """
        length = {
            "forward": geometry.reduction_length,
            "grad_input": prod(geometry.weight_shape[:2]) * geometry.weight_shape[3] // geometry.groups,
            "grad_weight": prod(geometry.output_shape[:3]),
        }[pass_name]
        return 16 * float(np.finfo(dtype).eps) * sqrt(length + 1)

    def work(self, geometry: Geometry, pass_name: str, epilogue: Epilogue | None = None) -> list[WorkItem] | None:
        """What a pass does, kernel by kernel, in float32; None if the algorithm does not say.

        `pass_name` is "forward", "grad_input", "grad_weight", or "gradients" where `backward` shares work between the
        two. With an epilogue, the work items are those of `forward_fused` and `backward_fused`.
        """
        return None

    def work_pair(self, pair: FusedPair, pass_name: str) -> list[WorkItem] | None:
        """As `work`, of `forward_pair` ("forward") and `backward_pair` ("gradients")."""
        return None

    def moved_bytes(self, geometry: Geometry, pass_name: str) -> int:
        """The bytes that the pass really moves in float32, as its work items say; the least if it does not say."""
        declared = self.work(geometry, pass_name)
        return geometry.least_bytes(pass_name) if declared is None else moved_bytes(declared)

    def declines(self, geometry: Geometry, dtype: Any) -> str | None:
        """Why this algorithm can not compute that geometry in that dtype, or None: `supports` and `dtypes` together."""
        dtype = np.dtype(dtype)
        if not any(dtype == known for known in self.dtypes):
            known = " or ".join(np.dtype(known).name for known in self.dtypes)
            return f"it computes in {known}, not in {dtype_said(dtype)}"
        return self.supports(geometry)

    def __repr__(self) -> str:
        return f"<algorithm {getattr(self, 'name', type(self).__name__)!r}>"


_imported = cache(import_module)  # Python's own table of modules is behind a lock


def _check_methods(algorithm: type[Algorithm]) -> None:
    for name in CHECKS:
        if name in vars(algorithm):
            setattr(algorithm, name, checked(name, vars(algorithm)[name]))


_check_methods(Algorithm)
