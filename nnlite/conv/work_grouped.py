"""What `grouped` does, as work items: a pass packs lines and multiplies these.

A rate depends on the channels of a group and on the taps: it is measured on small images of the same. The input
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
from nnlite.conv.work import ITEMSIZE, WorkItem
from nnlite.conv.work_compiled import from_outside, operands


def grouped(geometry: Geometry, pass_name: str, epilogue: Epilogue | None) -> list[WorkItem]:
    """Bias and ReLU happen in the store; ReLU's gradient where dY is packed."""
    given = epilogue or Epilogue()
    x, weight, result, _ = operands(geometry, given)
    incoming = result * (1 + given.relu)  # dY, and where ReLU is in it, the result
    n, (kh, kw, group_in, k), strides = geometry.input_shape[0], geometry.weight_shape, geometry.strides
    group_out, forward = k // geometry.groups, grouped_plan.forward(geometry, 1)
    problem = group_in, group_out, kh, kw, *strides
    if pass_name == "forward":
        return [_products("grouped_sums", problem, geometry, forward, sums_flops(forward, n), (x, 0, weight + result))]
    items = []
    if pass_name in ("grad_input", "gradients"):
        back = grouped_plan.grad_input(geometry, 1)
        phase, moved = (
            (group_out, group_in, -(-kh // strides[0]), -(-kw // strides[1]), 1, 1),
            (incoming, 0, weight + x),
        )
        items.append(_products("grouped_sums", phase, geometry, back, sums_flops(back, n), moved))
    if pass_name in ("grad_weight", "gradients"):
        amount, moved = gradient_flops(forward, n), (x, incoming, weight)
        items.append(_products("grouped_gradient", problem, geometry, forward, amount, moved))
    return items


def _products(
    kind: str, problem: tuple[int, ...], geometry: Geometry, plan: Grouped, amount: float, moved: tuple[int, int, int]
) -> WorkItem:
    """`moved`: bytes that packing lines reads, that packing dY reads, and others.

    The size ends in the bytes that packing lines writes and reads, and in those of packing dY.
    """
    nest, (read, read_dy, _) = plan.nest, moved
    of_a_pixel = ITEMSIZE * geometry.input_shape[0] * nest.blocks * LANES
    lines = of_a_pixel * nest.h * nest.w * nest.terms
    pixels = of_a_pixel * nest.h_out * nest.w_out if read_dy else 0
    size = (*problem, lines, read, pixels, read_dy)
    item = WorkItem("lines packed, products", kind, size, amount, 0, 0, 0, flops=geometry.flops, problem=problem)
    return from_outside(item, sum(moved))


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
