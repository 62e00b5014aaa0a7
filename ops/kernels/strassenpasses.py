"""The passes around the register tile of `strassenkernel`: sums of operands, and outputs from products. Imports numba.

A product of sums is no better than the largest of what is added, so both passes that sum up look at it: `LIMIT` bounds how
much an output's error grows by its neighbours. Beyond it, and where there are NaN and infinity, products are direct ones.
Magnitudes are compared as integers, which order floats that have no sign and put NaN above all others.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

from . import emit, simd, window
from . import strassenwords as word
from .emit import E
from .window import Code

LIMIT = 32.0
_SAMPLE = 32  # rows of half a K block by which columns' sizes are estimated
_ALIKE, _SHIFT = 1, 40  # powers of 2 that columns are left apart, and that they are multiplied by at the most
_EXPONENT_BITS, _ONE = -1 << 23, 127 << 23  # float32's, where bits are those of an i32
_LARGEST = 1e30  # product of two operands: sums of such stay far from infinity


def summing_rows(lanes: int) -> Callable:
    """``sum_rows(args, x, operands, rows, own, largest, flag)``: what the products take of a block of A.

    The block is of twice args[HALF] rows from x on, `rows` of which there are; its columns are two halves of `own`. The four sums
    lie behind each other at `operands`; if rows are missing the quarters follow, with zeros for those. Magnitudes larger than
    what is at `largest`, for each column, are put there; the second half's are args[STEPS] elements further on. The word at `flag`
    becomes 1 if two rows that are added differ by more than `LIMIT` in their largest elements, 0 if none do.
    """

    def body(code, block, x, operands, rows, own, largest, flag):
        x_row, half, stride = (code.argument(block, at) for at in (word.X_ROW, word.HALF, word.OPERAND_ROW))
        operand, further, vectors = half * stride, code.argument(block, word.STEPS) * 4, own / lanes
        nothing = emit.constant(code.builder, "i32", lanes, 0)
        unlike = code.variable(code.word(0))

        def step(j, first, second, out, maxima, counts):
            """One vector of each quarter of two rows; `counts`: how many elements of the rows there are, if some are missing."""
            at = j * (lanes * 4)
            left = [count - j * lanes for count in counts]
            (a11, a12), (a21, a22) = (
                [code.load(row + offset, *left[i : i + 1]) for offset in (at, at + own * 4)]
                for i, row in enumerate((first, second))
            )
            s1 = a21 + a22
            s2 = s1 - a11
            made = [s1, s2, a11 - a21, a12 - s2, *((a11, a12, a21, a22) if counts else ())]
            for i, value in enumerate(made):
                code.store(out + operand * i + at, value)
            sizes = [_magnitude(a) for a in (a11, a12, a21, a22)]
            for where, i in ((largest + at, 0), (largest + further + at, 1)):
                before = _magnitude(code.load(where))
                code.store(where, before.at_least(sizes[i].at_least(sizes[2 + i])).bits("f32"))
            for i, maximum in enumerate(maxima):
                maximum.set(maximum.get().at_least(sizes[2 * i].at_least(sizes[2 * i + 1])))

        def compare(maxima):
            above, below = (emit.first_lane(_across(E.at_least, maximum.get()).bits("f32")) for maximum in maxima)
            alike = (above <= below * LIMIT) & (below <= above * LIMIT)
            unlike.set(own.select(alike, unlike.get(), 1))

        @contextmanager
        def each_row():
            with code.loop(half) as i:
                first = x + x_row * i
                yield i, first, first + x_row * half, operands + stride * i, [code.variable(nothing) for _ in range(2)]

        with code.when(rows >= half * 2), each_row() as (_, *where, maxima):
            with code.loop(vectors) as j:
                step(j, *where, maxima, ())
            with code.when(own > vectors * lanes):
                step(vectors, *where, maxima, (own, own))
            compare(maxima)
        with code.when(rows < half * 2), each_row() as (i, *where, maxima):
            with code.loop((own + (lanes - 1)) / lanes) as j:
                step(j, *where, maxima, [own.select(there, own, 0) for there in (i < rows, i + half < rows)])
            with code.when(i + half < rows):
                compare(maxima)
        code.put(flag, unlike.get())

    return window.leaf("x operands rows own largest flag", "f32", lanes, body)


def summing_columns(lanes: int) -> Callable:
    """``sum_columns(args, left, right, sums, own, largest, inverse, flag)``: what is taken of two neighbouring panels of B.

    Each has two halves of `own` rows. The four sums lie behind each other at `sums`. Sums are those of columns of like sizes: the
    right ones' are multiplied by powers of 2, whose inverses are put at `inverse`. The word at `flag` becomes 1 if an output
    could lose more than `LIMIT` allows by what is in its column's neighbour, or in other rows of its own: if the largest of A,
    at `largest` for each of its columns as `summing_rows` left them, times the largest of both columns of B is more than so many
    times the largest of its terms.
    """
    row_bytes, vectors = 2 * lanes * 4, range(2)

    def body(code, block, left, right, sums, own, largest, inverse, flag):
        part, further = own * row_bytes, code.argument(block, word.STEPS) * 4
        none, nothing = (emit.constant(code.builder, kind, lanes, 0) for kind in ("i32", "f32"))
        factors = _factors(code, left, right, part, own.select(own < _SAMPLE, own, _SAMPLE), inverse)
        entries = {(side, v): code.variable(none) for side in range(2) for v in vectors}
        terms = {key: code.variable(nothing) for key in entries}
        with code.loop(own) as k:
            scales = [emit.splat(code.scalar(largest + offset + k * 4, "f32"), lanes) for offset in (code.word(0), further)]
            for v in vectors:
                at = k * row_bytes + v * lanes * 4
                (b11, b21), (b12, b22) = ([code.load(panel + offset) for offset in (at, at + part)] for panel in (left, right))
                t1 = b12.fma(factors[v], -b11)
                t2 = b22.fma(factors[v], -t1)
                for i, value in enumerate((t1, t2, (b22 - b12) * factors[v], t2 - b21)):
                    code.store(sums + part * i + at, value)
                for side, pair in enumerate(((b11, b21), (b12, b22))):
                    entry, term = entries[side, v], terms[side, v]
                    for value, scale in zip(map(_magnitude, pair), scales):
                        entry.set(entry.get().at_least(value))
                        term.set((value.bits("f32") * scale).at_least(term.get()))
        most = code.variable(none)
        with code.loop((own + (lanes - 1)) / lanes) as j:
            for offset in (code.word(0), further):
                most.set(most.get().at_least(_magnitude(code.load(largest + offset + j * (lanes * 4)))))
        whole, fits = _across(E.at_least, most.get()).bits("f32"), None
        for v, factor in enumerate(factors):
            (left_entry, right_entry), (left_term, right_term) = (
                [values[side, v].get().bits("f32") for side in range(2)] for values in (entries, terms)
            )
            bound = whole * _largest(left_entry, right_entry * factor)
            own_fits = (bound <= left_term * LIMIT) & (bound <= right_term * factor * LIMIT)
            own_fits = own_fits & (bound <= _LARGEST) & (whole * right_entry <= _LARGEST)
            fits = own_fits if fits is None else fits & own_fits
        code.put(flag, own.select(emit.first_lane(_across(E.__and__, fits)), code.word(0), 1))

    return window.leaf("left right sums own largest inverse flag", "f32", lanes, body)


def _factors(code: Code, left: E, right: E, part: E, rows: E, inverse: E) -> list[E]:
    """Powers of 2 by which columns of the right panel are as large as those of the left, by some rows of both halves."""
    made = []
    for v in range(2):
        tops = [code.variable(emit.constant(code.builder, "i32", code.lanes, 0)) for _ in range(2)]
        with code.loop(rows) as k:
            at = (k * 2 + v) * (code.lanes * 4)
            for top, panel in zip(tops, (left, right)):
                for offset in (at, at + part):
                    top.set(top.get().at_least(_magnitude(code.load(panel + offset))))
        # differences of bits are nearly those of logarithms
        shift = (tops[0].get() - tops[1].get() + (1 << 22)) & _EXPONENT_BITS
        shift = shift.at_least(-_SHIFT << 23).at_most(_SHIFT << 23)
        shift = shift.select((shift >= -_ALIKE << 23) & (shift <= _ALIKE << 23), 0, shift)
        made.append((shift + _ONE).bits("f32"))
        code.store(inverse + v * code.lanes * 4, (-shift + _ONE).bits("f32"))
    return made


def combining(lanes: int) -> Callable:
    """``combine(args, products, row, rows, column, columns, inverse, again, last, direct)``: outputs of a block.

    Two times args[HALF] rows from `row` on, `rows` of which there are, and `columns` from `column` on. The products lie behind
    each other, two vectors a row; if they are `direct` there are four, the quarters themselves. `inverse` is what `sum_columns`
    put there. Bias and residual are added, or what the output has if it is there `again`; if this is the `last` time, it is
    clipped.
    """
    row_bytes, vectors = 2 * lanes * 4, range(2)

    def body(code, block, products, row, rows, column, columns, inverse, again, last, direct):
        half, y_row, r_row = (code.argument(block, at) for at in (word.HALF, word.Y_ROW, word.R_ROW))
        y, bias, residual = (code.argument(block, at) for at in (word.Y, word.BIAS, word.RESIDUAL))
        product, at = half * row_bytes, column * 4
        nothing = emit.constant(code.builder, "f32", lanes, 0)
        low, high = (code.number(code.argument(block, limit)) for limit in (word.LOW, word.HIGH))
        masks = [code.first(columns - v * lanes) for v in range(4)]
        common = [code.variable(nothing) for _ in range(4)]
        inverses = [code.load(inverse + v * lanes * 4) for v in vectors]
        with code.when(again + (bias == 0).cast("i64") == 0):
            for v, value in enumerate(common):
                value.set(code.load(bias + at + v * lanes * 4, masks[v]))
        start, start_row = code.variable(residual), code.variable(r_row)
        with code.when(again != 0):
            start.set(y)
            start_row.set(y_row)
        begins, begins_row = start.get(), start_row.get()

        def put(i, values):
            """A row of four vectors."""
            sums = [code.variable(value + base.get()) for value, base in zip(values, common)]
            with code.when(begins != 0):
                for v, total in enumerate(sums):
                    total.set(total.get() + code.load(begins + begins_row * i + at + v * lanes * 4, masks[v]))
            with code.when(last != 0):
                for total in sums:
                    total.set(total.get().at_least(low).at_most(high))
            for v, total in enumerate(sums):
                code.store(y + y_row * i + at + v * lanes * 4, total.get(), masks[v])

        with code.loop(least(half, rows)) as i:
            outputs = [code.variable(nothing) for _ in range(8)]
            for v in vectors:
                where = products + i * row_bytes + v * lanes * 4
                p1, p2, p3, p4 = (code.load(where + product * q) for q in range(4))
                with code.when(direct != 0):
                    for q, value in enumerate((p1, p2, p3, p4)):
                        outputs[2 * q + v].set(value)
                with code.when(direct == 0):
                    p5, p6, p7 = (code.load(where + product * q) for q in range(4, 7))
                    u2 = p1 + p6
                    u3 = u2 + p7
                    for q, value in enumerate((p1 + p2, (u2 + p5).fma(inverses[v], p3), u3 - p4, (u3 + p5) * inverses[v])):
                        outputs[2 * q + v].set(value)
            put(row + i, [one.get() for one in outputs[:4]])
            with code.when(i + half < rows):
                put(row + half + i, [one.get() for one in outputs[4:]])

    def least(a, b):
        return a.select(a < b, a, b)

    return window.leaf("products row rows column columns inverse again last direct", "f32", lanes, body)


def _magnitude(x: E) -> E:
    """The bits of a float32 without its sign."""
    return x.bits("i32") & 0x7FFFFFFF


def _largest(x: E, y: E) -> E:
    """Of two magnitudes, NaN if one is."""
    return x.bits("i32").at_least(y.bits("i32")).bits("f32")


def _across(combine: Callable[[E, E], E], x: E) -> E:
    return simd.across(combine)(x)
