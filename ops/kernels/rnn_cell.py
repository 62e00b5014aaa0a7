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

_CHUNK_BYTES = 16 << 10  # of a panel, which stays in L1 for all tiles of a group
_GROUP = 24  # rows of a group: a multiple of every tile; their sums fit in the scratch that `rnn` gives

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
    chunk = max(32, _CHUNK_BYTES // each)

    @subroutine
    def stage(table, rows, weights, low, high, hidden, sums, extra, clip):
        block = words(table)
        for p in range(low, high):
            for first in range(0, rows, _GROUP):
                group = min(_GROUP, rows - first)
                # a group of one tile reads the panel once: there is nothing to keep in L1
                step = chunk if group > tile else hidden
                for k in range(0, hidden, step):
                    panel, count = weights + (p * hidden + k) * each, min(step, hidden - k)
                    i = 0
                    while i < group:
                        row, to = table + _ROW * (first + i), sums + i * each
                        if group - i >= tile:
                            many(block, row, k, panel, count, to)
                            i += tile
                        elif group - i >= 2:
                            two(block, row, k, panel, count, to)
                            i += 2
                        else:
                            one(block, row, k, panel, count, to)
                            i += 1
                for i in range(group):
                    cell(block, table + _ROW * (first + i), sums + i * each, p * lanes, hidden, extra, clip)

    return stage


def dot(dtype: str, lanes: int, gates: int, rows: int, word: int) -> Callable:
    """``dot(block, table, first, panel, count, sums)``: sums[row, gate, :] += sum over k of x[row, first + k] panel[k, gate, :].

    `count` is the number of k; sums start from 0 where `first` is 0. Short tiles have several sums for each result, so
    that enough multiplications are under way.
    """
    ways = max(1, 8 // (rows * gates))

    def body(code: Code, block, table, first, panel, count, sums):
        step = lanes * code.size
        heads = [code.scalar(table + (_ROW * m + 8 * word), "i64") + first * code.size for m in range(rows)]
        zero = emit.constant(code.builder, code.kind, lanes, 0)
        totals = [[[code.variable(zero) for _ in range(gates)] for _ in range(rows)] for _ in range(ways)]

        with code.when(first > 0):
            for m in range(rows):
                for g in range(gates):
                    totals[0][m][g].set(code.load(sums + (m * gates + g) * step))

        def multiply(k: E, way: int) -> None:
            weights, xs = panel + k * (gates * step), [head + k * code.size for head in heads]
            # what there is less of is held in registers, the other streams past it
            if gates <= rows:
                factors = [code.load(weights + g * step) for g in range(gates)]
                for m, x in enumerate(xs):
                    spread = emit.splat(code.scalar(x, code.kind), lanes)
                    for g, factor in enumerate(factors):
                        totals[way][m][g].set(factor.fma(spread, totals[way][m][g].get()))
            else:
                spreads = [emit.splat(code.scalar(x, code.kind), lanes) for x in xs]
                for g in range(gates):
                    factor = code.load(weights + g * step)
                    for m, spread in enumerate(spreads):
                        totals[way][m][g].set(factor.fma(spread, totals[way][m][g].get()))

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

    return leaf("table first panel count sums", dtype, lanes, body)


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


def cell(kind: str, dtype: str, activations: str, peephole: bool, input_forget: bool, tail: bool) -> Callable:
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
        if not tail:
            work(_Row(code, row, sums, unit, hidden, extra, clip, None))
            return
        with code.when(left >= lanes):
            work(_Row(code, row, sums, unit, hidden, extra, clip, None))
        with code.when(left < lanes):
            work(_Row(code, row, sums, unit, hidden, extra, clip, left))

    return leaf("row sums unit hidden extra clip", dtype, lanes, body)
