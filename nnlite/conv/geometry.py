"""The shape of a convolution problem: everything about it but the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any, Literal

from nnlite.runtime.errors import LARGEST, int_pair, positive_int

Pads = tuple[tuple[int, int], tuple[int, int]]
Padding = Literal["valid", "same"] | int | Pads
#: the three products of a convolution layer
PASSES = ("forward", "grad_input", "grad_weight")


@dataclass(frozen=True)
class Geometry:
    """One convolution problem, channels last. Frozen and hashable; there is none that cannot be computed.

    y[n, oh, ow, k] = sum over r, s, c of x[n, oh*stride + r*dilation - pad, ow*stride + s*dilation - pad, c]
    times weight[r, s, c, k], where x is zero outside of the image ("convolution" is cross-correlation).
    """

    input_shape: tuple[int, int, int, int]  # (n, h, w, c)
    weight_shape: tuple[int, int, int, int]  # (kh, kw, c / groups, k)
    strides: tuple[int, int] = (1, 1)
    pads: Pads = ((0, 0), (0, 0))  # ((top, bottom), (left, right))
    dilation_rate: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError that names the argument where the numbers do not fit each other."""
        _check_shapes(self.input_shape, self.weight_shape)
        h, w, c = self.input_shape[1:]
        c_group, k = self.weight_shape[2:]
        int_pair("strides", _pair("strides", self.strides))
        dilation = int_pair("dilation_rate", _pair("dilation_rate", self.dilation_rate))
        if not isinstance(self.pads, tuple) or len(self.pads) != 2:
            raise ValueError(f"pads: expected ((top, bottom), (left, right)). Received: {self.pads!r}")
        pads = [int_pair("pads", _pair("pads", pad), minimum=0) for pad in self.pads]
        g = positive_int("groups", self.groups)
        if c_group * g != c:
            raise ValueError(
                f"weight: expected {c} / {g} input channels, as x has {c} channels in {g} group(s). "
                f"Received: weight shape {self.weight_shape}, x shape {self.input_shape}"
            )
        if k % g:
            raise ValueError(f"groups: expected a divisor of the {k} output channels. Received: {g}")
        _check_memory(self.input_shape, pads, self.output_shape)
        if min(self.output_shape[1:3]) < 1:
            spread = tuple((size - 1) * d + 1 for size, d in zip(self.weight_shape[:2], dilation, strict=True))
            padded = (h + sum(pads[0]), w + sum(pads[1]))
            raise ValueError(
                f"weight: expected a kernel no larger than the padded input. Received: kernel {spread[0]}x{spread[1]} "
                f"(dilation included), padded input {padded[0]}x{padded[1]}"
            )

    @classmethod
    def of(
        cls,
        input_shape: tuple[int, ...],
        weight_shape: tuple[int, ...],
        *,
        strides: int | tuple[int, int] = 1,
        padding: Padding = "valid",
        dilation_rate: int | tuple[int, int] = 1,
        groups: int = 1,
    ) -> Geometry:
        """The geometry of `weight` over `x`, checked.

        `padding` is "valid" (none), "same" (output size = ceil(input size / stride), the odd pixel at the bottom
        and right, as TensorFlow does), an integer, or ((top, bottom), (left, right)).

        Raises ValueError that names the argument, what was expected and what was received.
        """
        problem = input_shape, weight_shape, strides, padding, dilation_rate, groups
        try:
            try:
                return _checked(*problem)
            except TypeError:  # a list
                return _checked(*map(_frozen, problem))
        except TypeError as error:
            if "unhashable" not in str(error):
                raise
            raise ValueError(
                "padding, strides, dilation_rate and groups: expected integers. "
                f"Received: {padding!r}, {strides!r}, {dilation_rate!r} and {groups!r}"
            ) from None

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Kept, because plans and choices are looked up by geometry at every call."""
        return hash((self.input_shape, self.weight_shape, self.strides, self.pads, self.dilation_rate, self.groups))

    @cached_property
    def output_shape(self) -> tuple[int, int, int, int]:
        """(n, oh, ow, k)"""
        n, h, w, _ = self.input_shape
        kh, kw, _, k = self.weight_shape
        (top, bottom), (left, right) = self.pads
        oh = (h + top + bottom - (kh - 1) * self.dilation_rate[0] - 1) // self.strides[0] + 1
        ow = (w + left + right - (kw - 1) * self.dilation_rate[1] - 1) // self.strides[1] + 1
        return n, oh, ow, k

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one pass; the three passes have the same. Taps that fall on padding count."""
        return prod(self.output_shape) * prod(self.weight_shape[:3])

    @property
    def flops(self) -> int:
        """Floating-point operations of one pass: 2 a MAC."""
        return 2 * self.macs

    @property
    def reduction_length(self) -> int:
        """The number of products summed into one output of the forward pass."""
        return prod(self.weight_shape[:3])

    def result_shape(self, pass_name: str) -> tuple[int, int, int, int]:
        """The shape of what a pass computes: y, dx or dweight."""
        return {"forward": self.output_shape, "grad_input": self.input_shape, "grad_weight": self.weight_shape}[
            pass_name
        ]

    def least_bytes(self, pass_name: str, itemsize: int = 4) -> int:
        """The bytes a pass must move at the least: each operand read once, the result written once."""
        self.result_shape(pass_name)
        return itemsize * (prod(self.input_shape) + prod(self.weight_shape) + prod(self.output_shape))

    @cached_property
    def one_image(self) -> Geometry:
        """The same problem for one image."""
        return self.with_batch(1)

    def with_batch(self, n: int) -> Geometry:
        """The same problem for `n` images."""
        return Geometry(
            (n, *self.input_shape[1:]), self.weight_shape, self.strides, self.pads, self.dilation_rate, self.groups
        )

    def __str__(self) -> str:
        n, h, w, c = self.input_shape
        kh, kw, _, k = self.weight_shape
        text = f"{n}x{h}x{w}x{c} -> {k}, {kh}x{kw}"
        if self.strides != (1, 1):
            text += f", strides {self.strides[0]}x{self.strides[1]}"
        if self.pads != ((0, 0), (0, 0)):
            text += f", pads {self.pads}"
        if self.dilation_rate != (1, 1):
            text += f", dilation {self.dilation_rate[0]}x{self.dilation_rate[1]}"
        if self.groups != 1:
            text += f", {self.groups} groups"
        return text


def same_pads(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """The padding before and after that makes the output ceil(size / stride) long; the odd one after."""
    out = -(-size // stride)
    total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def _check_memory(input_shape: tuple, pads: Sequence[tuple[int, int]], output_shape: tuple) -> None:
    """Raise ValueError if the padded input or the result has more bytes than can be addressed."""
    n, h, w, c = input_shape
    padded = (n, h + sum(pads[0]), w + sum(pads[1]), c)
    if 8 * max(prod(padded), prod(output_shape)) > LARGEST:
        raise ValueError(
            "padding: expected a padded input and a result that can be addressed. "
            f"Received: shapes {padded} and {tuple(output_shape)}"
        )


def check_padding(padding: object) -> Padding:
    """`padding` itself, if it is one of the four forms whatever the sizes are. Raises ValueError if not."""
    resolve_pads(padding, (1, 1), (1, 1), (1, 1))  # type: ignore[arg-type]
    return padding  # type: ignore[return-value]


def resolve_pads(
    padding: Padding,
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation_rate: tuple[int, int] = (1, 1),
) -> Pads:
    """What `padding` means for these sizes: ((top, bottom), (left, right))."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        first, second = (same_pads(size[i], kernel[i], strides[i], dilation_rate[i]) for i in (0, 1))
        return first, second
    if isinstance(padding, int) and not isinstance(padding, bool):
        pad = positive_int("padding", padding, minimum=0)
        return (pad, pad), (pad, pad)
    if isinstance(padding, (tuple, list)) and len(padding) == 2 and all(isinstance(p, (tuple, list)) for p in padding):
        return int_pair("padding", padding[0], minimum=0), int_pair("padding", padding[1], minimum=0)
    raise ValueError(
        'padding: expected "valid", "same", an integer of at least 0 or ((top, bottom), (left, right)). '
        f"Received: {padding!r}"
    )


def _frozen(value: Any) -> Any:
    """A list as a tuple, and what it holds."""
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


def pooled(
    size: tuple[int, int], pool: tuple[int, int], strides: tuple[int, int], padding: Padding
) -> tuple[Pads, tuple[int, int]]:
    """The pads of a pooling over an image of `size`, and (oh, ow), the size of its result.

    Raises ValueError if a window is larger than the padded image, or may lie in the padding alone.
    """
    pads = resolve_pads(padding, size, pool, strides)
    if any(max(pad) >= window for pad, window in zip(pads, pool, strict=True)):
        raise ValueError(f"padding: expected less than the window, {pool}. Received: {padding!r}")
    oh, ow = ((size[i] + sum(pads[i]) - pool[i]) // strides[i] + 1 for i in (0, 1))
    if min(oh, ow) < 1:
        raise ValueError(
            f"pool_size: expected a window no larger than the padded input. Received: {pool} over {size[0]}x{size[1]}"
        )
    if padding != "valid":
        _check_memory((1, *size, 1), pads, (oh, ow))
    return pads, (oh, ow)


@lru_cache(maxsize=1024, typed=True)  # True and 1.0 are no integers
def _checked(
    input_shape: tuple,
    weight_shape: tuple,
    strides: object,
    padding: Padding,
    dilation_rate: object,
    groups: object,
) -> Geometry:
    input_shape, weight_shape = tuple(input_shape), tuple(weight_shape)
    _check_shapes(input_shape, weight_shape)
    stride_pair, dilation = int_pair("strides", strides), int_pair("dilation_rate", dilation_rate)
    pads = resolve_pads(padding, input_shape[1:3], weight_shape[:2], stride_pair, dilation)
    return Geometry(input_shape, weight_shape, stride_pair, pads, dilation, positive_int("groups", groups))


def _check_shapes(input_shape: tuple, weight_shape: tuple) -> None:
    if not isinstance(input_shape, tuple) or len(input_shape) != 4:
        raise ValueError(f"x: expected 4 dimensions (n, h, w, c). Received: shape {input_shape}")
    if not isinstance(weight_shape, tuple) or len(weight_shape) != 4:
        raise ValueError(f"weight: expected 4 dimensions (kh, kw, c / groups, k). Received: shape {weight_shape}")
    positive_int("x's shape", input_shape[0], minimum=0)
    for size in input_shape[1:]:
        positive_int("x's shape", size)
    for size in weight_shape:
        if positive_int("weight's shape", size, minimum=0) < 1:
            raise ValueError(f"weight: expected no empty dimension. Received: shape {weight_shape}")


def _pair(argument: str, value: object) -> tuple:
    """A tuple, so that a geometry can be hashed."""
    if not isinstance(value, tuple):
        raise ValueError(f"{argument}: expected a tuple of two integers. Received: {value!r}")
    return value
