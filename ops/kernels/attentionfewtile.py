"""Products for so few queries that lanes along them would stand idle (a decoder's next token). Imports numba.

Lanes run along the channels of a head instead: `dots` multiplies rows of keys with one query, `mixed` adds up rows of values.
Rows are read in the order in which they lie in memory, some of them for one query after the other. The first query asks for
rows far ahead, in L2: as many lines as can be on their way to L1 are too few to keep memory busy. The others find their rows in
L1; meanwhile they ask for the next ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from . import attentiontile, emit, shuffle, simd, window
from .attentionfew import BLOCK
from .emit import E
from .window import Code, Variable

_KEYS = 8  # that `dots` takes together, or as many as there are lanes: chains that hide the latency of one
_TOGETHER = 4  # vectors of a row that `dots` reads before the next row's
_VECTORS = (8, 4, 2, 1)  # of channels that `mixed` takes together, likewise
_ROWS = 16  # of values that `mixed` takes for one query after the other, and by which it asks for them
_AHEAD = 32  # rows that the first query is ahead of itself: 8 KB of heads of 64 floats
_EACH = 3  # rows that one address register serves: the instruction adds once or twice their distance
_LINE = 64  # bytes


class _Turns:
    """All queries but the first take turns in asking for rows that come next, so that some are always on their way.

    The first one asks for rows further ahead, in memory.
    """

    def __init__(self, code: Code, queries: E, query: E) -> None:
        self.code, self.others, self.left = code, queries - 1, code.variable(query - 1)
        self.is_first = query == 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The body runs each time that it is the query's turn."""
        with self.code.when(self.left.get() == 0):
            yield
            self.left.set(self.others)
        self.left.set(self.left.get() - 1)


def dots(dtype: str, lanes: int) -> Callable:
    """``dots(args, rows, x, x_row, queries, q, q_row, columns, y)``: scores of some queries.

    y[j, i] = sum over k of x[i, k] * q[j, k]; rows of y have room for `attentionfew.BLOCK`.
    """
    keys = max(lanes, _KEYS)

    def body(code, block, rows, x, x_row, queries, q, q_row, columns, y):
        groups = rows / keys

        def each(first: E, count: int, store: Callable[[E, list[E]], None]) -> None:
            with code.loop(queries) as j:
                at = y + (j * BLOCK + first) * code.size
                store(at, _dots(code, count, x + x_row * first, x_row, q + q_row * j, columns, _Turns(code, queries, j)))

        def whole(at: E, sums: list[E]) -> None:
            for i in range(0, keys, lanes):
                code.store(at + i * code.size, shuffle.added(sums[i : i + lanes]))

        def single(at: E, sums: list[E]) -> None:
            code.store(at, simd.across(E.__add__)(sums[0]), code.word(1))

        with code.loop(groups) as group:
            each(group * keys, keys, whole)
        with code.loop(rows - groups * keys) as rest:
            each(groups * keys + rest, 1, single)

    return window.leaf("rows x x_row queries q q_row columns y", dtype, lanes, body)


def _dots(code: Code, keys: int, x: E, x_row: E, q: E, columns: E, turns: _Turns) -> list[E]:
    """Products of some rows with q, lane by lane; as many rows behind them are asked for in turns.

    Some vectors of a row, then those of the next: in the order of memory, which hardware sees and helps with.
    """
    vector = code.lanes * code.size
    line = max(1, _LINE // vector)
    zero = emit.constant(code.builder, code.kind, code.lanes, 0)
    sums = [code.variable(zero) for _ in range(keys)]
    leads = [code.variable(x + x_row * i) for i in range(0, keys, _EACH)]
    factors = code.variable(q)
    far, near = code.variable(x + x_row * _AHEAD), code.variable(x + x_row * keys)

    def ask(place: Variable, vectors: int, soon: bool) -> None:
        at = place.get()
        for _ in range(keys):
            for v in range(0, vectors, line):
                code.prefetch(at + v * vector, soon=soon)
            at = code.unrelated(at + x_row)

    def turn(vectors: int, left: E | None = None) -> None:
        here = [code.unrelated(lead.get()) for lead in leads]
        if vectors >= line:
            with turns.taken():
                ask(near, vectors, soon=True)
        some = [code.load(factors.get() + v * vector, left) for v in range(vectors)]
        for i, total in enumerate(sums):
            row = here[i // _EACH] + x_row * (i % _EACH) if i % _EACH else here[i // _EACH]
            for v, factor in enumerate(some):
                total.set(code.load(row + v * vector, left).fma(factor, total.get()))
            if vectors >= line:
                with code.when(turns.is_first):
                    at = code.unrelated(far.get() + x_row * i)
                    for v in range(0, vectors, line):
                        code.prefetch(at + v * vector, soon=False)
            code.keep_order()
        for place in (*leads, factors, far, near):
            place.set(place.get() + vectors * vector)

    whole = columns / code.lanes
    turns_of = whole / _TOGETHER
    with code.loop(turns_of):
        code.keep_rolled()
        turn(_TOGETHER)
    with code.loop(whole - turns_of * _TOGETHER):
        code.keep_rolled()
        turn(1)
    rest = columns - whole * code.lanes
    with code.when(rest > 0):
        turn(1, rest)
    return [total.get() for total in sums]


def mixed(dtype: str, lanes: int) -> Callable:
    """``mixed(args, rows, p, x, x_row, columns, queries, factors, step, y, y_row)``: values, weighed and added up.

    y[j, :] = y[j, :] * factors[j] + sum over i of p[j, i] * x[i, :]; the factors are `step` bytes apart, rows of p as in `dots`.
    """

    def body(code, block, rows, p, x, x_row, columns, queries, factors, step, y, y_row):
        vector = code.lanes * code.size
        done, left = code.variable(code.word(0)), code.variable(columns)
        some = code.word(_ROWS)
        each = some.select(queries == 1, rows.select(rows == 0, 1, rows), some)

        def columns_of(wide: int, lanes: E | None, at: E) -> None:
            with code.loop(queries) as j:
                factor = emit.splat(code.scalar(factors + step * j, code.kind), code.lanes)
                for v in range(wide):
                    place = y + y_row * j + at + v * vector
                    code.store(place, code.load(place, lanes) * factor, lanes)
            with code.loop((rows + (each - 1)) / each) as part, code.loop(queries) as j:
                first = part * each
                count = (rows - first).select(rows - first < each, rows - first, each)
                share = p + (j * BLOCK + first) * code.size
                _mix(code, wide, lanes, count, share, x + x_row * first + at, x_row, y + y_row * j + at, _Turns(code, queries, j))

        for wide in _VECTORS:
            with code.loop(left.get() / (wide * code.lanes)):
                at = done.get()
                columns_of(wide, None, at)
                done.set(at + wide * vector)
                left.set(left.get() - wide * code.lanes)
        with code.when(left.get() > 0):
            columns_of(1, left.get(), done.get())

    return window.leaf("rows p x x_row columns queries factors step y y_row", dtype, lanes, body)


def _mix(code: Code, wide: int, lanes: E | None, rows: E, p: E, x: E, x_row: E, y: E, turns: _Turns) -> None:
    """Some vectors of channels, of the only one so many `lanes`, if not all; rows that come are asked for in turns."""
    vector = code.lanes * code.size
    sums = [code.variable(code.load(y + v * vector, lanes)) for v in range(wide)]
    share, row = code.variable(p), code.variable(x)

    def ask(rows_ahead: E, soon: bool) -> None:
        coming = code.unrelated(row.get() + rows_ahead)
        for line in range(0, wide * vector, _LINE):
            code.prefetch(coming + line, soon)

    ahead, far = x_row * _ROWS, x_row * _AHEAD
    with code.loop(rows):
        code.keep_rolled()
        with code.when(turns.is_first):
            ask(far, soon=False)
        with turns.taken():
            ask(ahead, soon=True)
        weight = emit.splat(code.scalar(share.get(), code.kind), code.lanes)
        for v, each in enumerate(sums):
            each.set(code.load(row.get() + v * vector, lanes).fma(weight, each.get()))
        share.set(share.get() + code.size)
        row.set(row.get() + x_row)
    for v, each in enumerate(sums):
        code.store(y + v * vector, each.get(), lanes)


def weigh(dtype: str, lanes: int) -> Callable:
    """``weigh(args, count, x, state)``: `attentiontile.weigh` of one query, whose `count` scores lie side by side.

    There is room for whole vectors, the last of which is filled up with weights of 0.
    """

    def body(code, block, count, x, state):
        vectors = count / code.lanes
        left = count - vectors * code.lanes
        with code.when(left > 0):
            last = x + vectors * (code.lanes * code.size)
            value = code.load(last)
            code.store(last, value.select(code.first(left), value, float("-inf")))
        whole = (count + (code.lanes - 1)) / code.lanes
        attentiontile.weigh_rows(code, False, whole, x, state, code.lanes * code.size, across=simd.across(E.at_least))

    return window.leaf("count x state", dtype, lanes, body)
