"""Register tiles of attention: products with rows that are read in place, and the softmax between two of them. Imports numba.

Lanes run along queries: a panel of two vectors of them is to both products what packed weights are to a matrix product.
`tiles` multiplies rows of a matrix in place, broadcast element by element, with a panel; `weigh` makes a panel's scores
exponentials.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from . import emit, vmath_exp, window
from .attention import LIFT, tile_heights
from .attentionwords import FACTOR, INVERSE, LENGTH, LEVEL, LINE, PAIRS, SUM
from .emit import E
from .pairingtile import triple
from .pairsums import TRIPLE
from .window import WORD, Code, Variable

_UNROLL = 4  # K steps of one turn of a tile's loop
_EACH = 3  # rows that one address register serves: the instruction adds once or twice their distance
_ABOVE_VALUES = 3  # powers of 2 that the largest weight is larger than values, where products go by pairs
_CHAINS = 4  # of maxima, each of which waits for the one before


def scores(dtype: str, lanes: int, across: bool, powers: bool, paired: bool) -> Callable:
    """``scores(args, vectors, height, count, x, x_row, x_step, b, steps, triples, pairs, state, weighed, y, ...)``.

    Keys and queries:

    y[i, :] = sum over k of x[i, k] * b[k, :] for `count` tiles of `height` rows that follow one another; b and y have rows of
    two vectors, of which `vectors` are used. x[i, k] is at x + i x_row + k x_step; neighbours in a column (`across`) or, else,
    in a row are neighbours in memory. If they are to be `weighed`, for which there have to be `powers`, y is 2^(that - level), see
    `weigh`. In tiles that may be `paired` the first `triples` of K go by pairs (`pairsums`): what takes away what those add too
    much is at `pairs` for each row of x, and in the panel's `state` for its lanes; and y is multiplied by what stands there as
    INVERSE.
    What follows: far, far_row, lines, asked, left, see `_Ahead`.
    """

    def run(
        code: Code, wide: int, rows: int, count: E, x: E, x_row: E, x_step: E, b: E, steps: E, triples: E, pairs: E, state: E,
        weighed: E, y: E, *far: E,
    ) -> None:  # fmt: skip
        pitch = 2 * code.lanes * code.size

        def store(sums: dict[tuple[int, int], Variable], at: E) -> None:
            if paired:
                inverses = [code.load(state + (INVERSE * pitch + v * code.lanes * code.size)) for v in range(wide)]
                for (_, v), each in sums.items():
                    each.set(each.get() * inverses[v])
            with code.when(weighed == 0):
                for place, each in _places(code, sums, at):
                    code.store(place, each)
            if powers:
                with code.when(weighed != 0):
                    _powers(code, wide, state, sums, at)

        by_pairs = _Pairs(triples, pairs, state + PAIRS * pitch) if paired else None
        _run(code, across, wide, rows, count, x, x_row * rows, x_row, x_step, b, steps, y, store, by_pairs, far)

    return _tiles(
        "count x x_row x_step b steps triples pairs state weighed y far far_row lines asked left",
        dtype,
        lanes,
        run,
        tile_heights(dtype),
    )


def mixtures(dtype: str, lanes: int, across: bool, paired: bool) -> Callable:
    """``mixtures(args, vectors, height, count, x, x_tile, x_row, x_step, b, steps, triples, pairs, of_lanes, again, factor, ...)``.

    y and what follows as in `scores`. Values, weighed and added up: as there, and with `again` + y[i, :] * factor[:]. `x_tile`:
    bytes from one tile of x to the next. `of_lanes`: what is to be taken away from each lane.
    """

    def run(
        code: Code, wide: int, rows: int, count: E, x: E, x_tile: E, x_row: E, x_step: E, b: E, steps: E, triples: E, pairs: E,
        of_lanes: E, again: E, factor: E, y: E, *far: E,
    ) -> None:  # fmt: skip
        def store(sums: dict[tuple[int, int], Variable], at: E) -> None:
            with code.when(again != 0):
                factors = [code.load(factor + v * code.lanes * code.size) for v in range(wide)]
                for (place, _), ((_, v), each) in zip(_places(code, sums, at), sums.items()):
                    each.set(code.load(place).fma(factors[v], each.get()))
            for place, each in _places(code, sums, at):
                code.store(place, each)

        by_pairs = _Pairs(triples, pairs, of_lanes) if paired else None
        _run(code, across, wide, rows, count, x, x_tile, x_row, x_step, b, steps, y, store, by_pairs, far)

    return _tiles(
        "count x x_tile x_row x_step b steps triples pairs of_lanes again factor y far far_row lines asked left",
        dtype,
        lanes,
        run,
        tile_heights(dtype),
    )


def _zero(code: Code) -> E:
    return emit.constant(code.builder, code.kind, code.lanes, 0)


def _places(code: Code, sums: dict[tuple[int, int], Variable], at: E) -> list[tuple[E, E]]:
    return [(at + (i * 2 + v) * code.lanes * code.size, each.get()) for (i, v), each in sums.items()]


def _tiles(names: str, dtype: str, lanes: int, run: Callable, heights: tuple[int, ...]) -> Callable:
    """A leaf ``(args, vectors, height, names ...)`` that runs tiles of one or two vectors and any height there is."""

    def body(code, block, vectors, height, *values):
        builder = code.builder
        done = builder.append_basic_block("done")
        chosen = builder.switch((height * 4 + vectors).v, done)
        for wide in (1, 2):
            for rows in heights:
                here = builder.append_basic_block(f"tile{rows}x{wide}")
                chosen.add_case(ir.Constant(WORD, rows * 4 + wide), here)
                builder.position_at_end(here)
                run(code, wide, rows, *values)
                builder.branch(done)
        builder.position_at_end(done)

    return window.leaf(f"vectors height {names}", dtype, lanes, body)


@dataclass(frozen=True)
class _Pairs:
    """triples: of K steps; rows, lanes: addresses of what takes away what pairs add too much."""

    triples: E
    rows: E
    lanes: E


def _run(
    code: Code, across: bool, wide: int, rows: int, count: E, x: E, x_tile: E, x_row: E, x_step: E, b: E, steps: E, y: E,
    store: Callable, pairs: _Pairs | None, far: tuple[E, ...],
) -> None:  # fmt: skip
    """Tiles one below the other; what is to be done with their sums."""
    source, out, zero, ahead = code.variable(x), code.variable(y), _zero(code), _Ahead(code, *far)
    of_rows = code.variable(pairs.rows) if pairs else None
    with code.loop(count):
        ahead.ask()
        sums = {(i, v): code.variable(zero) for i in range(rows) for v in range(wide)}
        read = (_Columns if across else _Lines)(code, rows, source.get(), x_row, x_step)
        panel, left = code.variable(b), steps
        if pairs is not None:
            _by_pairs(code, sums, rows, wide, pairs, of_rows.get(), panel, read)
            of_rows.set(of_rows.get() + rows * 4)
            left = steps - pairs.triples * TRIPLE
        # by pairs there is hardly a step left, and turns take long enough to compile
        unroll = _UNROLL if rows * wide >= 6 and pairs is None else 1
        groups = left >> unroll.bit_length() - 1
        _steps(code, sums, rows, wide, groups, unroll, panel, read)
        if unroll > 1:
            _steps(code, sums, rows, wide, left - groups * unroll, 1, panel, read)
        store(sums, out.get())
        source.set(source.get() + x_tile)
        out.set(out.get() + rows * 2 * code.lanes * code.size)


class _Ahead:
    """What tiles ask for on their way: rows of `lines` cache lines, `row` bytes apart, so many at once until none is `left`.

    A few lines at a time, for a core has no more than some on their way, and forgets what it is asked for beyond that.
    """

    def __init__(self, code: Code, far: E, row: E, lines: E, asked: E, left: E) -> None:
        self.code, self.row, self.lines, self.asked = code, row, lines, asked
        self.at, self.left = code.variable(far), code.variable(left)

    def ask(self) -> None:
        """In front of a tile."""
        code, rows = self.code, self.left.get().at_most(self.asked)
        with code.loop(rows):
            code.keep_rolled()
            with code.loop(self.lines) as i:
                code.keep_rolled()
                code.prefetch(self.at.get() + i * LINE)
            self.at.set(self.at.get() + self.row)
        self.left.set(self.left.get() - rows)


def _powers(code: Code, wide: int, state: E, exponents: dict[tuple[int, int], Variable], at: E) -> None:
    """Powers of 2 of what a tile made, put at `at`, and their sums, added to the state's.

    Nothing of the state stays in registers, of which other tiles need every one.
    """
    vector = code.lanes * code.size
    places = [[state + (row * 2 + v) * vector for v in range(wide)] for row in (SUM, LEVEL)]
    levels = [code.load(place) for place in places[1]]
    added: list[E | None] = [None] * wide
    for (place, x), (_, v) in zip(_places(code, exponents, at), exponents):
        power = vmath_exp.exp2_less(x, levels[v])
        code.store(place, power)
        added[v] = power if added[v] is None else added[v] + power
    for place, each in zip(places[0], added):
        code.store(place, code.load(place) + each)


def _by_pairs(
    code: Code, sums: dict, rows: int, wide: int, pairs: _Pairs, of_rows: E, panel: Variable, read: _Lines | _Columns
) -> None:
    """The triples of K that go by pairs: by turns of sums and of differences."""
    vector = code.lanes * code.size

    def turn(number: int) -> None:
        """So many triples."""
        at = code.unrelated(panel.get())
        read.turn(number * TRIPLE, wide)
        for k in range(0, number * TRIPLE, TRIPLE):
            code.keep_order()
            factors = [tuple(code.load(at + ((k + j) * 2 + v) * vector) for j in range(TRIPLE)) for v in range(wide)]
            for (i, v), total in sums.items():
                elements = (code.scalar(read.address(i, k + j, v), code.kind) for j in range(TRIPLE))
                x = tuple(emit.splat(element, code.lanes) for element in elements)
                total.set(triple(x, factors[v], total.get(), k > 0))
        panel.set(at + number * TRIPLE * 2 * vector)

    with code.when(pairs.triples > 0):
        of_lanes = [code.load(pairs.lanes + v * vector) for v in range(wide)]
        for (i, v), total in sums.items():
            total.set(of_lanes[v] + emit.splat(code.scalar(of_rows + i * code.size, code.kind), code.lanes))
    with code.loop(pairs.triples >> 1):
        code.keep_rolled()
        turn(2)
    with code.when(pairs.triples & 1 != 0):
        turn(1)


def _steps(code: Code, sums: dict, rows: int, wide: int, count: E, number: int, panel: Variable, read: _Lines | _Columns) -> None:
    """`count` turns of `number` K steps."""
    vector = code.lanes * code.size
    with code.loop(count):
        code.keep_rolled()
        at = code.unrelated(panel.get())
        read.turn(number)
        for k in range(number):
            factors = [code.load(at + (k * 2 + v) * vector) for v in range(wide)]
            for i in range(rows):
                value = emit.splat(code.scalar(read.address(i, k), code.kind), code.lanes)
                for v in range(wide):
                    sums[i, v].set(value.fma(factors[v], sums[i, v].get()))
        panel.set(at + number * 2 * vector)


class _Lines:
    """Addresses of a tile's elements whose rows are runs in memory."""

    def __init__(self, code: Code, rows: int, x: E, x_row: E, x_step: E) -> None:
        self.code, self.x_row = code, x_row
        self.leads = [code.variable(x + x_row * i) for i in range(0, rows, _EACH)]
        self.here: list[list[E]] = []

    def turn(self, number: int, copies: int = 1) -> None:
        """In front of `number` K steps. LLVM, if it knew how addresses are related, would take a register for each row.

        And of what is read by several `copies` of an address it would make a register, which takes time that additions need.
        """
        self.here = [[self.code.unrelated(lead.get()) for lead in self.leads] for _ in range(copies)]
        for lead, here in zip(self.leads, self.here[0]):
            lead.set(here + number * self.code.size)

    def address(self, row: int, k: int, copy: int = 0) -> E:
        """Of row `row` in K step `k` of the turn."""
        here = self.here[copy][row // _EACH]
        return (here + self.x_row * (row % _EACH) if row % _EACH else here) + k * self.code.size


class _Columns:
    """Addresses of a tile's elements whose columns are runs in memory."""

    def __init__(self, code: Code, rows: int, x: E, x_row: E, x_step: E) -> None:
        self.code, self.x_step = code, x_step
        self.lead = code.variable(x)
        self.here: list[list[E]] = []

    def turn(self, number: int, copies: int = 1) -> None:
        """In front of `number` K steps; see `_Lines`."""
        each = min(_EACH, number) if copies > 1 else 1
        self.here = [[self.code.unrelated(self.lead.get())] for _ in range(copies)]
        for here in self.here:
            for _ in range(each, number + each, each):
                here.append(self.code.unrelated(here[-1]) + self.x_step * each)
        self.lead.set(self.here[0][-1])
        self.each = each

    def address(self, row: int, k: int, copy: int = 0) -> E:
        """Of row `row` in K step `k` of the turn."""
        within = self.x_step * (k % self.each) if k % self.each else 0
        return self.here[copy][k // self.each] + within + row * self.code.size


def tiled(dtype: str, lanes: int) -> Callable:
    """``tiled(args, rows, height, count, x, x_row, y)``: the columns of `count` tiles of a height, one tile after the other.

    y[tile, row, column] = x[row, tile height + column], densely: what a tile reads is a run in memory. What lies behind the last
    element may be overwritten, up to a vector.
    """

    def body(whole, block, rows, height, count, x, x_row, y):
        code = whole.of_lanes(max(4, lanes // 2))
        piece, at = code.lanes * code.size, code.variable(y)

        def exactly(source: E) -> None:
            code.store(at.get(), code.load(source))

        def roughly(source: E) -> None:
            # what is too much in one row is overwritten by the next
            with code.loop((height + (code.lanes - 1)) / code.lanes) as j:
                code.store(at.get() + j * piece, code.load(source + j * piece, height - j * code.lanes))

        for fits, copy in ((height == code.lanes, exactly), (height != code.lanes, roughly)):
            with code.loop(count.select(fits, count, 0)) as i:
                source = code.variable(x + height * i * code.size)
                with code.loop(rows):
                    code.keep_rolled()
                    copy(source.get())
                    source.set(source.get() + x_row)
                    at.set(at.get() + height * code.size)

    return window.leaf("rows height count x x_row y", dtype, lanes, body)


def balance(lanes: int) -> Callable:
    """``balance(args, rows, x, state, reference)``: a panel's lanes multiplied by powers of 2, to be as long as `reference` says.

    Their lengths are in its state, where the inverses are put. `reference`: address of a float32.
    """
    one, exponent, most = 127 << 23, -1 << 23, 80 << 23  # of the bits of a float32

    def body(code, block, rows, x, state, reference):
        pitch, vector = 2 * 4 * lanes, 4 * lanes
        wanted = emit.splat(code.scalar(reference, "f32"), lanes).bits("i32")
        for v in range(2):
            length = code.load(state + (LENGTH * pitch + v * vector)).bits("i32")
            # differences of bits are nearly those of logarithms
            shift = ((wanted - length + (1 << 22)) & exponent).at_least(-most).at_most(most)
            factor = (shift + one).bits("f32")
            code.store(state + (INVERSE * pitch + v * vector), (-shift + one).bits("f32"))
            with code.loop(rows) as i:
                code.keep_rolled()
                at = x + i * pitch + v * vector
                code.store(at, code.load(at) * factor)

    return window.leaf("rows x state reference", "f32", lanes, body)


def lifting(lanes: int, base: float) -> Callable:
    """``lift(args, square, to)``: what levels are lowered by, so that weights are like values whose mean square is given.

    Most weights are less than the largest, which is made `_ABOVE_VALUES` powers of 2 larger than values are, if `LIFT` powers of 2
    are enough. An exponent to `base`; addresses of a float32, and of a vector.
    """

    def body(code, block, square, to):
        bits = emit.splat(code.scalar(square, "f32"), lanes).bits("i32")
        # half the difference of bits is nearly that of logarithms
        power = (((bits - (127 << 23)) >> 1) + (1 << 22)) >> 23
        power = (power + _ABOVE_VALUES).at_least(-LIFT).at_most(LIFT)
        code.store(to, power.cast("f32") * (math.log(2) / math.log(base)))

    return window.leaf("square to", "f32", lanes, body)


def squares(dtype: str, lanes: int) -> Callable:
    """``squares(args, rows, columns, x, x_row, y)``: a vector whose sum is at least the sum of squares of any row.

    Lane by lane it is the largest of all rows, NaN if there is one.
    """

    def body(code, block, rows, columns, x, x_row, y):
        tops = [code.variable(_zero(code)) for _ in range(_CHAINS)]
        source, groups, whole = code.variable(x), rows / _CHAINS, columns / code.lanes
        for count, number in ((groups, _CHAINS), (rows - groups * _CHAINS, 1)):
            with code.loop(count):
                code.keep_rolled()
                here = source.get()
                sums = [code.variable(_zero(code)) for _ in range(number)]

                def add(offset: E, left: E | None, here: E = here, sums: list[Variable] = sums) -> None:
                    for i, total in enumerate(sums):
                        value = code.load(here + x_row * i + offset, left)
                        total.set(value.fma(value, total.get()))

                with code.loop(whole) as j:
                    code.keep_rolled()
                    add(j * (code.lanes * code.size), None)
                with code.when(columns > whole * code.lanes):
                    add(whole * (code.lanes * code.size), columns - whole * code.lanes)
                for top, total in zip(tops, sums):
                    top.set(top.get().maximum(total.get()))
                source.set(here + x_row * number)
        code.store(y, _merged(tops, E.maximum))

    return window.leaf("rows columns x x_row y", dtype, lanes, body)


def weigh(dtype: str, lanes: int, base: float) -> Callable:
    """``weigh(args, vectors, rows, x, state, lift)``: base^(x - level) in place of a panel's scores, and its state up to date.

    The level is the largest x of all blocks so far, with base 2 the next integer, less what is at `lift`; the state has rows of
    levels, of sums of powers, of factors of what came before. A lane in which every score so far is -inf has the weights 0, and NaN
    in the end, when they are divided by their sum.
    """

    def body(code, block, vectors, rows, x, state, lift):
        lifted = code.load(lift)
        for wide in (1, 2):
            with code.when(vectors == wide):
                for v in range(wide):
                    offset = v * code.lanes * code.size
                    weigh_rows(code, base == 2, rows, x + offset, state + offset, 2 * code.lanes * code.size, lifted)

    return window.leaf("vectors rows x state lift", dtype, lanes, body)


def weigh_rows(
    code: Code, binary: bool, rows: E, x: E, state: E, x_row: int, lift: E | None = None,
    across: Callable[[E], E] = lambda x: x,
) -> None:  # fmt: skip
    """`weigh` of vectors `x_row` bytes apart; `across`: what makes of the largest in each lane the largest in every lane."""
    exponential = vmath_exp.exp2_flushed if binary else vmath_exp.exp_flushed
    pitch = 2 * code.lanes * code.size
    old = code.load(state + LEVEL * pitch)
    tops = [code.variable(old if lift is None else old + lift) for _ in range(_CHAINS)]

    def top(i: int, at: E) -> None:
        tops[i].set(tops[i].get().at_least(code.load(at)))

    _along(code, x, rows, _CHAINS, x_row, top)
    largest = across(_merged(tops, E.at_least))
    largest = largest.ceil() if binary else largest
    level = largest.select(largest == float("-inf"), largest.like(0), largest)
    if lift is not None:
        largest, level = largest - lift, level - lift
    sums = [code.variable(level.like(0)) for _ in range(2)]

    def power(i: int, at: E) -> None:
        value = exponential(code.load(at) - level)
        code.store(at, value)
        sums[i].set(sums[i].get() + value)

    _along(code, x, rows, len(sums), x_row, power)
    factor = exponential(old - level)
    code.store(state + LEVEL * pitch, largest)
    code.store(state + SUM * pitch, code.load(state + SUM * pitch).fma(factor, _merged(sums, E.__add__)))
    code.store(state + FACTOR * pitch, factor)


def _along(code: Code, x: E, rows: E, each: int, x_row: int, body: Callable[[int, E], None]) -> None:
    """``body(i, address)`` for every row, i counting to `each` (a power of 2) again and again."""
    at = code.variable(x)
    groups = rows >> each.bit_length() - 1
    for count, number in ((groups, each), (rows - groups * each, 1)):
        with code.loop(count):
            code.keep_rolled()
            here = at.get()
            for i in range(number):
                body(i, here + i * x_row)
            at.set(here + number * x_row)


def _merged(parts: list[Variable], combine: Callable[[E, E], E]) -> E:
    first, *others = [part.get() for part in parts]
    for other in others:
        first = combine(first, other)
    return first
