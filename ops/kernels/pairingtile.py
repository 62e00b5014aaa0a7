"""The register tile of `pairing`, and the passes over its operands. Imports numba.

Of three K steps the first two are multiplied together: (x0 + b1) (x1 + b0) = x0 b0 + x1 b1 + x0 x1 + b0 b1, one multiply-add
and two additions in place of two multiply-adds. What the pairs of a row or a column add to that does not depend on the other
operand: passes over both work it out, for every part of K, and the tile begins each part by taking it away. Every sum of a row and
a column is made of its own, so nothing but the accumulators has to stay in registers.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from . import emit, simd, window
from . import pairingwords as word
from .emit import E
from .window import WORD, Code, Variable

LIMIT = 16.0
_LINES = 4  # cache lines of the next panel that a turn asks for
_LINE = 64
_VECTORS = range(2)  # of a panel
_SIGN, _ONE, _EXPONENT = 0x7FFFFFFF, 127 << 23, -1 << 23  # of the bits of a float32
_SHIFT = 60 << 23  # rows are multiplied by powers of 2 up to 2^60, in those bits
_LARGEST = 1e30  # the square of a length: larger ones are no way for pairs


def tile(lanes: int, heights: tuple[int, ...]) -> Callable:
    """``tile(args, height, x, info, b, pairs, turns, rest, ahead, end, base, start, start_row, y, columns, clip)``.

    y[i, :] = base[:] + start[i, :] + inverse[i] * sum over k of x[i, k] * b[k, :], for `height` rows, `columns` of one panel.
    K is `turns` of four triples and `rest` steps without pairs. x: rows of ROW_BYTES with INFO_BYTES that belong to them at `info`.
    `pairs`: what takes away that those of the panel's columns add too much. `start` may be 0. `ahead`: what to bring to L2
    meanwhile, up to `end`.
    """

    def body(code: Code, block: ir.Value, height: E, *values: E) -> None:
        builder = code.builder
        done = builder.append_basic_block("done")
        chosen = builder.switch(height.v, done)
        for rows in heights:
            here = builder.append_basic_block(f"tile{rows}")
            chosen.add_case(ir.Constant(WORD, rows), here)
            builder.position_at_end(here)
            _tile(code, block, rows, *values)
            builder.branch(done)
        builder.position_at_end(done)

    names = "height x info b pairs turns rest ahead end base start start_row y columns clip"
    return window.leaf(names, "f32", lanes, body)


def _tile(
    code: Code, block: ir.Value, rows: int, x: E, info: E, b: E, pairs: E, turns: E, rest: E, ahead: E, end: E, base: E,
    start: E, start_row: E, y: E, columns: E, clip: E,
) -> None:  # fmt: skip
    vector = 4 * code.lanes
    source, panel, far = code.variable(x), code.variable(b), code.variable(ahead)
    sums = _begin(code, rows, info, pairs, turns)

    def broadcast(address: E) -> E:
        return emit.splat(code.scalar(address, "f32"), code.lanes)

    with code.loop(turns):
        code.keep_rolled()
        # The same address for each vector. If LLVM knew that, it would keep what is broadcast in a register, which costs the time
        # of an addition.
        here, at = [code.unrelated(source.get()) for _ in _VECTORS], code.unrelated(panel.get())
        for k in range(0, word.TURN, 3):
            code.keep_order()
            b0, b1, b2 = ([code.load(at + (2 * (k + j) + v) * vector) for v in _VECTORS] for j in range(3))
            for i in range(rows):
                for v in _VECTORS:
                    x0, x1, x2 = (broadcast(here[v] + (i * word.ROW_BYTES + (k + j) * 4)) for j in range(3))
                    total = sums[i, v].get()
                    if k // 3 % 2 == 0:
                        total = (b1[v] + x0).fma(b0[v] + x1, total)
                    else:
                        total = (-(b1[v] - x0)).fma(b0[v] - x1, total)
                    sums[i, v].set(b2[v].fma(x2, total))
        source.set(source.get() + word.TURN * 4)
        panel.set(at + word.TURN * 2 * vector)
        for line in range(_LINES):
            code.prefetch(far.get() + line * _LINE, soon=False)
        following = far.get() + _LINES * _LINE
        far.set(end.select(following < end, following, far.get()))
    with code.loop(rest):
        code.keep_rolled()
        at = panel.get()
        factors = [code.load(at + v * vector) for v in _VECTORS]
        for i in range(rows):
            value = broadcast(source.get() + i * word.ROW_BYTES)
            for v in _VECTORS:
                sums[i, v].set(factors[v].fma(value, sums[i, v].get()))
        source.set(source.get() + 4)
        panel.set(at + 2 * vector)
    _finish(code, block, sums, info, base, start, start_row, y, columns, clip)


def _begin(code: Code, rows: int, info: E, pairs: E, turns: E) -> dict[tuple[int, int], Variable]:
    """Sums that begin without what pairs will add too much, if there are any."""
    nothing = emit.constant(code.builder, "f32", code.lanes, 0)
    sums = {(i, v): code.variable(nothing) for i in range(rows) for v in _VECTORS}
    with code.when(turns > 0):
        of_columns = [code.load(pairs + v * 4 * code.lanes) for v in _VECTORS]
        for (i, v), total in sums.items():
            of_row = emit.splat(code.scalar(info + (i * word.INFO_BYTES + word.PAIRS * 4), "f32"), code.lanes)
            total.set(of_columns[v] + of_row)
    return sums


def _finish(
    code: Code, block: ir.Value, sums: dict[tuple[int, int], Variable], info: E, base: E, start: E, start_row: E, y: E,
    columns: E, clip: E,
) -> None:  # fmt: skip
    """Undoes the rows' factors, adds what they start from, clips, stores."""
    vector, y_row = 4 * code.lanes, code.argument(block, word.Y_ROW)
    masks = [code.first(columns - v * code.lanes) for v in _VECTORS]
    common = [code.load(base + v * vector, masks[v]) for v in _VECTORS]
    for (i, v), total in sums.items():
        inverse = emit.splat(code.scalar(info + (i * word.INFO_BYTES + word.INVERSE * 4), "f32"), code.lanes)
        total.set(total.get().fma(inverse, common[v]))
    with code.when(start != 0):
        for (i, v), total in sums.items():
            total.set(total.get() + code.load(start + start_row * i + v * vector, masks[v]))
    with code.when(clip != 0):
        low, high = (code.number(code.argument(block, limit)) for limit in (word.LOW, word.HIGH))
        for total in sums.values():
            total.set(total.get().at_least(low).at_most(high))
    for (i, v), total in sums.items():
        code.store(y + y_row * i + v * vector, total.get(), masks[v])


def measuring(lanes: int) -> Callable:
    """``measure(args, b, turns, rest, columns, pairs, squares, sound)``: what there is to know of a panel's K block.

    At `pairs` is put what takes away that those of columns add too much; at `squares` those of the columns' lengths, ones beyond the
    last column. The word at `sound` becomes 1 if every column has numbers that count beside its largest one, 0 if one has not, or has
    something that is not finite.
    """
    row = 2 * 4 * lanes

    def body(code, block, b, turns, rest, columns, pairs, squares, sound):
        nothing = emit.constant(code.builder, "f32", lanes, 0)
        lengths, tops, totals = ([code.variable(nothing) for _ in _VECTORS] for _ in range(3))
        panel = code.variable(b)

        def look(v: int, *steps: int) -> list[E]:
            """Some steps of a column: their squares are added up, and the largest such sum is kept."""
            values = [code.load(panel.get() + (j * row + v * 4 * lanes)) for j in steps]
            square = values[0] * values[0]
            for value in values[1:]:
                square = value.fma(value, square)
            lengths[v].set(lengths[v].get() + square)
            tops[v].set(tops[v].get().at_least(square))
            return values

        with code.loop(turns):
            code.keep_rolled()
            for k in range(0, word.TURN, 3):
                for v in _VECTORS:
                    first, second, _ = look(v, k, k + 1, k + 2)
                    totals[v].set((first if k // 3 % 2 else -first).fma(second, totals[v].get()))
            panel.set(panel.get() + word.TURN * row)
        with code.loop(rest):
            code.keep_rolled()
            for v in _VECTORS:
                look(v, 0)
            panel.set(panel.get() + row)
        sounds = None
        for v in _VECTORS:
            beyond = ~code.first(columns - v * lanes)
            length = lengths[v].get()
            own = _counts(length, tops[v].get()) | beyond
            sounds = own if sounds is None else sounds & own
            code.store(pairs + v * 4 * lanes, totals[v].get())
            code.store(squares + v * 4 * lanes, length.select(beyond, 1, length))
        _put(code, sound, sounds)

    return window.leaf("b turns rest columns pairs squares sound", "f32", lanes, body)


def _counts(square: E, top: E) -> E:
    """Whether the rest counts beside the largest element, given the square of the length and that of the largest."""
    return (square - top >= square * (1 / LIMIT**2)) & (square <= _LARGEST) & (square >= 1 / _LARGEST)


def comparing(lanes: int) -> Callable:
    """``compare(args, squares, reference, alike)``: whether no column's length is far from that whose square is at `reference`."""

    def body(code, block, squares, reference, alike):
        square = emit.splat(code.scalar(reference, "f32"), lanes)
        near = None
        for v in _VECTORS:
            own = code.load(squares + v * 4 * lanes)
            within = (own <= square * LIMIT**2) & (square <= own * LIMIT**2)
            near = within if near is None else near & within
        _put(code, alike, near)

    return window.leaf("squares reference alike", "f32", lanes, body)


def taking(lanes: int) -> Callable:
    """``take(args, x, rows, own, reference, copy, info)``: rows of A as the tile reads them, `own` elements of each.

    A row is multiplied by the power of 2 that makes its length nearly that whose square is at `reference`; one for which pairs are
    no way, see `measuring`, stays as it is.
    """
    vector, group = 4 * lanes, 3  # vectors that whole triples fill

    def body(code, block, x, rows, own, reference, copy, info):
        x_row = code.argument(block, word.X_ROW)
        wanted = emit.splat(code.scalar(reference, "f32"), lanes).bits("i32")
        nothing, single = emit.constant(code.builder, "f32", lanes, 0), code.of_lanes(0)
        of_turns = own / word.TURN * word.TURN
        signs = [_signs(code, j) for j in range(group)]

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
                product = value * _shifted(value, values[min(j + 1, group - 1)])
                if left is not None:
                    product = product.select(code.first(left - j * lanes), product, 0)
                total.set(product.fma(signs[j], total.get()))

        with code.loop(rows) as i:
            row, out, about = x + x_row * i, copy + i * word.ROW_BYTES, info + i * word.INFO_BYTES
            square, top = length(row)
            counts = _counts(square, top)
            # half the difference of bits is nearly that of logarithms
            shift = (((wanted - square.bits("i32")) >> 1) + (1 << 22)) & _EXPONENT
            shift = shift.select(counts, shift.at_least(-_SHIFT).at_most(_SHIFT), 0)
            factor = (shift + _ONE).bits("f32")

            def copy_vectors(at: E, number: int, left: E | None, row: E = row, out: E = out, factor: E = factor) -> None:
                for j in range(number):
                    code.store(out + at + j * vector, code.load(row + at + j * vector, left) * factor)

            window.over_channels(code, own, copy_vectors, wide=group)
            single.store(about + word.INVERSE * 4, _first(-shift + _ONE).bits("f32"))
            single.store(about + word.ODD * 4, _first(counts.cast("i32") ^ 1).bits("f32"))
            total, step = code.variable(nothing), group * lanes
            whole = of_turns / step
            with code.loop(whole) as j:
                pairs(out + j * (4 * step), None, total)
            with code.when(of_turns > whole * step):
                pairs(out + whole * (4 * step), of_turns - whole * step, total)
            single.store(about + word.PAIRS * 4, _first(simd.across(E.__add__)(total.get())))

    return window.leaf("x rows own reference copy info", "f32", lanes, body)


def _signs(code: Code, number: int) -> E:
    """What the product of an element and the next one is multiplied by in vector `number` of a group: 0 unless they are a pair."""
    places = [number * code.lanes + i for i in range(code.lanes)]
    values = [0.0 if place % 3 else 1.0 if place // 3 % 2 else -1.0 for place in places]
    return emit.constant(code.builder, "f32", code.lanes, 0).of(ir.Constant(emit.llvm_type("f32", code.lanes), values))


def _shifted(x: E, following: E) -> E:
    """The lanes from the second one on, and the first one of what follows."""
    index = ir.IntType(32)
    numbers = ir.Constant(ir.VectorType(index, x.n), [ir.Constant(index, i + 1) for i in range(x.n)])
    return x.of(x.b.shuffle_vector(x.v, following.v, numbers))


def _first(x: E) -> E:
    """The first lane."""
    return E(x.b, x.b.extract_element(x.v, ir.Constant(ir.IntType(32), 0)), x.t, 0)


def _put(code: Code, address: E, mask: E) -> None:
    """Stores the word 1 if every lane of the mask is set, else 0."""
    every = _first(simd.across(E.__and__)(mask))
    Code(code.builder, "i64", 0).store(address, code.word(0).select(every, code.word(1), 0))
