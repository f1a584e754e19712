"""What the kernels of a network's first two convolutions do (nnlite.conv.pair), as work items.

They are those of the two convolutions, with two differences: the intermediate tensor stays in cache, and the first
convolution is recomputed in the backward pass, which is not counted as arithmetic of the layer.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from nnlite.compiler.target import LANES
from nnlite.conv import direct_plan, work_compiled
from nnlite.conv.pair import FusedPair
from nnlite.conv.winograd_tiles import sizes_of
from nnlite.conv.work import IN_CACHE, ITEMSIZE, WorkItem, move
from nnlite.conv.work_compiled import (
    copy_of_blocks,
    correlation,
    from_outside,
    lanes_grad_weight,
    lines_of_tiles,
    transposition,
    weight_products,
)


def lanes(pair: FusedPair, pass_name: str) -> list[WorkItem]:
    """A block of images is transposed into the lanes; the result, and no gradient, out of them."""
    images = pair.first.input_shape[0]
    n = -(-images // LANES) * LANES
    x, weight, forward = _bytes(pair, pass_name)
    plan = direct_plan.forward(pair.first.one_image, lanes=True)
    products = correlation(plan, n, pair.first.flops if forward else 0, lanes=True)
    first = [transposition("images into lanes", x, images), from_outside(products, weight)]
    second = work_compiled.lanes(pair.second, pass_name, pair.epilogue)
    second = [item for item in second if item.what not in ("images into lanes", "gradients out of lanes")]
    if forward:
        return [*first, *second, *_dropout(pair)]
    touched = n * pair.image_bytes * (3 if pair.relu else 2)
    return [
        *first,
        *_dropout(pair),
        *second,
        copy_of_blocks("ReLU and bias gradients", touched, n),
        from_outside(lanes_grad_weight(pair.first.one_image, n, pair.first.flops), weight),
    ]


def winograd(pair: FusedPair, pass_name: str) -> list[WorkItem]:
    """An image of the intermediate tensor is written by the first convolution and transformed at once."""
    n, k = pair.first.input_shape[0], pair.first.output_shape[3]
    x, weight, forward = _bytes(pair, pass_name)
    plan = direct_plan.forward(pair.first.one_image)
    first = from_outside(correlation(plan, n, pair.first.flops if forward else 0, lanes=False), x + weight)
    second = [
        replace(item, moved=0, working_set=pair.image_bytes) if item.what in ("images to V", "dV to dX") else item
        for item in work_compiled.winograd(pair.second, pass_name, pair.epilogue, sizes_of(pair.second))
    ]
    if forward:
        return [first, *second, *_dropout(pair)]
    size, touched = (k, int(pair.relu)), pair.image_bytes * n
    gradients = move("ReLU and bias gradients", "pack_dy", size, touched=touched, arrays=touched, moved=0)
    reduction = direct_plan.grad_weight(pair.first.one_image)
    products = weight_products(reduction, n, pair.first.flops)
    lines = [replace(lines_of_tiles(reduction, n), moved=0)] if reduction.nest.packed else []
    return [
        first,
        *_dropout(pair),
        *second,
        replace(gradients, working_set=pair.image_bytes),
        *lines,
        from_outside(products, weight),
    ]


def _bytes(pair: FusedPair, pass_name: str) -> tuple[int, int, bool]:
    """(bytes of x, bytes of the first convolution's weights, whether it is the forward pass)"""
    first = pair.first
    return ITEMSIZE * prod(first.input_shape), ITEMSIZE * prod(first.weight_shape), pass_name == "forward"


def _dropout(pair: FusedPair) -> list[WorkItem]:
    """The mask over the result, an image at a time."""
    if not pair.dropout:
        return []
    touched = 2 * ITEMSIZE * prod(pair.epilogue.result_shape(pair.second.output_shape))
    return [
        move(
            "dropout", "dropout", (), touched=touched, arrays=touched, moved=0, working_set=min(touched // 2, IN_CACHE)
        )
    ]
