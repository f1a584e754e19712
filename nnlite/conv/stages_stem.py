"""What the kernels of a network's first two convolutions do (nnlite.conv.stem), as stages.

They are those of the two convolutions by themselves, but that the tensor between moves only within the cache, and that
the first convolution is computed again for the gradients, which is no arithmetic of the layer's.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from nnlite.compiler.simd import LANES
from nnlite.conv import direct_plan, stages_compiled
from nnlite.conv.loops import Loops
from nnlite.conv.stages import ITEMSIZE, Stage, move
from nnlite.conv.stages_compiled import correlation, from_outside, into_lanes, lanes_grad_weight, tiles
from nnlite.conv.stem import Stem


def lanes(stem: Stem, pass_name: str) -> list[Stage]:
    """A block of images is transposed into the lanes; the result, and no gradient, out of them."""
    images, k = stem.first.input_shape[0], stem.first.output_shape[3]
    n = -(-images // LANES) * LANES
    x, weight = (ITEMSIZE * prod(shape) for shape in (stem.first.input_shape, stem.first.weight_shape))
    between = ITEMSIZE * n * prod(stem.first.output_shape[1:])
    forward = pass_name == "forward"
    plan = direct_plan.forward(stem.first.one_image, lanes=True)
    first = [
        into_lanes("images into lanes", x, images),
        from_outside(correlation(plan, n, stem.first.flops if forward else 0, lanes=True), weight),
    ]
    second = _without(stages_compiled.lanes(stem.second, pass_name, stem.epilogue), "images into lanes")
    if forward:
        return [*first, *second, *_dropout(stem)]
    touched = between * (3 if stem.relu else 1)
    return [
        *first,
        *_dropout(stem),
        *_without(second, "gradients out of lanes"),
        move("ReLU and bias gradients", "lanes_bias", (k,), touched=touched, arrays=touched, moved=0),
        from_outside(lanes_grad_weight(stem.first.one_image, n, stem.first.flops), weight),
    ]


def winograd(stem: Stem, pass_name: str) -> list[Stage]:
    """An image of the tensor between is written by the first convolution and transformed at once."""
    n, k = stem.first.input_shape[0], stem.first.output_shape[3]
    x, weight = (ITEMSIZE * prod(shape) for shape in (stem.first.input_shape, stem.first.weight_shape))
    forward = pass_name == "forward"
    plan = direct_plan.forward(stem.first.one_image)
    products = correlation(plan, n, stem.first.flops if forward else 0, lanes=False)
    second = [
        replace(stage, moved=0, working_set=stem.image_bytes) if stage.what in ("images to V", "dV to dX") else stage
        for stage in stages_compiled.winograd(stem.second, pass_name, stem.epilogue)
    ]
    if forward:
        return [from_outside(products, x + weight), *second, *_dropout(stem)]
    touched = stem.image_bytes * n
    return [
        from_outside(products, x + weight),
        *_dropout(stem),
        *second,
        replace(
            move("ReLU and bias gradients", "spread", (k, int(stem.relu)), touched=touched, arrays=touched, moved=0),
            working_set=stem.image_bytes,
        ),
        from_outside(_image_grad_weight(stem), weight),
    ]


def _without(stages: list[Stage], what: str) -> list[Stage]:
    return [stage for stage in stages if stage.what != what]


def _dropout(stem: Stem) -> list[Stage]:
    """The mask over the result, an image at a time."""
    if not stem.dropout:
        return []
    n, *image = stem.epilogue.result_shape(stem.second.output_shape)
    numbers = prod(image)
    touched = 2 * ITEMSIZE * n * numbers
    return [move("dropout", "drop", (numbers,), touched=touched, arrays=touched, moved=0)]


def _image_grad_weight(stem: Stem) -> Stage:
    """The first convolution's gradient of the weights, image by image, of dY where it lies."""
    plan, k = direct_plan.grad_weight(stem.first.one_image), stem.first.output_shape[3]
    sizes, shape = plan.sizes, plan.shape
    loops = Loops(
        rows=shape.rows,
        vectors=shape.vectors,
        tiles=-(-sizes.reduced // shape.rows),
        row_step=1,
        runs=sizes.h_out,
        run_step=sizes.line,
        length=sizes.w_out,
        step=sizes.pixel,
        b_step=k,
        width=min(k, shape.width),
        pitch=k,
        load=1,
    )
    count = stem.first.input_shape[0] * -(-k // shape.width)
    return tiles("tiles", "products", shape, loops, count, stem.first.flops)
