"""What the compiled algorithms do, as work items: `direct`, `lanes` and `winograd`.

Their products run on register tiles. A tile at the edge computes more than the layer needs: an item's `amount` is the
FLOPs that the tiles execute, its `flops` those of the layer. An image, or a block of tiles, stays in cache: `moved` is
what the whole pass reads and writes outside of it.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from nnlite.compiler.blocking import LINE
from nnlite.compiler.target import LANES
from nnlite.compiler.tile_shapes import TileShape
from nnlite.conv import direct_plan
from nnlite.conv.direct_plan import Correlation, WeightGradient
from nnlite.conv.epilogue import Epilogue
from nnlite.conv.geometry import Geometry
from nnlite.conv.loops import Loops
from nnlite.conv.winograd_tiles import WinogradSizes, gradient_shape, product_shape
from nnlite.conv.work import ITEMSIZE, WorkItem, move

_NONE = Epilogue()


# The three passes share these -------------------------------------------------------------------------------------


def tiles(kind: str, loops: Loops, count: float, flops: int, what: str = "products") -> WorkItem:
    """`count` rounds of a register tile's reduction; the data stay in cache."""
    rows, width = loops.tiles * loops.rows, loops.shape.width
    held = ITEMSIZE * loops.batches * loops.panels * (rows * (loops.row_step or 1) + loops.terms * width)
    return WorkItem(
        what=what,
        kind=kind,
        size=tuple(int(value) for value in loops),
        amount=2.0 * count * loops.batches * loops.panels * rows * width * loops.terms,
        bytes=int(count * held),
        moved=0,
        working_set=held,
        flops=flops,
    )


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
    one, n = geometry.one_image, geometry.input_shape[0]
    batch = next((batch for *_, batch in direct_plan.batches(geometry)), one)
    masked = given.relu
    incoming = result * (1 + masked)  # dY, and where ReLU is in it, the result
    if pass_name == "forward":
        plan = direct_plan.forward(batch, False, panel_bytes)
        if not len(plan.nest.runs):
            return None
        products = correlation(plan, n, geometry.flops, lanes=False)
        copies = [_pad(n * plan.nest.image_in, x)] if plan.is_padded else []
        return [*copies, from_outside(products, weight + result + (0 if copies else x))]
    items: list[WorkItem] = []
    if pass_name in ("grad_input", "gradients"):
        phases = [plan for plan in direct_plan.grad_input(batch, False, panel_bytes) if len(plan.nest.runs)]
        if not phases:
            return None
        for phase, plan in enumerate(phases):  # each reads dY
            copied = masked or plan.is_padded
            if copied:
                items.append(_pad(n * plan.nest.image_in, incoming))
            products = correlation(plan, n, 0 if phase else geometry.flops, lanes=False)
            outside = (0 if copied else incoming) + (0 if phase else weight + x)  # dX is that of all phases together
            items.append(from_outside(products, outside) if outside else products)
    if pass_name in ("grad_weight", "gradients"):
        reduction = direct_plan.grad_weight(one, line_bytes=line_bytes)
        items += _direct_grad_weight(reduction, n, given, (x, weight, incoming), n * one.flops)
    return items


def correlation(plan: Correlation, n: int, flops: int, lanes: bool) -> WorkItem:
    """Products of `n` images; the rate is that of a tile with all kernel positions, as most have."""
    nest, scale = plan.nest, LANES if lanes else 1
    pitch = nest.groups * nest.group_out
    begin, end = nest.ends[nest.regions[plan.terms.argmax()]][[0, -1]]
    runs = nest.runs[begin:end]
    length = int(runs[:, 2].max())
    loops = Loops(
        rows=plan.shape.rows,
        vectors=plan.shape.vectors,
        tiles=nest.tiles,
        row_step=int(nest.rows_in[1] - nest.rows_in[0]) if len(nest.rows_in) > 1 else scale,
        runs=-(-int(plan.terms.max()) // length),
        run_step=int(runs[1, 0] - runs[0, 0]) * scale if len(runs) > 1 else 0,
        length=length,
        step=scale,
        b_step=plan.shape.vectors if lanes else plan.shape.width,
        width=min(nest.group_out, plan.width) * scale,
        pitch=pitch * scale,
    )
    count = (-(-n // LANES) if lanes else n / nest.images) * nest.groups * nest.panels
    products = count * plan.shape.rows * plan.shape.width * int(plan.terms.sum())
    return replace(tiles("lane_tiles" if lanes else "tiles", loops, count, flops), amount=2.0 * products)


def _pad(numbers: int, outside: int) -> WorkItem:
    item = move("copy into a border", "pad", (), touched=ITEMSIZE * numbers, arrays=ITEMSIZE * numbers)
    return from_outside(item, outside)


def _direct_grad_weight(
    plan: WeightGradient, n: int, given: Epilogue, nbytes: tuple[int, int, int], flops: int
) -> list[WorkItem]:
    (x, weight, incoming), nest, width = nbytes, plan.nest, plan.shape.width
    packed = ITEMSIZE * n * nest.h_out * nest.w_out * nest.groups * nest.panels * width
    copies = move("dY to whole vectors", "pack_dy", (nest.group_out, int(given.relu)), touched=packed, arrays=packed)
    products = weight_products(plan, n, flops)
    items = [from_outside(lines_of_tiles(plan, n), x)] if nest.packed else []
    if plan.is_packed and not (given.bias or given.relu):
        return [*items, from_outside(products, weight + incoming + (0 if items else x))]
    return [from_outside(copies, incoming), *items, from_outside(products, weight + (0 if items else x))]


def lines_of_tiles(plan: WeightGradient, n: int) -> WorkItem:
    """The copy of what each column of tiles of dW reads of `n` images."""
    nest = plan.nest
    columns, lines = len(nest.inside) // nest.kernel_rows, -(-nest.h_out // nest.bands)
    lines += (nest.kernel_rows - 1) * nest.dilation
    touched = ITEMSIZE * n * nest.bands * nest.groups * columns * lines * nest.w_out * plan.shape.rows
    size = min(nest.c, LINE // ITEMSIZE), plan.shape.rows  # pixels further apart than a line of the cache take as long
    return move("x to lines of tiles", "pack_lines", size, touched=touched, arrays=touched)


def weight_products(plan: WeightGradient, n: int, flops: int) -> WorkItem:
    """Products of dW of `n` images: a tile of dW is a sum over the pixels of a band of lines."""
    nest, shape = plan.nest, plan.shape
    loops = Loops(
        rows=shape.rows,
        vectors=shape.vectors,
        tiles=len(nest.inside),
        row_step=1,
        runs=1 if nest.packed else -(-nest.h_out // nest.bands),
        run_step=0 if nest.packed else nest.line,
        length=nest.w_out * (-(-nest.h_out // nest.bands) if nest.packed else 1),
        step=shape.rows if nest.packed else nest.pixel,
        b_step=shape.width,
        width=shape.width,
        pitch=shape.width,
        load=1,
    )
    item = tiles("tiles", loops, n * nest.bands * nest.groups * nest.panels, flops)
    top, bottom = nest.inside.T
    terms = int((bottom - top).clip(0).sum()) * nest.w_out  # of all tiles of a panel
    return replace(item, amount=2.0 * n * nest.groups * nest.panels * shape.rows * shape.width * terms)


# Lanes -------------------------------------------------------------------------------------------------------------


def lanes(geometry: Geometry, pass_name: str, epilogue: Epilogue | None) -> list[WorkItem]:
    """A block of images is transposed into the lanes, and the result out of them."""
    given = epilogue or _NONE
    x, weight, result, argmax = operands(geometry, given)
    one, images = geometry.with_batch(1), geometry.input_shape[0]
    n = -(-images // LANES) * LANES
    y = ITEMSIZE * n * prod(geometry.output_shape[1:])
    x_lanes = transposition("images into lanes", x, images)
    pooling = replace(copy_of_blocks("pooling", y + result, n), moved=argmax)
    if pass_name == "forward":
        products = correlation(direct_plan.forward(one, lanes=True), n, geometry.flops, lanes=True)
        out = transposition("results out of lanes", result, images, weight)
        return [x_lanes, products, *([pooling] if given.pool else []), out]
    items = [
        transposition("dY into lanes", result, images, arrays=1 + given.relu),
        copy_of_blocks("sums of dY for the bias", result, n),
        *([pooling] if given.pool else []),
    ]
    if pass_name in ("grad_weight", "gradients"):
        items += [x_lanes, from_outside(lanes_grad_weight(one, n, geometry.flops), weight)]
    if pass_name in ("grad_input", "gradients"):
        (plan,) = direct_plan.grad_input(one, lanes=True)
        items += [
            correlation(plan, n, geometry.flops, lanes=True),
            transposition("gradients out of lanes", x, images, weight),
        ]
    return items


def transposition(what: str, nbytes: int, images: int, outside: int = 0, *, arrays: int = 1) -> WorkItem:
    """`images` of `nbytes` in all into lanes or out of them; `outside` more bytes come from or go out of cache.

    `arrays`: how many of that size are read, the result of a ReLU beside its gradient.
    """
    size = (nbytes // ITEMSIZE // max(1, images),)
    item = move(what, "transpose", size, touched=arrays * nbytes, arrays=2 * nbytes)
    return from_outside(item, arrays * nbytes + outside)


def copy_of_blocks(what: str, touched: int, n: int) -> WorkItem:
    """A pass over `touched` bytes of `n` images, a block of lanes at a time, which stays in cache."""
    block = touched * LANES // max(n, 1)
    return move(what, "copy", (), touched=touched, arrays=touched, moved=0, working_set=block)


def lanes_grad_weight(one: Geometry, n: int, flops: int) -> WorkItem:
    """A line of pixels at a time is added to all tiles of dW."""
    plan = direct_plan.grad_weight(one, lanes=True)
    nest, shape, channels = plan.nest, plan.shape, one.weight_shape[3] * LANES
    loops = Loops(
        rows=shape.rows,
        vectors=shape.vectors,
        tiles=len(nest.inside),
        row_step=LANES,
        length=nest.w_out,
        step=nest.pixel * LANES,
        b_step=channels,
        width=shape.width,
        pitch=shape.width,
        load=1,
        batches=nest.h_out,
        x_batch=nest.line * LANES,
        b_batch=nest.w_out * channels,
    )
    return tiles("vector_tiles", loops, n // LANES * nest.groups * nest.panels, flops)


# Winograd ----------------------------------------------------------------------------------------------------------


def winograd(geometry: Geometry, pass_name: str, epilogue: Epilogue | None, sizes: WinogradSizes) -> list[WorkItem]:
    """Transforms into and out of the tiles' 36 elements, and a product for each of these."""
    given = epilogue or _NONE
    fused = int(epilogue is not None and epilogue != _NONE)
    x, weight, result, argmax = operands(geometry, given)
    n = geometry.input_shape[0]
    total = n * sizes.tiles  # tiles
    v, m = ITEMSIZE * 36 * total * sizes.c_wide, ITEMSIZE * 36 * total * sizes.k_wide
    u = ITEMSIZE * 36 * sizes.c * sizes.k_wide
    flags = (int(given.relu), int(given.pool))
    to_u = from_outside(move("weights to U", "winograd_weight", (sizes.k,), touched=u, arrays=weight + u), weight)
    to_v = from_outside(move("images to V", "winograd_input", (sizes.c,), touched=v, arrays=x + v), x)
    if pass_name == "forward":
        to_y = move("M to results", "winograd_output", (sizes.k, *flags), touched=m, arrays=m + result)
        products = _winograd_products(
            "V U", product_shape(sizes.k), sizes.block, total, sizes.k_wide, (sizes.c_row, 1, sizes.c),
            (sizes.v_step, sizes.u_step, sizes.m_step), geometry.flops,
        )  # fmt: skip
        return [to_u, to_v, products, from_outside(to_y, result + argmax)]
    incoming = result * (1 + given.relu) + argmax
    to_dm = move("dY to dM", "winograd_dy", (sizes.k, fused, *flags), touched=m, arrays=m + result)
    items = [from_outside(to_dm, incoming)]
    if pass_name in ("grad_weight", "gradients"):
        products = _winograd_products(
            "V' dM", gradient_shape(sizes.c, sizes.k), sizes.du_rows, sizes.du_rows * -(-total // sizes.block),
            sizes.k_wide, (1, sizes.c_row, sizes.block),
            (sizes.v_step, sizes.m_step, sizes.k_wide * sizes.du_rows), geometry.flops, is_gradient=True,
        )  # fmt: skip
        from_du = move("dU to gradients", "winograd_weight", (sizes.k,), touched=u, arrays=weight + u)
        items += [to_v, products, from_outside(from_du, weight)]
    if pass_name in ("grad_input", "gradients"):
        swapped = move(
            "weights with channels swapped", "shuffle", (sizes.c, sizes.k), touched=2 * weight, arrays=2 * weight
        )
        items += [
            swapped,
            to_u,
            _winograd_products(
                "dM U'", product_shape(sizes.c), sizes.block, total, sizes.c_wide, (sizes.k_row, 1, sizes.k),
                (sizes.m_step, sizes.u_step, sizes.v_step), geometry.flops,
            ),
            from_outside(move("dV to dX", "winograd_dx", (sizes.c,), touched=v, arrays=v + x), x),
        ]  # fmt: skip
    return items


def _winograd_products(
    what: str, shape: TileShape, rows: int, total_rows: int, columns: int, inner: tuple[int, int, int],
    batches: tuple[int, int, int], flops: int, is_gradient: bool = False,
) -> WorkItem:  # fmt: skip
    """36 products (rows, depth) @ (depth, columns) for each block; `inner` is (row step, step, depth).

    U and dU lie in panels of a tile's width: U is what the others are multiplied with, dU is a result.
    """
    row_step, step, depth = inner
    pitch = shape.width if is_gradient else columns
    loops = Loops(
        rows=shape.rows,
        vectors=shape.vectors,
        tiles=-(-rows // shape.rows),
        row_step=row_step,
        length=depth,
        step=step,
        b_step=columns if is_gradient else shape.width,
        width=shape.width,
        pitch=pitch,
        load=int(is_gradient),
        batches=36,
        x_batch=batches[0],
        b_batch=batches[1],
        y_batch=batches[2],
        panels=columns // shape.width,
    )
    return tiles("winograd_products", loops, total_rows / rows, flops, what)
