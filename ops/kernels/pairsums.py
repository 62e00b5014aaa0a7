"""What pairs add too much, of rows and columns of a matrix in place: for tiles made of `pairingtile.triple`. Imports numba.

Both give it with the sign that takes it away from a total, for K in turns of two triples: of sums, then of differences.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from . import emit, simd, window
from .emit import E
from .window import Code, Variable

TURN = 6  # K steps


def of_columns(lanes: int) -> Callable:
    """``columns(args, x, x_row, turns, rest, columns, pairs, squares)``: of x[k, columns], K as `turns` and a `rest`.

    A float32 for each column is put at `pairs`, and at `squares` the square of its length; whole vectors of them.
    """

    def body(code, block, x, x_row, turns, rest, columns, pairs, squares):
        def some(offset: E, _: int, left: E | None) -> None:
            total, *squares_of = (code.variable(emit.constant(code.builder, "f32", lanes, 0)) for _ in range(4))
            at = code.variable(x + offset)

            def look(number: int) -> list[E]:
                values = []
                for _ in range(number):
                    values.append(code.load(at.get(), left))
                    at.set(at.get() + x_row)
                for i, value in enumerate(values):
                    square = squares_of[i % len(squares_of)]
                    square.set(value.fma(value, square.get()))
                return values

            with code.loop(turns):
                code.keep_rolled()
                x0, x1, _, x3, x4, _ = look(TURN)
                total.set(total.get() + x3.fma(x4, -(x0 * x1)))
            with code.loop(rest):
                code.keep_rolled()
                look(1)
            code.store(pairs + offset, total.get())
            first, second, third = (square.get() for square in squares_of)
            code.store(squares + offset, first + second + third)

        window.over_channels(code, columns, some)

    return window.leaf("x x_row turns rest columns pairs squares", "f32", lanes, body)


def of_rows(lanes: int) -> Callable:
    """``rows(args, x, x_row, rows, turns, pairs)``: of x[rows, k]. A float32 for each row is put at `pairs`."""
    vector, group = 4 * lanes, 3  # vectors that whole turns fill

    def body(code, block, x, x_row, rows, turns, pairs):
        own, step = turns * TURN, group * lanes
        whole = own / step
        left = own - whole * step
        signs = [_signs(code, j) for j in range(group)]
        at = code.variable(x)

        def add(total: Variable, product: E, j: int) -> None:
            total.set(product.fma(signs[j], total.get()))

        with code.loop(rows) as i:
            row, total = at.get(), code.variable(emit.constant(code.builder, "f32", lanes, 0))
            with code.loop(whole) as g:
                values = [code.load(row + g * (group * vector) + j * vector) for j in range(group)]
                for j, value in enumerate(values):
                    add(total, value * shifted(value, values[min(j + 1, group - 1)]), j)
            for j in range(group):
                with code.when(left > j * lanes):
                    here, first = row + whole * (group * vector) + j * vector, left - j * lanes
                    add(total, code.load(here, first) * code.load(here + 4, first - 1), j)
            code.of_lanes(0).store(pairs + i * 4, first_lane(simd.across(E.__add__)(total.get())))
            at.set(row + x_row)

    return window.leaf("x x_row rows turns pairs", "f32", lanes, body)


def _signs(code: Code, number: int) -> E:
    """What the product of an element and the next one is multiplied by in vector `number` of a group: 0 unless they are a pair."""
    places = [number * code.lanes + i for i in range(code.lanes)]
    values = [0.0 if place % 3 else 1.0 if place // 3 % 2 else -1.0 for place in places]
    return emit.constant(code.builder, "f32", code.lanes, 0).of(ir.Constant(emit.llvm_type("f32", code.lanes), values))


def shifted(x: E, following: E) -> E:
    """The lanes from the second one on, and the first one of what follows."""
    index = ir.IntType(32)
    numbers = ir.Constant(ir.VectorType(index, x.n), [ir.Constant(index, i + 1) for i in range(x.n)])
    return x.of(x.b.shuffle_vector(x.v, following.v, numbers))


def first_lane(x: E) -> E:
    """The first lane as a scalar."""
    return E(x.b, x.b.extract_element(x.v, ir.Constant(ir.IntType(32), 0)), x.t, 0)
