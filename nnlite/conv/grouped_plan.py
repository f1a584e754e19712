"""Where things lie in memory for convolutions of few channels per group, with channels in the SIMD lanes.

A block is LANES output channels, neighbours as NHWC has them, of one group or of several. For an output channel, the
reduction has a term for each tap and each input channel of its group. So a line of the input is packed, block by block,
into `terms` copies: lane k of copy j is the channel that output channel k reads as its j-th,

    group(k) * group_in + (j + k) % group_in

For one channel per group and no multiplier, that is the line itself. Where groups are as wide out as in, it is a
rotation of the channels within their group: two loads at different offsets, each of some lanes. A copy of any other
kind is put together from as many loads as there are different offsets, at most LANES.

In a packed line, pixels that are `step` apart lie one after the other, for a stride of `step`, so that a kernel reads
successive outputs' pixels at constant offsets. The input gradient is the same over dY, for stride s as s * s phases
(nnlite.conv.direct_plan).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import gcd, prod
from typing import NamedTuple

import numpy as np

from nnlite.compiler.target import LANES
from nnlite.conv.direct_plan import outputs, phases
from nnlite.conv.direct_regions import Axis
from nnlite.conv.geometry import Geometry
from nnlite.runtime.processor import cache_sizes

#: outputs of a line that are summed at once: as many multiply-adds are under way as hide the latency of one
PIXELS = 8
#: taps whose gradients are summed at once: those of a 3x3 kernel
TAPS = 9
#: share of the second-level cache for the packed lines that are in use
LINES_SHARE = 0.5


class LineNest(NamedTuple):
    """What the compiled loops follow. Sizes of packed lines are in numbers; blocks are of LANES output channels.

    Lines are numbered from the first that a result reads, which may be padding.
    """

    h: int
    w: int
    c: int  # channels that are read
    h_out: int
    w_out: int
    k: int  # channels that are written
    top: int  # lines of padding
    left: int  # columns before the first of a packed line
    terms: int  # copies of a line
    step: int  # columns of the input from an output to the next of its phase
    line_step: int  # lines of the input from a row of outputs to the next of its phase
    row_step: int  # rows of the result from one to the next of a phase
    column_step: int
    copy: int  # numbers of a copy of a block of a line's pixels, of one remainder modulo `step`
    part: int  # and of all copies of a chunk; a packed line has `step` such parts
    slots: int  # lines that are kept packed: those that a row of outputs reads
    blocks: int
    chunk: int  # blocks that are packed together
    ring: int  # numbers of all packed lines of a chunk
    bands: int  # of an image's rows of outputs
    count: int  # type: ignore[assignment]  # rows of outputs, of the phase that has most
    rows: np.ndarray  # (phases, 4): the first row, their number, and from where to where in `shifts`
    columns: np.ndarray  # (phases, 3): the first column, their number, and that of their taps in a line
    shifts: np.ndarray  # (rows of the kernel): the line that they read, of the first row of outputs
    begins: np.ndarray  # (phases of rows, phases of columns): where their taps are in what follows
    places: np.ndarray  # (slots, taps): offset in the ring, if the first line that is read lies in that slot
    is_plain: bool  # whether all copies are LANES neighbours of the input: blocks of whole vectors, one term each
    loads: np.ndarray  # (blocks * terms): how many loads a copy takes; 0 if it is LANES neighbours of the input
    offsets: np.ndarray  # (blocks * terms, loads): of the loads, from the pixel's first channel; two or more
    lanes: np.ndarray  # (blocks * terms, loads, LANES): 1 where a lane comes from that load


class Grouped(NamedTuple):
    """A pass: its loop nest, and where its packed weights come from."""

    nest: LineNest
    source: np.ndarray  # (blocks, taps, LANES): which weight that is; any beyond the last channel


@lru_cache(maxsize=512)
def forward(geometry: Geometry, num_threads: int, lines_share: float = LINES_SHARE) -> Grouped:
    """The forward pass."""
    return _plan(geometry, [outputs(geometry, 0)], [outputs(geometry, 1)], False, num_threads, lines_share)


@lru_cache(maxsize=512)
def grad_input(geometry: Geometry, num_threads: int, lines_share: float = LINES_SHARE) -> Grouped:
    """The input gradient, a correlation over dY."""
    return _plan(geometry, phases(geometry, 0, 1), phases(geometry, 1, 1), True, num_threads, lines_share)


def _plan(
    geometry: Geometry, rows: list[Axis], columns: list[Axis], back: bool, num_threads: int, lines_share: float
) -> Grouped:
    (n, h, w, c), (_, oh, ow, k), groups = geometry.input_shape, geometry.output_shape, geometry.groups
    if back:
        h, w, c, oh, ow, k = oh, ow, k, h, w, c
    terms, group_out = c // groups, k // groups
    blocks = -(-k // LANES)
    channel = np.arange(blocks * LANES).reshape(blocks, 1, LANES)
    group, member = channel // group_out, channel % group_out
    term = (np.arange(terms)[:, None] + member) % terms  # (blocks, terms, LANES): which of its group's channels
    reads = np.where(channel < k, group * terms + term, -1)

    step, count = columns[0].step, max(axis.count for axis in rows)
    shifts_h, shifts_w = ([shift for axis in axes for shift in axis.shifts] or [0] for axes in (rows, columns))
    top, left = -min(shifts_h), max(0, -min(shifts_w))
    slots = max(shifts_h) + top + 1
    reach = max((round_up(axis.count, PIXELS) - 1) * step for axis in columns) + max(shifts_w)
    copy = LANES * ((left + max(reach, w - 1)) // step + 1)
    most = max(2, int(lines_share * cache_sizes()["L2"]) // (4 * slots * step * terms * copy))
    chunk = -(-blocks // -(-blocks // most))
    part = chunk * terms * copy
    loads, offsets, lanes = _loads(reads.reshape(-1, LANES))
    begins, taps, shifts = _taps(rows, columns, terms, geometry.weight_shape[1])
    shift_h, shift_w, tap, number = taps.T  # (taps of all phases)
    group_size = prod(geometry.weight_shape[2:])  # weights of a tap
    in_line = (shift_w + left) % step * part + number * copy + (shift_w + left) // step * LANES
    in_ring = (np.arange(slots)[:, None] + shift_h + top) % slots * step * part
    nest = LineNest(
        h=h,
        w=w,
        c=c,
        h_out=oh,
        w_out=ow,
        k=k,
        top=top,
        left=left,
        terms=terms,
        step=step,
        line_step=rows[0].step,
        row_step=rows[0].step_out,
        column_step=columns[0].step_out,
        copy=copy,
        part=part,
        slots=slots,
        blocks=blocks,
        chunk=chunk,
        ring=slots * step * part,
        bands=_bands(max(1, n) * -(-blocks // chunk), count, num_threads),
        count=count,
        rows=_phase_table(rows),
        columns=np.array([(axis.first_out, axis.count, len(axis.shifts)) for axis in columns], np.int64),
        shifts=shifts,
        begins=begins,
        places=_whole(in_ring + in_line),
        is_plain=not loads.any() and terms == 1,
        loads=loads,
        offsets=offsets,
        lanes=lanes,
    )
    return Grouped(nest, _whole(_weight_places(geometry, term, channel, back)[:, number] + (tap * group_size)[:, None]))


def round_up(count: int, to: int) -> int:
    """The next multiple of `to`."""
    return -(-count // to) * to


def _bands(units: int, count: int, num_threads: int) -> int:
    """Bands of rows, so that threads share the work equally; a band packs lines again that the one before it had."""
    return 1 if units >= 8 * num_threads else min(count, num_threads // gcd(units, num_threads))


def _phase_table(axes: list[Axis]) -> np.ndarray:
    ends = np.cumsum([0] + [len(axis.shifts) for axis in axes])
    table = [(axis.first_out, axis.count, ends[i], ends[i + 1]) for i, axis in enumerate(axes)]
    return np.array(table, np.int64)


def _taps(rows: list[Axis], columns: list[Axis], terms: int, kw: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The taps of all phases, line by line, as (line, column, tap of the kernel, term); where each phase begins.

    Returns (begins, taps, lines of all rows of the kernel, phase by phase).
    """
    begins, taps = np.zeros((len(rows), len(columns)), np.int64), list[tuple[int, ...]]()
    for (i, row), (j, column) in product(enumerate(rows), enumerate(columns)):
        begins[i, j] = len(taps)
        for (y, (r,)), (x, (s,)) in product(_shifts(row), _shifts(column)):
            taps += [(y, x, r * kw + s, number) for number in range(terms)]
    shifts = [shift for axis in rows for shift in axis.shifts]
    return begins, np.array(taps, np.int64).reshape(-1, 4), np.array(shifts, np.int64)


def _shifts(axis: Axis) -> zip:
    return zip(axis.shifts, axis.taps, strict=True)


def _whole(table: np.ndarray) -> np.ndarray:
    """A table (..., taps, ...) filled up to whole TAPS with its first tap, which is computed in vain."""
    missing = -table.shape[1] % TAPS if table.size else 0
    return np.concatenate([table, *[table[:, :1]] * missing], axis=1)


def _loads(reads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(loads, offsets, lanes) of a LineNest, for copies whose lanes read those channels; -1 where they read none."""
    none = np.iinfo(np.int64).max
    shifts = np.where(reads < 0, none, reads - np.arange(LANES))  # of a load that has that lane
    ordered = np.sort(shifts, axis=-1)
    is_new = (np.diff(ordered, prepend=-none, axis=-1) != 0) & (ordered < none)
    loads = is_new.sum(axis=-1)
    offsets = np.zeros((len(reads), round_up(int(loads.max()), 2)), np.int64)
    offsets[np.nonzero(is_new)[0], (np.cumsum(is_new, axis=-1) - 1)[is_new]] = ordered[is_new]
    is_used = np.arange(offsets.shape[1]) < loads[:, None]
    lanes = ((shifts[:, None] == offsets[..., None]) & is_used[..., None]).astype(np.float32)
    is_whole = (loads == 1) & lanes[:, 0].all(axis=-1)
    return np.where(is_whole, 0, loads), offsets, lanes


def _weight_places(geometry: Geometry, term: np.ndarray, channel: np.ndarray, back: bool) -> np.ndarray:
    """(blocks, terms, LANES): where the weights of the kernel's first tap lie, for the channels that lanes write."""
    k = geometry.weight_shape[3]
    if not back:
        return term * k + np.minimum(channel, k - 1)
    c, group_in = geometry.input_shape[3], geometry.weight_shape[2]
    channel = np.minimum(channel, c - 1)  # of x; it reads those of its group in dY
    return channel % group_in * k + channel // group_in * (k // geometry.groups) + term


@lru_cache(maxsize=512)
def packed_places(geometry: Geometry, num_threads: int) -> np.ndarray:
    """(weights): where the forward pass has each weight, packed."""
    nest, source = forward(geometry, num_threads)
    lanes, taps = nest.k - LANES * np.arange(nest.blocks), prod(geometry.weight_shape[:3])
    is_weight = (np.arange(LANES) < lanes[:, None, None]) & (np.arange(source.shape[1]) < taps)[:, None]
    places = np.empty(prod(geometry.weight_shape), np.int64)
    places[source[is_weight]] = np.flatnonzero(is_weight)
    return places
