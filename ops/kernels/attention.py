"""Attention: softmax(scores of q k^T) v with the scores in cache only (Dao et al. 2022; Milakov & Gimelshein 2018).

Everything is computed transposed. A panel of queries, two vectors of them, is transposed once; the scores of a block of
keys are then k (read in place) times that panel, [keys, queries] with lanes along queries. Largest scores, sums and
exponentials are thus work on whole vectors, the exponentials are the panel that v (read in place, too) is multiplied with,
and nothing but the queries is packed. The result, [channels, queries], is transposed back at the end. A few queries alone
take another way through memory (`attentionfew`).

Loop order of a task, which is some panels of queries of one head: blocks of keys; panels; tiles. A block of keys and its
values stay in L2 for all panels, the scores in L1. Between the products runs a generated kernel (`scores`) for masks and
what else is done to them. Numba-free but for the factory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from . import target
from .blocking import heights, panel_width, split_row
from .image import SIZES, Alloc, Image, Opaque
from .launch import Launch
from .padcopy import pad_copy
from .sizes import deferred, most
from .spec import handwritten

_SCORE_BYTES = 16 << 10  # of a block of keys: half of L1
_PANELS = 16  # of a task, at most: with keys and values they fit in L2
_FETCH = 0.4  # of a panel's time, to fetch keys and values
_LATE = 0.5  # of a task, what threads wait for the last one on cores that others use too
_COPY_PANELS = 3  # of a task, from which on rows that lie apart are first copied: they would fall into few sets of L1
_FEW = 4  # queries of a panel, at most, whose lanes run along channels (see `attentionfew`)
_AHEAD = 8  # rows by which a copy asks for what it will read
_TASK_FLOPS = 250_000  # a task costs the executor about a microsecond
_FLAGS = 8 * _PANELS  # bytes of a word for each panel
_STATE = 3  # rows of a panel's state: largest scores, sums, factors
LEADS = 3  # dimensions of heads: batch, groups, heads of a group


@dataclass(frozen=True)
class Heads:
    """A matrix for each head: address, bytes between heads (in `LEADS` dimensions), rows and columns."""

    address: Opaque
    leads: tuple[int, int, int]
    row: int
    column: int


@dataclass(frozen=True)
class Sizes:
    """leads: of each dimension of heads; q[queries, head], k[keys, head], v[keys, value]."""

    leads: tuple[int, int, int]
    queries: int
    keys: int
    head: int
    value: int

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.leads[0] * self.leads[1] * self.leads[2]

    @property
    def flops(self) -> int:
        """Of both products."""
        return 2 * self.heads * self.queries * self.keys * (self.head + self.value)


@dataclass(frozen=True)
class Band:
    """Where scores may count: key j for query i if i - back <= j <= i + ahead.

    Attributes:
        level: what lies outside is far below it. Rows without a score above it are computed whole.
    """

    back: int
    ahead: int
    level: float


def attention(
    dtype: str,
    q: Heads,
    k: Heads,
    v: Heads,
    y: Heads,
    sizes: Sizes,
    *,
    scale: float = 1.0,
    scores: tuple[Opaque, Opaque] | None = None,
    band: Band | None = None,
    alloc: Alloc,
    threads: int = 1,
    label: str = "attention",
) -> list[Launch]:
    """y = softmax(scores(scale q k^T)) v, float32 or float64.

    Args:
        y: its rows are runs in memory.
        scores: (kernel address, argument block address) of work on a block of scores in place, [keys, queries]. It is told
            of the block at the start of the scratch (see `loopcode.Shape.SCORES`).
        band: blocks outside are not computed, and keys and values there not read.

    Raises:
        ValueError: they are not.
    """
    size, s = SIZES[dtype], sizes
    if 0 in (s.heads, s.queries, s.value):
        return []
    if y.column != size and s.value > 1:
        raise ValueError(f"{label}: rows of the result are no runs in memory")
    launches: list[Launch] = []
    k, k_lines = _readable(dtype, k, s, s.head, launches, alloc, threads, label)
    v, v_lines = _readable(dtype, v, s, s.value, launches, alloc, threads, label)
    width = panel_width(size)
    panels = -(-s.queries // width)
    each, blocks = _share(s.heads, panels, s.flops, threads)
    keys = _key_block(s.keys, width * size)
    k_copied, v_copied = (
        _worth_copying(each) if lines and x.row != n * size else 0 for x, lines, n in ((k, k_lines, s.head), (v, v_lines, s.value))
    )
    last = s.keys - (most(-(-s.keys // keys), 1) - 1) * keys
    args = (
        q.address, k.address, v.address, y.address, *q.leads, q.row, q.column, *k.leads, k.row, k.column, *v.leads, v.row,
        v.column, *y.leads, y.row, *s.leads, s.queries, s.keys, s.head, s.value, float(scale), *(scores or (0, 0)),
        each, blocks, keys, *_split(keys), *_split(last), *_split(s.value), k_copied, v_copied,
        *((band.back, band.ahead, float(band.level)) if band else (s.queries, s.keys, -math.inf)),
    )  # fmt: skip
    scratch = 64 + _FLAGS + width * size * (keys + each * (s.head + s.value + _STATE))
    scratch += keys * size * (k_copied * s.head + v_copied * s.value)
    moved = size * s.heads * (s.queries + s.keys) * (s.head + s.value)
    kernel = handwritten("attention", "attention:factory", dtype=dtype, k_lines=k_lines, v_lines=v_lines)
    return [*launches, Launch(kernel, args, s.heads * blocks, scratch, label, s.flops, moved)]


def _readable(
    dtype: str, x: Heads, s: Sizes, columns: int, launches: list[Launch], alloc: Alloc, threads: int, label: str
) -> tuple[Heads, bool]:
    """Keys or values that tiles can read, and whether as lines: rows are runs in memory (else columns are)."""
    size = SIZES[dtype]
    if columns <= 1 or x.column == size:
        return x, True
    if s.keys <= 1 or x.row == size:
        return x, False
    leads = tuple(n if step else 1 for n, step in zip(s.leads, x.leads))
    dense = Heads(alloc(math.prod(leads) * s.keys * columns * size), _dense(leads, s.keys * columns * size), columns * size, size)
    source, target = (
        Image(h.address, (leads[0], columns, *leads[1:], s.keys), (h.leads[0], h.column, *h.leads[1:], h.row)) for h in (x, dense)
    )
    launches += pad_copy(dtype, source, dtype, target, threads=threads, label=f"{label}: rows")
    return replace(dense, leads=tuple(step if n > 1 else 0 for n, step in zip(leads, dense.leads))), True


def _dense(leads: tuple[int, ...], matrix: int) -> tuple[int, int, int]:
    """Bytes between dense matrices."""
    return leads[1] * leads[2] * matrix, leads[2] * matrix, matrix


@deferred()
def _worth_copying(panels: int) -> int:
    """Whether (1 or 0) a task of so many panels copies keys or values together."""
    return int(panels >= _COPY_PANELS)


@deferred()
def _share(heads: int, panels: int, flops: int, threads: int) -> tuple[int, int]:
    """(panels of a task, tasks of a head) at the least expected time, counted in panels.

    Each task fetches all keys and values; the last one keeps others waiting.
    """
    least = max(1, min(panels, heads * panels * _TASK_FLOPS // max(flops, 1)))
    best = (math.inf, 1, panels)
    for each in range(least, max(least, min(panels, _PANELS)) + 1):
        blocks = -(-panels // each)
        waves = -(-heads * blocks // threads)
        cost = waves * (each + _FETCH) + (_LATE * each if threads > 1 else 0.0)
        best = min(best, (cost, -(-panels // blocks), blocks))
    return best[1:]


@deferred()
def _split(rows: int) -> tuple[int, int, int, int]:
    """Heights and counts of tiles that cover some rows."""
    first, count, second, tiles = split_row(rows)
    return first, count, second, tiles - count


@deferred(least=1)
def _key_block(keys: int, row_bytes: int) -> int:
    """Keys of a block: whole tiles, blocks of about one size."""
    blocks = max(1, -(-keys * row_bytes // _SCORE_BYTES))
    each, height = max(1, -(-keys // blocks)), heights()[0]
    return each if blocks == 1 else -(-each // height) * height


def factory(dtype: str, k_lines: bool, v_lines: bool) -> Callable:
    """The kernel. Task = (head, block of panels).

    Scratch: 64 bytes for the block of `scores`; whether each panel is to be computed; the scores of a block of keys; for each
    panel its state, its queries and its result so far; copies of a block of keys and values.
    """
    from . import attentionfew, attentiontile, shuffle, simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    vector, width, pitch = lanes * size, 2 * lanes, 2 * lanes * size
    # a column of the keys is what their tile broadcasts, a row of the values theirs
    k_tiles, v_tiles = (attentiontile.tiles(dtype, lanes, across) for across in (not k_lines, v_lines))
    weigh, state_rows, head_bytes = attentiontile.weigh(dtype, lanes), _STATE, 64 + _FLAGS
    first_lane, across, at_most, select = simd.first, simd.reduce_minimum, simd.at_most, simd.select
    first_lanes = simd.first_lanes(lanes)
    dots, mixed = attentionfew.dots(dtype, lanes), attentionfew.mixed(dtype, lanes)
    most_few = _FEW if k_lines and v_lines else 0
    words, call_kernel, number = simd.block, simd.call_kernel, simd.float_argument
    load, store, splat = simd.load(dtype, lanes), simd.store(dtype), simd.splat(dtype, lanes)
    ask, ahead = simd.prefetch(dtype, 1), _AHEAD
    load_one, transpose = simd.load(dtype, 0), shuffle.transpose(dtype, dtype, lanes)

    @subroutine
    def turn(x, rows, columns, x_row, x_column, y, y_row):
        # y[j, i] = x[i, j], rows of y being runs in memory, by squares of lanes where x has them
        if x_column == size and rows >= lanes and columns >= lanes:
            # a square that would overhang starts earlier: what is copied twice is the same
            for i in range(0, rows, lanes):
                row = min(i, rows - lanes)
                for j in range(0, columns, lanes):
                    column = min(j, columns - lanes)
                    transpose(x + row * x_row + column * size, x_row, y + column * y_row + row * size, y_row)
        else:
            for i in range(rows):
                for j in range(columns):
                    store(y + j * y_row + i * size, load_one(x + i * x_row + j * x_column))

    @subroutine
    def copy(x, rows, columns, row, y):
        # rows that lie apart, side by side
        whole = columns // lanes * lanes
        for i in range(rows):
            for j in range(0, whole, lanes):
                ask(x + (i + ahead) * row + j * size)
                store(y + (i * columns + j) * size, load(x + i * row + j * size))
            for j in range(whole, columns):
                store(y + (i * columns + j) * size, load_one(x + i * row + j * size))

    @subroutine
    def scaled(x, rows, factor):
        for i in range(2 * rows):
            store(x + i * vector, load(x + i * vector) * splat(number(factor)))

    @subroutine
    def fill(x, rows, value):
        for i in range(2 * rows):
            store(x + i * vector, splat(number(value)))

    @subroutine
    def divided(x, rows, sums):
        for v in range(2):
            inverse = splat(1.0) / load(sums + v * vector)
            for i in range(rows):
                store(x + i * pitch + v * vector, load(x + i * pitch + v * vector) * inverse)

    @subroutine
    def divided_row(x, columns, total, y):
        whole, inverse = columns // lanes * lanes, splat(1.0) / splat(load_one(total))
        for j in range(0, whole, lanes):
            store(y + j * size, load(x + j * size) * inverse)
        for j in range(whole, columns):
            store(y + j * size, load_one(x + j * size) / load_one(total))

    @subroutine
    def work_on(kernel, block, scratch, l0, l1, l2, key, keys, query, queries, scores):
        where = words(scratch)
        where[0], where[1], where[2], where[3] = l0, l1, l2, key
        where[4], where[5], where[6], where[7] = keys, query, queries, scores
        call_kernel(kernel, block, 0, scratch)

    zero, one, lowest = 0, 0x3FF << 52, -(1 << 52)  # the bits of 0, 1 and -inf as float64

    def kernel(args, task, scratch):
        n1, n2, queries, keys, head, value = args[24], args[25], args[26], args[27], args[28], args[29]
        each, blocks, step = args[33], args[34], args[35]
        h = task // blocks
        l0, l1, l2 = h // (n1 * n2), h // n2 % n1, h % n2
        q0 = task % blocks * each * width
        panels = min(each, (queries - q0 + width - 1) // width)
        q = args[0] + l0 * args[4] + l1 * args[5] + l2 * args[6]
        k = args[1] + l0 * args[9] + l1 * args[10] + l2 * args[11]
        v = args[2] + l0 * args[14] + l1 * args[15] + l2 * args[16]
        y = args[3] + l0 * args[19] + l1 * args[20] + l2 * args[21]
        wanted, scores = words(scratch + 64), scratch + head_bytes
        states = scores + step * pitch
        turned = states + each * state_rows * pitch
        results = turned + each * head * pitch
        k_copy = results + each * value * pitch
        v_copy = k_copy + args[48] * step * head * size
        for p in range(panels):
            first = q0 + p * width
            panel, state = turned + p * head * pitch, states + p * state_rows * pitch
            count = min(width, queries - first)
            if count <= most_few:  # as they are: rows of channels
                turn(q + first * args[7], head, count, args[8], args[7], panel, head * size)
                scaled(panel, (count * head + width - 1) // width, args[30])
            else:
                if count < width:
                    fill(panel, head, zero)
                turn(q + first * args[7], count, head, args[7], args[8], panel, pitch)
                scaled(panel, head, args[30])
            wanted[p] = 1
        back, ahead = args[50], args[51]
        for attempt in range(2):
            begin, end = keys, 0
            for p in range(panels):
                state, first = states + p * state_rows * pitch, q0 + p * width
                count = min(width, queries - first)
                low, high = max(0, first - back), min(keys, first + count + ahead)
                if attempt == 1:
                    # rows that saw nothing above the level see everything
                    small = at_most(
                        select(first_lanes(count), load(state), splat(0.0)),
                        select(first_lanes(count - lanes), load(state + vector), splat(0.0)),
                    )
                    wanted[p] = 1 if first_lane(across(small)) < number(args[52]) else 0
                if attempt == 1 or low >= high:
                    low, high = 0, max(keys, 1)
                if wanted[p] != 0:
                    fill(state, 1, lowest)
                    fill(state + pitch, 1, zero)
                    begin, end = min(begin, low), max(end, high)
            for key in range(begin // step * step, end, step):
                rows = min(step, keys - key)
                at = 36 if key + step < keys else 40
                k_block, k_row, v_block, v_row = k + key * args[12], args[12], v + key * args[17], args[17]
                if args[48] != 0:
                    copy(k_block, rows, head, k_row, k_copy)
                    k_block, k_row = k_copy, head * size
                if args[49] != 0:
                    copy(v_block, rows, value, v_row, v_copy)
                    v_block, v_row = v_copy, value * size
                for p in range(panels):
                    first = q0 + p * width
                    count = min(width, queries - first)
                    vectors = 1 if count <= lanes else 2
                    low, high = max(0, first - back), min(keys, first + count + ahead)
                    if attempt == 1 or low >= high:
                        low, high = 0, max(keys, 1)
                    if wanted[p] == 0 or key >= high or (low > 0 and key + rows <= low):
                        continue
                    panel, state, result = turned + p * head * pitch, states + p * state_rows * pitch, results + p * value * pitch
                    later, few = max(0, key - low), count if count <= most_few else 0
                    for i in range(few):
                        dots(args, rows, k_block, k_row, panel + i * head * size, head, scores + i * size)
                    x, s, height, number_of = k_block, scores, args[at], args[at + 1]
                    for _ in range(2 if few == 0 else 0):
                        k_tiles(args, vectors, height, number_of, x, k_row, args[13], panel, head, 0, 0, s)
                        x, s = x + height * number_of * k_row, s + height * number_of * pitch
                        height, number_of = args[at + 2], args[at + 3]
                    if args[31] != 0:
                        work_on(args[31], args[32], scratch, l0, l1, l2, key, rows, first, count, scores)
                    weigh(args, vectors, rows, scores, state)
                    for i in range(few):
                        to, share, factor = result + i * value * size, scores + i * size, state + 2 * pitch + i * size
                        mixed(args, rows, share, v_block, v_row, value, later, factor, to)
                    x, s, height, number_of = v_block, result, args[44], args[45]
                    for _ in range(2 if few == 0 else 0):
                        v_tiles(args, vectors, height, number_of, x, args[18], v_row, scores, rows, later, state + 2 * pitch, s)
                        x, s = x + height * number_of * args[18], s + height * number_of * pitch
                        height, number_of = args[46], args[47]
        for p in range(panels):
            first = q0 + p * width
            result, state = results + p * value * pitch, states + p * state_rows * pitch
            count = min(width, queries - first)
            if keys == 0:
                fill(result, value, zero)
                fill(state, 2, one)
            if count <= most_few:
                for i in range(count):
                    total, to = state + pitch + i * size, y + (first + i) * args[22]
                    divided_row(result + i * value * size, value, total, to)
            else:
                divided(result, value, state + pitch)
                # lanes along queries, rows of y along channels
                turn(result, value, count, pitch, size, y + first * args[22], args[22])

    return kernel
