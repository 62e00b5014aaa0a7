"""Panels of queries and of results: what is done to them before the products of `attention` and after.

Numba-free but for the factories.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from . import attentionwords as word
from . import target
from .image import SIZES

_ONE = 0x3FF << 52  # the bits of 1 as float64


def beginning(dtype: str, k_pairs: bool) -> Callable:
    """The subroutine ``begin(block, q, first, panels, states, turned, reference, spare)``: panels of queries from the `first` on.

    They are transposed and scaled, and for products by pairs as long as `reference` says; their lengths are put in their states.
    `spare`: two vectors that may be overwritten.
    """
    from . import attentiontile, pairsums, simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    width, pitch, state_bytes = 2 * lanes, 2 * lanes * size, word.STATE * 2 * lanes * size
    by_pairs, triple = int(k_pairs), pairsums.TRIPLE
    turn, fill, scaled = turning(dtype), filling(dtype), _scaling(dtype)
    balance, of_columns, words = attentiontile.balance(lanes), pairsums.of_columns(lanes, 2), simd.block

    @subroutine
    def begin(block, q, first, panels, states, turned, reference, spare):
        args = words(block)
        head, row, column = args[word.HEAD], args[word.Q_ROW], args[word.Q_COLUMN]
        for p in range(panels):
            left = args[word.QUERIES] - first - p * width
            count, x, panel, state = (
                min(width, left),
                q + (first + p * width) * row,
                turned + p * head * pitch,
                states + p * state_bytes,
            )
            if count < width:
                fill(panel, head, 0)
            turn(x, count, head, row, column, panel, pitch, width * row if p + 1 < panels else 0, 0)
            scaled(panel, head, args[word.SCALE], state + word.LENGTH * pitch)
            if by_pairs != 0:
                balance(args, head, panel, state, reference)
                of_columns(args, panel, pitch, head // triple, width, state + word.PAIRS * pitch, spare)

    return begin


def ending(dtype: str) -> Callable:
    """The subroutine ``end(block, y, first, panels, states, results)``: divided by the sums of weights results are put into y."""
    from . import simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    width, pitch, state_bytes = 2 * lanes, 2 * lanes * size, word.STATE * 2 * lanes * size
    turn, fill, divided, words, one = turning(dtype), filling(dtype), _dividing(dtype), simd.block, _ONE

    @subroutine
    def end(block, y, first, panels, states, results):
        args = words(block)
        value, row = args[word.VALUE], args[word.Y_ROW]
        for p in range(panels):
            left = args[word.QUERIES] - first - p * width
            to, result, sums = (
                y + (first + p * width) * row,
                results + p * value * pitch,
                states + p * state_bytes + word.SUM * pitch,
            )
            if args[word.KEYS] == 0:
                fill(result, value, 0)
                fill(sums, 1, one)
            divided(result, value, sums)
            # lanes along queries, rows of y along channels
            turn(result, value, min(width, left), pitch, size, to, row, 0, width * row if p + 1 < panels else 0)

    return end


def turning(dtype: str) -> Callable:
    """The subroutine ``turn(x, rows, columns, x_row, x_column, y, y_row, x_ahead, y_ahead)``: y[j, i] = x[i, j].

    Rows of y are runs in memory. `x_ahead`, `y_ahead`: bytes to what will be turned next and comes from afar, or 0. It is asked for
    square by square, for a core forgets what it is asked for beyond some lines; in L2, as rows far apart may fall into few sets of
    L1.
    """
    from . import shuffle, simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    load_one, store, transpose = simd.load(dtype, 0), simd.store(dtype), shuffle.transpose(dtype, dtype, lanes)
    ask = simd.prefetch(dtype, 1, soon=False)

    @subroutine
    def turn(x, rows, columns, x_row, x_column, y, y_row, x_ahead, y_ahead):
        # by squares of lanes where rows of x are runs, too
        if x_column == size and rows >= lanes and columns >= lanes:
            # a square that would overhang starts earlier: what is copied twice is the same
            for i in range(0, rows, lanes):
                row = min(i, rows - lanes)
                for j in range(0, columns, lanes):
                    column = min(j, columns - lanes)
                    source, to = x + row * x_row + column * size, y + column * y_row + row * size
                    for k in range(lanes):
                        if x_ahead != 0:
                            ask(source + x_ahead + k * x_row)
                        if y_ahead != 0:
                            ask(to + y_ahead + k * y_row)
                    transpose(source, x_row, to, y_row)
        else:
            for i in range(rows):
                for j in range(columns):
                    store(y + j * y_row + i * size, load_one(x + i * x_row + j * x_column))

    return turn


def filling(dtype: str) -> Callable:
    """The subroutine ``fill(x, rows, value)`` for rows of a panel; `value`: the bits of a float64."""
    from . import simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    store, splat, number = simd.store(dtype), simd.splat(dtype, lanes), simd.float_argument

    @subroutine
    def fill(x, rows, value):
        for i in range(2 * rows):
            store(x + i * lanes * size, splat(number(value)))

    return fill


def _scaling(dtype: str) -> Callable:
    """The subroutine ``scaled(x, rows, factor, y)``: a panel multiplied in place, the lengths of its columns put at y."""
    from . import simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    vector, pitch, number = lanes * size, 2 * lanes * size, simd.float_argument
    load, store, splat, fma, root = simd.load(dtype, lanes), simd.store(dtype), simd.splat(dtype, lanes), simd.fma, simd.sqrt

    @subroutine
    def scaled(x, rows, factor, y):
        total, other, even, odd = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        for i in range(0, rows - 1, 2):
            at = x + i * pitch
            a, b = load(at) * splat(number(factor)), load(at + vector) * splat(number(factor))
            c, d = load(at + pitch) * splat(number(factor)), load(at + pitch + vector) * splat(number(factor))
            store(at, a)
            store(at + vector, b)
            store(at + pitch, c)
            store(at + pitch + vector, d)
            total, other, even, odd = fma(a, a, total), fma(b, b, other), fma(c, c, even), fma(d, d, odd)
        if rows % 2 == 1:
            at = x + (rows - 1) * pitch
            a, b = load(at) * splat(number(factor)), load(at + vector) * splat(number(factor))
            store(at, a)
            store(at + vector, b)
            total, other = fma(a, a, total), fma(b, b, other)
        store(y, root(total + even))
        store(y + vector, root(other + odd))

    return scaled


def _dividing(dtype: str) -> Callable:
    """The subroutine ``divided(x, rows, sums)``: a panel divided in place by the sums of its columns' weights."""
    from . import simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    vector, nothing, select = lanes * size, math.nan, simd.select
    load, store, splat = simd.load(dtype, lanes), simd.store(dtype), simd.splat(dtype, lanes)

    @subroutine
    def divided(x, rows, sums):
        for v in range(2):
            sum_of = load(sums + v * vector)
            # where nothing was weighed, products by pairs may have left what is not 0
            inverse = select(sum_of == splat(0.0), splat(nothing), splat(1.0) / sum_of)
            for i in range(rows):
                at = x + (2 * i + v) * vector
                store(at, load(at) * inverse)

    return divided
