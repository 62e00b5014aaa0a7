"""Attention: softmax(scores of q k^T) v with the scores in cache only (Dao et al. 2022; Milakov & Gimelshein 2018).

Everything is computed transposed. A panel of queries, two vectors of them, is transposed once; the scores of a block of
keys are then k (read in place) times that panel, [keys, queries] with lanes along queries. Largest scores, sums and
exponentials are thus work on whole vectors, the exponentials are the panel that v (read in place, too) is multiplied with,
and nothing but the queries is packed. The result, [channels, queries], is transposed back at the end. A few queries have a
kernel of their own (`attentionfew`).

Loop order of a task, which is some panels of queries of one head: blocks of keys; panels; tiles. A block of keys and its
values stay in L2 for all panels, the scores in L1. What is to be known of a block, and values in the order in which tiles read
them, is in a record (`attentionrecord`): where several tasks share it, tasks of their own make it before. Between the products
runs a generated kernel (`scores`) for masks and what else is done to them. Numba-free but for the factory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from . import attentionfew, attentionscratch, target
from . import attentionwords as word
from .blocking import heights, most_rows, panel_width, split_row
from .image import SIZES, Alloc, Image, Opaque
from .launch import Launch, with_spare
from .padcopy import pad_copy
from .pairingwords import HEIGHTS
from .sizes import deferred, is_open, most, now
from .spec import KernelSpec, handwritten

_SCORE_BYTES = 16 << 10  # of a block of keys: half of L1
_PANELS = 32  # of a task, at most
_PANEL_BYTES = (target.second_cache() or 512 << 10) * 5 // 8  # of a task's panels: in L2 with keys and values
# in times of a panel: to make a task's own records, or fetch others; to make those of a head for all its tasks
_FETCH, _MAKE = 0.4, 1.3
_LATE = 0.3  # of a task, what threads wait for the last one on cores that others use too
_COPY_PANELS = 3  # of a task, from which on rows are first copied
_TASK_FLOPS = 250_000  # a task costs the executor about a microsecond
LIFT = 20  # powers of 2 that weights are lifted by, or lowered, to be like values where products go by pairs
_LOG2_E = 1 / math.log(2)
LEADS = 3  # dimensions of heads: batch, groups, heads of a group


@dataclass(frozen=True)
class Heads:
    """A matrix for each head: address, bytes between heads (in `LEADS` dimensions), rows and columns."""

    address: Opaque
    leads: tuple[int, int, int]
    row: int
    column: int

    def beyond(self, first: int) -> Heads:
        """The rows from the `first` one on."""
        return replace(self, address=self.address + first * self.row) if first else self


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

    def beyond(self, first: int) -> Band:
        """The same where queries are counted from the `first` one on."""
        return replace(self, back=self.back - first, ahead=self.ahead + first)


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
            of the block at the start of the scratch (see `loopcode.Shape.SCORES`). Where `is_few` says so, on [queries, keys],
            in rows of `attentionfew.BLOCK`.
        band: blocks outside are not computed, and keys and values there not read.

    Raises:
        ValueError: they are not.
    """
    size, s = SIZES[dtype], sizes
    if 0 in (s.heads, s.queries, s.value):
        return []
    if y.column != size and s.value > 1:
        raise ValueError(f"{label}: rows of the result are no runs in memory")
    # nothing but the lengths of queries and keys decides how large scores are
    unmasked = dtype == "f32" and scores is None and (band is None or band.level == -math.inf)
    if is_few(dtype, k, v, s):
        few = attentionfew.attention(dtype, _problem(q, k, v, y, s, scale, scores, band), s, label)
        return with_spare(few, _kernel(dtype, True, True, unmasked))
    width = panel_width(size)
    panels = -(-s.queries // width)
    each, tasks = _share(s.heads, panels, _most_panels(size, s.head, s.value), s.flops, threads)
    tallest = tile_heights(dtype)[0]
    keys = _key_block(s.keys, width * size, tallest)
    launches: list[Launch] = []
    (k, k_lines, k_apart), (v, v_lines, _) = (
        _readable(dtype, x, s, columns, launches, alloc, threads, label) for x, columns in ((k, s.head), (v, s.value))
    )
    bounded = unmasked and k_lines
    blocks = most(-(-s.keys // keys), 1)
    shared = now(tasks) > 1 and (k_lines or v_lines)
    copied = [
        int(lines) if shared else _worth_copying(each) * int(want) for lines, want in ((k_lines, k_apart), (v_lines, v_lines))
    ]
    record = _record(dtype, keys, s, *copied)
    heads, leads = _own(k, v, s)
    records = alloc(math.prod(heads) * blocks * record[-1]) if shared else 0
    args = (
        *_problem(q, k, v, y, s, scale * _LOG2_E if bounded else scale, scores, band), each, tasks, keys,
        *_split(keys, tallest), *_split(s.keys - (blocks - 1) * keys, tallest), *_split(s.value, tallest),
        *copied, *record, records, *(step * blocks * record[-1] for step in leads), *heads,
    )  # fmt: skip
    kernel, moved = _kernel(dtype, k_lines, v_lines, bounded), size * s.keys * (s.head + s.value)
    if shared:
        pieces, copied_bytes = math.prod(heads) * blocks, 2 * math.prod(heads) * moved
        launches.append(Launch(kernel, (*args, 1), pieces, attentionscratch.SPANS_AT, f"{label}: keys", 0, copied_bytes))
    scratch = attentionscratch.scratch_bytes(width * size, each, keys, s.head, s.value) + (0 if shared else record[-1])
    moved = size * s.heads * s.queries * (s.head + s.value) + s.heads * moved
    launches.append(Launch(kernel, (*args, 0), s.heads * tasks, scratch, label, s.flops, moved))
    return with_spare(launches, attentionfew.kernel_of(dtype)) if k_lines and v_lines else launches


def _problem(
    q: Heads, k: Heads, v: Heads, y: Heads, s: Sizes, scale: float, scores: tuple[Opaque, Opaque] | None, band: Band | None
) -> tuple[Opaque | float, ...]:
    """The words of the argument block that do not say how it is done."""
    limits = (band.back, band.ahead, float(band.level)) if band else (s.queries, s.keys, -math.inf)
    return (
        q.address, k.address, v.address, y.address, *q.leads, q.row, q.column, *k.leads, k.row, k.column, *v.leads, v.row, v.column,
        *y.leads, y.row, *s.leads, s.queries, s.keys, s.head, s.value, float(scale), *(scores or (0, 0)), *limits,
    )  # fmt: skip


def _kernel(dtype: str, k_lines: bool, v_lines: bool, bounded: bool) -> KernelSpec:
    return handwritten("attention", "attentionkernel:factory", dtype=dtype, k_lines=k_lines, v_lines=v_lines, bounded=bounded)


def paired(dtype: str) -> bool:
    """Whether products go by pairs, see `pairing`."""
    return dtype == "f32" and target.current().pairs


def _record(dtype: str, keys: int, s: Sizes, k_copied: int, v_copied: int) -> tuple[int, int, int, int]:
    """Where a record has keys, values and the sums of these, and its bytes; see `attentionwords`."""
    size, sums = SIZES[dtype], 4 if paired(dtype) else 0
    of_values = word.OF_KEYS_AT + word.lines(sums * keys)
    k_at = of_values + 2 * word.lines(sums * s.value)
    v_at = k_at + word.lines(k_copied * keys * s.head * size)
    # what is copied may overhang by a vector
    return k_at, v_at, of_values, v_at + word.lines(v_copied * keys * s.value * size) + word.LINE


def _own(k: Heads, v: Heads, s: Sizes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many heads in each dimension have keys or values of their own, and how many there are from one to the next."""
    heads = tuple(n if k_step or v_step else 1 for n, k_step, v_step in zip(s.leads, k.leads, v.leads))
    return heads, tuple(step if n > 1 else 0 for n, step in zip(heads, _dense(heads, 1)))


def tile_heights(dtype: str) -> tuple[int, ...]:
    """The heights of tiles: those of pairs are as high as `pairing`'s."""
    return tuple(height for height in heights() if not paired(dtype) or height <= HEIGHTS[0])


def is_few(dtype: str, k: Heads, v: Heads, s: Sizes) -> bool:
    """Whether there are so few queries, and keys and values lie so, that lanes run along these."""
    size = SIZES[dtype]
    return s.queries <= attentionfew.most(dtype) and (s.head <= 1 or k.column == size) and (s.value <= 1 or v.column == size)


def parts(dtype: str, k: Heads, v: Heads, s: Sizes) -> list[tuple[int, int]]:
    """(first, number) of queries that are to have calls of their own: whole vectors, and a few that would take one more.

    No more than are done at once, as others cost about what a vector does. Square images in patches and a class token are whole
    vectors and one.
    """
    lanes = panel_width(SIZES[dtype]) // 2
    rest = 0 if is_open(s.queries) or s.queries < lanes else s.queries % lanes
    if 0 < rest <= attentionfew.AT_ONCE and is_few(dtype, k, v, replace(s, queries=rest)):
        return [(0, s.queries - rest), (s.queries - rest, rest)]
    return [(0, s.queries)]


def _readable(
    dtype: str, x: Heads, s: Sizes, columns: int, launches: list[Launch], alloc: Alloc, threads: int, label: str
) -> tuple[Heads, bool, bool]:
    """Keys or values that tiles can read; whether as lines (rows are runs in memory, else columns are); whether these lie apart.

    Rows lie apart if the number of bytes between them is such that a tile's fall into few sets of L1.
    """
    size = SIZES[dtype]
    if columns <= 1 or x.column == size:
        return x, True, x.row != columns * size and (is_open(x.row) or most_rows(x.row) < heights()[0])
    if s.keys <= 1 or x.row == size:
        return x, False, False
    leads = tuple(n if step else 1 for n, step in zip(s.leads, x.leads))
    dense = Heads(alloc(math.prod(leads) * s.keys * columns * size), _dense(leads, s.keys * columns * size), columns * size, size)
    # heads that lie side by side are read row by row
    inner, outer = (1, 2) if leads[2] == 1 else (2, 1)
    source, destination = (
        Image(
            h.address, (leads[0], columns, leads[outer], s.keys, leads[inner]),
            (h.leads[0], h.column, h.leads[outer], h.row, h.leads[inner]),
        )
        for h in (x, dense)
    )  # fmt: skip
    launches += pad_copy(dtype, source, dtype, destination, threads=threads, label=f"{label}: rows")
    return replace(dense, leads=tuple(step if n > 1 else 0 for n, step in zip(leads, dense.leads))), True, False


def _dense(leads: tuple[int, ...], matrix: int) -> tuple[int, int, int]:
    """Bytes between dense matrices of so many."""
    return leads[1] * leads[2] * matrix, leads[2] * matrix, matrix


@deferred()
def _worth_copying(panels: int) -> int:
    """Whether (1 or 0) a task of so many panels copies keys or values together."""
    return int(panels >= _COPY_PANELS)


@deferred(least=1)
def _most_panels(size: int, head: int, value: int) -> int:
    """As many as have room in L2."""
    return max(1, min(_PANELS, _PANEL_BYTES // (panel_width(size) * size * (head + value + word.STATE))))


@deferred()
def _share(heads: int, panels: int, most_panels: int, flops: int, threads: int) -> tuple[int, int]:
    """(panels of a task, tasks of a head) at the least expected time, counted in panels; the last task keeps others waiting."""
    least = max(1, min(panels, heads * panels * _TASK_FLOPS // max(flops, 1)))
    best = (math.inf, 1, panels)
    for each in range(least, max(least, min(panels, most_panels)) + 1):
        tasks = -(-panels // each)
        make = _MAKE * heads / threads if tasks > 1 else 0.0
        cost = -(-heads * tasks // threads) * (each + _FETCH) + make + (_LATE * each if threads > 1 else 0.0)
        best = min(best, (cost, -(-panels // tasks), tasks))
    return best[1:]


@deferred()
def _split(rows: int, tallest: int) -> tuple[int, int, int, int]:
    """Heights and counts of tiles that cover some rows; there are tiles of the first height if there are any."""
    first, count, second, tiles = split_row(rows, tallest)
    return (first, count, second, tiles - count) if count else (second, tiles, 0, 0)


@deferred(least=1)
def _key_block(keys: int, row_bytes: int, height: int) -> int:
    """Keys of a block: whole tiles of a height, blocks of about one size."""
    blocks = max(1, -(-keys * row_bytes // _SCORE_BYTES))
    each = max(1, -(-keys // blocks))
    return each if blocks == 1 else -(-each // height) * height
