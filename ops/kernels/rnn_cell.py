"""Inside a recurrence: the product of states with a panel of weights, the cells' arithmetic, the activations.

Written on `emit.E` for any width. Rows of the batch are entries of the table that `rnn` fills for each step. Importing
this imports numba.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from . import emit, target, vmath
from .emit import E
from .image import SIZES
from .rnn import _ACTIVE, _C, _H, _NEXT_C, _NEXT_H, _P, _ROW, _Y
from .subroutine import subroutine
from .window import Code, leaf

_ACTIVATIONS: dict[str, Callable[[E, float, float], E]] = {
    "affine": lambda x, alpha, beta: x * alpha + beta,
    "elu": lambda x, alpha, beta: x.select(x < 0, vmath.expm1(x.at_most(0)) * alpha, x),
    "hardsigmoid": lambda x, alpha, beta: (x * alpha + beta).at_least(0).at_most(1),
    "leakyrelu": lambda x, alpha, beta: x.select(x < 0, x * alpha, x),
    "relu": lambda x, alpha, beta: x.at_least(0),
    "scaledtanh": lambda x, alpha, beta: vmath.tanh(x * beta) * alpha,
    "sigmoid": lambda x, alpha, beta: vmath.sigmoid(x),
    "softplus": lambda x, alpha, beta: vmath.softplus(x),
    "softsign": lambda x, alpha, beta: x / (x.abs() + 1),
    "tanh": lambda x, alpha, beta: vmath.tanh(x),
    "thresholdedrelu": lambda x, alpha, beta: x.select(x >= alpha, x, x.like(0)),
}


def functions(text: str) -> list[Callable[[E], E]]:
    """The activations of a text "Name,alpha,beta;..." as functions."""
    made = []
    for one in text.split(";"):
        name, alpha, beta = one.split(",")
        made.append(partial(_ACTIVATIONS[name.lower()], alpha=float(alpha), beta=float(beta)))
    return made


def stage(dtype: str, gates: int, tile: int, word: int, cell: Callable) -> Callable:
    """``stage(table, rows, weights, low, high, hidden, sums, extra, clip)``: panels low .. high - 1 of all rows.

    `tile`: rows of the register tile. `word`: the entry of the table with the address of what the weights multiply.
    """
    from . import simd

    size = SIZES[dtype]
    lanes = target.current().lanes * 4 // size
    many, two, one = (dot(dtype, lanes, gates, n, word) for n in (tile, 2, 1))
    words, each = simd.block, gates * lanes * size

    @subroutine
    def stage(table, rows, weights, low, high, hidden, sums, extra, clip):
        block = words(table)
        for p in range(low, high):
            panel = weights + p * hidden * each
            i = 0
            while i < rows:
                if rows - i >= tile:
                    count = tile
                    many(block, table + 64 * i, panel, hidden, sums)
                elif rows - i >= 2:
                    count = 2
                    two(block, table + 64 * i, panel, hidden, sums)
                else:
                    count = 1
                    one(block, table + 64 * i, panel, hidden, sums)
                for k in range(count):
                    cell(block, table + 64 * (i + k), sums + k * each, p * lanes, hidden, extra, clip)
                i += count

    return stage


def dot(dtype: str, lanes: int, gates: int, rows: int, word: int) -> Callable:
    """``dot(block, table, panel, count, sums)``: sums[row, gate, :] = sum over k < count of x[row, k] panel[k, gate, :].

    Short tiles have several sums for each result, so that enough multiplications are under way.
    """
    ways = max(1, 8 // (rows * gates))

    def body(code: Code, block, table, panel, count, sums):
        step = lanes * code.size
        heads = [code.scalar(table + (_ROW * m + 8 * word), "i64") for m in range(rows)]
        zero = emit.constant(code.builder, code.kind, lanes, 0)
        totals = [[[code.variable(zero) for _ in range(gates)] for _ in range(rows)] for _ in range(ways)]

        def multiply(k: E, way: int) -> None:
            factors = [code.load(panel + k * (gates * step) + g * step) for g in range(gates)]
            for m, head in enumerate(heads):
                x = emit.splat(code.scalar(head + k * code.size, code.kind), lanes)
                for g, factor in enumerate(factors):
                    total = totals[way][m][g]
                    total.set(factor.fma(x, total.get()))

        whole = count / ways
        with code.loop(whole) as i:
            for way in range(ways):
                multiply(i * ways + way, way)
        if ways > 1:
            with code.loop(count - whole * ways) as i:
                multiply(whole * ways + i, 0)
        for m in range(rows):
            for g in range(gates):
                result = totals[0][m][g].get()
                for way in range(1, ways):
                    result = result + totals[way][m][g].get()
                code.store(sums + (m * gates + g) * step, result)

    return leaf("table panel count sums", dtype, lanes, body)


class _Row:
    """Loads and stores of one row at one panel."""

    def __init__(self, code: Code, row: E, sums: E, unit: E, hidden: E, extra: E, clip: E, left: E | None) -> None:
        self.code, self.row, self.sums, self.hidden, self.left = code, row, sums, hidden, left
        self.offset, self.run = unit * code.size, hidden * code.size
        self._extra, self._clip = extra, code.number(clip)

    def word(self, index: int) -> E:
        """A word of the table."""
        return self.code.scalar(self.row + 8 * index, "i64")

    def state(self, index: int) -> E:
        """The units of a state whose address is in the table."""
        return self.code.load(self.word(index) + self.offset, self.left)

    def keep(self, index: int, value: E) -> None:
        """Store units of a state."""
        self.code.store(self.word(index) + self.offset, value, self.left)

    def sum(self, gate: int) -> E:
        """The recurrent part of a gate."""
        return self.code.load(self.sums + gate * self.code.lanes * self.code.size)

    def input(self, gate: int) -> E:
        """The input's part of a gate."""
        return self.code.load(self.word(_P) + self.run * gate + self.offset, self.left)

    def extra(self, index: int) -> E:
        """Peephole weights or the recurrent bias."""
        return self.code.load(self._extra + self.run * index + self.offset, self.left)

    def clipped(self, x: E) -> E:
        """What an activation takes."""
        return x.at_least(-self._clip).at_most(self._clip)

    def active(self) -> E:
        """Mask: whether the row's sequence has this step."""
        flag = emit.splat(self.word(_ACTIVE).cast(self.code.kind), self.code.lanes)
        return flag > 0

    def finish(self, h: E, c: E | None = None) -> None:
        """Store the new states; a row that is over keeps its old ones and gives zeros."""
        active = self.active()
        if c is not None:
            self.keep(_NEXT_C, c.select(active, c, self.state(_C)))
        self.keep(_NEXT_H, h.select(active, h, self.state(_H)))
        self.keep(_Y, h.select(active, h, h.like(0)))


def cell(kind: str, dtype: str, activations: str, peephole: bool, input_forget: bool) -> Callable:
    """``cell(block, row, sums, unit, hidden, extra, clip)``: the units from `unit` on of one row."""
    lanes = target.current().lanes * 4 // SIZES[dtype]
    f = functions(activations)

    def lstm(r: _Row) -> None:
        old = r.state(_C)
        i, o, keep, new = (r.sum(g) + r.input(g) for g in range(4))
        if peephole:
            i, keep = r.extra(0).fma(old, i), r.extra(2).fma(old, keep)
        i = f[0](r.clipped(i))
        keep = 1.0 - i if input_forget else f[0](r.clipped(keep))
        c = keep * old + i * f[1](r.clipped(new))
        if peephole:
            o = r.extra(1).fma(c, o)
        r.finish(f[0](r.clipped(o)) * f[2](c), c)

    def gru_linear(r: _Row) -> None:
        z, reset = (f[0](r.clipped(r.sum(g) + r.input(g))) for g in (0, 1))
        new = f[1](r.clipped(reset.fma(r.sum(2) + r.extra(0), r.input(2))))
        r.finish(z * (r.state(_H) - new) + new)

    def gru_gates(r: _Row) -> None:
        z, reset = (f[0](r.clipped(r.sum(g) + r.input(g))) for g in (0, 1))
        r.keep(_C, z)
        r.keep(_NEXT_C, reset * r.state(_H))

    def gru_new(r: _Row) -> None:
        new = f[1](r.clipped(r.sum(0) + r.input(2)))
        r.finish(r.state(_C) * (r.state(_H) - new) + new)

    def rnn(r: _Row) -> None:
        r.finish(f[0](r.clipped(r.sum(0) + r.input(0))))

    work = {"lstm": lstm, "gru_linear": gru_linear, "gru_gates": gru_gates, "gru_new": gru_new, "rnn": rnn}[kind]

    def body(code: Code, block, row, sums, unit, hidden, extra, clip):
        left = hidden - unit
        with code.when(left >= lanes):
            work(_Row(code, row, sums, unit, hidden, extra, clip, None))
        with code.when(left < lanes):
            work(_Row(code, row, sums, unit, hidden, extra, clip, left))

    return leaf("row sums unit hidden extra clip", dtype, lanes, body)
