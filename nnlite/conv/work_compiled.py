"""What the compiled algorithms do, as work items: `direct`, `lanes` and `winograd`.

Their products run on register tiles. A tile at the edge computes more than the layer needs: an item's `amount` is the
FLOPs that the tiles execute, its `flops` those of the layer. An image, or a block of tiles, stays in cache: `moved` is
what the whole pass reads and writes outside of it.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from nnlite.compiler.blocking import LINE_BYTES, PANEL_BYTES
from nnlite.compiler.target import LANES
from nnlite.conv import direct_plan, direct_weight_plan
from nnlite.conv.direct_plan import Correlation
from nnlite.conv.direct_weight_plan import WeightGradient
from nnlite.conv.epilogue import Epilogue
from nnlite.conv.geometry import Geometry
from nnlite.conv.winograd_tiles import WinogradSizes, gradient_shapes, product_shape
from nnlite.conv.work import ITEMSIZE, Tiles, WorkItem, move, product
from nnlite.runtime import threads

_NONE = Epilogue()


# The three passes share these -------------------------------------------------------------------------------------


def products(
    kind: str, size: Tiles, problem: tuple[Any, ...], amount: float, flops: int, nbytes: float, what: str = "products"
) -> WorkItem:
    """Products on register tiles, of data that stay in cache."""
    return WorkItem(what, kind, size, amount, int(nbytes), 0, 0, flops=flops, problem=problem)


def from_outside(item: WorkItem, nbytes: int) -> WorkItem:
    """The item that brings `nbytes` into cache, or takes them out of it, on the way."""
    return replace(item, moved=nbytes, working_set=nbytes, bytes=max(item.bytes, nbytes))


def operands(geometry: Geometry, epilogue: Epilogue) -> tuple[int, int, int, int]:
    """Bytes of (x, weight, the result, the argmax indices of its pooling)."""
    result = prod(epilogue.result_shape(geometry.output_shape))
    x, weight = ITEMSIZE * prod(geometry.input_shape), ITEMSIZE * prod(geometry.weight_shape)
    return x, weight, ITEMSIZE * result, result if epilogue.pool else 0


# Direct ------------------------------------------------------------------------------------------------------------


def direct(
    geometry: Geometry, pass_name: str, epilogue: Epilogue | None, panel_bytes: int, line_bytes: int
) -> list[WorkItem] | None:
    """Bias and ReLU are part of the store, ReLU's gradient of the copy of dY. None if all is padding."""
    given = epilogue or _NONE
    x, weight, result, _ = operands(geometry, given)
    n = geometry.input_shape[0]
    batch = next((batch for *_, batch in direct_plan.batches(geometry)), geometry.one_image)
    incoming = result * (1 + given.relu)  # dY, and where ReLU is in it, the result
    if pass_name == "forward":
        (plan,) = correlations(batch, "forward", False, panel_bytes)
        if not len(plan.nest.runs):
            return None
        item = correlation(plan, (batch, "forward", False, panel_bytes, 0), n, geometry.flops)
        copies = [_pad(n * plan.nest.image_in, x)] if plan.is_padded else []
        return [*copies, from_outside(item, weight + result + (0 if copies else x))]
    items: list[WorkItem] = []
    if pass_name in ("grad_input", "gradients"):
        outside = weight + x  # dX is that of all phases together
        for phase, plan in enumerate(correlations(batch, "grad_input", False, panel_bytes)):
            if not len(plan.nest.runs):
                continue
            problem, flops = (batch, "grad_input", False, panel_bytes, phase), 0 if items else geometry.flops
            if given.relu or plan.is_padded:  # each phase reads dY
                items.append(_pad(n * plan.nest.image_in, incoming))
            else:
                outside += incoming
            item = correlation(plan, problem, n, flops)
            items.append(from_outside(item, outside) if outside else item)
            outside = 0
        if not items:
            return None
    if pass_name in ("grad_weight", "gradients") and direct_weight_plan.is_product(geometry, threads.kernel_parts()):
        items += _pixel_product(geometry, given)
    elif pass_name in ("grad_weight", "gradients"):
        reduction = direct_weight_plan.grad_weight(geometry.one_image, line_bytes=line_bytes)
        gradient = weight_products(geometry.one_image, n, line_bytes)
        if not reduction.is_packed or given.bias or given.relu:
            nest = reduction.nest
            pixels = ITEMSIZE * n * nest.h_out * nest.w_out * nest.groups * nest.panels * reduction.shape.width
            items.append(pack_dy("dY to whole vectors", pixels, given.relu, incoming))
            incoming = 0
        items.append(from_outside(gradient, weight + x + incoming))
    return items


def correlations(geometry: Geometry, pass_name: str, lanes: bool, panel_bytes: int) -> tuple[Correlation, ...]:
    """The plans of a forward pass, one, or of an input gradient, one for each phase."""
    if pass_name == "forward":
        return (direct_plan.forward(geometry, lanes, panel_bytes),)
    return direct_plan.grad_input(geometry, lanes, panel_bytes)


def correlation(plan: Correlation, problem: tuple[Any, ...], n: int, flops: int) -> WorkItem:
    """Products of `n` images by a plan of `correlations`, its arguments and number being the problem."""
    nest, lanes = plan.nest, problem[2]
    begin, end = nest.ends[nest.regions[plan.terms.argmax()]][[0, -1]]  # of a tile with all kernel positions
    length = int(nest.runs[begin:end, 2].max())
    runs = -(-int(plan.terms.max()) // length)
    count = -(-n // LANES) if lanes else n / nest.images
    size = Tiles(plan.shape.rows, plan.shape.vectors, runs * length, runs)
    kind, nbytes = "lane_tiles" if lanes else "tiles", ITEMSIZE * n * (nest.image_in + nest.image_out)
    return products(kind, size, problem, count * correlation_flops(plan), flops, nbytes)


def correlation_flops(plan: Correlation) -> float:
    """Executed for the images of a plan, or for a block of lanes."""
    return 2.0 * plan.nest.groups * plan.nest.panels * plan.shape.rows * plan.shape.width * int(plan.terms.sum())


def _pad(numbers: int, outside: int) -> WorkItem:
    nbytes = 2 * ITEMSIZE * numbers  # read and written
    return from_outside(move("copy into a border", "pad", (), touched=nbytes, arrays=nbytes), outside)


def pack_dy(what: str, pixels: int, relu: bool, outside: int) -> WorkItem:
    """The copy of dY of `pixels` bytes, read again for the bias; `outside` bytes come from outside of the cache."""
    touched = (3 + relu) * pixels
    return from_outside(move(what, "pack_dy", (int(relu),), touched=touched, arrays=touched), outside)


def _pixel_product(geometry: Geometry, given: Epilogue) -> list[WorkItem]:
    """The weight gradient of a 1x1 kernel, and what is done before with the operands."""
    (_, _, _, c), (_, _, ow, k), (_, sw) = geometry.input_shape, geometry.output_shape, geometry.strides
    pixels, items = prod(geometry.output_shape[:3]), []
    if geometry.strides != (1, 1):
        copied = 2 * ITEMSIZE * pixels * c
        items.append(move("pixels to a matrix", "assign", (ow, c, sw * c, c, 0), touched=copied, arrays=copied))
    if given.relu or given.bias:
        kind, arrays = ("relu_backward", 3) if given.relu else ("bias_gradient", 1)
        touched = arrays * ITEMSIZE * pixels * k
        items.append(move("dY of the bias and before ReLU", kind, (k,), touched=touched, arrays=touched))
    return [*items, product("product", "matmul", c, k, pixels, layout=1)]


def weight_products(one: Geometry, n: int, line_bytes: int = LINE_BYTES) -> WorkItem:
    """Products of dW of `n` images: a tile of dW is a sum over the pixels of a band of lines, packed before."""
    plan = direct_weight_plan.grad_weight(one, line_bytes=line_bytes)
    nest, shape, lines = plan.nest, plan.shape, -(-plan.nest.h_out // plan.nest.bands)
    packed = 0
    if nest.packed:  # for each column of tiles
        columns = len(nest.inside) // nest.kernel_rows
        packed = ITEMSIZE * n * nest.bands * nest.groups * columns * nest.packed
    terms, runs = lines * nest.w_out, 1 if nest.packed else lines
    read = ITEMSIZE * n * nest.image_in if packed else 0
    size = Tiles(shape.rows, shape.vectors, terms, runs, packed=packed, read=read)
    nbytes = ITEMSIZE * n * (nest.image_in + nest.image_out)
    return products("weight_tiles", size, (one, line_bytes), n * weight_flops(plan), n * one.flops, nbytes)


def weight_flops(plan: WeightGradient) -> float:
    """Executed for an image."""
    nest, shape = plan.nest, plan.shape
    top, bottom = nest.inside.T
    terms = int((bottom - top).clip(0).sum()) * nest.w_out  # of all tiles of a panel
    return 2.0 * nest.groups * nest.panels * shape.rows * shape.width * terms


# Lanes -------------------------------------------------------------------------------------------------------------


def lanes(geometry: Geometry, pass_name: str, epilogue: Epilogue | None) -> list[WorkItem]:
    """A block of images is transposed into the lanes, and the result out of them."""
    given = epilogue or _NONE
    x, weight, result, argmax = operands(geometry, given)
    one, images = geometry.one_image, geometry.input_shape[0]
    n = -(-images // LANES) * LANES
    y = ITEMSIZE * n * prod(geometry.output_shape[1:])
    x_lanes = transposition("images into lanes", x, images)
    k = geometry.weight_shape[3]
    pooling = pass_over_blocks("pooling", k, y + result, argmax)
    if pass_name == "forward":
        out = transposition("results out of lanes", result, images, weight)
        return [x_lanes, lanes_correlation(one, "forward", n), *([pooling] if given.pool else []), out]
    items = [
        transposition("dY into lanes", result, images, arrays=1 + given.relu),
        pass_over_blocks("sums of dY for the bias", k, result),
        *([pooling] if given.pool else []),
    ]
    if pass_name in ("grad_weight", "gradients"):
        items += [x_lanes, from_outside(lanes_grad_weight(one, n), weight)]
    if pass_name in ("grad_input", "gradients"):
        dx = transposition("gradients out of lanes", x, images, weight)
        items += [lanes_correlation(one, "grad_input", n), dx]
    return items


def lanes_correlation(one: Geometry, pass_name: str, n: int) -> WorkItem:
    """Products of `n` images, whole blocks of lanes."""
    problem = one, pass_name, True, PANEL_BYTES
    (plan,) = correlations(*problem)
    return correlation(plan, (*problem, 0), n, n * one.flops)


def transposition(what: str, nbytes: int, images: int, outside: int = 0, *, arrays: int = 1) -> WorkItem:
    """`images` of `nbytes` in all into lanes or out of them; `outside` more bytes come from or go out of cache.

    `arrays`: how many of that size are read, the result of a ReLU beside its gradient.
    """
    size = (nbytes // ITEMSIZE // max(1, images),)
    item = move(what, "transpose", size, touched=arrays * nbytes, arrays=2 * nbytes)
    return from_outside(item, arrays * nbytes + outside)


def pass_over_blocks(what: str, channels: int, touched: int, moved: int = 0) -> WorkItem:
    """A pass over `touched` bytes of images in lanes, a block at a time, which stays in cache."""
    return move(what, "lane_pixels", (channels,), touched=touched, arrays=touched, moved=moved, working_set=moved)


def lanes_grad_weight(one: Geometry, n: int) -> WorkItem:
    """A line of pixels at a time is added to all tiles of dW."""
    plan = direct_weight_plan.grad_weight(one, lanes=True)
    nest, shape, line = plan.nest, plan.shape, plan.nest.w_out * LANES
    count = n // LANES * nest.groups * nest.panels * nest.h_out
    rows = len(nest.inside) * shape.rows
    size = Tiles(shape.rows, shape.vectors, nest.w_out, held=ITEMSIZE * nest.h_out * line * one.weight_shape[3])
    nbytes = ITEMSIZE * count * (rows * LANES + nest.w_out * shape.width)
    return products("vector_tiles", size, (one,), 2.0 * count * rows * shape.width * nest.w_out, n * one.flops, nbytes)


# Winograd ----------------------------------------------------------------------------------------------------------


def winograd(
    geometry: Geometry, pass_name: str, epilogue: Epilogue | None, sizes: WinogradSizes, image_bytes: int = 0
) -> list[WorkItem]:
    """Transforms into and out of the tiles' 36 elements, and a product for each of these.

    Products fetch what the transforms read and write: images, dX and results, not what an epilogue needs besides. A
    pair's images, of `image_bytes`, are in cache already.
    """
    given = epilogue or _NONE
    fused = int(epilogue is not None and epilogue != _NONE)
    x, weight, result, argmax = operands(geometry, given)
    total = geometry.input_shape[0] * sizes.tiles  # tiles
    v, m = ITEMSIZE * 36 * total * sizes.c_wide, ITEMSIZE * 36 * total * sizes.k_wide
    u = ITEMSIZE * 36 * sizes.c * sizes.k_wide
    y_flags = fused, int(given.relu), int(given.pool)
    fetched = 0 if image_bytes else x

    def transform(what: str, kind: str, size: tuple[int, ...], elements: int, array: int, outside: int) -> WorkItem:
        return from_outside(move(what, kind, size, touched=elements, arrays=elements + array), outside)

    def of_images(what: str, kind: str) -> WorkItem:
        return replace(transform(what, kind, (sizes.c, 0, 0, 0), v, x, 0), working_set=image_bytes)

    to_u = transform("weights to U", "winograd_weight", (sizes.k,), u, weight, weight)
    to_v = of_images("images to V", "winograd_input")
    if pass_name == "forward":
        by_u = _winograd_products("V U", sizes, total, geometry.flops)
        to_y = transform("M to results", "winograd_output", (sizes.k, *y_flags), m, result, argmax)
        return [to_u, to_v, from_outside(by_u, fetched + result), to_y]
    masks = result * given.relu + argmax
    items = [transform("dY to dM", "winograd_dy", (sizes.k, *y_flags), m, result, masks)]
    if pass_name in ("grad_weight", "gradients"):
        by_dm = _winograd_products("V' dM", sizes, total, geometry.flops, is_gradient=True)
        by_dm = from_outside(by_dm, fetched + (result if pass_name == "grad_weight" else 0))
        items += [to_v, by_dm, transform("dU to gradients", "winograd_weight", (sizes.k,), u, weight, weight)]
    if pass_name in ("grad_input", "gradients"):
        swapped = sizes._replace(
            c=sizes.k, k=sizes.c, c_wide=sizes.k_wide, k_wide=sizes.c_wide, c_row=sizes.k_row, k_row=sizes.c_row,
            v_step=sizes.m_step, m_step=sizes.v_step,
        )  # fmt: skip
        by_u = _winograd_products("dM U'", swapped, total, geometry.flops)
        items += [to_u, from_outside(by_u, result + fetched), of_images("dV to dX", "winograd_dx")]
    return items


def _winograd_products(what: str, sizes: WinogradSizes, total: int, flops: int, is_gradient: bool = False) -> WorkItem:
    """36 products for each block of tiles: (tiles, c) @ (c, k), or (c, tiles) @ (tiles, k), which is added to dU."""
    shape = gradient_shapes(sizes.c, sizes.k)[0] if is_gradient else product_shape(sizes.k)
    depth, count = (sizes.block, -(-total // sizes.block)) if is_gradient else (sizes.c, total / sizes.block)
    rows = winograd_rows(sizes, is_gradient)
    read, passed = (1, max(sizes.m_step, sizes.k_wide * rows)) if is_gradient else (sizes.c_row, depth * sizes.k_wide)
    size = Tiles(shape.rows, shape.vectors, depth, held=ITEMSIZE * 36 * passed)
    nbytes = ITEMSIZE * 36 * count * (sizes.k_wide // shape.width) * (rows * read + depth * shape.width)
    amount = 2.0 * 36 * count * rows * sizes.k_wide * depth
    return products("winograd_products", size, (sizes, is_gradient), amount, flops, nbytes, what)


def winograd_rows(sizes: WinogradSizes, is_gradient: bool) -> int:
    """Of one of a block's products, in whole tiles."""
    rows = product_shape(sizes.k).rows
    return sizes.c if is_gradient else -(-sizes.block // rows) * rows
