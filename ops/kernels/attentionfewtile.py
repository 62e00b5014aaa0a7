"""Products for so few queries that lanes along them would stand idle (a decoder's next token). Imports numba.

Lanes run along the channels of a head instead: `dots` multiplies rows of keys with the queries, `mixed` adds up rows of values.
Rows are read in the order in which they lie in memory, and used for up to `AT_ONCE` queries at once, for each number of which
there is code of its own; if there are more, they find the rows of a block in the caches. Hardware reads ahead within such a
stream; a few rows ahead are asked for, in L2, and what comes next where the rows end.
"""

from __future__ import annotations

from collections.abc import Callable

from . import attentiontile, emit, shuffle, simd, target, window
from .attentionfew import AT_ONCE, BLOCK
from .emit import E
from .window import Code

_TOGETHER = 4  # vectors of a row that `dots` reads before the next row's
_VECTORS = (8, 4, 2, 1)  # of channels that `mixed` takes together, as far as registers go
_AHEAD = 8  # rows that are asked for ahead; from twice as many on three queries wait longer, as if hardware looked less far
_EACH = 3  # rows that one address register serves: the instruction adds once or twice their distance
_LINE = 64  # bytes
Query = tuple[E, E, E]  # where its factor is, its weights, and its result


def _sums(queries: int) -> int:
    """How many sums of each of so many queries are in registers together, a power of 2; a quarter has what is multiplied."""
    return 1 << (target.current().registers * 3 // 4 // queries).bit_length() - 1


def _keys(queries: int) -> tuple[int, bool]:
    """How many rows of keys `dots` takes together, and whether a turn's vectors of the queries stay in registers meanwhile."""
    room = target.current().registers - _TOGETHER * (queries + 1)
    keys = 1 << max(1, room // queries).bit_length() - 1
    # eight sums hide how long an addition takes
    return (keys, True) if keys * queries >= 8 else (_sums(queries), False)


def _at_once(code: Code, queries: E, body: Callable[[int, E], None]) -> None:
    """`body` emits the code for some queries, given how many and the first one, of parts that differ by one at most."""
    parts, done = (queries + (AT_ONCE - 1)) / AT_ONCE, code.variable(code.word(0))
    with code.loop(parts) as part:
        first, left = done.get(), parts - part
        number = (queries - first + (left - 1)) / left
        for count in range(1, AT_ONCE + 1):
            with code.when(number == count):
                body(count, first)
        done.set(first + number)


def dots(dtype: str, lanes: int) -> Callable:
    """``dots(args, rows, x, x_row, queries, q, q_row, columns, y, next, next_row)``: scores of some queries.

    y[j, i] = sum over k of x[i, k] * q[j, k]; rows of y have room for `attentionfew.BLOCK`. `next` are rows that come then.
    """

    def body(code, block, rows, x, x_row, queries, q, q_row, columns, y, next, next_row):
        def some(count: int, first: E) -> None:
            each = [q + q_row * (first + j) for j in range(count)]
            _scores(code, rows, x, x_row, each, columns, y + first * (BLOCK * code.size), next, next_row)

        _at_once(code, queries, some)

    return window.leaf("rows x x_row queries q q_row columns y next next_row", dtype, lanes, body)


def _scores(code: Code, rows: E, x: E, x_row: E, queries: list[E], columns: E, y: E, next: E, next_row: E) -> None:
    """As many rows at once as there are registers for, then one by one."""
    keys, _ = _keys(len(queries))
    groups, turn = rows / keys, (rows - _AHEAD).maximum(0) / keys
    with code.loop(groups) as group:
        is_here, there = group < turn, next + next_row * ((group - turn) * keys)
        coming = there.select(is_here, x + x_row * (group * keys + _AHEAD), there), x_row.select(is_here, x_row, next_row)
        sums = _dots(code, keys, x + x_row * (group * keys), x_row, queries, columns, coming)
        _put(code, [totals[j] for j in range(len(queries)) for totals in sums], keys, y + group * (keys * code.size))
    with code.loop(rows - groups * keys) as rest:
        row = groups * keys + rest
        (totals,) = _dots(code, 1, x + x_row * row, x_row, queries, columns, (next, next_row))
        for j, total in enumerate(totals):
            code.store(y + (row + j * BLOCK) * code.size, simd.across(E.__add__)(total), code.word(1))


def _put(code: Code, sums: list[E], keys: int, y: E) -> None:
    """Adds up the lanes of sums, of one query's `keys` after the other's, and stores what they make."""
    wide, zero = min(keys, code.lanes), emit.constant(code.builder, code.kind, code.lanes, 0)
    for first in range(0, len(sums), code.lanes):
        group = sums[first : first + code.lanes]
        some = shuffle.added([*group, *[zero] * ((1 << (len(group) - 1).bit_length()) - len(group))])
        for i in range(0, len(group), wide):
            query, key = divmod(first + i, keys)
            code.of_lanes(wide).store(y + (query * BLOCK + key) * code.size, emit.part(some, i, wide))


def _dots(code: Code, keys: int, x: E, x_row: E, queries: list[E], columns: E, coming: tuple[E, E]) -> list[list[E]]:
    """Products of some rows, each with all queries, lane by lane; as many rows are asked for (the first one, their distance).

    Some vectors of a row, then those of the next: in the order of memory, which hardware sees and helps with.
    """
    vector = code.lanes * code.size
    line = max(1, _LINE // vector)
    _, is_held = _keys(len(queries))
    zero = emit.constant(code.builder, code.kind, code.lanes, 0)
    sums = [[code.variable(zero) for _ in queries] for _ in range(keys)]
    leads = [code.variable(x + x_row * i) for i in range(0, keys, _EACH)]
    done, far = code.variable(code.word(0)), code.variable(coming[0])

    def turn(vectors: int, left: E | None = None) -> None:
        here = [code.unrelated(lead.get()) for lead in leads]
        places = [[query + (done.get() + v * vector) for v in range(vectors)] for query in queries]
        held = [[code.load(place, left) for place in line] for line in places] if is_held else []
        at = far.get()
        for i, totals in enumerate(sums):
            row = here[i // _EACH] + x_row * (i % _EACH) if i % _EACH else here[i // _EACH]
            for v in range(vectors):
                value = code.load(row + v * vector, left)
                for j, total in enumerate(totals):
                    factor = held[j][v] if is_held else code.load(places[j][v], left)
                    total.set(value.fma(factor, total.get()))
            if vectors >= line:
                for v in range(0, vectors, line):
                    code.prefetch(at + v * vector, soon=False)
                at = code.unrelated(at + coming[1])
            code.keep_order()
        for place in (*leads, done, far):
            place.set(place.get() + vectors * vector)

    whole = columns / code.lanes
    turns = whole / _TOGETHER
    with code.loop(turns):
        code.keep_rolled()
        turn(_TOGETHER)
    with code.loop(whole - turns * _TOGETHER):
        code.keep_rolled()
        turn(1)
    rest = columns - whole * code.lanes
    with code.when(rest > 0):
        turn(1, rest)
    return [[total.get() for total in totals] for totals in sums]


def mixed(dtype: str, lanes: int) -> Callable:
    """``mixed(args, rows, p, x, x_row, columns, queries, factors, step, y, y_row, next, next_row)``: values, weighed and added up.

    y[j, :] = y[j, :] * factors[j] + sum over i of p[j, i] * x[i, :]; the factors are `step` bytes apart, rows of p as in `dots`.
    """

    def body(code, block, rows, p, x, x_row, columns, queries, factors, step, y, y_row, next, next_row):
        def some(count: int, first: E) -> None:
            numbers = [first + j for j in range(count)]
            each = [(factors + step * j, p + j * (BLOCK * code.size), y + y_row * j) for j in numbers]
            _mixed(code, rows, x, x_row, columns, each, next, next_row)

        _at_once(code, queries, some)

    return window.leaf("rows p x x_row columns queries factors step y y_row next next_row", dtype, lanes, body)


def _mixed(code: Code, rows: E, x: E, x_row: E, columns: E, queries: list[Query], next: E, next_row: E) -> None:
    """As many vectors of channels at once as there are registers for, fewer for the rest."""
    vector = code.lanes * code.size
    done, left = code.variable(code.word(0)), code.variable(columns)

    def mix(wide: int, lanes: E | None = None) -> None:
        at = done.get()
        each = [(factor, p, y + at) for factor, p, y in queries]
        _mix(code, wide, lanes, rows, x + at, x_row, each, (next + at, next_row))
        done.set(at + wide * vector)

    for wide in (wide for wide in _VECTORS if wide <= _sums(len(queries))):
        with code.loop(left.get() / (wide * code.lanes)):
            mix(wide)
            left.set(left.get() - wide * code.lanes)
    with code.when(left.get() > 0):
        mix(1, left.get())


def _mix(
    code: Code, wide: int, lanes: E | None, rows: E, x: E, x_row: E, queries: list[Query], coming: tuple[E, E]
) -> None:  # fmt: skip
    """Some vectors of channels, of the only one so many `lanes`, if not all; rows are asked for (the first one, their distance)."""
    vector = code.lanes * code.size
    sums = []
    for factor, _, y in queries:
        scale = emit.splat(code.scalar(factor, code.kind), code.lanes)
        sums.append([code.variable(code.load(y + v * vector, lanes) * scale) for v in range(wide)])
    share, row = code.variable(code.word(0)), code.variable(x)
    far, far_row = code.variable(x + x_row * _AHEAD), code.variable(x_row)
    turn = (rows - _AHEAD).maximum(0)
    with code.loop(rows) as i:
        code.keep_rolled()
        with code.when(i == turn):
            far.set(coming[0])
            far_row.set(coming[1])
        at = code.unrelated(far.get())
        for line in range(0, wide * vector, _LINE):
            code.prefetch(at + line, soon=False)
        weights = [emit.splat(code.scalar(p + share.get(), code.kind), code.lanes) for _, p, _ in queries]
        for v in range(wide):
            value = code.load(row.get() + v * vector, lanes)
            for totals, weight in zip(sums, weights):
                totals[v].set(value.fma(weight, totals[v].get()))
        share.set(share.get() + code.size)
        row.set(row.get() + x_row)
        far.set(at + far_row.get())
    for (_, _, y), totals in zip(queries, sums):
        for v, total in enumerate(totals):
            code.store(y + v * vector, total.get(), lanes)


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
