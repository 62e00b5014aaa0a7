"""Elimination with partial pivoting, a panel of columns at a time, in place and in float64. Imports numba.

After its own columns a panel holds what is to be done to all others: rows change places, those of the panel become zero, and
the panel times these rows as they were is added. So most of the work is a product on register tiles. With all rows, and what is
left of the panel among the others, this is Gauss and Jordan's inversion; with what is `below` the panel and right of it only,
it leads to the pivots, whose product is the determinant.

A matrix that is worked on begins with three words for each row: the one that it changed places with, its pivot, its factor. Its
rows are a whole number of tiles long, and there is room for the rows of a tile after the last one.
"""

from __future__ import annotations

from collections.abc import Callable

from . import emit, simd
from .image import SIZES
from .linalg import CHUNK, PANEL, lanes, tile
from .subroutine import subroutine
from .window import Code, leaf


def bring(dtype: str) -> Callable:
    """``bring(x, a, n, row, first, end)``: rows of x[n, n] as float64; zeros right of them, and below where tiles reach."""
    height, step = tile()[0], lanes()
    load, load_first, put, wide, size = (
        simd.load(dtype, step),
        simd.load_first(dtype, step),
        simd.store("f64"),
        simd.to("f64"),
        SIZES[dtype],
    )

    @subroutine
    def bring(x, a, n, row, first, end):
        for i in range(first, end + height if end == n and n > PANEL else end):
            given = n if i < n else 0
            whole = given - given % step
            for j in range(0, whole, step):
                put(a + i * row + 8 * j, wide(load(x + (i * n + j) * size)))
            for j in range(whole, row // 8, step):
                put(a + i * row + 8 * j, wide(load_first(x + (i * n + j) * size, given - j)))

    return bring


def panel(below: bool) -> Callable:
    """``panel(work, a, n, row, first)``: the columns from `first` on, with the rows that change places and the pivots."""
    _, width = tile()
    load, put, absolute, words = simd.load("f64", 0), simd.store("f64"), simd.absolute, simd.block
    eliminate, exchange, divide = _eliminate(), _exchange(), _divide()

    @subroutine
    def panel(work, a, n, row, first):
        factors, exchanges = work + 16 * n, words(work)
        columns = min(PANEL, (n - first + width - 1) // width * width)
        for k in range(first, min(first + PANEL, n)):
            top = k if below else 0
            for i in range(top, n):
                put(factors + 8 * i, load(a + i * row + 8 * k))
            best, largest = k, absolute(load(factors + 8 * k))
            for i in range(k + 1, n):
                value = absolute(load(factors + 8 * i))
                if value > largest:
                    best, largest = i, value
            exchanges[k] = best
            pivot = load(factors + 8 * best)
            put(work + 8 * (n + k), pivot)
            own, begin = a + k * row + 8 * first, a + 8 * first
            if best != k:
                exchange(own, own + (best - k) * row, columns)
                put(factors + 8 * best, load(factors + 8 * k))
            if not below or (pivot != 0.0 and k < n - 1):
                divide(own, columns, k - first, work + 8 * (n + k))
                for j in range(0, columns, width):
                    if not below:
                        eliminate(exchanges, begin + 8 * j, row, factors, own + 8 * j, k, k - first - j)
                    eliminate(exchanges, own + row + 8 * j, row, factors + 8 * (k + 1), own + 8 * j, n - k - 1, k - first - j)

    return panel


def _divide() -> Callable:
    """``divide(own, columns, place, pivot)``: a row of a panel, whose element at `place` counts as 1, by its pivot."""
    load, put, one, select = simd.load("f64", lanes()), simd.store("f64"), simd.load("f64", 0), simd.select
    splat, numbers, step = simd.splat("f64", lanes()), simd.iota("i64", lanes()), lanes()

    @subroutine
    def divide(own, columns, place, pivot):
        by = splat(one(pivot))
        for j in range(0, columns, step):
            put(own + 8 * j, select(numbers() == place - j, splat(1.0), load(own + 8 * j)) / by)

    return divide


def _exchange() -> Callable:
    """``exchange(row, other, count)``: what two rows hold changes places, whole tiles of it."""
    load, put, step = simd.load("f64", lanes()), simd.store("f64"), lanes()

    @subroutine
    def exchange(row, other, count):
        for j in range(0, count, step):
            kept = load(row + 8 * j)
            put(row + 8 * j, load(other + 8 * j))
            put(other + 8 * j, kept)

    return exchange


def _eliminate() -> Callable:
    """``eliminate(block, a, row, factors, own, count, place)``: `count` rows of a tile's columns, less their factor times `own`.

    At `place` they count as zero.
    """
    vectors = tile()[1] // lanes()

    def body(code: Code, block, a, row, factors, own, count, place):
        step, zero = code.lanes * code.size, emit.constant(code.builder, code.kind, code.lanes, 0)
        others = [code.load(own + v * step) for v in range(vectors)]
        numbers = emit.iota(code.builder, "i64", code.lanes)
        here = [numbers == emit.splat(place - v * code.lanes, code.lanes) for v in range(vectors)]
        at = code.variable(a)
        with code.loop(count) as i:
            code.keep_rolled()
            factor = emit.splat(code.scalar(factors + i * code.size, code.kind), code.lanes)
            for v, (other, cleared) in enumerate(zip(others, here)):
                to = at.get() + v * step
                value = code.load(to)
                code.store(to, (-factor).fma(other, value.select(cleared, zero, value)))
            at.set(at.get() + row)

    return leaf("a row factors own count place", "f64", lanes(), body)


def update(below: bool) -> Callable:
    """``update(work, a, n, row, first, column, own)``: what the panel from `first` on does to a chunk of columns."""
    height, width = tile()
    take, clear, multiply, words = _take(), _clear(), _multiply(), simd.block

    @subroutine
    def update(work, a, n, row, first, column, own):
        after = min(first + PANEL, n)
        end = min(column + CHUNK, (n + width - 1) // width * width)
        begin = max(column, after) if below else column
        for j in range(begin, end, width):
            if j < first or j >= after:
                take(work, a + 8 * j, row, first, after, own + (j - column) * 8 * PANEL)
                if not below:
                    clear(a + first * row + 8 * j, row, after - first)
        for i in range(after if below else 0, n, height):
            factors = a + i * row + 8 * first
            for j in range(begin, end, width):
                if j < first or j >= after:
                    multiply(words(work), a + i * row + 8 * j, row, factors, own + (j - column) * 8 * PANEL, after - first)

    return update


def _take() -> Callable:
    """``take(work, a, row, first, after, to)``: rows of a tile's columns change places; then those of the panel, one by one."""
    load, put, words, exchange = simd.load("f64", lanes()), simd.store("f64"), simd.block, _exchange()
    width, step = tile()[1], lanes()

    @subroutine
    def take(work, a, row, first, after, to):
        exchanges = words(work)
        for k in range(first, after):
            other = exchanges[k]
            if other != k:
                exchange(a + k * row, a + other * row, width)
            for j in range(0, width, step):
                put(to + ((k - first) * width + j) * 8, load(a + k * row + 8 * j))

    return take


def _clear() -> Callable:
    """``clear(a, row, count)``: rows of a tile's columns become zero."""
    put, splat, width, step = simd.store("f64"), simd.splat("f64", lanes()), tile()[1], lanes()

    @subroutine
    def clear(a, row, count):
        for k in range(count):
            for j in range(0, width, step):
                put(a + k * row + 8 * j, splat(0.0))

    return clear


def _multiply() -> Callable:
    """``multiply(block, a, row, factors, b, count)``: a tile, plus `count` columns of factors times as many rows of b."""
    height, width = tile()
    vectors = width // lanes()

    def body(code: Code, block, a, row, factors, b, count):
        step = code.lanes * code.size
        sums = [[code.variable(code.load(a + row * m + v * step)) for v in range(vectors)] for m in range(height)]
        with code.loop(count) as k:
            code.keep_rolled()
            rows = [code.load(b + k * (vectors * step) + v * step) for v in range(vectors)]
            for m in range(height):
                factor = emit.splat(code.scalar(factors + row * m + k * code.size, code.kind), code.lanes)
                for v, values in enumerate(rows):
                    sums[m][v].set(factor.fma(values, sums[m][v].get()))
        for m in range(height):
            for v in range(vectors):
                code.store(a + row * m + v * step, sums[m][v].get())

    return leaf("a row factors b count", "f64", lanes(), body)


def end(dtype: str, result: str) -> Callable:
    """``end(work, a, y, n, row, first, end, own)``: rows of the result once all panels are eliminated; a determinant is one row."""
    return _product(dtype) if result == "determinant" else _ordered(dtype)


def _product(dtype: str) -> Callable:
    load, store, narrow, words = simd.load("f64", 0), simd.store(dtype), simd.to(dtype), simd.block

    @subroutine
    def product(work, a, y, n, row, first, end, own):
        exchanges, total = words(work), 1.0
        for k in range(n):
            total *= load(work + 8 * (n + k))
            if exchanges[k] != k:
                total = -total
        store(y, narrow(total))

    return product


def _ordered(dtype: str) -> Callable:
    """The columns take their places in the order that the rows' exchanges give."""
    load, store, narrow, words, size = simd.load("f64", 0), simd.store(dtype), simd.to(dtype), simd.block, SIZES[dtype]

    @subroutine
    def ordered(work, a, y, n, row, first, end, own):
        exchanges, order = words(work), words(own)
        for k in range(n):
            order[k] = k
        for k in range(n - 1, -1, -1):
            order[k], order[exchanges[k]] = order[exchanges[k]], order[k]
        for i in range(first, end):
            for j in range(n):
                store(y + (i * n + j) * size, narrow(load(a + i * row + 8 * order[j])))

    return ordered
