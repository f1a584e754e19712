"""What `grouped` does, as work items: lines packed into copies, and products of these.

A rate depends on the channels of a group and on the taps: it is measured on a small image of the same. The input
gradient's is that of a forward pass with the taps of one of its phases.
"""

from __future__ import annotations

from math import prod

import numpy as np

from nnlite.compiler.target import LANES
from nnlite.conv import grouped_plan
from nnlite.conv.epilogue import Epilogue
from nnlite.conv.geometry import Geometry
from nnlite.conv.grouped_plan import PIXELS, Grouped, round_up
from nnlite.conv.work import ITEMSIZE, WorkItem, move
from nnlite.conv.work_compiled import from_outside, operands


def grouped(geometry: Geometry, pass_name: str, epilogue: Epilogue | None) -> list[WorkItem]:
    """Bias and ReLU happen in the store; ReLU's gradient where dY is packed."""
    given = epilogue or Epilogue()
    x, weight, result, _ = operands(geometry, given)
    incoming = result * (1 + given.relu)  # dY, and where ReLU is in it, the result
    n, (kh, kw, group_in, k), strides = geometry.input_shape[0], geometry.weight_shape, geometry.strides
    group_out = k // geometry.groups
    forward = grouped_plan.forward(geometry, 1)
    if pass_name == "forward":
        size = group_in, group_out, kh, kw, *strides
        return [_pack(forward, n, size, False, x), _sums(forward, geometry, size, weight + result)]
    items = []
    if pass_name in ("grad_input", "gradients"):
        back = grouped_plan.grad_input(geometry, 1)
        size = group_out, group_in, -(-kh // strides[0]), -(-kw // strides[1]), 1, 1
        items += [_pack(back, n, size, given.relu, incoming), _sums(back, geometry, size, weight + x)]
    if pass_name in ("grad_weight", "gradients"):
        size = group_in, group_out, kh, kw, *strides
        copied = ITEMSIZE * n * forward.nest.h_out * forward.nest.w_out * forward.nest.blocks * LANES
        copies = move("dY to whole vectors", "pack_dy", (k, int(given.relu)), touched=copied, arrays=copied)
        items += [_pack(forward, n, size, False, x), from_outside(copies, incoming)]
        items.append(_products("grouped_gradient", size, gradient_flops(forward, n), geometry, copied, weight))
    return items


def _pack(plan: Grouped, n: int, size: tuple[int, ...], is_gated: bool, outside: int) -> WorkItem:
    touched = packed_bytes(plan, n)
    item = move("lines into copies", "grouped_pack", (*size, int(is_gated)), touched=touched, arrays=touched)
    return from_outside(item, outside)


def _sums(plan: Grouped, geometry: Geometry, size: tuple[int, ...], outside: int) -> WorkItem:
    n = geometry.input_shape[0]
    return _products("grouped_sums", size, sums_flops(plan, n), geometry, packed_bytes(plan, n), outside)


def _products(
    kind: str, size: tuple[int, ...], amount: float, geometry: Geometry, touched: int, outside: int
) -> WorkItem:
    item = WorkItem("products", kind, size, amount, touched, 0, touched, flops=geometry.flops)
    return from_outside(item, outside)


def packed_bytes(plan: Grouped, n: int) -> int:
    """Of the copies of all lines of `n` images."""
    nest = plan.nest
    return ITEMSIZE * n * nest.h * nest.w * nest.blocks * nest.terms * LANES


def sums_flops(plan: Grouped, n: int) -> float:
    """Executed for `n` images: pixels that overhang included, lines of padding not."""
    nest, products = plan.nest, 0
    for _, count, begin, end in nest.rows:
        lines = np.arange(count)[:, None] * nest.line_step + nest.shifts[begin:end]
        inside = int(((lines >= 0) & (lines < nest.h)).sum())
        products += inside * sum(round_up(int(columns), PIXELS) * int(taps) for _, columns, taps in nest.columns)
    return 2.0 * n * products * nest.terms * nest.blocks * LANES


def gradient_flops(plan: Grouped, n: int) -> float:
    """Executed for `n` images by a weight gradient: taps that are computed in vain included."""
    return 2.0 * n * plan.nest.h_out * plan.nest.w_out * prod(plan.source.shape)
