"""Register tiles of attention: products with rows that are read in place, and the softmax between two of them. Imports numba.

Lanes run along queries: a panel of two vectors of them is to both products what packed weights are to a matrix product.
`tiles` multiplies rows of a matrix in place, broadcast element by element, with a panel; `weigh` makes a panel's scores
exponentials.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from . import emit, vmath_exp, window
from .attention import FACTOR, LEVEL, SUM
from .blocking import heights
from .emit import E
from .window import WORD, Code, Variable

_UNROLL = 4  # K steps of one turn of a tile's loop
_EACH = 3  # rows that one address register serves: the instruction adds once or twice their distance
_CHAINS = 4  # of maxima, each of which waits for the one before


def scores(dtype: str, lanes: int, across: bool, powers: bool) -> Callable:
    """``scores(args, vectors, height, count, x, x_row, x_step, b, steps, state, y)``: products of keys and a panel of queries.

    y[i, :] = sum over k of x[i, k] * b[k, :] for `count` tiles of `height` rows that follow one another; b and y have rows of
    two vectors, of which `vectors` are used. x[i, k] is at x + i x_row + k x_step; neighbours in a column (`across`) or, else,
    in a row are neighbours in memory. With a `state`, for which there have to be `powers`, y is 2^(that - level), see `weigh`.
    """

    def run(code: Code, wide: int, rows: int, count: E, x: E, x_row: E, x_step: E, b: E, steps: E, state: E, y: E) -> None:
        made = _Powers(code, wide, state) if powers else None

        def store(sums: dict[tuple[int, int], Variable], at: E) -> None:
            with code.when(state == 0):
                for place, each in _places(code, sums, at):
                    code.store(place, each)
            if made is not None:
                with code.when(state != 0):
                    made.store(sums, at)

        _run(code, across, wide, rows, count, x, x_row, x_step, b, steps, y, store)
        if made is not None:
            with code.when(state != 0):
                made.end()

    return _tiles("count x x_row x_step b steps state y", dtype, lanes, run)


def mixtures(dtype: str, lanes: int, across: bool) -> Callable:
    """``mixtures(args, vectors, height, count, x, x_row, x_step, b, steps, again, factor, y)``: values, weighed and added up.

    As `scores`, and with `again` + y[i, :] * factor[:].
    """

    def run(
        code: Code, wide: int, rows: int, count: E, x: E, x_row: E, x_step: E, b: E, steps: E, again: E, factor: E, y: E
    ) -> None:
        def store(sums: dict[tuple[int, int], Variable], at: E) -> None:
            with code.when(again != 0):
                factors = [code.load(factor + v * code.lanes * code.size) for v in range(wide)]
                for (place, _), ((_, v), each) in zip(_places(code, sums, at), sums.items()):
                    each.set(code.load(place).fma(factors[v], each.get()))
            for place, each in _places(code, sums, at):
                code.store(place, each)

        _run(code, across, wide, rows, count, x, x_row, x_step, b, steps, y, store)

    return _tiles("count x x_row x_step b steps again factor y", dtype, lanes, run)


def _zero(code: Code) -> E:
    return emit.constant(code.builder, code.kind, code.lanes, 0)


def _places(code: Code, sums: dict[tuple[int, int], Variable], at: E) -> list[tuple[E, E]]:
    return [(at + (i * 2 + v) * code.lanes * code.size, each.get()) for (i, v), each in sums.items()]


def _tiles(names: str, dtype: str, lanes: int, run: Callable) -> Callable:
    """A leaf ``(args, vectors, height, names ...)`` that runs tiles of one or two vectors and any height there is."""

    def body(code, block, vectors, height, *values):
        builder = code.builder
        done = builder.append_basic_block("done")
        chosen = builder.switch((height * 4 + vectors).v, done)
        for wide in (1, 2):
            for rows in heights():
                here = builder.append_basic_block(f"tile{rows}x{wide}")
                chosen.add_case(ir.Constant(WORD, rows * 4 + wide), here)
                builder.position_at_end(here)
                run(code, wide, rows, *values)
                builder.branch(done)
        builder.position_at_end(done)

    return window.leaf(f"vectors height {names}", dtype, lanes, body)


def _run(
    code: Code, across: bool, wide: int, rows: int, count: E, x: E, x_row: E, x_step: E, b: E, steps: E, y: E,
    store: Callable,
) -> None:  # fmt: skip
    """Tiles one below the other; what is to be done with their sums."""
    source, out, zero = code.variable(x), code.variable(y), _zero(code)
    with code.loop(count):
        sums = {(i, v): code.variable(zero) for i in range(rows) for v in range(wide)}
        read = (_Columns if across else _Lines)(code, rows, source.get(), x_row, x_step)
        panel = code.variable(b)
        unroll = _UNROLL if rows * wide >= 6 else 1
        groups = steps >> unroll.bit_length() - 1
        _steps(code, sums, rows, wide, groups, unroll, panel, read)
        if unroll > 1:
            _steps(code, sums, rows, wide, steps - groups * unroll, 1, panel, read)
        store(sums, out.get())
        source.set(source.get() + x_row * rows)
        out.set(out.get() + rows * 2 * code.lanes * code.size)


class _Powers:
    """Powers of 2 of what tiles made, and their sums."""

    def __init__(self, code: Code, wide: int, state: E) -> None:
        self.code, self.wide, self.state = code, wide, state
        self.sums, self.levels = ([code.variable(_zero(code)) for _ in range(wide)] for _ in range(2))
        with code.when(state != 0):
            for row, variables in ((SUM, self.sums), (LEVEL, self.levels)):
                for v, each in enumerate(variables):
                    each.set(code.load(self._at(row, v)))

    def _at(self, row: int, v: int) -> E:
        return self.state + (row * 2 + v) * self.code.lanes * self.code.size

    def store(self, exponents: dict[tuple[int, int], Variable], at: E) -> None:
        """A tile's."""
        added: list[E | None] = [None] * self.wide
        for (place, x), (_, v) in zip(_places(self.code, exponents, at), exponents):
            power = vmath_exp.exp2_less(x, self.levels[v].get())
            self.code.store(place, power)
            added[v] = power if added[v] is None else added[v] + power
        for total, each in zip(self.sums, added):
            total.set(total.get() + each)

    def end(self) -> None:
        """Keep the sums."""
        for v, each in enumerate(self.sums):
            self.code.store(self._at(SUM, v), each.get())


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
        self.here: list[E] = []

    def turn(self, number: int) -> None:
        """In front of `number` K steps. LLVM, if it knew how addresses are related, would take a register for each row."""
        self.here = [self.code.unrelated(lead.get()) for lead in self.leads]
        for lead, here in zip(self.leads, self.here):
            lead.set(here + number * self.code.size)

    def address(self, row: int, k: int) -> E:
        """Of row `row` in K step `k` of the turn."""
        here = self.here[row // _EACH]
        return (here + self.x_row * (row % _EACH) if row % _EACH else here) + k * self.code.size


class _Columns:
    """Addresses of a tile's elements whose columns are runs in memory."""

    def __init__(self, code: Code, rows: int, x: E, x_row: E, x_step: E) -> None:
        self.code, self.x_step = code, x_step
        self.lead = code.variable(x)
        self.here: list[E] = []

    def turn(self, number: int) -> None:
        """In front of `number` K steps."""
        self.here = [self.lead.get()]
        for _ in range(number):
            self.here.append(self.code.unrelated(self.here[-1]) + self.x_step)
        self.lead.set(self.here.pop())

    def address(self, row: int, k: int) -> E:
        """Of row `row` in K step `k` of the turn."""
        return self.here[k] + row * self.code.size


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
    """``weigh(args, vectors, rows, x, state)``: base^(x - level) in place of a panel's scores, and its state brought up to date.

    The level is the largest x of all blocks so far, with base 2 the next integer; the state has rows of levels, of sums of
    powers, of factors of what came before. A lane in which every score so far is -inf has the weights 0, and NaN in the end,
    when they are divided by their sum.
    """

    def body(code, block, vectors, rows, x, state):
        for wide in (1, 2):
            with code.when(vectors == wide):
                for v in range(wide):
                    offset = v * code.lanes * code.size
                    weigh_rows(code, base == 2, rows, x + offset, state + offset, 2 * code.lanes * code.size)

    return window.leaf("vectors rows x state", dtype, lanes, body)


def weigh_rows(code: Code, binary: bool, rows: E, x: E, state: E, x_row: int, across: Callable[[E], E] = lambda x: x) -> None:
    """`weigh` of vectors `x_row` bytes apart; `across`: what makes of the largest in each lane the largest in every lane."""
    exponential = vmath_exp.exp2_flushed if binary else vmath_exp.exp_flushed
    pitch = 2 * code.lanes * code.size
    old = code.load(state + LEVEL * pitch)
    tops = [code.variable(old) for _ in range(_CHAINS)]

    def top(i: int, at: E) -> None:
        tops[i].set(tops[i].get().at_least(code.load(at)))

    _along(code, x, rows, _CHAINS, x_row, top)
    largest = across(_merged(tops, E.at_least))
    largest = largest.ceil() if binary else largest
    level = largest.select(largest == float("-inf"), largest.like(0), largest)
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
