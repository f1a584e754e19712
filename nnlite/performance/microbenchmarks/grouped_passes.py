"""The rates of `grouped`: its loops over packed lines, on a small image of the same taps and channels of a group."""

from __future__ import annotations

import numpy as np

from nnlite.compiler.kernel import kernel
from nnlite.compiler.simd import LANES, pointer
from nnlite.conv import grouped_plan
from nnlite.conv.geometry import Geometry
from nnlite.conv.grouped import Operands, correlate_row, reduce_row
from nnlite.conv.grouped_packing import Lines, pack_line
from nnlite.conv.grouped_plan import Grouped
from nnlite.conv.work import ITEMSIZE
from nnlite.conv.work_grouped import gradient_flops, packed_bytes, sums_flops
from nnlite.performance.microbenchmarks.base import Work, kind
from nnlite.performance.microbenchmarks.conv_passes import blocks_for, rounds_for, small_numbers, work_of
from nnlite.runtime import threads

_SIDE, _CHANNELS = 32, 64  # of the small image, about


def _small(size: tuple[int, ...]) -> tuple[Grouped, int, int]:
    """(plan, numbers of its image, numbers of its result)."""
    group_in, group_out, kh, kw, *strides = size[:6]
    groups = max(1, _CHANNELS // max(group_in, group_out))
    geometry = Geometry.of(
        (1, max(_SIDE, kh), max(_SIDE, kw), groups * group_in),
        (kh, kw, group_in, groups * group_out),
        strides=(strides[0], strides[1]),
        padding="same",
        groups=groups,
    )
    plan = grouped_plan.forward(geometry, 1)
    nest = plan.nest._replace(bands=1)
    return plan._replace(nest=nest), nest.h * nest.w * nest.c, nest.h_out * nest.w_out * nest.k


@kernel
def _pack(part, parts, rounds, blocks, nest, x, gate, is_gated, packed):
    own = pointer(packed, part * packed.shape[1])
    for round in range(rounds):
        place = (part * blocks + round % blocks) * x.shape[1]
        lines = Lines(pointer(x, place), pointer(gate, place), is_gated, own, 0, nest.chunk)
        for line in range(nest.h):
            pack_line(nest, lines, line, pointer(own, line % nest.slots * nest.step * nest.part))


@kind
def grouped_pack(size: tuple[int, ...], working_set: int) -> Work:
    plan, image, _ = _small(size)
    is_gated, parts = bool(size[6]), threads.kernel_parts()
    blocks = blocks_for(image * (1 + is_gated), working_set)
    x = small_numbers(parts * blocks, image)
    gate, packed = (
        small_numbers(parts * blocks, image) if is_gated else x,
        np.zeros((parts, plan.nest.ring), np.float32),
    )
    amount = float(packed_bytes(plan, 1)) * plan.nest.chunk / plan.nest.blocks
    rounds = rounds_for(int(amount) // ITEMSIZE, blocks)
    return work_of(_pack, rounds, blocks, amount, x, plan.nest, x, gate, is_gated, packed)


@kernel
def _sums(part, parts, rounds, blocks, nest, operands, packed):
    own = pointer(packed, part * packed.shape[1])
    lines = Lines(pointer(operands.x, 0), pointer(operands.x, 0), False, own, 0, nest.chunk)
    for round in range(rounds):
        y = pointer(operands.y, (part * blocks + round % blocks) * operands.y.shape[1])
        for row in range(nest.count):
            correlate_row(nest, operands, lines, row, 0, pointer(y, row * nest.w_out * nest.k))


@kind
def grouped_sums(size: tuple[int, ...], working_set: int) -> Work:
    plan, _, result = _small(size)
    nest, parts = plan.nest, threads.kernel_parts()
    blocks = blocks_for(result, working_set)
    y, weights = small_numbers(parts * blocks, result), small_numbers(1, plan.source.size).reshape(plan.source.shape)
    operands = Operands(y, y, False, weights, np.zeros(nest.blocks * LANES, np.float32), y, False)
    amount = sums_flops(plan, 1) * nest.chunk / nest.blocks
    rounds = blocks if blocks > 1 else max(1, int(1e8 / amount))
    return work_of(_sums, rounds, blocks, amount, None, nest, operands, small_numbers(parts, nest.ring))


@kernel
def _gradient(part, parts, rounds, blocks, nest, packed, dy, sums):
    own = pointer(packed, part * packed.shape[1])
    lines = Lines(own, own, False, own, 0, nest.chunk)
    for _ in range(rounds):
        for row in range(nest.count):
            reduce_row(nest, lines, row, pointer(dy, part * dy.shape[1]), pointer(sums, part * sums.shape[1]))


@kind
def grouped_gradient(size: tuple[int, ...], working_set: int) -> Work:
    plan, _, _ = _small(size)
    nest, parts = plan.nest, threads.kernel_parts()
    amount = gradient_flops(plan, 1) * nest.chunk / nest.blocks
    dy, sums = small_numbers(parts, nest.chunk * nest.w_out * LANES), np.zeros((parts, plan.source.size), np.float32)
    rounds = max(1, int(1e8 / amount))
    return work_of(_gradient, rounds, 1, amount, None, nest, small_numbers(parts, nest.ring), dy, sums)
