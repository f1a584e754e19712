"""What the kernels of a network's first two convolutions do (nnlite.conv.pair), as work items.

They are those of the two convolutions by themselves, but that the intermediate tensor moves only within the cache, and
that the first convolution is computed again for the gradients, which is no arithmetic of the layer's.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from nnlite.compiler.simd import LANES
from nnlite.conv import direct_plan, work_compiled
from nnlite.conv.loops import Loops
from nnlite.conv.pair import FusedPair
from nnlite.conv.work import ITEMSIZE, WorkItem, move
from nnlite.conv.work_compiled import correlation, from_outside, into_lanes, lanes_grad_weight, tiles


def lanes(pair: FusedPair, pass_name: str) -> list[WorkItem]:
    """A block of images is transposed into the lanes; the result, and no gradient, out of them."""
    images, k = pair.first.input_shape[0], pair.first.output_shape[3]
    n = -(-images // LANES) * LANES
    x, weight = (ITEMSIZE * prod(shape) for shape in (pair.first.input_shape, pair.first.weight_shape))
    intermediate = ITEMSIZE * n * prod(pair.first.output_shape[1:])
    forward = pass_name == "forward"
    plan = direct_plan.forward(pair.first.one_image, lanes=True)
    first = [
        into_lanes("images into lanes", x, images),
        from_outside(correlation(plan, n, pair.first.flops if forward else 0, lanes=True), weight),
    ]
    second = _without(work_compiled.lanes(pair.second, pass_name, pair.epilogue), "images into lanes")
    if forward:
        return [*first, *second, *_dropout(pair)]
    touched = intermediate * (3 if pair.relu else 1)
    return [
        *first,
        *_dropout(pair),
        *_without(second, "gradients out of lanes"),
        move("ReLU and bias gradients", "lanes_bias", (k,), touched=touched, arrays=touched, moved=0),
        from_outside(lanes_grad_weight(pair.first.one_image, n, pair.first.flops), weight),
    ]


def winograd(pair: FusedPair, pass_name: str) -> list[WorkItem]:
    """An image of the intermediate tensor is written by the first convolution and transformed at once."""
    n, k = pair.first.input_shape[0], pair.first.output_shape[3]
    x, weight = (ITEMSIZE * prod(shape) for shape in (pair.first.input_shape, pair.first.weight_shape))
    forward = pass_name == "forward"
    plan = direct_plan.forward(pair.first.one_image)
    products = correlation(plan, n, pair.first.flops if forward else 0, lanes=False)
    second = [
        replace(item, moved=0, working_set=pair.image_bytes) if item.what in ("images to V", "dV to dX") else item
        for item in work_compiled.winograd(pair.second, pass_name, pair.epilogue)
    ]
    if forward:
        return [from_outside(products, x + weight), *second, *_dropout(pair)]
    touched = pair.image_bytes * n
    return [
        from_outside(products, x + weight),
        *_dropout(pair),
        *second,
        replace(
            move("ReLU and bias gradients", "pack_dy", (k, int(pair.relu)), touched=touched, arrays=touched, moved=0),
            working_set=pair.image_bytes,
        ),
        from_outside(_image_grad_weight(pair), weight),
    ]


def _without(items: list[WorkItem], what: str) -> list[WorkItem]:
    return [item for item in items if item.what != what]


def _dropout(pair: FusedPair) -> list[WorkItem]:
    """The mask over the result, an image at a time."""
    if not pair.dropout:
        return []
    n, *image = pair.epilogue.result_shape(pair.second.output_shape)
    numbers = prod(image)
    touched = 2 * ITEMSIZE * n * numbers
    return [move("dropout", "drop", (numbers,), touched=touched, arrays=touched, moved=0)]


def _image_grad_weight(pair: FusedPair) -> WorkItem:
    """The first convolution's gradient of the weights, image by image, of dY where it lies."""
    plan, k = direct_plan.grad_weight(pair.first.one_image), pair.first.output_shape[3]
    nest, shape = plan.nest, plan.shape
    loops = Loops(
        rows=shape.rows,
        vectors=shape.vectors,
        tiles=len(nest.inside),
        row_step=1,
        runs=nest.h_out,
        run_step=nest.line,
        length=nest.w_out,
        step=nest.pixel,
        b_step=k,
        width=min(k, shape.width),
        pitch=k,
        load=1,
    )
    count = pair.first.input_shape[0] * -(-k // shape.width)
    return tiles("tiles", "products", shape, loops, count, pair.first.flops)
