"""The rates of `grouped`: its loops over packed lines, on a small image of the same taps and channels of a group."""

from __future__ import annotations

import numpy as np

from nnlite.compiler.launch import kernel
from nnlite.compiler.simd import pointer
from nnlite.compiler.target import LANES
from nnlite.conv import grouped_plan
from nnlite.conv.geometry import Geometry
from nnlite.conv.grouped import Operands, correlate_row, reduce_row
from nnlite.conv.grouped_packing import Lines, pack_line
from nnlite.conv.grouped_plan import Grouped
from nnlite.conv.work import ITEMSIZE
from nnlite.conv.work_grouped import gradient_flops, packed_bytes, sums_flops
from nnlite.performance.microbenchmarks.base import Work, kind
from nnlite.performance.microbenchmarks.conv_kernels import own_block
from nnlite.performance.microbenchmarks.convolution import FLOPS, NUMBERS, Blocks, filled

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
def _pack(thread, num_threads, rounds, nest, x, gate, is_gated, packed):
    own = pointer(packed, thread * packed.shape[1])
    for round in range(rounds):
        turn = round, thread, num_threads
        lines = Lines(own_block(x, turn), own_block(gate, turn), is_gated, own, 0, nest.chunk)
        for line in range(nest.h):
            pack_line(nest, lines, line, pointer(own, line % nest.slots * nest.step * nest.part))


@kind("cache")
def grouped_pack(size: tuple[int, ...], working_set: int) -> Work:
    plan, image, _ = _small(size)
    is_gated = bool(size[6])
    blocks = Blocks(image * (1 + is_gated), working_set)
    x = blocks.moved(image)
    gate = blocks.moved(image) if is_gated else x
    amount = float(packed_bytes(plan, 1)) * plan.nest.chunk / plan.nest.blocks
    rest = plan.nest, x, gate, is_gated, blocks.own(plan.nest.ring)
    return blocks.work(_pack, amount, ITEMSIZE * NUMBERS, *rest, written=(x,))


@kernel
def _sums(thread, num_threads, rounds, nest, operands, packed):
    own = pointer(packed, thread * packed.shape[1])
    lines = Lines(pointer(operands.x, 0), pointer(operands.x, 0), False, own, 0, nest.chunk)
    for round in range(rounds):
        y = own_block(operands.y, (round, thread, num_threads))
        for row in range(nest.count):
            correlate_row(nest, operands, lines, row, 0, pointer(y, row * nest.w_out * nest.k))


@kind("product")
def grouped_sums(size: tuple[int, ...], working_set: int) -> Work:
    plan, _, result = _small(size)
    nest, blocks = plan.nest, Blocks(result, working_set)
    y, weights = blocks.moved(result), filled((1, plan.source.size)).reshape(plan.source.shape)
    operands = Operands(y, y, False, weights, np.zeros(nest.blocks * LANES, np.float32), y, False)
    amount = sums_flops(plan, 1) * nest.chunk / nest.blocks
    return blocks.work(_sums, amount, FLOPS, nest, operands, blocks.own(nest.ring))


@kernel
def _gradient(thread, num_threads, rounds, nest, packed, dy, sums):
    own = pointer(packed, thread * packed.shape[1])
    lines = Lines(own, own, False, own, 0, nest.chunk)
    for _ in range(rounds):
        for row in range(nest.count):
            reduce_row(nest, lines, row, pointer(dy, thread * dy.shape[1]), pointer(sums, thread * sums.shape[1]))


@kind("product")
def grouped_gradient(size: tuple[int, ...], working_set: int) -> Work:
    plan, _, _ = _small(size)
    nest, blocks = plan.nest, Blocks(1, 0)
    amount = gradient_flops(plan, 1) * nest.chunk / nest.blocks
    dy, sums = blocks.own(nest.chunk * nest.w_out * LANES), np.zeros((blocks.threads, plan.source.size), np.float32)
    return blocks.work(_gradient, amount, FLOPS, nest, blocks.own(nest.ring), dy, sums)
