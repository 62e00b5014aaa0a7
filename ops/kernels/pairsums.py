"""What pairs add too much, of rows and columns of a matrix in place: for tiles made of `pairingtile.triple`. Imports numba.

Both give it with the sign that takes it away from a total, for K in turns of two triples, one of sums and one of differences, and
in what is left of K: pairs of sums, and a step alone.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from . import emit, shuffle, simd, window
from .emit import E
from .window import Code

TURN = 6  # K steps


def of_columns(lanes: int) -> Callable:
    """``columns(args, x, x_row, turns, rest, columns, pairs, squares)``: of x[k, columns], K as `turns` and a `rest`.

    A float32 for each column is put at `pairs`, and at `squares` the sum of squares of what is in pairs; whole vectors of them.
    """

    def body(code, block, x, x_row, turns, rest, columns, pairs, squares):
        def some(offset: E, _: int, left: E | None) -> None:
            total, *squared = (code.variable(emit.constant(code.builder, "f32", lanes, 0)) for _ in range(3))
            at = code.variable(x + offset)

            def pair(first: E) -> E:
                """The product of an element and the next one, whose squares are added up."""
                values = [code.load(address, left) for address in (first, first + x_row)]
                for value, square in zip(values, squared):
                    square.set(value.fma(value, square.get()))
                return values[0] * values[1]

            with code.loop(turns):
                code.keep_rolled()
                here = at.get()
                total.set(total.get() + (pair(here + x_row * 3) - pair(here)))
                at.set(here + x_row * TURN)
            with code.loop(rest >> 1):
                code.keep_rolled()
                total.set(total.get() - pair(at.get()))
                at.set(at.get() + x_row * 2)
            code.store(pairs + offset, total.get())
            code.store(squares + offset, squared[0].get() + squared[1].get())

        window.over_channels(code, columns, some)

    return window.leaf("x x_row turns rest columns pairs squares", "f32", lanes, body)


def of_rows(lanes: int) -> Callable:
    """``rows(args, x, x_row, rows, turns, rest, pairs)``: of x[rows, k]. A float32 for each row is put at `pairs`."""
    vector, group = 4 * lanes, 3  # vectors that whole turns fill

    def body(code, block, x, x_row, rows, turns, rest, pairs):
        own, step = turns * TURN, group * lanes
        whole = own / step
        left = own - whole * step
        signs, after = [signs_of(code, j) for j in range(group)], (rest >> 1) * 2
        alone = _constant(code, [-1.0, 0.0] * (lanes // 2))
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
            with code.when(after > 0):
                add(lambda row: beside(row + own * 4, after), alone)
            at.set(at.get() + x_row * number)
            sums = [total.get() for total in totals]
            return shuffle.added(sums) if number == lanes else simd.across(E.__add__)(sums[0])

        groups = rows / lanes
        with code.loop(groups) as i:
            code.store(pairs + i * vector, some(lanes))
        with code.loop(rows - groups * lanes) as i:
            code.of_lanes(0).store(pairs + (groups * vector + i * 4), emit.first_lane(some(1)))

    return window.leaf("x x_row rows turns rest pairs", "f32", lanes, body)


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
