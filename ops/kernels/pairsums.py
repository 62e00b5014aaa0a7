"""What pairs add too much, of rows and columns of a matrix in place: for tiles made of `pairingtile.triple`. Imports numba.

Both give it with the sign that takes it away from a total, for K in triples, by turns of sums and of differences. Steps that are
left, fewer than a triple, are in no pair.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from . import emit, shuffle, simd, window
from .emit import E
from .window import Code

TRIPLE = 3  # K steps
_FETCH_ROWS = 12  # by which columns that have to come from afar are asked for ahead


def of_columns(lanes: int, wide: int, far: bool = False) -> Callable:
    """``columns(args, x, x_row, triples, columns, pairs, squares)``: of x[k, columns], K as `triples`.

    A float32 for each column is put at `pairs`, and at `squares` the sum of squares of what is in pairs; whole vectors of them.
    `wide` vectors at a time, which do not wait for each other; asked for ahead if they are `far`.
    """
    vector = 4 * lanes

    def body(code, block, x, x_row, triples, columns, pairs, squares):
        def some(offset: E, number: int, left: E | None) -> None:
            zero = emit.constant(code.builder, "f32", lanes, 0)
            totals, *squared = ([code.variable(zero) for _ in range(number)] for _ in range(3))
            at = code.variable(x + offset)

            def pair(v: int, first: E) -> E:
                """The product of an element and the next one, whose squares are added up."""
                values = [code.load(address + v * vector, left) for address in (first, first + x_row)]
                for value, square in zip(values, squared):
                    square[v].set(value.fma(value, square[v].get()))
                return values[0] * values[1]

            with code.loop(triples >> 1):
                code.keep_rolled()
                here = at.get()
                for v, total in enumerate(totals):
                    total.set(total.get() + (pair(v, here + x_row * TRIPLE) - pair(v, here)))
                    if far:
                        for k in range(2 * TRIPLE):
                            code.prefetch(here + x_row * (_FETCH_ROWS + k) + v * vector)
                at.set(here + x_row * (2 * TRIPLE))
            with code.when(triples & 1 != 0):
                for v, total in enumerate(totals):
                    total.set(total.get() - pair(v, at.get()))
            for v, (total, even, odd) in enumerate(zip(totals, *squared)):
                code.store(pairs + offset + v * vector, total.get())
                code.store(squares + offset + v * vector, even.get() + odd.get())

        window.over_channels(code, columns, some, wide)

    return window.leaf("x x_row triples columns pairs squares", "f32", lanes, body)


def of_rows(lanes: int) -> Callable:
    """``rows(args, x, x_row, rows, triples, pairs)``: of x[rows, k]. A float32 for each row is put at `pairs`."""
    vector, group = 4 * lanes, 3  # vectors that whole pairs of triples fill

    def body(code, block, x, x_row, rows, triples, pairs):
        own, step = triples * TRIPLE, group * lanes
        whole = own / step
        left = own - whole * step
        signs = [signs_of(code, j) for j in range(group)]
        at = code.variable(x)

        def beside(address: E, count: E) -> E:
            """The products of so many elements, each with the next one."""
            return code.load(address, count) * code.load(address + 4, count - 1)

        def some(number: int) -> E:
            """The totals of so many rows, one after the other."""
            addresses = [at.get() + x_row * i for i in range(number)]
            totals = [code.variable(emit.constant(code.builder, "f32", lanes, 0)) for _ in addresses]

            def add(product: Callable[[E], E], sign: E) -> None:
                for address, total in zip(addresses, totals):
                    total.set(product(address).fma(sign, total.get()))

            with code.loop(whole) as g:
                for j in range(group):
                    here = g * (group * vector) + j * vector
                    most = code.word(lanes - 1) if j == group - 1 else None  # the last one is in no pair
                    add(lambda row, here=here, most=most: code.load(row + here) * code.load(row + here + 4, most), signs[j])
            for j in range(group):
                with code.when(left > j * lanes):
                    here, count = whole * (group * vector) + j * vector, left - j * lanes
                    add(lambda row, here=here, count=count: beside(row + here, count), signs[j])
            at.set(at.get() + x_row * number)
            sums = [total.get() for total in totals]
            return shuffle.added(sums) if number == lanes else simd.across(E.__add__)(sums[0])

        groups = rows / lanes
        with code.loop(groups) as i:
            code.store(pairs + i * vector, some(lanes))
        with code.loop(rows - groups * lanes) as i:
            code.of_lanes(0).store(pairs + (groups * vector + i * 4), emit.first_lane(some(1)))

    return window.leaf("x x_row rows triples pairs", "f32", lanes, body)


def _chosen(a: E, b: E, places: list[int]) -> E:
    """Those lanes of both."""
    index = ir.IntType(32)
    order = ir.Constant(ir.VectorType(index, len(places)), [ir.Constant(index, place) for place in places])
    return a.of(a.b.shuffle_vector(a.v, b.v, order))


def signs_of(code: Code, number: int) -> E:
    """What the product of an element and the next one is multiplied by in vector `number` of a group: 0 unless they are a pair."""
    places = [number * code.lanes + i for i in range(code.lanes)]
    values = [0.0 if place % 3 else 1.0 if place // 3 % 2 else -1.0 for place in places]
    return _constant(code, values)


def _constant(code: Code, values: list[float]) -> E:
    return E(code.builder, ir.Constant(emit.llvm_type("f32", code.lanes), values), "f32", code.lanes)


def shifted(x: E, following: E) -> E:
    """The lanes from the second one on, and the first one of what follows."""
    return _chosen(x, following, [i + 1 for i in range(x.n)])
