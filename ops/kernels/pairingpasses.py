"""The passes over the operands of `pairing`: how long rows and columns are, and what their pairs add too much. Imports numba."""

from __future__ import annotations

from collections.abc import Callable

from . import emit, simd, window
from . import pairingwords as word
from .emit import E
from .halves import KINDS
from .pairsums import shifted, signs_of
from .window import Code, Variable

LIMIT = 16.0  # times longer or shorter than the average may a column be, and than all of a row what is left without its largest
_VECTORS = range(2)  # of a panel
_ONE, _EXPONENT = 127 << 23, -1 << 23  # of the bits of a float32
_SHIFT = 80 << 23  # rows are multiplied by powers of 2 up to 2^80, in those bits
_LARGEST = 1e20  # the square of a length, and its inverse: sums of larger ones might overflow


def measuring(lanes: int) -> Callable:
    """``measure(args, b, turns, rest, columns, held, wide, pairs, squares, sound)``: what there is to know of a panel's K block.

    At `pairs` is put what takes away that those of columns add too much; at `squares` those of the columns' lengths, ones beyond
    the last column. The word at `sound` becomes 1 if all lengths are numbers to count with, else 0. A block of 16-bit elements,
    whose type `held` says by its number in `halves.KINDS`, is put at `wide` as float32.
    """
    row = 2 * 4 * lanes

    def body(code, block, b, turns, rest, columns, held, wide, pairs, squares, sound):
        nothing = emit.constant(code.builder, "f32", lanes, 0)
        lengths, totals = ([code.variable(nothing) for _ in _VECTORS] for _ in range(2))
        panel, copy = code.variable(b), code.variable(wide)

        def look(half: str, v: int, *steps: int) -> list[E]:
            """Some steps of columns, whose squares are added up."""
            places = [j * row + v * 4 * lanes for j in steps]
            values = [code.load(panel.get() + (at // 2 if half else at), None, half or None) for at in places]
            if half:
                for at, value in zip(places, values):
                    code.store(copy.get() + at, value)
            square = values[0] * values[0]
            for value in values[1:]:
                square = value.fma(value, square)
            lengths[v].set(lengths[v].get() + square)
            return values

        def go_on(half: str, steps: int) -> None:
            panel.set(panel.get() + steps * (row // 2 if half else row))
            copy.set(copy.get() + steps * row)

        for number, half in enumerate(KINDS):
            with code.when(held == number):
                with code.loop(turns):
                    code.keep_rolled()
                    for k in range(0, word.TURN, 3):
                        for v in _VECTORS:
                            first, second, _ = look(half, v, k, k + 1, k + 2)
                            totals[v].set((first if k // 3 % 2 else -first).fma(second, totals[v].get()))
                    go_on(half, word.TURN)
                with code.loop(rest):
                    code.keep_rolled()
                    for v in _VECTORS:
                        look(half, v, 0)
                    go_on(half, 1)
        sounds = None
        for v in _VECTORS:
            beyond = ~code.first(columns - v * lanes)
            length = lengths[v].get()
            own = _counts(length) | beyond
            sounds = own if sounds is None else sounds & own
            code.store(pairs + v * 4 * lanes, totals[v].get())
            code.store(squares + v * 4 * lanes, length.select(beyond, 1, length))
        _put(code, sound, sounds)

    return window.leaf("b turns rest columns held wide pairs squares sound", "f32", lanes, body)


def _counts(square: E) -> E:
    """Whether the square of a length is a number to count with."""
    return (square <= _LARGEST) & (square >= 1 / _LARGEST)


def comparing(lanes: int) -> Callable:
    """``compare(args, b, squares, reference, samples, count, least, columns, alike)``: whether pairs are a way for a panel.

    The word at `alike` becomes 1 if no column's length is far from that whose square is at `reference`, and if in none what
    elements of A are multiplied with is small where those are large: if some squares of its elements, times the `count` samples'
    weights, add up to the number at `least` times the square of its length. Else 0.
    """

    def body(code, block, b, squares, reference, samples, count, least, columns, alike):
        square, part = (emit.splat(code.scalar(address, "f32"), lanes) for address in (reference, least))
        totals = [code.variable(emit.constant(code.builder, "f32", lanes, 0)) for _ in _VECTORS]
        with code.loop(count) as i:
            at = b + code.scalar(samples + i * word.SAMPLE_BYTES, "i64")
            weight = emit.splat(code.scalar(samples + (i * word.SAMPLE_BYTES + 8), "f32"), lanes)
            for v in _VECTORS:
                value = code.load(at + v * 4 * lanes)
                totals[v].set((value * value).fma(weight, totals[v].get()))
        near = None
        for v in _VECTORS:
            own = code.load(squares + v * 4 * lanes)
            within = (own <= square * LIMIT**2) & (square <= own * LIMIT**2) & (totals[v].get() >= own * part)
            within = within | ~code.first(columns - v * lanes)
            near = within if near is None else near & within
        _put(code, alike, near)

    return window.leaf("b squares reference samples count least columns alike", "f32", lanes, body)


def taking(lanes: int) -> Callable:
    """``take(args, x, rows, own, reference, copy, info, features)``: rows of A as the tile reads them, `own` elements of each.

    A row is multiplied by the power of 2 that makes its length nearly that whose square is at `reference`; a row for which pairs
    are no way, which is nearly one element or not a number, stays as it is. Squares of what rows have then are added to `features`.
    """
    vector, group = 4 * lanes, 3  # vectors that whole triples fill

    def body(code, block, x, rows, own, reference, copy, info, features):
        x_row = code.argument(block, word.X_ROW)
        wanted = emit.splat(code.scalar(reference, "f32"), lanes).bits("i32")
        nothing, single = emit.constant(code.builder, "f32", lanes, 0), code.of_lanes(0)
        of_turns = own / word.TURN * word.TURN
        signs = [signs_of(code, j) for j in range(group)]

        def length(row: E) -> tuple[E, E]:
            """The square of a row's length, and the largest sum of some of its squares, in every lane."""
            squares, tops = (code.variable(nothing) for _ in range(2))

            def add(at: E, number: int, left: E | None) -> None:
                square = None
                for j in range(number):
                    value = code.load(row + at + j * vector, left)
                    square = value * value if square is None else value.fma(value, square)
                squares.set(squares.get() + square)
                tops.set(tops.get().at_least(square))

            window.over_channels(code, own, add, wide=group)
            return simd.across(E.__add__)(squares.get()), simd.across(E.at_least)(tops.get())

        def pairs(row: E, left: E | None, total: Variable) -> None:
            """Adds those of a group, or of its `left` first elements."""
            values = [code.load(row + j * vector) for j in range(group)]
            for j, value in enumerate(values):
                product = value * shifted(value, values[min(j + 1, group - 1)])
                if left is not None:
                    product = product.select(code.first(left - j * lanes), product, 0)
                total.set(product.fma(signs[j], total.get()))

        with code.loop(rows) as i:
            row, out, about = x + x_row * i, copy + i * word.ROW_BYTES, info + i * word.INFO_BYTES
            square, top = length(row)
            counts = _counts(square) & (square - top >= square * (1 / LIMIT**2))
            # half the difference of bits is nearly that of logarithms
            shift = (((wanted - square.bits("i32")) >> 1) + (1 << 22)) & _EXPONENT
            shift = shift.select(counts, shift.at_least(-_SHIFT).at_most(_SHIFT), 0)
            factor = (shift + _ONE).bits("f32")

            def copy_vectors(
                at: E, number: int, left: E | None, row: E = row, out: E = out, factor: E = factor, counts: E = counts
            ) -> None:
                for offset in range(0, number * vector, vector):
                    value = code.load(row + at + offset, left) * factor
                    code.store(out + at + offset, value)
                    added = value.fma(value, code.load(features + at + offset))
                    code.store(features + at + offset, added, counts)

            window.over_channels(code, own, copy_vectors, wide=group)
            single.store(about + word.INVERSE * 4, emit.first_lane(-shift + _ONE).bits("f32"))
            single.store(about + word.ODD * 4, emit.first_lane(counts.cast("i32") ^ 1).bits("f32"))
            total, step = code.variable(nothing), group * lanes
            whole = of_turns / step
            with code.loop(whole) as j:
                pairs(out + j * (4 * step), None, total)
            with code.when(of_turns > whole * step):
                pairs(out + whole * (4 * step), of_turns - whole * step, total)
            single.store(about + word.PAIRS * 4, emit.first_lane(simd.across(E.__add__)(total.get())))

    return window.leaf("x rows own reference copy info features", "f32", lanes, body)


def _put(code: Code, address: E, mask: E) -> None:
    """Stores the word 1 if every lane of the mask is set, else 0."""
    every = emit.first_lane(simd.across(E.__and__)(mask))
    code.put(address, code.word(0).select(every, code.word(1), 0))
