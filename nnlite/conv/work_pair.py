"""What the kernels of a network's first two convolutions do (nnlite.conv.pair), as work items.

They are those of the two convolutions, with two differences: the intermediate tensor stays in cache, and the first
convolution is recomputed in the backward pass, which is not counted as arithmetic of the layer.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from nnlite.compiler.blocking import PANEL_BYTES
from nnlite.compiler.target import LANES
from nnlite.conv import work_compiled as compiled
from nnlite.conv.pair import FusedPair
from nnlite.conv.winograd_tiles import sizes_of
from nnlite.conv.work import IN_CACHE, ITEMSIZE, WorkItem, move
from nnlite.conv.work_compiled import from_outside


def lanes(pair: FusedPair, pass_name: str) -> list[WorkItem]:
    """A block of images is transposed into the lanes; the result, and no gradient, out of them."""
    one, images = pair.first.one_image, pair.first.input_shape[0]
    n = -(-images // LANES) * LANES
    x, weight, _, _ = compiled.operands(pair.first, pair.epilogue)
    products = from_outside(compiled.lanes_correlation(one, "forward", n), weight)
    second = compiled.lanes(pair.second, pass_name, pair.epilogue)
    second = [item for item in second if item.what not in ("images into lanes", "gradients out of lanes")]
    touched = n * pair.image_bytes * (3 if pair.relu else 2)
    gradients = compiled.pass_over_blocks("ReLU and bias gradients", pair.first.weight_shape[3], touched)
    back = [gradients, from_outside(compiled.lanes_grad_weight(one, n), weight)]
    return [compiled.transposition("images into lanes", x, images), *_pair(pair, pass_name, products, second, back)]


def winograd(pair: FusedPair, pass_name: str) -> list[WorkItem]:
    """An image of the intermediate tensor is written by the first convolution and transformed at once."""
    one, n = pair.first.one_image, pair.first.input_shape[0]
    x, weight, _, _ = compiled.operands(pair.first, pair.epilogue)
    problem = one, "forward", False, PANEL_BYTES
    (plan,) = compiled.correlations(*problem)
    products = from_outside(compiled.correlation(plan, (*problem, 0), n, pair.first.flops), x + weight)
    second = compiled.winograd(pair.second, pass_name, pair.epilogue, sizes_of(pair.second), pair.image_bytes)
    gradients = compiled.pack_dy("ReLU and bias gradients", pair.image_bytes * n, pair.relu, 0)
    gradients = replace(gradients, working_set=pair.image_bytes)
    back = [gradients, from_outside(compiled.weight_products(one, n), weight)]
    return _pair(pair, pass_name, products, second, back)


def _pair(
    pair: FusedPair, pass_name: str, products: WorkItem, second: list[WorkItem], back: list[WorkItem]
) -> list[WorkItem]:
    """The first convolution's `products`, the second's items, the mask of a dropout, and what goes `back`."""
    touched = 2 * ITEMSIZE * prod(pair.epilogue.result_shape(pair.second.output_shape))
    mask = move("dropout", "dropout", (), touched=touched, arrays=touched, moved=0)
    dropout = [replace(mask, working_set=min(touched // 2, IN_CACHE))] if pair.dropout else []  # an image at a time
    if pass_name == "forward":
        return [products, *second, *dropout]
    return [replace(products, flops=0), *dropout, *second, *back]
