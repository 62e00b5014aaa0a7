"""Register tiles of attention: products with rows that are read in place, and the softmax between two of them. Imports numba.

Lanes run along queries: a panel of two vectors of them is to both products what packed weights are to a matrix product.
`tiles` multiplies rows of a matrix in place, broadcast element by element, with a panel; `weigh` makes a panel's scores
exponentials.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from . import emit, vmath_exp, window
from .blocking import heights
from .emit import E
from .window import WORD, Code, Variable

_UNROLL = 8  # K steps of one turn of a tile's loop
_EACH = 3  # rows that one address register serves: the instruction adds once or twice their distance
_CHAINS = 4  # of maxima, each of which waits for the one before


def tiles(dtype: str, lanes: int, across: bool) -> Callable:
    """``tiles(args, vectors, height, count, x, x_row, x_step, b, steps, again, factor, y)``.

    y[i, :] = sum over k of x[i, k] * b[k, :], and with `again` + y[i, :] * factor[:], for `count` tiles of `height` rows
    that follow one another; b and y have rows of two vectors, of which `vectors` are used. x[i, k] is at x + i x_row +
    k x_step; neighbours in a column (`across`) or, else, in a row are neighbours in memory.
    """

    def body(code, block, vectors, height, *values):
        builder = code.builder
        done = builder.append_basic_block("done")
        chosen = builder.switch((height * 4 + vectors).v, done)
        for wide in (1, 2):
            for rows in heights():
                here = builder.append_basic_block(f"tile{rows}x{wide}")
                chosen.add_case(ir.Constant(WORD, rows * 4 + wide), here)
                builder.position_at_end(here)
                _run(code, across, wide, rows, *values)
                builder.branch(done)
        builder.position_at_end(done)

    return window.leaf("vectors height count x x_row x_step b steps again factor y", dtype, lanes, body)


def _run(
    code: Code, across: bool, wide: int, rows: int, count: E, x: E, x_row: E, x_step: E, b: E, steps: E, again: E, factor: E, y: E
) -> None:
    """Tiles one below the other."""
    vector = code.lanes * code.size
    source, out = code.variable(x), code.variable(y)
    zero = emit.constant(code.builder, code.kind, code.lanes, 0)
    with code.loop(count):
        sums = {(i, v): code.variable(zero) for i in range(rows) for v in range(wide)}
        read = (_Columns if across else _Lines)(code, rows, source.get(), x_row, x_step)
        panel = code.variable(b)
        unroll = _UNROLL if rows * wide >= 6 else 1
        groups = steps >> unroll.bit_length() - 1
        _steps(code, sums, rows, wide, groups, unroll, panel, read)
        if unroll > 1:
            _steps(code, sums, rows, wide, steps - groups * unroll, 1, panel, read)
        at = out.get()
        with code.when(again != 0):
            factors = [code.load(factor + v * vector) for v in range(wide)]
            for (i, v), each in sums.items():
                each.set(code.load(at + (i * 2 + v) * vector).fma(factors[v], each.get()))
        for (i, v), each in sums.items():
            code.store(at + (i * 2 + v) * vector, each.get())
        source.set(source.get() + x_row * rows)
        out.set(at + rows * 2 * vector)


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


def weigh(dtype: str, lanes: int) -> Callable:
    """``weigh(args, vectors, rows, x, state)``: e^(x - largest) in place of a panel's scores, and the state brought up to date.

    The largest is that of all blocks so far; the state is a row of them, one of sums of powers, one of factors of what came
    before. A lane in which every score so far is -inf has the weights 0, and NaN in the end, when they are divided by their sum.
    """

    def body(code, block, vectors, rows, x, state):
        for wide in (1, 2):
            with code.when(vectors == wide):
                for v in range(wide):
                    offset = v * code.lanes * code.size
                    _weigh(code, rows, x + offset, state + offset)

    return window.leaf("vectors rows x state", dtype, lanes, body)


def _weigh(code: Code, rows: E, x: E, state: E) -> None:
    pitch = 2 * code.lanes * code.size
    old = code.load(state)
    tops = [code.variable(old) for _ in range(_CHAINS)]

    def top(i: int, at: E) -> None:
        tops[i].set(tops[i].get().at_least(code.load(at)))

    _along(code, x, rows, _CHAINS, pitch, top)
    largest = _merged(tops, E.at_least)
    level = largest.select(largest == float("-inf"), largest.like(0), largest)
    sums = [code.variable(level.like(0)) for _ in range(2)]

    def power(i: int, at: E) -> None:
        value = vmath_exp.exp_flushed(code.load(at) - level)
        code.store(at, value)
        sums[i].set(sums[i].get() + value)

    _along(code, x, rows, len(sums), pitch, power)
    factor = vmath_exp.exp_flushed(old - level)
    code.store(state, largest)
    code.store(state + pitch, code.load(state + pitch).fma(factor, _merged(sums, E.__add__)))
    code.store(state + 2 * pitch, factor)


def _along(code: Code, x: E, rows: E, each: int, pitch: int, body: Callable[[int, E], None]) -> None:
    """``body(i, address)`` for every row, i counting to `each` (a power of 2) again and again."""
    at = code.variable(x)
    groups = rows >> each.bit_length() - 1
    for count, number in ((groups, each), (rows - groups * each, 1)):
        with code.loop(count):
            code.keep_rolled()
            here = at.get()
            for i in range(number):
                body(i, here + i * pitch)
            at.set(here + number * pitch)


def _merged(parts: list[Variable], combine: Callable[[E, E], E]) -> E:
    first, *others = [part.get() for part in parts]
    for other in others:
        first = combine(first, other)
    return first
