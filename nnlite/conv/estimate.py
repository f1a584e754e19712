"""How long an algorithm should take for a pass, in processor cycles: estimated from its work items, never measured.

    cycles of a pass = sum over its work items of max(work * cycles per unit, traffic * cycles per unit) / threads
                       + cycles of its calls

A product on register tiles takes what the processor's ports and its latency allow (nnlite.compiler.target). The other
numbers are below, most of them cycles per vector of LANES numbers. They were fitted once, to the ratios between the
times of the algorithms in 264 passes (66 shapes, two threads of a Zen 3). Those of calls were measured there, and those
of Winograd's transforms of M, of dV and of weights, by nnlite.performance.microbenchmarks. So they are good for
comparing algorithms, not for predicting seconds: that is nnlite.performance.model, which measures rates.
"""

from __future__ import annotations

from nnlite.compiler.target import LANES, LOAD_PORTS, MULTIPLY_ADD_PORTS
from nnlite.compiler.tile_shapes import tile_shape
from nnlite.conv.algorithm import Algorithm
from nnlite.conv.geometry import Geometry
from nnlite.conv.work import ITEMSIZE, Tiles, WorkItem, touched_taps
from nnlite.runtime.processor import cache_sizes

#: per vector that a kind of work reads or writes, as its work items count them
CYCLES = {
    "pad": 1.0,
    "assign": 1.0,
    "pack_dy": 2.26 / 3,
    "pack_lines": 2.38,
    "lane_pixels": 7.46,
    "transpose": 4.39,
    "winograd_input": 5.69,
    "winograd_output": 4.4,
    "winograd_dy": 3.55,
    "winograd_dx": 6.1,
    "winograd_weight": 7.9,
    "grouped_pack": 4.32,
    "plain_pack": 2.0,  # of lines of depthwise convolutions, which are copied as they lie
}
#: of a line of vectors of channels that is packed for one of `grouped`'s products
LINE_CYCLES = 425.0
#: at least, of a term of a register tile's reduction; to begin and store one of its sums; to begin a run of its terms
TERM_CYCLES, SUM_CYCLES, RUN_CYCLES = 5.45, 4.98, 15.0
#: bytes per cycle of a thread from beyond the second cache, or to it, and of what that cache holds
OUTER_BYTES, INNER_BYTES = 4.13, 32.0
#: thousands of cycles of the calls of a pass, in Python and to start threads: those of a convolution of one small image
CALLS = {
    "direct": {"forward": 176, "grad_input": 166, "grad_weight": 117, "gradients": 347},
    "winograd": {"forward": 111, "grad_input": 134, "grad_weight": 230, "gradients": 245},
    "lanes": {"forward": 124, "grad_input": 175, "grad_weight": 239, "gradients": 292},
    "grouped": {"forward": 85, "grad_input": 83, "grad_weight": 179, "gradients": 277},
}
#: the kind of work that one thread does: NumPy's
UNDIVIDED = "assign"

_TILES = ("tiles", "weight_tiles", "lane_tiles", "vector_tiles", "winograd_products")
_GROUPED = ("grouped_sums", "grouped_gradient")
_KNOWN = {*_TILES, *_GROUPED, *CYCLES, "matmul"}
_L2 = cache_sizes()["L2"]


def cycles(algorithm: Algorithm, geometry: Geometry, pass_name: str, num_threads: int) -> float | None:
    """The estimate for a pass without what is fused into it; None if the algorithm's work is not declared, or unknown.

    (A user's algorithm that has replaced one of these may do other work.)
    """
    items = algorithm.work(geometry, pass_name)
    if items is None or any(item.kind not in _KNOWN for item in items):
        return None
    total = sum(_item_cycles(item, geometry) / (1 if item.kind == UNDIVIDED else num_threads) for item in items)
    shares = algorithm.shares(geometry)
    if shares is not None:  # the thread that has most of them takes longest
        total *= -(-shares // num_threads) * num_threads / max(shares, 1)
    return total + 1e3 * CALLS[algorithm.name][pass_name]


def least_cycles(geometry: Geometry, pass_name: str, num_threads: int) -> float:
    """What an algorithm takes at least that saves no multiplications: each port multiplies in each cycle."""
    n, (_, _, group_in, k) = geometry.input_shape[0], geometry.weight_shape
    products = n * touched_taps(geometry) * group_in * k * (2 if pass_name == "gradients" else 1)
    return products / (LANES * MULTIPLY_ADD_PORTS * num_threads)


def _item_cycles(item: WorkItem, geometry: Geometry) -> float:
    """Where a copy packs what products read, it takes its part of the traffic."""
    packing, outside = 0.0, item.moved
    for kind, packed, read in _packed(item):
        packing += max(_copy_cycles(kind, packed), _traffic_cycles(read))
        outside -= read
    return packing + max(_work_cycles(item, geometry), _traffic_cycles(outside))


def _packed(item: WorkItem) -> list[tuple[str, int, int]]:
    """(kind of the copy, bytes that it writes, bytes that it reads from outside) of what is packed for products."""
    if item.kind == "weight_tiles":
        size = Tiles(*item.size)
        return [("pack_lines", size.packed, size.read)]
    if item.kind in _GROUPED:
        is_plain = item.size[:2] == (1, 1)  # a channel in and out of each group
        lines, x, pixels, dy = item.size[-4:]
        return [("plain_pack" if is_plain else "grouped_pack", lines, x), ("pack_dy", 3 * pixels, dy)]
    return []


def _work_cycles(item: WorkItem, geometry: Geometry) -> float:
    if item.kind in _TILES:
        return _tile_cycles(item, Tiles(*item.size))
    if item.kind in _GROUPED:
        (n, h, _, c), k = geometry.input_shape, geometry.weight_shape[3]
        lines = n * h * -(-max(c, k) // LANES)
        return item.amount / (2 * LANES * MULTIPLY_ADD_PORTS) + LINE_CYCLES * lines
    if item.kind == "matmul":
        _, columns, terms, _ = item.size
        shape = tile_shape(columns)
        return _tile_cycles(item, Tiles(shape.rows, shape.vectors, terms))
    return _copy_cycles(item.kind, item.amount)


def _copy_cycles(kind: str, nbytes: float) -> float:
    return nbytes / (ITEMSIZE * LANES) * CYCLES[kind]


def _traffic_cycles(nbytes: float) -> float:
    return nbytes / (INNER_BYTES if nbytes <= _L2 else OUTER_BYTES)


def _tile_cycles(item: WorkItem, size: Tiles) -> float:
    """Of the reductions of register tiles; of what they read, if the second cache can not hold the vectors' array."""
    sums = size.rows * size.vectors
    term = max(sums / MULTIPLY_ADD_PORTS, (size.rows + size.vectors) / LOAD_PORTS, TERM_CYCLES)
    reductions = item.amount / (2 * LANES * sums * max(size.terms, 1))
    arithmetic = reductions * (size.terms * term + sums * SUM_CYCLES + size.runs * RUN_CYCLES)
    return max(arithmetic, item.bytes / OUTER_BYTES if size.held > _L2 // 2 else 0.0)
